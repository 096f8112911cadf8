package chaos

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// reloads is how often the document is replaced under load.
const reloads = 20

// transferSize is more than all the sockets and buffers on the way can hold.
const transferSize = 24 << 20

// variant is the n-th document of a gateway that somebody keeps changing: routes, upstreams, consumers, limits and
// listeners come, go and change around what stays the same.
func variant(n int) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(`listeners:`)
	p(`  public: {address: "${LISTEN}", limits: {requests_per_connection: %d, header_fields: %d}}`, 1_000_000+n, 50+n)
	if n%3 == 1 {
		p(`  extra: {address: "${EXTRA}"}`)
	}
	p(`upstreams:`)
	p(`  steady: {targets: ["${A}"], timeouts: {response: %ds}}`, 30+n/4)
	p(`  flip: "${%c}"`, 'A'+n%2)
	p(`consumers:`)
	p(`  steady: {keys: ["${file:${DIR}/key}"], groups: [g%d]}`, n)
	if n%2 == 1 {
		p(`  passing: {groups: [g%d]}`, n)
	}
	p(`apis:`)
	p(`  all:`)
	p(`    upstream: steady`)
	p(`    routes:`)
	p(`      rest: {match: /**}`)
	p(`      version: {match: GET /version, respond: {body: "%d"}}`, n)
	p(`      flip: {match: "/flip/**", upstream: flip}`)
	p(`      keyed: {match: "/keyed/**", policies: [{api-key: {from: [{header: X-Key}]}}]}`)
	p(`      limited: {match: GET /limited, respond: {body: ok}, policies: [{rate-limit: {limit: 10, per: 24h}}]}`)
	if n%4 == 2 {
		p(`      passing: {match: "GET /passing/{id}", respond: {body: "%d"}}`, n)
	}
	return b.String()
}

// askVariant and judgeVariant are the load on it, every answer of which is known whatever the document is.
func askVariant(n int) string {
	switch n % 4 {
	case 0:
		return request(fmt.Sprintf("GET /flip/%d", n))
	case 1:
		return request(fmt.Sprintf("GET /keyed/%d", n), "X-Key: the-key-of-the-steady-consumer")
	case 2:
		return request(fmt.Sprintf("GET /keyed/%d", n), "X-Key: of-nobody")
	}
	return request(fmt.Sprintf("GET /steady/%d", n))
}

func judgeVariant(n int, r reply, err error) error {
	if err != nil {
		return fmt.Errorf("lost: %w", err)
	}
	want, status := []string{fmt.Sprintf("A /steady/%d", n)}, 200
	switch n % 4 {
	case 0:
		want = []string{fmt.Sprintf("A /flip/%d", n), fmt.Sprintf("B /flip/%d", n)}
	case 1:
		want = []string{fmt.Sprintf("A /keyed/%d", n)}
	case 2:
		want, status = nil, 401
	}
	if r.status != status {
		return fmt.Errorf("status %d instead of %d: %s", r.status, status, r.body)
	}
	for _, w := range want {
		if r.body == w {
			return nil
		}
	}
	if want != nil {
		return fmt.Errorf("the answer %q instead of %q", r.body, want)
	}
	return nil
}

// transfer is a long download or upload that goes on by one step for each time it is told.
type transfer struct {
	step chan struct{}
	done chan error
}

func startTransfer(t *testing.T, c *client, run func(c *client, step <-chan struct{}) error) *transfer {
	t.Helper()
	tr := &transfer{step: make(chan struct{}, reloads), done: make(chan error, 1)}
	var group sync.WaitGroup
	group.Go(func() {
		defer c.Close()
		tr.done <- run(c, tr.step)
	})
	t.Cleanup(group.Wait)
	return tr
}

// slowDownload reads a bit for each step and the rest behind the last one.
func slowDownload(query string) func(*client, <-chan struct{}) error {
	return func(c *client, step <-chan struct{}) error {
		if _, err := io.WriteString(c, request(fmt.Sprintf("GET /download?size=%d%s", transferSize, query))); err != nil {
			return err
		}
		r, err := http.ReadResponse(c.in, nil)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		h := sha256.New()
		for range step {
			if _, err := io.CopyN(h, r.Body, 64<<10); err != nil {
				return err
			}
		}
		if _, err := io.Copy(h, r.Body); err != nil {
			return err
		}
		if got := fmt.Sprintf("%x", h.Sum(nil)); got != patternHash(transferSize) {
			return errors.New("the download is not what was sent")
		}
		return nil
	}
}

// slowUpload sends a bit for each step and the rest behind the last one.
func slowUpload(chunked bool) func(*client, <-chan struct{}) error {
	return func(c *client, step <-chan struct{}) error {
		var body io.Writer = c
		head := request("POST /upload", fmt.Sprintf("Content-Length: %d", transferSize))
		if chunked {
			body, head = chunks{c}, request("POST /upload", "Transfer-Encoding: chunked")
		}
		if _, err := io.WriteString(c, head); err != nil {
			return err
		}
		from, left := &pattern{}, int64(transferSize)
		for range step {
			n, err := io.CopyN(body, from, 64<<10)
			if left -= n; err != nil {
				return err
			}
		}
		if _, err := io.CopyN(body, from, left); err != nil {
			return err
		}
		if chunked {
			if _, err := io.WriteString(c, "0\r\n\r\n"); err != nil {
				return err
			}
		}
		r, err := c.reply("POST /upload")
		if err == nil && r.body != patternHash(transferSize) {
			err = fmt.Errorf("the upload is not what arrived: %d %s", r.status, r.body)
		}
		return err
	}
}

// chunks writes each piece as a chunk.
type chunks struct{ io.Writer }

// Write implements io.Writer.
func (w chunks) Write(p []byte) (int, error) {
	if _, err := fmt.Fprintf(w.Writer, "%x\r\n", len(p)); err != nil {
		return 0, err
	}
	n, err := w.Writer.Write(p)
	if err == nil {
		_, err = io.WriteString(w.Writer, "\r\n")
	}
	return n, err
}

// Twenty documents replace each other under load, by every way there is. No request is lost or answered wrongly, no
// healthy connection is closed, what runs ends whole, no count is forgotten, and nothing of the old documents stays.
func TestReloadsUnderLoadLoseNothing(t *testing.T) {
	t.Parallel()
	_, a := startOrigin(t, "A")
	_, b := startOrigin(t, "B")
	g := newGateway(t, "${A}", a, "${B}", b)
	writeKey(t, g)
	g.start(t, variant(0))
	before := g.idles(t)

	l := (&load{address: g.listen, every: 2 * time.Millisecond, workers: 16, ask: askVariant, judge: judgeVariant}).begin()
	l.flows(t, 100)
	var transfers []*transfer
	for _, run := range []func(*client, <-chan struct{}) error{
		slowDownload(""), slowDownload("&chunked"), slowUpload(false), slowUpload(true),
	} {
		transfers = append(transfers, startTransfer(t, connect(t, g.listen), run))
	}
	idle, watcher := connect(t, g.listen), connect(t, g.listen)
	for range 6 {
		if r := idle.get(t, "/limited"); r.status != 200 {
			t.Fatalf("limited: %d", r.status)
		}
	}
	for n := 1; n <= reloads; n++ {
		replace(t, g, n)
		eventually(t, fmt.Sprintf("document %d is live for a connection that was there", n), func() (bool, string) {
			r := watcher.get(t, "/version")
			return r.body == fmt.Sprint(n), r.body
		})
		for _, tr := range transfers {
			tr.step <- struct{}{}
		}
		probeExtra(t, g, n%3 == 1)
		l.flows(t, 20)
	}
	for _, tr := range transfers { // all at once: none of them may be silent while another one takes its time
		close(tr.step)
	}
	for i, tr := range transfers {
		if err := <-tr.done; err != nil {
			t.Errorf("transfer %d: %v", i, err)
		}
	}
	for i := range 6 { // 6 were spent of 10
		if r := idle.get(t, "/limited"); (r.status == 200) != (i < 4) {
			t.Errorf("request %d behind the reloads: %d", i, r.status)
		}
	}
	if wrong := l.end(); len(wrong) > 0 {
		t.Errorf("%d of %d wrong, such as %v", len(wrong), l.sent.Load(), errors.Join(wrong[:min(5, len(wrong))]...))
	}
	if kept := int64(l.workers - l.workers/4); l.dials.Load()-kept > l.sent.Load()/2 {
		t.Errorf("%d connections for %d requests: kept ones do not live", l.dials.Load(), l.sent.Load())
	}
	t.Logf("%d requests over %v reloads", l.sent.Load(), g.metric(t, `headgate_reloads_total{result="success"}`))
	idle.Close()
	watcher.Close()
	g.settles(t, before)
	if strings.Contains(g.goroutineDump(), "(*Engine).Swap") {
		t.Error("an old document has not been closed")
	}
}

// replace makes the n-th variant live: by SIGHUP, by asking, or by nothing but the file.
func replace(t *testing.T, g *gateway, n int) {
	t.Helper()
	g.write(t, variant(n))
	switch n % 3 {
	case 0:
		g.signal(t, syscall.SIGHUP)
	case 1:
		if status, body, err := g.ask("POST", "/reload"); status != 200 {
			t.Fatalf("reload: %d %s %v", status, body, err)
		}
	}
}

// writeKey writes the file that the variants' consumer refers to.
func writeKey(t *testing.T, g *gateway) {
	t.Helper()
	key := filepath.Join(filepath.Dir(g.document), "key")
	if err := os.WriteFile(key, []byte("the-key-of-the-steady-consumer"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// probeExtra looks whether the second listener is there exactly when the document has it.
func probeExtra(t *testing.T, g *gateway, there bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("the second listener is open: %v", there), func() (bool, string) {
		c, err := net.Dial("tcp", g.extra)
		if err != nil {
			return !there, err.Error()
		}
		defer c.Close()
		return there, "connected"
	})
}

// badVariant has five mistakes of five kinds.
const badVariant = `
listeners: {public: {address: "${LISTEN}", limits: {head: 1}}}
upstreams: {steady: {targets: ["ftp://a"]}}
apis:
  all:
    upstream: stedy
    colour: red
    routes:
      version: {match: GET /version, respond: {status: 42}}
      rest: {match: /**}
`

// A document that is refused changes nothing but what the gateway says about itself, also under load; a port in use
// refuses a document, too; one that is right clears the matter.
func TestRefusedDocumentsUnderLoadChangeNothing(t *testing.T) {
	t.Parallel()
	_, a := startOrigin(t, "A")
	_, b := startOrigin(t, "B")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	g := newGateway(t, "${A}", a, "${B}", b, "${TAKEN}", taken.Addr().String())
	writeKey(t, g)
	g.start(t, variant(0))
	live := g.status(t).Document.Version
	l := (&load{address: g.listen, every: 4 * time.Millisecond, workers: 8, ask: askVariant, judge: judgeVariant}).begin()
	l.flows(t, 20)

	g.write(t, badVariant)
	if status, body, err := g.ask("POST", "/reload"); status != 422 || err != nil {
		t.Errorf("reload of a bad document: %d %s %v", status, body, err)
	}
	l.flows(t, 50)
	s := g.status(t)
	if s.Document.Version != live || s.Ready != "ready" {
		t.Errorf("live: %+v, ready: %s", s.Document, s.Ready)
	}
	if s.Refused == nil {
		t.Error("the status tells of no refusal")
	} else if len(s.Refused.Problems) != 5 {
		t.Errorf("the status tells of %+v", s.Refused.Error)
	}
	if g.metric(t, `headgate_reloads_total{result="failure"}`) == 0 || g.metric(t, "headgate_last_reload_successful") != 0 {
		t.Error("the metrics tell of no failed reload")
	}
	if !strings.Contains(g.log.String(), "the document was refused") {
		t.Error("the log tells of no refusal")
	}

	g.write(t, strings.Replace(variant(1), "${EXTRA}", "${TAKEN}", 1))
	if status, body, err := g.ask("POST", "/reload"); status != 422 || !strings.Contains(body, taken.Addr().String()) {
		t.Errorf("reload with a port in use: %d %s %v", status, body, err)
	}
	if s := g.status(t); s.Refused == nil || len(s.Listeners) != 1 || s.Document.Version != live {
		t.Errorf("behind a port in use: %+v", s)
	}

	g.write(t, variant(1))
	if status, body, err := g.ask("POST", "/reload"); status != 200 {
		t.Errorf("reload of a good document: %d %s %v", status, body, err)
	}
	l.flows(t, 50)
	if s := g.status(t); s.Refused != nil || g.metric(t, "headgate_last_reload_successful") != 1 || len(s.Listeners) != 2 {
		t.Errorf("behind a good document: %+v", s)
	}
	if wrong := l.end(); len(wrong) > 0 {
		t.Errorf("%d wrong, such as %v", len(wrong), wrong[0])
	}
}

// A gateway that cannot open a door does not start.
func TestPortInUseAtTheStartExitsOne(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	g := newGateway(t, "${TAKEN}", taken.Addr().String())
	g.write(t, `
listeners: {public: {address: "${TAKEN}"}}
apis: {all: {routes: {r: {match: /**, respond: {body: ok}}}}}
`)
	p := start(t, g.binary, "run", g.document)
	if code := p.exit(t); code != 1 || !strings.Contains(p.log.String(), "listeners.public: "+taken.Addr().String()+" is in use") {
		t.Errorf("code %d: %s", code, p.log)
	}
}
