package concurrency

import (
	"testing"

	"pgregory.net/rapid"
)

// model is what places should be: who runs and who waits, by key and in order.
type model struct {
	bounds  bounds
	running map[uint64]int32
	total   int32
	held    []place
	waiting []*waiter // in order of arrival
}

func (m *model) mayRun(key uint64) bool {
	return (m.bounds.limit == 0 || m.running[key] < m.bounds.limit) && (m.bounds.total == 0 || m.total < m.bounds.total)
}

func (m *model) took(key uint64) {
	m.running[key]++
	m.total++
	m.held = append(m.held, place{key, m.bounds.total > 0})
}

// settle moves those who were let in from waiting to running and checks that each was first of his key.
func (m *model) settle(t *rapid.T) {
	var rest []*waiter
	ahead := map[uint64]bool{}
	for _, w := range m.waiting {
		select {
		case <-w.granted:
			if ahead[w.queue.key] {
				t.Fatalf("a waiter of key %d was let in before one who came earlier", w.queue.key)
			}
			m.took(w.queue.key)
		default:
			ahead[w.queue.key] = true
			rest = append(rest, w)
		}
	}
	m.waiting = rest
	for key, n := range m.running {
		if m.bounds.limit > 0 && n > m.bounds.limit {
			t.Fatalf("%d of key %d run", n, key)
		}
	}
	if m.bounds.total > 0 && m.total > m.bounds.total {
		t.Fatalf("%d run together", m.total)
	}
	for _, w := range m.waiting {
		if m.mayRun(w.queue.key) {
			t.Fatalf("somebody of key %d waits although there is a place", w.queue.key)
		}
	}
}

func TestNobodyWaitsBesideAFreePlaceAndNobodyOvertakesHisOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := model{running: map[uint64]int32{}, bounds: bounds{
			limit: rapid.Int32Range(0, 3).Draw(t, "limit"), total: rapid.Int32Range(0, 4).Draw(t, "total"),
			queue: rapid.IntRange(1, 4).Draw(t, "queue"),
		}}
		if m.bounds.limit+m.bounds.total == 0 {
			m.bounds.total = 1
		}
		p := newPlaces()
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				key := rapid.Uint64Range(0, 3).Draw(t, "key") * shards // one line, several keys
				may := m.mayRun(key)
				if p.enter(key, &m.bounds) {
					if !may {
						t.Fatalf("key %d was let in beside %d of its own and %d in all", key, m.running[key], m.total)
					}
					m.took(key)
				} else if w, ok := p.join(key, &m.bounds); ok && w == nil {
					m.took(key)
				} else if ok {
					m.waiting = append(m.waiting, w)
				} else if may {
					t.Fatalf("key %d was refused although there is a place", key)
				}
			case 2:
				if len(m.held) > 0 {
					i := rapid.IntRange(0, len(m.held)-1).Draw(t, "which ends")
					h := m.held[i]
					m.held = append(m.held[:i:i], m.held[i+1:]...)
					m.running[h.key]--
					m.total--
					p.exit(h)
				}
			case 3:
				if len(m.waiting) > 0 {
					i := rapid.IntRange(0, len(m.waiting)-1).Draw(t, "which gives up")
					if p.leave(m.waiting[i]) {
						t.Fatal("a waiter who was not let in says that he was")
					}
					m.waiting = append(m.waiting[:i:i], m.waiting[i+1:]...)
				}
			}
			m.settle(t)
		}
		for len(m.held) > 0 {
			h := m.held[0]
			m.held, m.total = m.held[1:], m.total-1
			m.running[h.key]--
			p.exit(h)
			m.settle(t)
		}
		for i := range p.shards {
			if n := len(p.shards[i].running); n > 0 {
				t.Fatalf("%d keys are remembered when nothing runs", n)
			}
		}
		if len(p.common.queues)+len(p.lines[0].queues) > 0 || p.running.Load() != 0 {
			t.Fatal("something is left when nothing runs and nobody waits")
		}
	})
}
