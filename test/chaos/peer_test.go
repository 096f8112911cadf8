package chaos

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is a client of HTTP/2 made of frames: it does what a test wants, and notes what comes.
type peer struct {
	net.Conn
	write  sync.Mutex
	buf    bytes.Buffer // of what is sent together
	block  bytes.Buffer
	fields *hpack.Encoder

	mu      sync.Mutex
	news    *sync.Cond
	streams map[uint32]*peerStream
	goAways []goAway
	pings   int // answers to ours
	quiet   bool
	ended   error // why nothing comes any more
}

type goAway struct {
	last uint32
	code http2.ErrCode
	text string
}

// peerStream is what came on one stream.
type peerStream struct {
	p       *peer
	id      uint32
	status  string
	body    []byte
	trailer map[string]string
	over    bool
	reset   string
}

// newPeer begins HTTP/2 on a connection, with settings.
func newPeer(t *testing.T, c net.Conn, settings ...http2.Setting) *peer {
	t.Helper()
	p := &peer{Conn: c, streams: map[uint32]*peerStream{}}
	p.news = sync.NewCond(&p.mu)
	p.fields = hpack.NewEncoder(&p.block)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	p.send(t, func(f *http2.Framer) error { return f.WriteSettings(settings...) })
	var group sync.WaitGroup
	group.Go(p.read)
	t.Cleanup(func() { c.Close(); group.Wait() })
	return p
}

// send sends what do writes, in one piece.
func (p *peer) send(t *testing.T, do func(*http2.Framer) error) {
	t.Helper()
	if err := p.try(do); err != nil {
		t.Fatal(err)
	}
}

func (p *peer) try(do func(*http2.Framer) error) error {
	p.write.Lock()
	defer p.write.Unlock()
	p.buf.Reset()
	f := http2.NewFramer(&p.buf, nil)
	f.AllowIllegalWrites = true
	if err := do(f); err != nil {
		return err
	}
	_, err := p.Conn.Write(p.buf.Bytes())
	return err
}

// section encodes fields, "name", "value" in turn. It is called within try.
func (p *peer) section(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.fields.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // into memory
	}
	return p.block.Bytes()
}

// head writes a request's head; what is not given is that of a GET.
func (p *peer) head(f *http2.Framer, id uint32, ends bool, fields ...string) error {
	all := []string{":scheme", "https", ":authority", "localhost"}
	if !strings.Contains(strings.Join(fields, " "), ":method") {
		all = append(all, ":method", "GET")
	}
	return f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: p.section(append(all, fields...)...), EndStream: ends, EndHeaders: true,
	})
}

// get begins a GET.
func (p *peer) get(t *testing.T, id uint32, path string) *peerStream {
	t.Helper()
	p.send(t, func(f *http2.Framer) error { return p.head(f, id, true, ":path", path) })
	return p.stream(id)
}

func (p *peer) stream(id uint32) *peerStream {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at(id)
}

func (p *peer) at(id uint32) *peerStream {
	s := p.streams[id]
	if s == nil {
		s = &peerStream{p: p, id: id, trailer: map[string]string{}}
		p.streams[id] = s
	}
	return s
}

// read notes what comes until nothing does. The windows are opened again for what came, unless the test does not want that.
func (p *peer) read() {
	f := http2.NewFramer(io.Discard, p.Conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := f.ReadFrame()
		p.mu.Lock()
		if err != nil {
			p.ended = err
			p.news.Broadcast()
			p.mu.Unlock()
			return
		}
		answer := p.note(frame)
		p.news.Broadcast()
		if p.quiet {
			answer = nil
		}
		p.mu.Unlock()
		if answer != nil {
			_ = p.try(answer) // its end is noticed by reading
		}
	}
}

func (p *peer) note(frame http2.Frame) (answer func(*http2.Framer) error) {
	id := frame.Header().StreamID
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if !frame.IsAck() {
			return func(f *http2.Framer) error { return f.WriteSettingsAck() }
		}
	case *http2.PingFrame:
		if frame.IsAck() {
			p.pings++
			return nil
		}
		data := frame.Data
		return func(f *http2.Framer) error { return f.WritePing(true, data) }
	case *http2.GoAwayFrame:
		p.goAways = append(p.goAways, goAway{frame.LastStreamID, frame.ErrCode, string(frame.DebugData())})
	case *http2.RSTStreamFrame:
		p.at(id).reset = frame.ErrCode.String()
	case *http2.MetaHeadersFrame:
		s := p.at(id)
		for _, h := range frame.Fields {
			if h.Name == ":status" {
				s.status = h.Value
			} else {
				s.trailer[h.Name] = h.Value
			}
		}
		s.over = s.over || frame.StreamEnded()
	case *http2.DataFrame:
		s := p.at(id)
		s.body = append(s.body, frame.Data()...)
		s.over = s.over || frame.StreamEnded()
		if n := frame.Length; n > 0 {
			return func(f *http2.Framer) error { return f.WriteWindowUpdate(0, n) }
		}
	}
	return nil
}

// wait waits until what is asked for holds, which is called with the lock held. It reports whether it does.
func (p *peer) wait(holds func() bool) bool {
	late := time.AfterFunc(patience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.news.Broadcast()
	})
	defer late.Stop()
	end := time.Now().Add(patience)
	p.mu.Lock()
	defer p.mu.Unlock()
	for !holds() {
		if p.ended != nil || time.Now().After(end) {
			return false
		}
		p.news.Wait()
	}
	return true
}

// await is wait for what must come.
func (p *peer) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !p.wait(holds) {
		p.mu.Lock()
		defer p.mu.Unlock()
		t.Fatalf("%s: not seen; goaways %+v, ended: %v", what, p.goAways, p.ended)
	}
}

// closed waits until the gateway has ended the connection.
func (p *peer) closed(t *testing.T) {
	t.Helper()
	p.await(t, "the end of the connection", func() bool { return p.ended != nil })
}

func (s *peerStream) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !s.p.wait(func() bool { return holds() || s.reset != "" }) || s.reset != "" {
		t.Fatalf("stream %d: %s: not seen; %s", s.id, what, s)
	}
}

// String is for messages; whoever calls it waits for nothing any more.
func (s *peerStream) String() string {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return fmt.Sprintf("status %q, %d bytes, over %v, reset %q, connection ended: %v, goaways %+v", s.status, len(s.body), s.over, s.reset,
		s.p.ended, s.p.goAways)
}

// whole waits for the end of the answer and returns its status and body.
func (s *peerStream) whole(t *testing.T) (status, body string) {
	t.Helper()
	s.await(t, "the end", func() bool { return s.over })
	return s.status, string(s.body)
}

// Read implements io.Reader for a stream that is a tunnel.
func (s *peerStream) Read(b []byte) (int, error) {
	ok := s.p.wait(func() bool { return len(s.body) > 0 || s.over || s.reset != "" })
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	switch n := copy(b, s.body); {
	case n > 0:
		s.body = s.body[n:]
		return n, nil
	case s.over:
		return 0, io.EOF
	case ok:
		return 0, fmt.Errorf("reset: %s", s.reset)
	case s.p.ended != nil:
		return 0, s.p.ended
	}
	return 0, fmt.Errorf("nothing comes within %v", patience)
}

// Write implements io.Writer for a stream that is a tunnel.
func (s *peerStream) Write(b []byte) (int, error) {
	return len(b), s.p.try(func(f *http2.Framer) error { return f.WriteData(s.id, false, b) })
}
