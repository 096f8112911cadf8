package websocket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Stream is a WebSocket on a stream of HTTP/2 (RFC 8441), of which a connection of its own has one.
type h2Stream struct {
	conn    net.Conn
	framer  *http2.Framer
	writing sync.Mutex // the framer's

	mu     sync.Mutex
	change sync.Cond
	in     bytes.Buffer
	end    error
	window [2]int64 // what may be sent: on the connection, on the stream
}

const settingConnect = http2.SettingID(8) // SETTINGS_ENABLE_CONNECT_PROTOCOL

// overH2 opens a WebSocket by an extended CONNECT, in clear and by prior knowledge.
func overH2(t *testing.T, address, path string) stream {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(patience))
	s := &h2Stream{conn: nc, framer: http2.NewFramer(nc, nc), window: [2]int64{65535, 65535}}
	s.change.L = &s.mu
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := s.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if !s.extended(t) {
		t.Fatal("the gateway does not announce SETTINGS_ENABLE_CONNECT_PROTOCOL")
	}
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "http"}, {":authority", "shop"},
		{":path", path}, {"sec-websocket-version", "13"}, {"origin", "http://shop"}} {
		if err := e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	s.answered(t)
	go s.receive()
	return s
}

// extended reads the gateway's settings.
func (s *h2Stream) extended(t *testing.T) bool {
	for {
		f, err := s.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if settings, ok := f.(*http2.SettingsFrame); ok && !settings.IsAck() {
			v, ok := settings.Value(settingConnect)
			if size, ok := settings.Value(http2.SettingInitialWindowSize); ok {
				s.window[1] = int64(size)
			}
			if err := s.framer.WriteSettingsAck(); err != nil {
				t.Fatal(err)
			}
			return ok && v == 1
		}
		s.credit(f)
	}
}

// answered reads the head of the reply, which has no Sec-WebSocket-Accept (RFC 8441 section 5).
func (s *h2Stream) answered(t *testing.T) {
	for {
		f, err := s.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if head, ok := f.(*http2.MetaHeadersFrame); ok {
			for _, h := range head.RegularFields() {
				if h.Name == "sec-websocket-accept" || h.Name == "upgrade" || h.Name == "connection" {
					t.Errorf("the answer has %s", h)
				}
			}
			if head.PseudoValue("status") != "200" || head.StreamEnded() {
				t.Fatalf("the handshake is answered with %v", head.Fields)
			}
			return
		}
		s.credit(f)
	}
}

func (s *h2Stream) credit(f http2.Frame) {
	if u, ok := f.(*http2.WindowUpdateFrame); ok {
		s.mu.Lock()
		s.window[min(u.StreamID, 1)] += int64(u.Increment)
		s.change.Broadcast()
		s.mu.Unlock()
	}
}

func (s *h2Stream) receive() {
	for {
		f, err := s.framer.ReadFrame()
		switch f := f.(type) {
		case *http2.DataFrame:
			s.mu.Lock()
			s.in.Write(f.Data())
			if f.StreamEnded() {
				s.end = io.EOF
			}
			s.change.Broadcast()
			s.mu.Unlock()
			if n := uint32(len(f.Data())); n > 0 {
				s.writing.Lock()
				err = errors.Join(s.framer.WriteWindowUpdate(0, n), s.framer.WriteWindowUpdate(1, n))
				s.writing.Unlock()
			}
		case *http2.RSTStreamFrame:
			err = http2.StreamError{StreamID: 1, Code: f.ErrCode}
		case *http2.WindowUpdateFrame:
			s.credit(f)
		}
		if err != nil {
			s.mu.Lock()
			if s.end == nil {
				s.end = err
			}
			s.change.Broadcast()
			s.mu.Unlock()
			return
		}
	}
}

// Read implements io.Reader.
func (s *h2Stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.in.Len() == 0 {
		if s.end != nil {
			return 0, s.end
		}
		s.change.Wait()
	}
	return s.in.Read(p)
}

// Write implements io.Writer.
func (s *h2Stream) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		s.mu.Lock()
		for s.end == nil && min(s.window[0], s.window[1]) <= 0 {
			s.change.Wait()
		}
		if s.end != nil && s.end != io.EOF {
			s.mu.Unlock()
			return n, s.end
		}
		size := min(int64(len(p)-n), s.window[0], s.window[1], 16<<10)
		s.window[0] -= size
		s.window[1] -= size
		s.mu.Unlock()
		s.writing.Lock()
		err = s.framer.WriteData(1, false, p[n:n+int(size)])
		s.writing.Unlock()
		n += int(size)
	}
	return n, err
}

// CloseWrite ends the stream's own direction.
func (s *h2Stream) CloseWrite() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.framer.WriteData(1, true, nil)
}

// Close implements io.Closer.
func (s *h2Stream) Close() error { return s.conn.Close() }
