package h2

import (
	"io"
	"sync"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// smallChunk is what a short body is kept in.
const smallChunk = 4 << 10

var smallChunks = sync.Pool{New: func() any { b := make([]byte, 0, smallChunk); return &b }}

// body is a request's body on its way from the connection, whose reader appends, to the exchange, which pulls. What it
// holds is bounded by the window, of which nothing is given back before it has been taken.
type body struct {
	s           *stream
	chunks      []*[]byte // what has come and was not taken, the first from off
	off         int
	held        *[]byte // what was handed out last
	buffered    int64
	declared    int64 // Content-Length; -1: none
	got         int64
	max         int64 // 0: any
	room        int64 // of the window
	owed        int64 // to the window
	ended       bool  // all of it has come
	interrupted bool
	err         error // io.EOF once it was taken whole
	canRead     chan struct{}
	trailer     exchange.Header
	pace        pace
}

// begin prepares for a body. The stream is not known to anybody else yet.
func (b *body) begin(declared int64, asks bool) {
	l, sweeper := b.s.c.server.Limits.Load(), b.s.c.server.Sweeper
	b.declared, b.max, b.room = declared, l.Body, streamWindow
	b.pace.begin(sweeper.Coarse(), l.BodyTime, l.MinBodyRate, asks)
}

func (b *body) recycle() {
	b.release()
	for i, chunk := range b.chunks {
		putChunk(chunk)
		b.chunks[i] = nil
	}
	select {
	case <-b.canRead:
	default:
	}
	b.trailer.Reset("")
	*b = body{s: b.s, chunks: b.chunks[:0], canRead: b.canRead, trailer: b.trailer, pace: pace{timer: b.pace.timer}}
}

func putChunk(chunk *[]byte) {
	if cap(*chunk) == smallChunk {
		*chunk = (*chunk)[:0]
		smallChunks.Put(chunk)
		return
	}
	sock.Put(chunk)
}

func (b *body) release() {
	if b.held != nil {
		putChunk(b.held)
		b.held = nil
	}
}

func (b *body) wake() {
	select {
	case b.canRead <- struct{}{}:
	default:
	}
}

// add keeps what has come.
func (b *body) add(p []byte) {
	b.buffered += int64(len(p))
	for len(p) > 0 {
		var last *[]byte
		if n := len(b.chunks); n > 0 && len(*b.chunks[n-1]) < cap(*b.chunks[n-1]) {
			last = b.chunks[n-1]
		} else {
			last = b.chunk(len(p))
			b.chunks = append(b.chunks, last)
		}
		n := min(len(p), cap(*last)-len(*last))
		*last = append(*last, p[:n]...)
		p = p[n:]
	}
}

func (b *body) chunk(n int) *[]byte {
	if n <= smallChunk && len(b.chunks) == 0 && b.declared <= smallChunk {
		return smallChunks.Get().(*[]byte)
	}
	chunk := sock.Get()
	*chunk = (*chunk)[:0]
	return chunk
}

// Next implements exchange.Piecewise.
func (b *body) Next() ([]byte, error) {
	c := b.s.c
	c.mu.Lock()
	b.release()
	if err := b.await(); err != nil {
		c.mu.Unlock()
		return nil, err
	}
	b.held = b.chunks[0]
	piece := (*b.held)[b.off:]
	b.shift()
	b.taken(len(piece))
	return piece, nil
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	c := b.s.c
	c.mu.Lock()
	if err := b.await(); err != nil {
		c.mu.Unlock()
		return 0, err
	}
	n := copy(p, (*b.chunks[0])[b.off:])
	if b.off += n; b.off == len(*b.chunks[0]) {
		putChunk(b.chunks[0])
		b.shift()
	}
	b.taken(n)
	return n, nil
}

func (b *body) shift() {
	b.off = 0
	last := len(b.chunks) - 1
	copy(b.chunks, b.chunks[1:])
	b.chunks[last] = nil
	b.chunks = b.chunks[:last]
}

// taken gives the window back what was taken, and the lock.
func (b *body) taken(n int) {
	c := b.s.c
	b.buffered -= int64(n)
	c.consumed(int64(n))
	b.give(int64(n))
	due := c.duty()
	c.mu.Unlock()
	if due {
		c.push(false)
	}
}

// give gives the stream's window back what was taken, in large steps, unless all that is still to come fits into it.
func (b *body) give(n int64) {
	b.owed += n
	s := b.s
	if b.owed < streamWindow/4 || s.remote || s.reset || s.c.dead || b.err != nil {
		return
	}
	if b.declared >= 0 && b.declared-b.got <= b.room {
		return
	}
	s.c.out.windowUpdate(s.id, b.owed)
	b.room += b.owed
	b.owed = 0
}

// consumed gives the connection's window back what was taken or thrown away.
func (c *conn) consumed(n int64) {
	c.peer.owed += n
	if c.peer.owed >= connWindow/4 && !c.dead {
		c.out.windowUpdate(0, c.peer.owed)
		c.peer.room += c.peer.owed
		c.peer.owed = 0
	}
}

// await returns when there is something to take, or never will be. The lock is held, but not while it waits.
func (b *body) await() error {
	for b.buffered == 0 {
		if err := b.state(); err != nil {
			return err
		}
		switch {
		case b.wait() || b.buffered > 0 || b.state() != nil:
		case b.s.c.peer.room <= 0: // other streams hold the connection's window: it is not the client's doing
			b.pace.began = b.pace.seen
		default:
			b.err = errSlowBody()
		}
	}
	if b.interrupted || b.s.reset {
		return b.gone()
	}
	if b.err != nil {
		return b.err
	}
	return nil
}

// state says why nothing more comes.
func (b *body) state() error {
	switch {
	case b.err != nil:
	case b.interrupted, b.s.reset, b.s.c.dead && !b.ended:
		return b.gone()
	case b.ended:
		b.err = io.EOF
		b.s.x.Request.Trailer.CopyFrom(&b.trailer)
	}
	return b.err
}

func (b *body) gone() error {
	if b.err == nil {
		b.err = errGone()
	}
	return b.err
}

// wait waits for news. It reports whether there were any in time.
func (b *body) wait() (news bool) {
	c := b.s.c
	patience := b.pace.patience(c.server.Sweeper.Coarse(), b.got)
	idle, rate := b.pace.idle, b.pace.rate
	c.mu.Unlock()
	news = b.pace.wait(b.canRead, patience)
	c.mu.Lock()
	news = news || idle != b.pace.idle || rate != b.pace.rate // what was waited for does not matter any more
	if !b.pace.met(c.server.Sweeper.Coarse(), b.got) && b.buffered == 0 && !b.ended {
		return false
	}
	return news
}

// Unhurried implements exchange.Patient.
func (s *stream) Unhurried(idle time.Duration) { s.body.relax(idle) }

// relax holds the body to no least rate any more, and to another time without a byte; 0: to none.
func (b *body) relax(idle time.Duration) {
	c := b.s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	b.pace.idle, b.pace.rate = idle, 0
	b.wake() // who waits has reckoned with what held
}

// converse makes the body one side of a conversation: the reply has begun, and how long each side is silent is theirs to say,
// and timeouts.idle of the upstream.
func (b *body) converse() { b.relax(0) }

// Len returns the length of a body that has come whole, and 0 of one that has not.
func (b *body) Len() int {
	b.s.c.mu.Lock()
	defer b.s.c.mu.Unlock()
	if !b.ended || b.err != nil {
		return 0
	}
	return int(b.buffered)
}

// Ready reports whether the next read returns without waiting for the client.
func (b *body) Ready() bool {
	b.s.c.mu.Lock()
	defer b.s.c.mu.Unlock()
	return b.buffered > 0 || b.ended || b.err != nil
}

// pace is how fast a body has to come. Only the time counts in which it is waited for: whoever is not read from cannot send.
type pace struct {
	idle  time.Duration // without a byte; 0: any
	rate  int64         // bytes per second after rateGrace; 0: any
	began time.Duration // on the coarse clock, moved on while nobody waits
	seen  time.Duration // when waiting ended last
	asks  bool          // the first byte only comes after 100 (Continue), which is not the client's to hurry
	timer *time.Timer
}

func (p *pace) begin(now, idle time.Duration, rate int64, asks bool) {
	p.idle, p.rate, p.began, p.seen, p.asks = idle, rate, now, now, asks
}

// patience returns how long the next byte may take: until there was no progress for too long, or until the body is slower
// than the least rate, whichever comes first. 0: for ever.
func (p *pace) patience(now time.Duration, got int64) time.Duration {
	p.began += now - p.seen
	p.seen = now
	if p.rate == 0 || p.asks {
		return p.idle
	}
	due := max(rateGrace, time.Duration(float64(got)/float64(p.rate)*float64(time.Second))) - (now - p.began)
	if p.idle > 0 && due >= p.idle {
		return p.idle
	}
	return max(due, time.Millisecond)
}

// wait waits for news, for at most d. It reports whether there were any.
func (p *pace) wait(news <-chan struct{}, d time.Duration) bool {
	if d == 0 {
		<-news
		return true
	}
	if p.timer == nil {
		p.timer = time.NewTimer(d)
	} else {
		p.timer.Reset(d)
	}
	defer p.timer.Stop()
	select {
	case <-news:
		return true
	case <-p.timer.C:
		return false
	}
}

// met reports, after a wait, whether the body comes fast enough.
func (p *pace) met(now time.Duration, got int64) bool {
	p.seen = now
	if p.asks && got > 0 {
		p.asks, p.began = false, now
	}
	if p.rate == 0 || p.asks {
		return true
	}
	elapsed := now - p.began
	return elapsed <= rateGrace || got >= int64(elapsed.Seconds()*float64(p.rate))
}

var (
	_ exchange.Piecewise = (*body)(nil)
	_ exchange.Patient   = (*stream)(nil)
)
