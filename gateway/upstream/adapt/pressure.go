package adapt

import "time"

const (
	// pressureSpan is over which time the share of requests that waited is counted.
	pressureSpan = 500 * time.Millisecond
	// pressureHolds is how long a share is believed that nobody has counted anew since: with few requests nothing counts.
	pressureHolds = 2 * time.Second
	// percents is how many values a share has; the rest of the word is the time until when it holds.
	percents = 128
)

// pressure counts the requests that had to wait. It is used under the lock.
type pressure struct {
	began  time.Duration
	waited int64
	ended  int64 // of all requests, when it began
	share  int64 // in percent
}

// press counts more requests that have to wait, and reckons the share anew when it is time: the mean of what was counted and of
// what it was before.
func (l *Limiter) press(now time.Duration, more int64) {
	p := &l.pressure
	if now-p.began >= 2*pressureSpan { // who waited has done so long ago, but for those who still do
		p.waited = int64(l.queue.length)
	}
	if p.waited += more; now-p.began < pressureSpan {
		return
	}
	ended := l.ended()
	share := int64(0)
	if p.waited > 0 {
		share = 100 * p.waited / max(ended-p.ended, p.waited) // who is refused never ends
	}
	if now-p.began < 2*pressureSpan {
		share = (share + p.share + 1) / 2
	}
	if p.waited == 0 && share < 2 {
		share = 0
	}
	*p = pressure{began: now, ended: ended, share: share}
	if share == 0 {
		l.pressing.Store(0)
		return
	}
	l.pressing.Store(int64(now+pressureHolds)/percents*percents + share)
}

// ended is how many requests have ended so far.
func (l *Limiter) ended() (n int64) {
	for i := range l.samples {
		n += l.samples[i].ended.Load()
	}
	return n
}

// Pressure is the share of the requests of the last second that had to wait or were refused, 0 to 100 percent. Without any
// it costs reading one word.
func (l *Limiter) Pressure(now time.Time) int {
	word := l.pressing.Load()
	if word == 0 || int64(now.Sub(l.base)) > word {
		return 0
	}
	return int(word % percents)
}
