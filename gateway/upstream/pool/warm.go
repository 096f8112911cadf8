package pool

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"headgate/gateway/wire/h1"
)

// warmth is how connections are opened ahead to a target (preconnect).
type warmth struct {
	asked    atomic.Uint64 // what was asked of the target at the last look, see demand
	failures atomic.Int64  // in a row
	after    atomic.Int64  // when it may be tried again, on the coarse clock
}

const (
	// firstPause and lastPause bound the wait after a connection could not be opened ahead: nobody waits for it, and a target
	// that is starting must not be flooded by those who would only like to be first.
	firstPause = time.Second
	lastPause  = time.Minute
)

// crew is what runs beside requests. It takes no work after stop.
type crew struct {
	mu      sync.Mutex
	runs    sync.WaitGroup
	busy    bool // connections are being opened ahead
	ctx     context.Context
	cancel  context.CancelFunc
	stopped bool
}

// run starts f unless the crew has stopped. The context ends with the crew.
func (c *crew) run(f func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	if c.ctx == nil {
		c.ctx, c.cancel = context.WithCancel(context.Background())
	}
	ctx := c.ctx
	c.runs.Go(func() { f(ctx) })
}

// stop ends what runs and waits for it.
func (c *crew) stop() {
	c.mu.Lock()
	c.stopped = true
	if c.cancel != nil {
		c.cancel()
	}
	c.mu.Unlock()
	c.runs.Wait()
}

// begin reports whether nobody else opens connections ahead; who began calls end.
func (c *crew) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ok := !c.busy && !c.stopped
	c.busy = c.busy || ok
	return ok
}

func (c *crew) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
}

// preconnect opens connections ahead, beside the request that has just found none, or after the last look has shown that the
// target is asked and has too few.
func (p *Pool) preconnect() {
	if p.ahead() && p.lacks() && p.crew.begin() {
		p.crew.run(p.fill)
	}
}

// ahead reports whether connections may be opened ahead: never to a target that takes no requests or has just refused, and
// never ones that name a client, or that are not kept, and none while others have to make room.
func (p *Pool) ahead() bool {
	s := &p.group.settings
	return s.Pool.Preconnect > 0 && !s.proxied() && !p.end.Raw && !p.group.idle.tight.Load() &&
		int64(s.Sweeper.Coarse()) >= p.record.warm.after.Load() && p.record.ready()
}

// lacks reports whether the target has fewer idle connections, or over HTTP/2 fewer free places, than are wanted.
func (p *Pool) lacks() bool {
	s := &p.group.settings
	want := s.Pool.Preconnect
	if m := p.mux; m != nil && m.spoken.Load() != spokenH1 {
		return m.lacks(want)
	}
	return p.idle.len() < min(want, s.Pool.IdlePerTarget, s.Pool.IdleTotal)
}

// fill opens connections until there are enough, or one cannot be opened. More than are wanted it never opens, whatever
// becomes of them meanwhile.
func (p *Pool) fill(ctx context.Context) {
	defer p.crew.end()
	for range p.group.settings.Pool.Preconnect {
		if ctx.Err() != nil || !p.ahead() || !p.lacks() {
			return
		}
		if err := p.open1(ctx); err != nil {
			if ctx.Err() == nil {
				p.pause()
			}
			return
		}
		p.record.warm.failures.Store(0)
		p.record.ahead.Add(1)
	}
}

// open1 opens one connection ahead.
func (p *Pool) open1(ctx context.Context) error {
	if m := p.mux; m != nil && p.version == H2 {
		return m.connect(ctx)
	}
	o, err := p.open(ctx, nil, p.tls, pooled)
	if err != nil {
		return err
	}
	if p.mux != nil && o.ALPN == ALPNH2 {
		return p.mux.adopt(ctx, o.Conn, true)
	}
	if p.mux != nil {
		p.mux.spoken.Store(spokenH1)
	}
	p.keep(uint32(p.record.ahead.Load()), p.h1(o))
	return nil
}

// pause waits longer after each failure in a row, give or take a half.
func (p *Pool) pause() {
	w, s := &p.record.warm, &p.group.settings
	n := min(w.failures.Add(1), 10)
	d := min(firstPause<<(n-1), lastPause)
	w.after.Store(int64(s.Sweeper.Coarse() + time.Duration(float64(d)*(0.5+s.Random()))))
}

// keep makes a connection idle.
func (p *Pool) keep(shard uint32, c *h1.Conn) {
	c.Idle = p.group.settings.Sweeper.Coarse()
	p.idle.put(shard, c)
}
