package h3

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"headgate/gateway/exchange"
	"headgate/internal/clock"
)

// stream is one request and its reply.
type stream struct {
	server *Server
	conn   *conn
	limits *Limits
	str    *quic.Stream
	in     reader
	body   body
	x      exchange.Exchange
	cancel exchange.Canceler

	method      string        // as it came: a policy may ask the upstream with another one
	stop        http3.ErrCode // told to the client if the request is not read to its end
	release     func() bool   // stops listening for the client's going away; false: it has gone
	closed      bool          // the reply has been sent to its end
	began       bool          // something of it has been sent
	interrupted atomic.Bool   // the body is not read any more
	gone        atomic.Bool   // the client has given the exchange up
}

var streams = sync.Pool{New: func() any { return new(stream) }}

// due is when d from now is, on the machine's own clock, by which QUIC runs: moving ours cuts nobody off.
func due(d time.Duration) time.Time { return clock.System{}.Now().Add(d) }

func isDeadline(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// carry carries the exchange of a stream.
func (c *conn) carry(str *quic.Stream) {
	s := streams.Get().(*stream)
	s.server, s.conn, s.limits, s.str = c.server, c, c.server.limits(), str
	s.in.begin(str)
	x := &s.x
	x.Shard, x.Cancel, x.Wire = c.shard, &s.cancel, s
	defer s.end()
	defer func() {
		if r := recover(); r != nil {
			c.server.Log.Error("a stream panicked", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	h, err := s.readHead()
	x.Start = c.server.Clock.Now()
	if err == nil {
		err = s.prepare(&h)
	}
	if err != nil {
		s.refuse(err)
		return
	}
	c.server.Handler.Serve(x)
}

// end ends the stream, whatever happened: a reply that was not sent to its end breaks off, and what is left of the request
// is not waited for (RFC 9114 section 4.1.1).
func (s *stream) end() {
	heard := s.rest()
	s.cancel.Rest()
	if !s.closed {
		if s.stop == 0 || s.stop == http3.ErrCodeNoError {
			s.stop = http3.ErrCodeInternalError
		}
		s.str.CancelWrite(streamCode(s.stop))
	}
	if s.stop == 0 {
		s.stop = http3.ErrCodeNoError
	}
	s.str.CancelRead(streamCode(s.stop)) // nothing if it has been read to its end
	s.in.release()
	s.conn.done(s)
	if !heard {
		return // somebody may still be looking at it: the collector gets it
	}
	s.x.Reset()
	s.x.Client = exchange.Client{}
	s.server, s.conn, s.limits, s.str, s.release, s.body, s.in = nil, nil, nil, nil, nil, body{}, reader{}
	s.method, s.stop, s.closed, s.began = "", 0, false, false
	s.interrupted.Store(false)
	streams.Put(s)
}

// rest stops listening for the client's going away, and reports whether nobody has heard of it.
func (s *stream) rest() bool {
	if s.release == nil {
		return !s.gone.Load()
	}
	heard := s.release()
	s.release = nil
	if !heard {
		s.gone.Store(true)
	}
	return heard
}

// lost is called when the client has given the exchange up.
func (s *stream) lost() {
	s.gone.Store(true)
	s.cancel.Cancel()
}

// readHead reads the frames up to the head.
func (s *stream) readHead() (head, error) {
	s.patience(s.limits.HeadTime)
	for idle := 0; ; idle++ {
		kind, n, err := s.in.frame()
		switch {
		case errors.Is(err, io.EOF):
			return head{}, errIncomplete
		case isDeadline(err):
			return head{}, errSlowHead
		case err != nil:
			return head{}, err
		case kind == frameHeaders && n > uint64(s.limits.Head):
			return head{}, errHeadTooLarge
		case kind == frameHeaders:
			return s.parse(int(n))
		case known(kind):
			return head{}, errFrameUnexpected
		case idle == maxIdleFrames:
			return head{}, errFrameFlood
		}
		if err := s.in.skip(n); err != nil {
			if isDeadline(err) {
				err = errSlowHead
			}
			return head{}, err
		}
	}
}

func (s *stream) parse(n int) (head, error) {
	block, err := s.in.payload(n)
	switch {
	case isDeadline(err):
		return head{}, errSlowHead
	case err != nil:
		return head{}, err
	}
	h, err := parseHead(block, &s.limits.Limits, &s.x.Request)
	s.method = h.method
	return h, err
}

// prepare makes the exchange ready to be carried.
func (s *stream) prepare(h *head) error {
	x := &s.x
	s.awaitBody(h)
	x.Client = s.conn.client()
	if x.Client.TLS.Early {
		if err := s.early(); err != nil {
			return err
		}
	}
	x.Request.Body = s.body.begin(s, h)
	x.Request.Expect = h.expect && x.Request.Body.Reader != nil
	if l := s.limits.Body; l > 0 && s.body.length > l {
		return errBodyTooLarge
	}
	_ = s.str.SetReadDeadline(time.Time{}) // it never fails
	s.release = context.AfterFunc(s.str.Context(), s.lost)
	return nil
}

// awaitBody waits, with requests that hardly ever have a body, for the end of the stream or the beginning of a body: in
// HTTP/3 the head does not tell which of them comes, and asking the upstream as if there was a body confuses many.
func (s *stream) awaitBody(h *head) {
	switch s.x.Request.Method {
	case "GET", "HEAD", "OPTIONS", "DELETE", "TRACE":
	default:
		return
	}
	if h.length >= 0 || h.expect || s.x.Request.Upgrade != "" || len(s.in.buffered()) > 0 || s.in.err != nil {
		return
	}
	_ = s.in.fill() // what went wrong is met again; a client that does neither in time is taken as one with a body
}

// early settles a request that came before the handshake was complete, and so may be a replay (RFC 8470): one of a safe
// method is carried, and the upstream told; any other waits until it can be none (section 3).
func (s *stream) early() error {
	r := &s.x.Request
	if (r.Method == "GET" || r.Method == "HEAD" || r.Method == "OPTIONS") && r.Upgrade == "" {
		r.Header.Set("early-data", "1")
		return nil
	}
	select {
	case <-s.conn.quic.HandshakeComplete():
	case <-s.str.Context().Done():
		return errIncomplete
	}
	s.x.Client = s.conn.client()
	return nil
}

// refuse answers a request that is not acceptable, if there is somebody to answer.
func (s *stream) refuse(err error) {
	var broken *violation
	var refused *exchange.Error
	switch {
	case errors.As(err, &broken):
		s.stop = broken.code
		s.conn.violated(broken)
	case errors.As(err, &refused):
		s.stop = stopCode(refused)
		e := *refused
		s.x.Client, s.x.Err = s.conn.client(), &e
		s.server.Handler.Refuse(&s.x)
	case errors.Is(err, errIncomplete):
		s.stop = http3.ErrCodeRequestIncomplete
	default: // the client has reset the stream, or the connection has ended
		s.stop = http3.ErrCodeRequestCanceled
		s.lost()
	}
}

// patience gives the next read its time; 0: any, also for one that waits already.
func (s *stream) patience(d time.Duration) {
	var at time.Time
	if d > 0 {
		at = due(d)
	}
	_ = s.str.SetReadDeadline(at) // it never fails
	if s.interrupted.Load() {
		_ = s.str.SetReadDeadline(past)
	}
}

// past is a time at which everything has expired.
var past = time.Unix(1, 0)

// Interrupt implements exchange.Wire.
func (s *stream) Interrupt() {
	s.interrupted.Store(true)
	_ = s.str.SetReadDeadline(past) // it never fails
}

// Unhurried implements exchange.Patient. Nobody reads the body yet.
func (s *stream) Unhurried(idle time.Duration) { s.body.leisure = idle }

var (
	_ exchange.Wire    = (*stream)(nil)
	_ exchange.Patient = (*stream)(nil)
)
