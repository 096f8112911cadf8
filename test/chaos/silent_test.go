package chaos

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// conversation opens a request whose body goes on while its reply does, over a version of HTTP. length: of the body, if it is known
// ahead; -1: it is not.
func (h *house) conversation(t *testing.T, way string, length int64) *lasting {
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
	r.ContentLength = length
	answer, err := c.Do(r)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %+v %v", way, answer, err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	left := length
	return &lasting{fmt.Sprintf("conversation over %s, %d bytes", way, length), func(text string) error {
		left -= int64(len(text))
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
		left = max(left, 0)
		go func() {
			_, _ = io.WriteString(to, grown(int(left))) // the answer says whether it came
			_ = to.Close()                              // never fails
		}()
		if rest, err := io.Copy(io.Discard, answer.Body); err != nil || rest != left {
			return fmt.Errorf("it ends with %d bytes of %d, %w", rest, left, err)
		}
		return nil
	}}
}

// talking opens everything that both sides talk on.
func (h *house) talking(t *testing.T) []*lasting {
	t.Helper()
	open := h.lastings(t)
	for _, way := range waysIn {
		open = append(open, h.conversation(t, way, -1), h.conversation(t, way, 1<<20)) // so large that the kernel would carry it
	}
	return open
}

// collection is a gRPC client stream: its service says nothing, not even that it answers, before the stream's end.
type collection struct {
	name string
	send func() error // a message
	last func() error // says that there are no more
	done func() (total string, err error)
}

// end ends it in peace and returns how many messages have come, as the service says.
func (c *collection) end() (total string, err error) {
	err = c.last()
	total, failed := c.done()
	return total, errors.Join(err, failed)
}

// collect opens one over a version of HTTP, by nothing but that.
func (h *house) collect(t *testing.T, way string) *collection {
	t.Helper()
	c := h.caller(t, way)
	c.Timeout = 0 // the call is to last
	from, to := io.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/chaos.Chaos/Collect", from)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	type outcome struct {
		total string
		err   error
	}
	ended := make(chan outcome, 1)
	go func() {
		total, err := collected(c.Do(r))
		_ = from.CloseWithError(fmt.Errorf("it has ended: %w", cmp.Or(err, io.EOF))) // it never fails
		ended <- outcome{total, err}
	}()
	t.Cleanup(func() { cancel(); _ = to.Close(); c.leave() })
	return &collection{"collection over " + way, func() error { return writeMessage(to, "a message") }, to.Close, func() (string, error) {
		o := <-ended
		return o.total, o.err
	}}
}

// collected reads what a collection is answered with. The error is that of the call, if it has failed.
func collected(answer *http.Response, err error) (total string, _ error) {
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	last := answer.Trailer
	if len(b) < 5 {
		last = answer.Header
	}
	code, bad := strconv.Atoi(last.Get("Grpc-Status"))
	if err := errors.Join(err, bad); err != nil {
		return "", err
	}
	if code != 0 {
		return "", grpcstatus.Error(codes.Code(code), last.Get("Grpc-Message"))
	}
	var m wrapperspb.StringValue
	err = proto.Unmarshal(b[min(5, len(b)):], &m)
	return m.Value, err
}

// writeMessage writes a message as gRPC frames it.
func writeMessage(w io.Writer, text string) error {
	b, err := proto.Marshal(wrapperspb.String(text))
	if err == nil {
		_, err = w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...))
	}
	return err
}

// collecting opens one over each version, and one by gRPC's own client.
func (h *house) collecting(t *testing.T) (all []*collection) {
	t.Helper()
	for _, way := range waysIn {
		all = append(all, h.collect(t, way))
	}
	_, s := h.grpcStream(t, 0)
	return append(all, &collection{"collection by grpc-go", func() error { return s.SendMsg(wrapperspb.String("a message")) }, s.CloseSend,
		func() (string, error) {
			var total wrapperspb.StringValue
			err := s.RecvMsg(&total)
			return total.Value, err
		}})
}

// Both sides of a stream may be silent for as long as they like, up to timeouts.idle of the upstream: the limits of listeners on
// request bodies that stand still or trickle are about requests whose answer has not begun. The messages of a gRPC call come
// when there is something to say even before: its client may be silent for as long from the very beginning.
func TestStreamsMayBeSilent(t *testing.T) {
	t.Parallel()
	const (
		least   = 8 * time.Second // min_body_rate holds after it
		timeout = 6 * time.Second
		pause   = 3 * time.Second
	)
	limits := fmt.Sprintf("limits: {body_timeout: %v, min_body_rate: 1KiB, idle_timeout: %[1]v}", timeout) // none is for these
	s := startServicesBehind(t)
	h := startHouse(t, doorsWith("${PUBLIC}", ", "+limits, "${SECURE_SETTINGS}", limits), s.places...)
	open, collections := h.talking(t), h.collecting(t)
	for _, l := range open {
		l.must(t, "at first")
	}
	say := func() {
		for _, c := range collections {
			if err := c.send(); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	say()
	time.Sleep(least + pause) // silence is what is tested
	say()
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
	for _, c := range collections {
		if total, err := c.end(); err != nil || total != "2" {
			t.Errorf("%s: 2 messages were sent, and %q received: %v", c.name, total, err)
		}
	}
}

// A call whose client says nothing, which any client may open, ends by timeouts.idle of the upstream, whatever the listener allows
// and also where the service has not begun to answer. It is the client's doing: nothing is held against the target.
func TestSilentCallsEnd(t *testing.T) {
	t.Parallel()
	const limits = "limits: {body_timeout: 10m, min_body_rate: 0}"
	s := startServicesBehind(t)
	document := strings.Replace(doorsWith("${PUBLIC}", ", "+limits, "${SECURE_SETTINGS}", limits), `grpc: "${G}"`,
		`grpc: {targets: ["${G}"], timeouts: {idle: 2s, response: 10m}, ejection: {consecutive_failures: 1, max_percent: 100}}`, 1)
	h := startHouse(t, document, s.places...)
	silent := append(h.collecting(t), h.collecting(t)...)
	for n, c := range silent {
		if n%2 == 1 { // and others have said something first
			if err := c.send(); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	for _, c := range silent {
		_, err := c.done()
		if got := grpcstatus.Convert(err); got.Code() != codes.DeadlineExceeded || !strings.Contains(got.Message(), "too slowly") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	eventually(t, "nothing is under way", func() (bool, string) {
		for _, u := range h.status(t).Upstreams {
			for _, one := range u.Targets {
				if one.State != "available" || one.InFlight != 0 {
					return false, fmt.Sprintf("%+v", one)
				}
			}
		}
		return true, ""
	})
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
