package client

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/sock"
)

// push sends a piece of the body, waiting for windows and for room. end: it is the last one.
func (c *Call) push(p []byte, end bool) error {
	for first := true; first || len(p) > 0; first = false {
		n, err := c.afford(min(len(p), frameSize))
		if err != nil {
			return err
		}
		last := end && n == len(p)
		for !c.conn.out.data(c, p[:n], last) {
			if err := c.waitForRoom(); err != nil {
				return err
			}
		}
		p = p[n:]
		if last {
			c.sent()
		}
	}
	return nil
}

// pushTrailer sends the trailer section, which is the end.
func (c *Call) pushTrailer(h *exchange.Header) {
	o := &c.conn.out
	o.mu.Lock()
	if !o.ended {
		o.section(c.id, o.trailer(h), true)
		o.signal()
	}
	o.mu.Unlock()
	c.sent()
}

// sent notes that the end of the request is on its way.
func (c *Call) sent() {
	conn := c.conn
	conn.mu.Lock()
	c.out.ended = true
	done := c.in.active && c.in.ended
	if done {
		conn.drop(c)
	}
	conn.mu.Unlock()
	if done {
		conn.used.Store(true)
		conn.vacate()
	}
}

// affordAll takes the windows for the whole body at hand, if they are open that far. Nothing waits here.
func (c *Conn) affordAll(call *Call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int64(len(call.body))
	if call.out.err != nil || n > min(call.out.window, c.state.window) {
		return false
	}
	call.out.window -= n
	c.state.window -= n
	call.out.ended = true
	return true
}

// afford takes as much of the windows as there is, up to want, and waits when there is nothing.
func (c *Call) afford(want int) (int, error) {
	conn := c.conn
	conn.mu.Lock()
	defer conn.mu.Unlock()
	for {
		out := &c.out
		if out.err != nil {
			out.due = 0
			return 0, out.err
		}
		if n := min(int64(want), out.window, conn.state.window); n > 0 || want == 0 {
			out.window -= n
			conn.state.window -= n
			out.due, out.thirsty = 0, false
			out.steps++
			return int(n), nil
		}
		if conn.state.window <= 0 {
			conn.state.thirsty = append(conn.state.thirsty, c)
		}
		c.blocked()
	}
}

// blocked waits for news about sending, with the deadline for progress. The lock is held, and is not while it waits.
func (c *Call) blocked() {
	conn := c.conn
	if !c.in.tunnel {
		now := conn.now()
		c.out.due = now + int64(c.plan.Idle)
		conn.keep.expect(now, c.out.due)
	}
	conn.mu.Unlock()
	<-c.room
	conn.mu.Lock()
}

// waitForRoom waits until the connection's buffer has been written.
func (c *Call) waitForRoom() error {
	conn := c.conn
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if c.out.err == nil {
		c.blocked()
	}
	c.out.due = 0
	return c.out.err
}

// body writes a body that is at hand. The lock is held.
func (o *outbound) body(id uint32, p []byte, end bool) {
	for first := true; first || len(p) > 0; first = false {
		piece := p[:min(len(p), frameSize)]
		p = p[len(piece):]
		if len(piece) > 0 || end {
			_ = o.framer.WriteData(id, end && len(p) == 0, piece)
			o.spent++
		}
	}
}

// pump carries a request body that has not arrived yet to the target while the call waits for the reply, which may come
// before the body has. It is a goroutine of its own, and stays with the call when that moves to another connection.
type pump struct {
	call   *Call
	client exchange.Interrupter // unblocks a read of the client's body
	mu     sync.Mutex           // held while something is sent, and while the call moves
	moved  sync.Cond
	turn   int    // how often the call has moved
	halted bool   // nobody wants the body any more
	ended  bool   // all of it was sent
	kept   []byte // what was sent, to be sent again
	keeps  bool   // it was not too much, and nobody has answered yet
	tail   *exchange.Header

	answered atomic.Bool // what was sent is not sent again
	clock    clock.Clock
	began    time.Time
	last     atomic.Int64 // when something of the body has come last, in nanoseconds from then

	done         chan struct{}
	err          error // valid after done
	clientFailed bool  // the body could not be read, as opposed to sent
}

func startPump(x *exchange.Exchange, c *Call, body exchange.Body) *pump {
	p := &pump{call: c, client: x.Wire, keeps: true, tail: &x.Request.Trailer, done: make(chan struct{}), clock: c.conn.terms.Clock}
	p.began = p.clock.Now()
	p.moved.L = &p.mu
	if w, ok := x.Wire.(exchange.Patient); ok && ofMessages(x.Request.Header.Get("Content-Type")) {
		w.Unhurried(c.plan.Idle) // see there
	}
	go p.run(x, body)
	return p
}

func (p *pump) run(x *exchange.Exchange, body exchange.Body) {
	defer close(p.done)
	n, err := p.copy(body)
	x.Usage.RequestBytes += n
	if p.err = err; err != nil && p.clientFailed {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.call.giveUp(err) // no reply to wait for: the request will never be complete
	}
}

func (p *pump) copy(body exchange.Body) (sent int64, err error) {
	next, buf := piecesOf(body.Reader)
	if buf != nil {
		defer sock.Put(buf)
	}
	known, _ := body.Reader.(interface{ Done() bool })
	for first := true; ; first = false {
		piece, err := next()
		if first {
			p.relent()
		}
		after := sent + int64(len(piece))
		ended := errors.Is(err, io.EOF) || err == nil && known != nil && known.Done()
		if body.Length >= 0 && (after > body.Length || ended && after < body.Length) {
			p.clientFailed = true
			return sent, errShortBody
		}
		p.came()
		last := ended && p.tail.Len() == 0 // trailers are there by then
		if len(piece) > 0 {
			if err := p.push(piece, last); err != nil {
				return sent, err
			}
			sent = after
		}
		switch {
		case ended && last && len(piece) > 0:
			return sent, nil
		case ended:
			return sent, p.end()
		case err != nil:
			p.clientFailed = !p.stopped() // else it was we who ended the reading
			return sent, err
		}
	}
}

// relent is the call's, wherever that is now.
func (p *pump) relent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.call.relent()
}

// stopped reports whether nobody wants the body any more.
func (p *pump) stopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.halted
}

// push sends a piece, on another connection if the call has moved.
func (p *pump) push(piece []byte, last bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.retry(func() error {
		if err := p.call.push(piece, last); err != nil {
			return err
		}
		p.keep(piece)
		p.finish(last)
		return nil
	})
}

// came notes when something of the body has come last. It is not for who holds the lock, which may last.
func (p *pump) came() { p.last.Store(int64(p.clock.Now().Sub(p.began))) }

// upload returns how long after a time something of the body came last.
func (p *pump) upload(since time.Time) time.Duration {
	return max(time.Duration(p.last.Load())-since.Sub(p.began), 0)
}

// end sends what stands behind a body whose length was not known.
func (p *pump) end() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.retry(p.sendEnd)
}

func (p *pump) sendEnd() error {
	if p.tail.Len() == 0 {
		if err := p.call.push(nil, true); err != nil {
			return err
		}
	} else {
		p.call.pushTrailer(p.tail)
	}
	p.finish(true)
	return nil
}

func (p *pump) finish(last bool) {
	if last {
		p.ended = true
		p.call.await()
	}
}

// retry sends again after the call has moved, for as long as it does. The lock is held.
func (p *pump) retry(send func() error) error {
	for {
		turn := p.turn
		err := send()
		if !errors.Is(err, errRefused) || !p.keeps {
			return err
		}
		for p.turn == turn && !p.halted {
			p.moved.Wait()
		}
		if p.halted {
			return errCanceled
		}
	}
}

// keep remembers a piece, as long as all of them are not too much. The lock is held.
func (p *pump) keep(piece []byte) {
	switch {
	case !p.keeps:
	case p.answered.Load(), len(p.kept)+len(piece) > replayRoom:
		p.forget()
	default:
		p.kept = appendBuffer(p.kept, piece)
	}
}

func (p *pump) forget() {
	putBuffer(p.kept)
	p.kept, p.keeps = nil, false
}

// repeatable reports whether everything that was sent is at hand.
func (p *pump) repeatable() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keeps && !p.halted
}

// resume sends everything again, the call having begun anew, and lets the pump go on. The lock is held.
func (p *pump) resume() error {
	p.turn++
	p.moved.Broadcast()
	if len(p.kept) > 0 {
		if err := p.call.push(p.kept, false); err != nil {
			return p.call.unless(err)
		}
	}
	if p.ended {
		return p.call.unless(p.sendEnd())
	}
	return nil
}

// replied says that the reply's head is here and returns whether the whole body was sent, which a client that speaks
// HTTP/1.1 is given a moment for.
func (p *pump) replied(x *exchange.Exchange) bool {
	p.answered.Store(true)
	if p.finished() || x.Request.Proto != "HTTP/1.1" {
		return p.finished()
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

// finished reports whether the whole body was sent.
func (p *pump) finished() bool {
	select {
	case <-p.done:
		return p.err == nil
	default:
		return false
	}
}

// stop waits for the goroutine and returns why it ended. A body that still keeps coming is given up.
func (p *pump) stop() error {
	select {
	case <-p.done:
	default:
		p.call.Interrupt()
		p.mu.Lock()
		p.halted = true
		p.moved.Broadcast()
		p.mu.Unlock()
		p.client.Interrupt()
		<-p.done
	}
	p.forget()
	return p.err
}
