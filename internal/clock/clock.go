// Package clock hands out the time, so that tests can move it.
package clock

import (
	"sync/atomic"
	"time"
)

// Clock tells the time. Every package of Headgate that reasons about time is given one and never calls time.Now itself.
type Clock interface {
	Now() time.Time
}

// System is the machine's clock.
type System struct{}

// Now returns time.Now().
func (System) Now() time.Time { return time.Now() }

// Shifted is the machine's clock moved by an offset that only grows; behaviour scripts use it to let a minute pass at once.
type Shifted struct{ offset atomic.Int64 }

// Now returns the machine's time plus everything Advance was given.
func (s *Shifted) Now() time.Time { return time.Now().Add(time.Duration(s.offset.Load())) }

// Advance moves the clock forward by d.
func (s *Shifted) Advance(d time.Duration) { s.offset.Add(int64(d)) }

// Manual stands still until it is moved. It is safe for concurrent use.
type Manual struct{ nanos atomic.Int64 }

// NewManual returns a clock that stands at t.
func NewManual(t time.Time) *Manual {
	m := &Manual{}
	m.nanos.Store(t.UnixNano())
	return m
}

// Now returns where the clock stands, in UTC.
func (m *Manual) Now() time.Time { return time.Unix(0, m.nanos.Load()).UTC() }

// Advance moves the clock by d.
func (m *Manual) Advance(d time.Duration) { m.nanos.Add(int64(d)) }
