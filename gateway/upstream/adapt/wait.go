package adapt

import (
	"context"
	"math"
	"time"
)

// publish makes the estimate known to those without the lock.
func (l *Limiter) publish() {
	limit := l.estimate.limit
	fresh, standing := l.waits.allowed(inMicroseconds(l.estimate.base))
	switch l.estimate.phase {
	case free:
		limit = l.estimate.room(limit)
	case trying:
		fresh, standing = testPatience, testPatience
	}
	l.limit.Store(int64(limit))
	l.since.Store(int64(l.estimate.since))
	l.fresh.Store(int64(fresh))
	l.standing.Store(int64(standing))
}

// line puts a request into the queue.
func (l *Limiter) line(at time.Time, c Claim) (*waiter, error) {
	now := at.Sub(l.base)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reached.Store(true)
	l.waits.pass(now)
	l.press(now, 1)
	l.waiting.Add(1) // first, so that whoever releases a place from here on sees it and dispatches
	f := l.queue.flow(c.Flow, c.Priority)
	if l.queue.length >= l.most {
		v := l.queue.victim(f)
		l.full++
		l.waits.refused++
		if v == nil || l.most == 0 {
			l.waiting.Add(-1)
			return nil, ErrFull
		}
		l.drop(v, now, ErrFull)
	}
	w := &waiter{ready: make(chan error, 1)}
	l.queue.push(w, f, c.Weight, l.waits.pass(now))
	l.dispatch(now)
	return w, nil
}

// dispatch lets waiters through while there are places, and refuses those who have waited for too long.
func (l *Limiter) dispatch(now time.Duration) {
	for l.queue.length > 0 && l.inFlight.Load() < l.limit.Load() {
		w := l.queue.first()
		if l.estimate.phase == limited && l.tooLate(w, l.waits.pass(now)) { // who was held back by a test has waited long enough
			l.dropLate(w, now)
			continue
		}
		if l.inFlight.Add(1) > l.limit.Load() {
			l.inFlight.Add(-1) // somebody is trying to enter, will be sent to line, and dispatches then
			return
		}
		w.flow.turns--
		l.drop(w, now, nil)
	}
}

// tooLate goes by the flow's own queue (CoDel): one that was empty within the last patience may wait for so long, one that
// stands for the shorter time only. passed is the time that counts.
func (l *Limiter) tooLate(w *waiter, passed time.Duration) bool {
	allowed := time.Duration(l.fresh.Load())
	if passed-w.flow.emptied > allowed {
		allowed = time.Duration(l.standing.Load())
	}
	return passed-w.since > allowed
}

func (l *Limiter) dropLate(w *waiter, now time.Duration) {
	l.drop(w, now, ErrLate)
	l.late++
	l.waits.refused++
}

// drop takes a waiter out and tells it what became of it; nil: it may go.
func (l *Limiter) drop(w *waiter, now time.Duration, err error) {
	l.queue.remove(w, l.waits.pass(now))
	l.waiting.Add(-1)
	w.ready <- err
}

// wait returns when the request may go or must not.
func (l *Limiter) wait(ctx context.Context, w *waiter) error {
	select { // most are let through, or refused, before they wait
	case err := <-w.ready:
		return err
	default:
	}
	timer := time.NewTimer(time.Duration(l.fresh.Load()))
	defer timer.Stop()
	for {
		select {
		case err := <-w.ready:
			return err
		case <-ctx.Done():
			return l.giveUp(w, ctx.Err())
		case <-timer.C:
			if left := l.lookUp(w); left > 0 {
				timer.Reset(left)
			}
		}
	}
}

// lookUp is called when a waiter's time seems to be over: what is left of it, or what became of it is known.
func (l *Limiter) lookUp(w *waiter) (left time.Duration) {
	now := l.clock.Now().Sub(l.base)
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := time.Duration(l.fresh.Load())
	switch left = w.since + fresh - l.waits.pass(now); {
	case w.settled:
	case left > 0:
		return max(left, stall/2)
	case l.estimate.phase == trying:
		l.estimate.release()
		l.publish()
		if l.dispatch(now); !w.settled {
			return stall
		}
	default:
		l.dropLate(w, now)
	}
	return 0
}

// giveUp takes a waiter out that does not want to wait any longer. When it was let through at the same moment, nobody is there.
func (l *Limiter) giveUp(w *waiter, cause error) error {
	now := l.clock.Now().Sub(l.base)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !w.settled {
		l.drop(w, now, cause)
	}
	if <-w.ready == nil {
		l.inFlight.Add(-1)
		l.dispatch(now)
	}
	return cause
}

// Waiting reports whether requests wait now.
func (l *Limiter) Waiting() bool { return l.waiting.Load() > 0 }

// Status is what a limiter knows, for people to look at.
type Status struct {
	Limit, InFlight, Waiting int
	Free                     bool          // there is no limit but for what nobody has answered; see Free
	Baseline, Latency        time.Duration // of an upstream that is not busy, and of the last epoch
	Reason                   Reason
	Full, Late               uint64 // refused so far
}

// Status returns the figures of now.
func (l *Limiter) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &l.estimate
	micro := func(log float64) time.Duration {
		if log == 0 {
			return 0
		}
		return time.Duration(math.Exp(log) * float64(time.Microsecond))
	}
	return Status{
		Free: e.phase == free, Limit: int(l.limit.Load()), InFlight: int(l.inFlight.Load()), Waiting: l.queue.length,
		Baseline: micro(e.base), Latency: micro(e.last), Reason: e.why, Full: l.full, Late: l.late,
	}
}

// RetryAfter is when a client that was refused may try again: when a queue that stands will have gone.
func (l *Limiter) RetryAfter() time.Duration {
	return max(time.Second, time.Duration(l.fresh.Load()))
}
