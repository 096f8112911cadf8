package matrix

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"headgate/internal/testkit"
)

// open starts the gateway between all ways in and all ways out.
func open(t *testing.T) (*house, map[string]*origin, *testkit.Gateway) {
	t.Helper()
	pair, certPEM, keyPEM, roots := certificate(t)
	h := &house{t: t, roots: roots}
	var err error
	if h.clear, err = testkit.FreeAddress(); err != nil {
		t.Fatal(err)
	}
	if h.secure, err = testkit.FreeAddress(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	testkit.WriteFile(t, dir+"/cert.pem", certPEM)
	testkit.WriteFile(t, dir+"/key.pem", keyPEM)
	var upstreams, apis strings.Builder
	origins := map[string]*origin{}
	for _, out := range waysOut {
		o := newOrigin()
		origins[out] = o
		trust := ""
		if target := o.serve(t, out, pair); strings.HasPrefix(target, "https") {
			trust = fmt.Sprintf("targets: [%q], tls: {ca: [%q]}", target, dir+"/cert.pem")
		} else {
			trust = fmt.Sprintf("targets: [%q]", target)
		}
		fmt.Fprintf(&upstreams, "  %s: {%s, ejection: {consecutive_failures: 0}}\n", out, trust)
		fmt.Fprintf(&apis, "  %s: {base_path: /%s, strip_base_path: true, upstream: %s}\n", out, out, out)
	}
	g := testkit.Start(t, binary, fmt.Sprintf(`
listeners:
  clear: {address: %q}
  secure: {address: %q, protocols: [h1, h2, h3], tls: {certificates: [{cert: %q, key: %q}]}}
upstreams:
%sapis:
%s`, h.clear, h.secure, dir+"/cert.pem", dir+"/key.pem", &upstreams, &apis))
	return h, origins, g
}

// cells are what a message may be and what may happen to it.
var cells = []struct {
	name string
	try  func(*talk)
}{
	{"small", small}, {"empty", empty}, {"streamed", streamed}, {"trailers", trailersBothWays}, {"large", large},
	{"early reply", earlyReply}, {"client gone", clientGone}, {"upstream gone", upstreamGone},
}

func TestEveryWayInReachesEveryWayOut(t *testing.T) {
	h, origins, g := open(t)
	for _, in := range waysIn {
		for _, out := range waysOut {
			for _, cell := range cells {
				t.Run(in+" to "+out+"/"+cell.name, func(t *testing.T) {
					client, url := h.client(t, in)
					cell.try(&talk{t, client, url + "/" + out, origins[out], in, out})
				})
			}
		}
	}
	boundedMemory(t, g)
}

// mostMemory is what the gateway may take at its peak, whatever the size of the bodies. The race detector needs its own.
const mostMemory = 256 << 20

func boundedMemory(t *testing.T, g *testkit.Gateway) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.PID()))
	if err != nil || raceEnabled {
		t.Logf("the peak of the gateway's memory is not looked at: race detector %v, %v", raceEnabled, err)
		return
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("no peak in %s", status)
	}
	peak, err := strconv.Atoi(string(found[1]))
	t.Logf("bodies of %d bytes; the gateway's memory at its peak: %d MiB", *big, peak>>10)
	if err != nil || peak<<10 > mostMemory {
		t.Errorf("more than %d MiB, %v", mostMemory>>20, err)
	}
}

func small(k *talk) {
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		var body io.Reader
		want := "/small?a=%20b&c  <nil>"
		if method == "POST" || method == "PUT" {
			body, want = strings.NewReader("a body"), "/small?a=%20b&c a body <nil>"
		}
		answer := k.must(200, method, "/small?a=%20b&c", body)
		if got := k.text(answer); got != want || answer.Header.Get("X-Method") != method || answer.Proto != proto(k.in) {
			k.Errorf("%s: %q, %v, %s", method, got, answer.Header, answer.Proto)
		}
	}
	if answer := k.must(200, "HEAD", "/small", nil); k.text(answer) != "" {
		k.Error("a reply to HEAD has a body")
	}
}

func empty(k *talk) {
	answer := k.must(200, "GET", "/empty", nil)
	if got := k.text(answer); got != "" || answer.ContentLength > 0 {
		k.Errorf("%q, %d", got, answer.ContentLength)
	}
	if got := answer.Header.Get("X-Proto"); got != proto(k.out) {
		k.Errorf("the upstream was asked in %s, want %s", got, proto(k.out))
	}
}

// streamed proves that nobody on the way waits for more: the upstream sends a piece only after the client has seen the
// one before.
func streamed(k *talk) {
	answer := k.must(200, "GET", "/stream", nil)
	for i := range 3 {
		want := fmt.Sprintf("piece %d\n", i)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(answer.Body, got); err != nil || string(got) != want {
			k.Fatalf("%q, %v", got, err)
		}
		select {
		case k.origin.next <- struct{}{}:
		case <-time.After(patience):
			k.Fatal("the upstream has gone")
		}
	}
	if rest := k.text(answer); rest != "" {
		k.Errorf("%q", rest)
	}
}

func trailersBothWays(k *talk) {
	r, err := http.NewRequestWithContext(k.Context(), "POST", k.url+"/trailers",
		io.MultiReader(strings.NewReader("part one, "), strings.NewReader("part two")))
	if err != nil {
		k.Fatal(err)
	}
	r.Trailer = http.Header{"X-Check": {"checked"}}
	answer, err := k.client.Do(r)
	if err != nil {
		k.Fatal(err)
	}
	defer answer.Body.Close()
	if got := k.text(answer); got != "part one, part two" {
		k.Errorf("%q", got)
	}
	if got := answer.Trailer; got.Get("X-Sum") != "18" || got.Get("X-Echo") != "checked" {
		k.Errorf("trailer %v", got)
	}
}

func large(k *talk) {
	want, err := sumOf(io.LimitReader(&pattern{}, *big))
	if err != nil {
		k.Fatal(err)
	}
	n := strconv.FormatInt(*big, 10)
	for _, query := range []string{"?n=" + n, "?length&n=" + n} {
		answer := k.must(200, "GET", "/down"+query, nil)
		if got, err := sumOf(answer.Body); err != nil || got != want {
			k.Errorf("down%s: %s, %v, want %s", query, got, err, want)
		}
	}
	if got := k.text(k.must(200, "POST", "/up", io.LimitReader(&pattern{}, *big))); got != want {
		k.Errorf("up: %s, want %s", got, want)
	}
}

// earlyReply proves that a refusal reaches a client that is still sending.
func earlyReply(k *talk) {
	ctx, cancel := context.WithTimeout(k.Context(), patience)
	defer cancel()
	body := &endless{stop: ctx.Done()}
	answer, err := k.ask(ctx, "POST", "/early", body)
	if err != nil {
		k.Fatal(err)
	}
	if got := k.text(answer); answer.StatusCode != 403 || got != "not you\n" {
		k.Errorf("%s, %q", answer.Status, got)
	}
	cancel()
	if got := k.text(k.must(200, "POST", "/small", strings.NewReader("next"))); got != "/small next <nil>" {
		k.Errorf("then: %q", got)
	}
}

// endless is a body that goes on until it is stopped.
type endless struct{ stop <-chan struct{} }

func (e *endless) Read(p []byte) (int, error) {
	select {
	case <-e.stop:
		return 0, io.EOF
	case <-time.After(time.Millisecond):
		return copy(p, bytes.Repeat([]byte("x"), 512)), nil
	}
}

// clientGone proves that the upstream learns that nobody waits any more.
func clientGone(k *talk) {
	ctx, leave := context.WithCancel(k.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := k.ask(ctx, "GET", "/hang", nil)
		asked <- err
	}()
	select {
	case <-k.origin.next:
	case <-time.After(patience):
		k.Fatal("the upstream was not asked")
	}
	leave()
	if err := <-asked; err == nil {
		k.Error("the client got an answer")
	}
	if err := <-k.origin.gone; err != nil {
		k.Error(err)
	}
}

// upstreamGone proves that a reply that breaks off is never taken for a whole one, and that the next request is served.
func upstreamGone(k *talk) {
	if text := k.text(k.must(502, "GET", "/die", nil)); !strings.Contains(text, `"code":"upstream_`) {
		k.Errorf("%s", text)
	}
	// A reset may overtake the head of the reply (RFC 9000 section 19.4).
	if answer, err := k.ask(k.Context(), "GET", "/die?late", nil); err == nil {
		if body, err := io.ReadAll(answer.Body); err == nil {
			k.Errorf("a reply that broke off looks whole: %s %q", answer.Status, body)
		}
	}
	if got := k.text(k.must(200, "POST", "/small", strings.NewReader("next"))); got != "/small next <nil>" {
		k.Errorf("then: %q", got)
	}
}
