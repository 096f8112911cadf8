package h3

import (
	"errors"
	"time"

	"github.com/quic-go/quic-go/http3"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/tunnel"
	"headgate/internal/sock"
)

// tunnel tells the client that the switch that it asked for has been made and carries bytes until the stream, or the
// upstream, has ended (RFC 9220). Here a switch is a 200, and nothing accepts a key that there is not (RFC 8441 section 5).
func (s *stream) tunnel(x *exchange.Exchange) error {
	x.Reply.Header.Del("Sec-WebSocket-Accept")
	f := newSection()
	f.add(":status", statuses[200])
	f.header(&x.Reply.Header)
	out := sock.Get()
	err := s.write(f.appendTo((*out)[:0]))
	sock.Put(out)
	if err != nil {
		return err
	}
	_ = s.str.SetWriteDeadline(time.Time{}) // it never fails
	err = tunnel.Carry(x, &tube{s: s})
	if s.closed {
		return err
	}
	var known *exchange.Error
	if errors.As(err, &known) {
		if s.stop = http3.ErrCodeConnectError; known.Source == exchange.FromClient {
			s.stop = http3.ErrCodeRequestCanceled
		}
		return err
	}
	return errors.Join(err, s.finish())
}

// tube is the client's side of a switched connection: DATA frames either way. It implements exchange.Stream.
type tube struct {
	s *stream
	b []byte // a frame on its way
}

// Read implements io.Reader.
func (t *tube) Read(p []byte) (int, error) { return t.s.body.Read(p) }

// Write implements io.Writer. Who takes too long is the tunnel's to say.
func (t *tube) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	t.b = append(appendFrame(t.b[:0], frameData, uint64(len(p))), p...)
	if _, err := t.s.str.Write(t.b); err != nil {
		return 0, t.name(err)
	}
	return len(p), nil
}

// CloseWrite implements exchange.Stream.
func (t *tube) CloseWrite() error {
	if err := t.s.finish(); err != nil {
		return t.name(err)
	}
	return nil
}

// Interrupt implements exchange.Stream.
func (t *tube) Interrupt() {
	t.s.Interrupt()
	_ = t.s.str.SetWriteDeadline(past) // it never fails
}

// name tells an interruption from what happened to the client.
func (t *tube) name(err error) error {
	if t.s.interrupted.Load() && isDeadline(err) {
		return sock.ErrInterrupted
	}
	return err
}

var (
	_ exchange.Stream = (*tube)(nil)
)
