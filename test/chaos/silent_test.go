package chaos

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// conversation opens a request whose body goes on while its reply does, over a version of HTTP.
func (h *house) conversation(t *testing.T, way string) *lasting {
	t.Helper()
	c := h.caller(t, way)
	c.Timeout = 0 // the answer is to last
	from, to := io.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(func() { cancel(); _ = to.Close(); c.leave() })
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/converse", from)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(r)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %+v %v", way, answer, err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return &lasting{"conversation over " + way, func(text string) error {
		got := make([]byte, len(text))
		_, err := io.WriteString(to, text)
		if err == nil {
			_, err = io.ReadFull(answer.Body, got)
		}
		if err == nil && string(got) != text {
			err = fmt.Errorf("%q", got)
		}
		return err
	}, func() error {
		_ = to.Close() // never fails
		if rest, err := io.ReadAll(answer.Body); err != nil || len(rest) > 0 {
			return fmt.Errorf("it ends with %q, %w", rest, err)
		}
		return nil
	}}
}

// talking opens everything that both sides talk on.
func (h *house) talking(t *testing.T) []*lasting {
	t.Helper()
	open := h.lastings(t)
	for _, way := range waysIn {
		open = append(open, h.conversation(t, way))
	}
	return open
}

// Both sides of a stream may be silent for as long as they like, up to timeouts.idle of the upstream: the limits of listeners on
// request bodies that stand still or trickle are about requests whose answer has not begun.
func TestStreamsMayBeSilent(t *testing.T) {
	t.Parallel()
	const (
		least   = 8 * time.Second // min_body_rate holds after it
		timeout = 6 * time.Second
		pause   = 3 * time.Second
	)
	limits := fmt.Sprintf("limits: {body_timeout: %v, min_body_rate: 1KiB}", timeout)
	s := startServicesBehind(t)
	h := startHouse(t, doorsWith("${PUBLIC}", ", "+limits, "${SECURE_SETTINGS}", limits), s.places...)
	open := h.talking(t)
	for _, l := range open {
		l.must(t, "at first")
	}
	time.Sleep(least + pause) // silence is what is tested
	for range 2 {
		for _, l := range open {
			l.must(t, "after a long silence")
		}
	}
	for _, l := range open {
		if err := l.end(); err != nil {
			t.Errorf("%s: %v", l.name, err)
		}
	}
}

// A reload that changes the upstream that a stream runs through, in whatever way, or takes it out of the document, ends no
// stream: not over HTTP/2, not over HTTP/1.1, and nothing that was switched.
func TestReloadsOfUpstreamsEndNoStream(t *testing.T) {
	t.Parallel()
	s := startServicesBehind(t)
	h := startHouse(t, doorsWith(), s.places...)
	_, address := startOrigin(t, "B")
	open := h.talking(t)
	for _, l := range open {
		l.must(t, "at first")
	}
	const doors = `
listeners:
  public: {address: "${LISTEN}"}
  secure: {address: "${SECURE}", protocols: [h1, h2, h3], tls: {certificates: [{cert: "${DIR}/tls.crt", key: "${DIR}/tls.key"}]}}
  raw: {address: "${EXTRA}", tcp: {upstream: raw}}
`
	const apis = "\napis: {all: {upstream: a}, grpc: {base_path: /chaos.Chaos, upstream: grpc}}\n"
	all := func(settings string) string {
		const upstreams = "upstreams:\n  a: {targets: [\"${A}\"]%s}\n  grpc: {targets: [\"${G}\"]%[1]s}\n  raw: {targets: [\"${T}\"]}\n"
		return fmt.Sprintf(upstreams, settings)
	}
	for name, text := range inOrder(
		"pools", doors+all(", pool: {idle_per_target: 1, idle_timeout: 1s, max_age: 1s, tcp_keepalive: 1s}")+apis,
		"timeouts", doors+all(", timeouts: {connect: 1s, response: 1s}")+apis,
		"retries", doors+all(", retry: {attempts: 5}")+apis,
		"health", doors+all(", health: {tcp: true, interval: 200ms, unhealthy_after: 1}, ejection: {for: 100ms}")+apis,
		"streams", doors+all(", h2: {connections_per_target: 1, streams_per_connection: 1, ping: 1s}")+apis,
		"other targets", doors+`upstreams: {a: "`+address+`", grpc: "h2c://127.0.0.1:1", raw: "tcp://127.0.0.1:1"}`+apis,
		"nothing", doors+`upstreams: {raw: "tcp://127.0.0.1:1"}`+"\napis: {}\n",
		"everything", doorsWith(),
	) {
		h.reload(t, text)
		if name == "pools" {
			time.Sleep(7 * time.Second) // idle connections are looked at every five seconds, and these are older than they may be
		}
		for range 2 {
			for _, l := range open {
				l.must(t, "after a reload of "+name)
			}
		}
	}
	for _, l := range open {
		if err := l.end(); err != nil {
			t.Errorf("%s: %v", l.name, err)
		}
	}
}

// inOrder yields pairs.
func inOrder(pairs ...string) func(yield func(a, b string) bool) {
	return func(yield func(a, b string) bool) {
		for i := 0; i+1 < len(pairs); i += 2 {
			if !yield(pairs[i], pairs[i+1]) {
				return
			}
		}
	}
}
