package tunnel

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"headgate/internal/metric"
)

// registryShards spreads the tunnels that are open, so that opening and closing one waits for few others.
const registryShards = 16

// Registry knows the tunnels that are open, and counts them by route.
type Registry struct {
	shards [registryShards]registryShard
	turn   atomic.Uint32

	mu     sync.Mutex
	groups map[groupKey]*Group
}

type registryShard struct {
	mu   sync.Mutex
	head tunnel // of a ring
	open int
	_    [24]byte
}

// NewRegistry returns a registry without a tunnel, which shows its numbers to metrics.
func NewRegistry(m *metric.Registry) *Registry {
	r := &Registry{groups: map[groupKey]*Group{}}
	for i := range r.shards {
		s := &r.shards[i]
		s.head.prev, s.head.next = &s.head, &s.head
	}
	m.Collect("tunnels", r.collect)
	return r
}

// Len returns how many tunnels are open.
func (r *Registry) Len() (n int) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		n += s.open
		s.mu.Unlock()
	}
	return n
}

func (r *Registry) add(t *tunnel) {
	if r == nil {
		return
	}
	t.shard = &r.shards[r.turn.Add(1)%registryShards]
	s := t.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	t.prev, t.next = s.head.prev, &s.head
	t.prev.next, t.next.prev = t, t
	s.open++
}

func (r *Registry) remove(t *tunnel) {
	if r == nil {
		return
	}
	s := t.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	t.prev.next, t.next.prev = t.next, t.prev
	s.open--
}

// all returns the tunnels that are open now.
func (r *Registry) all() (list []*tunnel) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for t := s.head.next; t != &s.head; t = t.next {
			list = append(list, t)
		}
		s.mu.Unlock()
	}
	return list
}

// farewells is how many tunnels are said goodbye to at one time: a peer that reads nothing holds up one of them.
const farewells = 64

// Farewell ends every open tunnel: a WebSocket between two frames with a close frame to both sides (1001, going away),
// which then have until ctx is done to close; all others at once. It returns when all have ended, or ctx is done and what
// was left has been cut off.
func (r *Registry) Farewell(ctx context.Context) {
	list := make(chan *tunnel)
	var workers sync.WaitGroup
	for range farewells {
		workers.Go(func() {
			for t := range list {
				t.farewell(ctx)
			}
		})
	}
	for _, t := range r.all() {
		list <- t
	}
	close(list)
	workers.Wait()
	for r.Len() > 0 && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(farewellLook):
		}
	}
	for _, t := range r.all() {
		t.stop(Drained, nil)
	}
}

const (
	// farewellLook is how often is looked whether the last tunnel has ended.
	farewellLook = 10 * time.Millisecond
	// frameTime is the longest that a close frame may take to be written.
	frameTime = 250 * time.Millisecond
)

// farewell says goodbye to both sides, or ends the tunnel where that cannot be done.
func (t *tunnel) farewell(ctx context.Context) {
	if !t.options.WebSocket || ctx.Err() != nil || !t.leave() {
		t.stop(Drained, nil)
		return
	}
	late := time.AfterFunc(frameTime, func() { t.stop(Drained, nil) })
	defer late.Stop()
	if !t.goodbye() {
		t.stop(Drained, nil)
	}
}

// leave makes the drain the reason of the end, unless there is one already and its end is on its way.
func (t *tunnel) leave() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.finished || t.stopped || t.ended != Open {
		return false
	}
	t.ended = Drained
	return true
}

// goodbye writes a close frame to each side that has not been told goodbye by the other one, after which nothing else is
// written: an answer that is quick must not be taken for one more frame to pass on. It returns false where it cannot,
// inside a frame.
func (t *tunnel) goodbye() bool {
	whole := true
	t.down.mu.Lock()
	defer t.down.mu.Unlock()
	t.up.mu.Lock()
	defer t.up.mu.Unlock()
	for _, f := range [...]*flow{&t.down, &t.up} {
		switch {
		case f.muted || f.frames.closed:
		case !f.frames.between():
			whole = false
		default:
			f.muted = true
			_, err := f.to.Write(closeFrame(goingAway, f == &t.up))
			whole = whole && err == nil
		}
	}
	return whole
}
