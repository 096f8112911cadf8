package discover

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"headgate/internal/clock"
)

// Follower asks a source and hands out the targets that follow from its answers.
type Follower struct {
	Upstream string // its name
	Source   Source
	About    string // the source in words: it tells sources apart
	Rules    Rules
	Clock    clock.Clock
	Log      *slog.Logger
	Store    *Store

	mu        sync.Mutex
	apply     func([]Target)
	view      *view
	used      []Target
	wake      *time.Timer
	asked     chan struct{} // closed after the first answer, whatever it was; or when the follower has ended
	status    Status
	unsaved   string // why the last good answer could not be kept
	cancel    context.CancelFunc
	following sync.WaitGroup
}

// Status is what operators see of discovery.
type Status struct {
	Source     string     `json:"source"`
	State      string     `json:"state"`                 // waiting, current, last_good (the source is down), or held
	Answered   *time.Time `json:"answered,omitempty"`    // the last good answer
	AgeSeconds float64    `json:"age_seconds,omitempty"` // of it
	Error      string     `json:"error,omitempty"`       // why there is no newer one
	ErrorAt    *time.Time `json:"error_at,omitempty"`    // since when
	LeftOut    string     `json:"left_out,omitempty"`    // why some of what it names are no targets
	Held       int        `json:"held,omitempty"`        // targets that the answer lacks, and that would be too many at once
	Damped     int        `json:"damped,omitempty"`      // that it lacks, and that have come and gone before
	Errors     int64      `json:"errors"`                // answers that were none, since the upstream was made
	Changes    int64      `json:"changes"`               // of the targets
}

// Recall prepares the follower and returns the last good answer that was kept. It is called once, before all else.
func (f *Follower) Recall() []Target {
	list, at, err := f.Store.Load(f.Upstream, f.About)
	if err != nil {
		f.Log.Warn("the last good answer of discovery cannot be read; it is asked for anew", "error", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view, f.used, f.asked = newView(f.Rules, list), list, make(chan struct{})
	f.status = Status{Source: f.About}
	if len(list) > 0 {
		f.status.Answered = &at
	}
	return list
}

// Start begins to ask, unless that has begun. apply is told whenever the targets change, by one goroutine at a time.
func (f *Follower) Start(apply func([]Target)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel, f.apply = cancel, apply
	f.following.Go(func() { f.Source.Watch(ctx, f.found) })
}

// Stop ends it and waits; after it nothing is applied.
func (f *Follower) Stop() {
	f.mu.Lock()
	cancel := f.cancel
	f.cancel = nil
	if f.wake != nil {
		f.wake.Stop()
	}
	f.first()
	f.mu.Unlock()
	if cancel != nil {
		cancel()
		f.following.Wait()
	}
}

// Asked is closed when the source has answered for the first time, or has failed to.
func (f *Follower) Asked() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// first is called with the lock held.
func (f *Follower) first() {
	select {
	case <-f.asked:
	default:
		close(f.asked)
	}
}

// found takes an answer of the source.
func (f *Follower) found(list []Target, err error) {
	leftOut := ""
	if some := new(partial); len(list) > 0 && errors.As(err, &some) {
		leftOut, err = some.Error(), nil
	}
	if err == nil {
		list, err = inspect(list)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cancel == nil { // an answer that came as it was stopped
		return
	}
	defer f.first()
	now := f.Clock.Now()
	if err != nil {
		f.failed(now, err)
		return
	}
	if f.status.Error != "" {
		f.Log.Info("discovery answers again", "source", f.About)
	}
	if leftOut != "" && leftOut != f.status.LeftOut {
		f.Log.Warn("discovery names what is no target; the others are used", "source", f.About, "targets", len(list), "left_out", leftOut)
	}
	f.status.Error, f.status.ErrorAt, f.status.Answered, f.status.LeftOut = "", nil, &now, leftOut
	f.view.answer = list
	f.judge(now)
}

// failed notes that there is no answer; the log is told once of each reason.
func (f *Follower) failed(now time.Time, err error) {
	f.status.Errors++
	text := err.Error()
	if text != f.status.Error {
		f.Log.Warn("discovery has no answer; the targets known stay", "source", f.About, "targets", len(f.used), "error", text)
	}
	if f.status.ErrorAt == nil {
		f.status.ErrorAt = &now
	}
	f.status.Error = text
}

// judge applies what follows from the last answer by now.
func (f *Follower) judge(now time.Time) {
	v := f.view.judge(now)
	if v.held > 0 && f.status.Held == 0 {
		f.Log.Warn("so many targets would go at once that they are held; they go when discovery still says so after the hold",
			"source", f.About, "targets", len(v.targets), "held", v.held, "hold", f.Rules.Hold)
	}
	f.status.Held, f.status.Damped = v.held, v.damped
	if f.wake != nil {
		f.wake.Stop()
	}
	if !v.wake.IsZero() {
		f.wake = time.AfterFunc(max(v.wake.Sub(now), time.Millisecond), f.again)
	}
	if slices.Equal(v.targets, f.used) {
		return
	}
	f.used = v.targets
	f.status.Changes++
	f.apply(v.targets)
	problem := ""
	if err := f.Store.Save(f.Upstream, f.About, now, v.targets); err != nil {
		problem = err.Error()
	}
	if problem != "" && problem != f.unsaved {
		f.Log.Warn("the last good answer of discovery cannot be kept for the next start", "error", problem)
	}
	f.unsaved = problem
}

// again judges once more when the time has come.
func (f *Follower) again() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cancel != nil {
		f.judge(f.Clock.Now())
	}
}

// Status describes how discovery stands.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	switch {
	case s.Error != "" && len(f.used) > 0:
		s.State = "last_good"
	case s.Answered == nil || len(f.used) == 0:
		s.State = "waiting"
	case s.Held > 0:
		s.State = "held"
	default:
		s.State = "current"
	}
	if s.Answered != nil {
		s.AgeSeconds = max(0, f.Clock.Now().Sub(*s.Answered).Seconds()) // the clock may have been set back since then
	}
	return s
}
