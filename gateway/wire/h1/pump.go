package h1

import (
	"errors"
	"io"
	"sync"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// pump carries a request body that has not arrived yet to the upstream while the call waits for the reply, which may
// come before the body has. It is a goroutine of its own, for large and slow bodies only.
//
// The connection has one deadline for both directions, and it has one only while the upstream is waited for: when it has to ask for
// the body (100), to take a piece, to answer when it has got all of it, and to go on with the reply's body, for which it has its time
// anew with each piece of the request that is sent. Else the client is waited for, which the listener limits.
type pump struct {
	conn         *Conn
	client       exchange.Interrupter // unblocks a read of the client's body
	mu           sync.Mutex
	writing      bool          // under mu: a piece, or the end, is being written
	ended        bool          // under mu: all of it has been
	answered     bool          // under mu: the reply's head is here
	listens      bool          // under mu: a piece of its body is waited for
	began, last  time.Duration // under mu: when something of the body came last, on the sweeper's clock
	halted       bool          // under mu: nobody wants the body any more
	done         chan struct{}
	err          error // valid after done
	clientFailed bool  // the body could not be read, as opposed to written
}

func startPump(x *exchange.Exchange, conn *Conn, plan *Plan) *pump {
	p := &pump{conn: conn, client: x.Wire, began: conn.Now(), done: make(chan struct{})}
	p.last = p.began
	go p.run(x, x.Request.Body, plan)
	return p
}

func (p *pump) run(x *exchange.Exchange, body exchange.Body, plan *Plan) {
	defer close(p.done)
	n, err := p.copy(x, body, plan)
	x.Usage.RequestBytes += n
	p.err = err
	if p.clientFailed = p.clientFailed && !p.stopped(); p.clientFailed { // or it was we who ended the reading
		p.conn.Interrupt() // no reply to wait for: the request will never be complete
		return
	}
	p.await(plan) // an upstream that takes nothing more may answer all the same
}

func (p *pump) copy(x *exchange.Exchange, body exchange.Body, plan *Plan) (int64, error) {
	pieces, buf := piecesOf(body.Reader)
	if buf != nil {
		defer sock.Put(buf)
	}
	var sent int64
	var frame [20]byte
	for {
		if b, ok := body.Reader.(*Body); ok && body.Length >= 0 && b.relayable() {
			n, wrote, err := b.relay(p.conn.Conn, plan.Idle)
			p.clientFailed = err != nil && !wrote
			p.begin(plan) // what has come last
			p.taken(plan)
			if sent += n; err != nil || b.Done() {
				return sent, err
			}
			continue
		}
		piece, err := pieces()
		if len(piece) > 0 {
			p.begin(plan)
			if werr := writePiece(p.conn.Conn, piece, body.Length < 0, frame[:0]); werr != nil {
				return sent, werr
			}
			p.taken(plan)
			sent += int64(len(piece))
		}
		switch {
		case errors.Is(err, io.EOF):
			if body.Length >= 0 && sent != body.Length {
				p.clientFailed = true
				return sent, errShortBody
			}
			return sent, p.end(x, body, plan)
		case err != nil:
			p.clientFailed = true
			return sent, err
		}
	}
}

// end writes what stands behind a chunked body.
func (p *pump) end(x *exchange.Exchange, body exchange.Body, plan *Plan) error {
	if body.Length >= 0 {
		return nil
	}
	b := append(make([]byte, 0, 64), "0\r\n"...)
	b = x.Request.Trailer.AppendTo(b)
	p.begin(plan)
	_, err := p.conn.Write(append(b, "\r\n"...))
	return err
}

// begin starts the time that the upstream has to take a piece.
func (p *pump) begin(plan *Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing, p.last = true, p.conn.Now()
	p.conn.Arm(sock.PhaseWrite, plan.Idle)
}

// taken ends it. The time that the upstream has for the next piece of its reply begins anew.
func (p *pump) taken(plan *Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing = false
	p.rest(plan.Idle)
}

// upload returns how long after the beginning something of the body came last.
func (p *pump) upload() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last - p.began
}

// rest leaves the connection with the deadline that it has while nothing is written: that of the reply's next piece, if it is
// waited for. The lock is held.
func (p *pump) rest(idle time.Duration) {
	if p.listens {
		p.conn.Arm(sock.PhaseRead, idle)
	} else {
		p.conn.Disarm()
	}
}

// listen says that a piece of the reply's body is waited for.
func (p *pump) listen(idle time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listens = true; !p.writing {
		p.rest(idle)
	}
}

// heard says that it is here, or will not be.
func (p *pump) heard() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listens = false; !p.writing {
		p.rest(0)
	}
}

// asked says that the upstream wants the body: from now on the client is waited for, unless that has sent already.
func (p *pump) asked() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.writing && !p.ended {
		p.conn.Disarm()
	}
}

// await starts the time that the upstream has for its reply or, if that has begun, for the next piece of it: nothing more is sent.
func (p *pump) await(plan *Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writing, p.ended = false, true; p.answered {
		p.rest(plan.Idle)
	} else {
		p.conn.Arm(sock.PhaseWrite, plan.Response)
	}
}

// settleTime is how long a reply waits for the rest of its request: an upstream that has read it all answers at the same
// moment at which we learn that it was sent, while one that answers early leaves a body that keeps coming.
const settleTime = 5 * time.Millisecond

// replied says that the reply's head is here, so that its time has stopped, and returns whether the whole body was sent.
func (p *pump) replied() bool {
	p.mu.Lock()
	p.answered = true
	p.mu.Unlock()
	if p.finished() {
		return true
	}
	t := time.NewTimer(settleTime)
	defer t.Stop()
	select {
	case <-p.done:
		return p.err == nil
	case <-t.C:
		return false
	}
}

// finished reports whether the whole body was written.
func (p *pump) finished() bool {
	select {
	case <-p.done:
		return p.err == nil
	default:
		return false
	}
}

// stop waits for the goroutine and returns why it ended. A body that still keeps coming is given up, and with it both
// connections.
func (p *pump) stop() error {
	select {
	case <-p.done:
		return p.err
	default:
	}
	p.mu.Lock()
	p.halted = true
	p.mu.Unlock()
	p.conn.Interrupt()
	p.client.Interrupt()
	<-p.done
	return p.err
}

func (p *pump) stopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.halted
}

// piecesOf returns a function that returns the next piece of a body, without a copy if the reader can do that. Else the buffer is
// what it reads into; a body that is silent should not hold one for nothing.
func piecesOf(r io.Reader) (next func() ([]byte, error), buf *[]byte) {
	if p, ok := r.(exchange.Piecewise); ok {
		return p.Next, nil
	}
	buf = sock.Get()
	return func() ([]byte, error) {
		n, err := r.Read(*buf)
		return (*buf)[:n], err
	}, buf
}

// writePiece writes one piece of a body, as a chunk if it is chunked.
func writePiece(c *sock.Conn, piece []byte, chunked bool, frame []byte) error {
	if !chunked {
		_, err := c.Write(piece)
		return err
	}
	if _, err := c.Write(appendChunkSize(frame, len(piece))); err != nil {
		return err
	}
	if _, err := c.Write(piece); err != nil {
		return err
	}
	_, err := c.Write(crlf)
	return err
}

var crlf = []byte("\r\n")

func appendChunkSize(b []byte, n int) []byte {
	const digits = "0123456789abcdef"
	shift := 0
	for n>>shift >= 16 {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		b = append(b, digits[n>>shift&15])
	}
	return append(b, "\r\n"...)
}
