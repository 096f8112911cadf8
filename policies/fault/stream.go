package fault

import (
	"context"
	"errors"
	"io"
	"time"

	"headgate/gateway/exchange"
)

// piecesPerSecond is in how many pieces the bytes of a second cross, so that a slow body flows instead of bursting.
const piecesPerSecond = 20

// stream is a body that is carried slowly, or not to its end.
type stream struct {
	*faults
	x    *exchange.Exchange
	from io.Reader
	ctx  context.Context // of the exchange: who waits for a body that nobody wants is woken
	rate int64           // bytes in a second; 0: as fast as they come
	left int64           // bytes until the body is cut off; -1: it is not
	last time.Time       // when the last piece was handed on
}

var errCut = errors.New("the reply was cut off by the policy fault")

// Read implements io.Reader.
func (s *stream) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, s.breakOff()
	}
	if s.left > 0 {
		b = b[:min(int64(len(b)), s.left)]
	}
	if s.rate > 0 {
		b = b[:min(int64(len(b)), max(s.rate/piecesPerSecond, 1))]
		if s.last.IsZero() {
			s.last = s.clock.Now()
		}
	}
	n, err := s.from.Read(b)
	if s.left > 0 {
		s.left -= int64(n)
	}
	if waited := s.pace(n); waited != nil {
		return 0, waited
	}
	return n, err
}

// Ready reports whether Read returns without waiting, which is never sure.
func (s *stream) Ready() bool { return false }

// breakOff ends the body with an error, upon which the wire ends the reply so that the client notices.
func (s *stream) breakOff() error {
	s.cut.injected.Inc(s.x.Shard)
	return &exchange.Error{Code: injected, Source: exchange.FromGateway, Cause: errCut}
}

// pace waits until n bytes may be handed on: the time that they take at the rate, less what has passed since the piece before.
func (s *stream) pace(n int) error {
	if s.rate == 0 || n == 0 {
		return nil
	}
	due := time.Duration(int64(n) * int64(time.Second) / s.rate) // n is at most a piece, so that this does not overflow
	if d := due - s.clock.Now().Sub(s.last); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
	s.last = s.clock.Now()
	return nil
}
