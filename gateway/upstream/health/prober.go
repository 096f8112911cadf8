package health

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

const (
	// maxProbes bounds the probes of an upstream that run at one time: thousands of targets that do not answer must not take
	// as many sockets.
	maxProbes = 256
	// firstApart is how far apart the first probes of several targets are in the mean, as long as all of them begin within
	// an interval.
	firstApart = 10 * time.Millisecond
	// grains is how many times in an interval the prober wakes at most; what is due in between waits for the next time.
	grains   = 50
	minGrain = time.Millisecond
	maxGrain = 100 * time.Millisecond
)

// prober asks all targets of a group in their time: one goroutine that wakes when the next one is due, and one for each probe
// that runs.
type prober struct {
	group *Group
	grain time.Duration
	room  chan struct{} // a place for each probe that runs
	kick  chan struct{} // something is due earlier

	mu    sync.Mutex
	watch map[*Watch]struct{}
	queue queue
	stops context.CancelFunc // nil: it does not run
	ended chan struct{}
	base  time.Time
	moved time.Duration // the latest time that was seen
}

func (p *prober) init(g *Group) {
	p.group, p.watch = g, map[*Watch]struct{}{}
	p.kick, p.room, p.base = make(chan struct{}, 1), make(chan struct{}, maxProbes), g.env.Clock.Now()
	if g.probe != nil {
		p.grain = min(max(g.probe.Interval/grains, minGrain), maxGrain)
	}
}

// now is time that only moves forward, also when the machine's clock is set. It is called with the lock held.
func (p *prober) now() time.Duration {
	p.moved = max(p.moved, p.group.env.Clock.Now().Sub(p.base))
	return p.moved
}

func (p *prober) add(w *Watch) {
	p.mu.Lock()
	p.watch[w] = struct{}{}
	if p.stops != nil {
		p.first(w)
	}
	p.mu.Unlock()
	p.wake()
}

// first gives a target its first turn: somewhere in the time that all have for it. It is called with the lock held.
func (p *prober) first(w *Watch) {
	within := min(p.group.probe.Interval, time.Duration(len(p.watch))*firstApart)
	w.due = p.now() + time.Duration(unit(p.group.env.Random())*float64(within))
	heap.Push(&p.queue, w)
}

func (p *prober) wake() {
	select {
	case p.kick <- struct{}{}:
	default: // it is about to look
	}
}

// remove ends the probes of a target and waits for the one that runs.
func (p *prober) remove(w *Watch) {
	p.mu.Lock()
	w.over = true
	delete(p.watch, w)
	if w.place >= 0 {
		heap.Remove(&p.queue, w.place)
	}
	ended := w.ended
	if ended != nil {
		w.cancel()
	}
	p.mu.Unlock()
	if ended != nil {
		<-ended
	}
	w.close()
}

// start begins to probe, unless that has begun.
func (p *prober) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stops != nil || p.group.probe == nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stops, p.ended = stop, make(chan struct{})
	p.queue = nil
	for w := range p.watch {
		p.first(w)
	}
	go func() {
		defer close(p.ended)
		p.run(ctx)
	}()
}

// cancel ends the probes without waiting for them.
func (p *prober) cancel() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stops != nil {
		p.stops()
	}
}

// stop ends the probes and waits for them. They can be started again.
func (p *prober) stop() {
	p.cancel()
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	if ended == nil {
		return
	}
	<-ended
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stops, p.ended = nil, nil
}

// run wakes whenever somebody is due, until ctx is done and no probe runs any more.
func (p *prober) run(ctx context.Context) {
	var probes sync.WaitGroup
	defer probes.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.kick:
		}
		for {
			select {
			case p.room <- struct{}{}:
			case <-ctx.Done():
				return
			}
			w, probe := p.next(ctx)
			if w == nil {
				<-p.room
				break
			}
			probes.Go(func() {
				p.done(w, w.once(probe))
				<-p.room
			})
		}
		timer.Reset(p.pause())
	}
}

// next takes a target that is due; nil: there is none.
func (p *prober) next(ctx context.Context) (*Watch, context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 || p.queue[0].due > p.now() {
		return nil, nil
	}
	w := heap.Pop(&p.queue).(*Watch)
	ctx, w.cancel = context.WithCancel(ctx)
	w.ended = make(chan struct{})
	return w, ctx
}

// done puts a target back that was asked, and wakes the prober if it is the next one.
func (p *prober) done(w *Watch, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.cancel()
	close(w.ended)
	w.ended = nil
	if w.over || p.group.retired.Load() {
		return
	}
	w.due = max(w.due+pause, p.now())
	if heap.Push(&p.queue, w); w.place == 0 {
		p.wake()
	}
}

// idle is how long the prober sleeps when nobody is due.
const idle = time.Hour

// pause is how long nobody is due, in whole grains.
func (p *prober) pause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return idle
	}
	return max(0, p.queue[0].due-p.now())/p.grain*p.grain + p.grain
}

// queue is a heap of targets, the one that is due first on top.
type queue []*Watch

// Len implements heap.Interface.
func (q queue) Len() int { return len(q) }

// Less implements heap.Interface.
func (q queue) Less(i, j int) bool { return q[i].due < q[j].due }

// Swap implements heap.Interface.
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(w any) {
	w.(*Watch).place = len(*q)
	*q = append(*q, w.(*Watch))
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	w := (*q)[last]
	(*q)[last] = nil
	*q, w.place = (*q)[:last], -1
	return w
}
