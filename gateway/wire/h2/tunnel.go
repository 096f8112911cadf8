package h2

import (
	"headgate/gateway/exchange"
	"headgate/gateway/wire/tunnel"
)

// switched answers 200, which is how an extended CONNECT says 101 (RFC 8441 section 5), and carries what the stream has
// become.
func (s *stream) switched(x *exchange.Exchange) error {
	c := s.c
	x.Reply.Status = 200
	x.Reply.Header.Del("Sec-WebSocket-Accept")
	w := reply{s: s, x: x, length: -1}
	if err := w.flush(); err != nil {
		return err
	}
	x.Reply.Status = 101
	c.mu.Lock()
	s.body.pace.idle, s.body.pace.rate, s.body.max = 0, 0, 0
	c.mu.Unlock()
	if err := tunnel.Carry(x, side{s}); err != nil {
		return err
	}
	return side{s}.CloseWrite()
}

// side is the client's side of a stream that has become a tunnel (RFC 8441 section 5): bytes both ways, as DATA. Its time
// limits are the tunnel's.
type side struct{ s *stream }

// Read implements exchange.Stream.
func (e side) Read(p []byte) (int, error) { return e.s.body.Read(p) }

// Next implements exchange.Piecewise.
func (e side) Next() ([]byte, error) { return e.s.body.Next() }

// Write implements exchange.Stream.
func (e side) Write(p []byte) (int, error) {
	s := e.s
	c := s.c
	var sent int64
	c.mu.Lock()
	err := s.appendData(p, false, &sent)
	due := err == nil && c.duty()
	c.mu.Unlock()
	if due {
		c.push(false)
	}
	return int(sent), err
}

// CloseWrite implements exchange.Stream.
func (e side) CloseWrite() error {
	s := e.s
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.broken(); err != nil || s.local {
		return err
	}
	if err := s.appendData(nil, true, new(int64)); err != nil {
		return err
	}
	c.hand()
	return nil
}

// Interrupt implements exchange.Stream.
func (e side) Interrupt() {
	s := e.s
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.body.interrupted = true
	s.cutOff = true
	s.wake()
}

var _ exchange.Stream = side{}
