// Package event carries what happened from the data plane, which writes, to the management plane, which reads: one usage
// event for each exchange, through bounded memory, at the price of one copy.
package event

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Event is one exchange as usage: who asked for what, when, how much it was and how it ended.
type Event struct {
	ID       string // correlation id
	Consumer string // "" when nobody was identified

	API, Version, Route, Upstream string // "" for an exchange that no route matched

	Start    time.Time     // when the request's head was complete
	Duration time.Duration // until the reply had ended

	RequestBytes, ReplyBytes int64 // body bytes as they crossed the client's wire

	Status  uint16 // of the reply; 0: there was none
	Source  Source // whose doing the reply is
	Cached  bool
	Aborted bool   // the client did not get a whole reply
	Code    string // problem code when the gateway answered by itself or broke off
}

// Source says whose doing a reply is. The values are those of exchange.Source.
type Source uint8

// The sources.
const (
	FromGateway Source = iota
	FromClient
	FromUpstream
)

// maxSubscribers bounds what one exchange can cost in copies of its event.
const maxSubscribers = 8

// maxCapacity bounds the memory of one subscription: 2^20 events are about 200 MiB.
const maxCapacity = 1 << 20

// Log hands events to whoever subscribed. With no subscriber publishing costs one atomic load and no memory is held.
// The zero value is ready; it is safe for concurrent use.
type Log struct {
	subscribers atomic.Pointer[[]*Subscription]
	mu          sync.Mutex    // held to change subscribers
	dropped     atomic.Uint64 // by subscriptions that were closed
}

// Subscription is one reader's bounded queue of events. One goroutine reads it.
type Subscription struct {
	Queue[Event]
	log *Log
}

// Active reports whether anybody would read an event; asking first saves making it.
func (l *Log) Active() bool { return l.subscribers.Load() != nil }

// Publish copies the event to every subscriber that has room for it. It never waits and never allocates. The shard is
// that of the exchange.
func (l *Log) Publish(shard uint32, e *Event) {
	subscribers := l.subscribers.Load()
	if subscribers == nil {
		return
	}
	for _, s := range *subscribers {
		s.Put(shard, e)
	}
}

// Subscribe returns a queue that gets every event from now on, with room for capacity events (1 to 2^20); beyond it events are
// dropped and counted. Close it to stop.
func (l *Log) Subscribe(capacity int) (*Subscription, error) {
	if capacity < 1 || capacity > maxCapacity {
		return nil, errors.New("event: a subscription holds between 1 and 1048576 events")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*Subscription
	if old := l.subscribers.Load(); old != nil {
		all = slices.Clone(*old)
	}
	if len(all) == maxSubscribers {
		return nil, errors.New("event: there are 8 subscribers already; close one first")
	}
	s := &Subscription{log: l}
	s.init(capacity)
	all = append(all, s)
	l.subscribers.Store(&all)
	return s, nil
}

// Close ends the subscription. What is still in it can be drained.
func (s *Subscription) Close() {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.subscribers.Load()
	if old == nil || !slices.Contains(*old, s) {
		return
	}
	l.dropped.Add(s.Dropped())
	rest := slices.DeleteFunc(slices.Clone(*old), func(o *Subscription) bool { return o == s })
	if len(rest) == 0 {
		l.subscribers.Store(nil)
		return
	}
	l.subscribers.Store(&rest)
}

// Dropped returns how many copies of events found their subscriber's queue full, since the log was made.
func (l *Log) Dropped() uint64 {
	l.mu.Lock() // so that a subscription is not counted twice, or not at all, while it closes
	defer l.mu.Unlock()
	sum := l.dropped.Load()
	if subscribers := l.subscribers.Load(); subscribers != nil {
		for _, s := range *subscribers {
			sum += s.Dropped()
		}
	}
	return sum
}
