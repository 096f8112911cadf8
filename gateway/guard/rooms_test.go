package guard

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestPlacesAreSharedOutToTheLimitAndNotBeyond(t *testing.T) {
	r := newRooms()
	const limit = 5
	r.setLimit(limit)
	var inside, most, visits atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for visits.Add(1) <= 20_000 {
				for !r.Enter() {
					changed := r.Changed()
					if !r.Full() {
						continue
					}
					select {
					case <-changed:
					case <-time.After(20 * time.Second):
						t.Error("nobody was told that there is a place")
						return
					}
				}
				n := inside.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				inside.Add(-1)
				r.Leave()
			}
		})
	}
	all.Wait()
	if m := most.Load(); m > limit || r.open.Load() != 0 {
		t.Errorf("%d were inside at one time, %d are left", m, r.open.Load())
	}
}

func TestWhoWaitsHearsOfEveryChange(t *testing.T) {
	r := newRooms()
	r.setLimit(1)
	for _, c := range []struct {
		name          string
		close, reopen func()
	}{
		{"a place given back", func() { r.Enter() }, r.Leave},
		{"a higher limit", func() { r.Enter() }, func() { r.setLimit(2) }},
		{"doors that open again", func() { r.shut(true) }, func() { r.shut(false) }},
		{"no limit any more", func() { r.setLimit(1) }, func() { r.setLimit(0) }},
	} {
		c.close()
		changed := r.Changed()
		if !r.Full() || r.Enter() {
			t.Fatalf("%s: there is a place", c.name)
		}
		c.reopen()
		select {
		case <-changed:
		default:
			t.Errorf("%s: nobody was told", c.name)
		}
		if r.Full() {
			t.Errorf("%s: still full", c.name)
		}
	}
}
