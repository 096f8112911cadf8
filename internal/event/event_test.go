package event

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEverySubscriberGetsEveryEventInOrderOfItsShard(t *testing.T) {
	var log Log
	a, b := subscribe(t, &log, 64), subscribe(t, &log, 64)
	for i := range 8 {
		log.Publish(3, &Event{Status: uint16(200 + i)})
	}
	for _, s := range []*Subscription{a, b} {
		batch := make([]Event, 10)
		n := s.Drain(batch)
		if n != 8 {
			t.Fatalf("drained %d events, want 8", n)
		}
		for i, e := range batch[:n] {
			if e.Status != uint16(200+i) {
				t.Errorf("event %d has status %d", i, e.Status)
			}
		}
	}
}

func TestAFullQueueDropsAndCountsAndKeepsTheOldest(t *testing.T) {
	var log Log
	s := subscribe(t, &log, 8) // one for each shard
	for i := range 5 {
		log.Publish(1, &Event{Status: uint16(i)})
	}
	log.Publish(2, &Event{Status: 9})
	batch := make([]Event, 10)
	if n := s.Drain(batch); n != 2 || batch[0].Status != 0 || batch[1].Status != 9 {
		t.Errorf("drained %v", batch[:n])
	}
	if log.Dropped() != 4 {
		t.Errorf("dropped %d, want 4", log.Dropped())
	}
	s.Close()
	s.Close()
	if log.Dropped() != 4 {
		t.Errorf("after closing: dropped %d, want 4", log.Dropped())
	}
}

func TestAClosedSubscriptionGetsNothingMore(t *testing.T) {
	var log Log
	a, b := subscribe(t, &log, 8), subscribe(t, &log, 8)
	a.Close()
	log.Publish(0, &Event{})
	if n := a.Drain(make([]Event, 1)); n != 0 {
		t.Error("a closed subscription got an event")
	}
	if n := b.Drain(make([]Event, 1)); n != 1 {
		t.Error("closing one subscription cut off the other")
	}
	b.Close()
	if log.Active() {
		t.Error("the log is active without a subscriber")
	}
}

func TestSubscribeRefusesWhatWouldCostTooMuch(t *testing.T) {
	var log Log
	for _, capacity := range []int{-1, 0, maxCapacity + 1} {
		if _, err := log.Subscribe(capacity); err == nil {
			t.Errorf("capacity %d was accepted", capacity)
		}
	}
	for range maxSubscribers {
		subscribe(t, &log, 1)
	}
	if _, err := log.Subscribe(1); err == nil {
		t.Error("a ninth subscriber was accepted")
	}
}

func TestNextWaitsForAnEventOrTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log Log
		s := subscribe(t, &log, 800)
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan int)
		go func() {
			batch := make([]Event, 4)
			for {
				n, err := s.Next(ctx, batch)
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					close(got)
					return
				}
				got <- n
			}
		}()
		synctest.Wait()
		log.Publish(0, &Event{})
		if n := <-got; n != 1 { // after pollEvery
			t.Errorf("got %d events", n)
		}
		for range 51 { // more than half of a ring of 100 wakes the reader at once
			log.Publish(0, &Event{})
		}
		if n := <-got; n != 4 {
			t.Errorf("got %d events, want a full batch of 4", n)
		}
		cancel()
		for range got {
		}
	})
}

func TestAQueueIsAFifoWithABound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(1, 5).Draw(t, "capacity")
		q := NewQueue[int](capacity * queueShards)
		var want []int
		for i := range rapid.IntRange(0, 200).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "put") {
				if ok := q.Put(7, &i); ok != (len(want) < capacity) {
					t.Fatalf("Put returned %v with %d of %d used", ok, len(want), capacity)
				} else if ok {
					want = append(want, i)
				}
				continue
			}
			batch := make([]int, rapid.IntRange(0, 4).Draw(t, "batch"))
			n := q.Drain(batch)
			if n != min(len(batch), len(want)) || !slices.Equal(batch[:n], want[:n]) {
				t.Fatalf("drained %v of %v", batch[:n], want)
			}
			want = want[n:]
		}
	})
}

func TestNothingIsLostOrDoubledUnderConcurrentWriters(t *testing.T) {
	const writers, each = 8, 2000
	q := NewQueue[int](1024)
	accepted, got := make([]int, writers), 0
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if q.Put(uint32(w%3), &i) {
					accepted[w]++
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	batch := make([]int, 100)
	for {
		select {
		case <-done:
			for n := q.Drain(batch); n > 0; n = q.Drain(batch) {
				got += n
			}
			sum := 0
			for _, a := range accepted {
				sum += a
			}
			if got != sum || sum+int(q.Dropped()) != writers*each {
				t.Errorf("drained %d, accepted %d, dropped %d of %d", got, sum, q.Dropped(), writers*each)
			}
			return
		default:
			got += q.Drain(batch)
		}
	}
}

func TestPublishDoesNotAllocate(t *testing.T) {
	var log Log
	publish := func() { log.Publish(1, &Event{ID: "x", Status: 200}) }
	if n := testing.AllocsPerRun(100, publish); n != 0 {
		t.Errorf("%v allocations without a subscriber", n)
	}
	subscribe(t, &log, 8000)
	if n := testing.AllocsPerRun(100, publish); n != 0 {
		t.Errorf("%v allocations with a subscriber", n)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, subscribers := range []int{0, 1} {
		b.Run(map[int]string{0: "nobody", 1: "one"}[subscribers], func(b *testing.B) {
			var log Log
			batch := make([]Event, 1024)
			e, i := Event{ID: "x", Status: 200}, 0
			for range subscribers {
				s, err := log.Subscribe(1 << 13)
				if err != nil {
					b.Fatal(err)
				}
				defer s.Drain(batch)
			}
			for b.Loop() {
				log.Publish(0, &e)
				if i++; i%512 == 0 && subscribers > 0 {
					(*log.subscribers.Load())[0].Drain(batch)
				}
			}
		})
	}
}

func subscribe(t *testing.T, log *Log, capacity int) *Subscription {
	t.Helper()
	s, err := log.Subscribe(capacity)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
