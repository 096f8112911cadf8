package counter

import (
	"math"
	"math/bits"
	"time"
)

// pace is a Rate in the terms of the generic cell rate algorithm (ITU-T I.371, the virtual scheduling form), in whole
// nanoseconds. What a bucket remembers is one point in time: when it will be full again.
type pace struct {
	interval int64 // that one unit takes to come back; rounded up, so that rounding never allows more than the rate
	burst    int64 // units in a full bucket
	span     int64 // that an empty bucket takes to fill: burst × interval
}

// maxSpan keeps every sum of a time and a span within 63 bits; a bucket that fills in a century is never emptied.
const maxSpan = int64(100 * 365 * 24 * time.Hour)

func paceOf(r Rate) pace {
	limit := max(r.Limit, 1)
	interval := max((int64(r.Per)-1)/limit+1, 1)
	interval = min(interval, maxSpan)
	burst := min(max(r.Burst, 1), maxSpan/interval)
	return pace{interval, burst, burst * interval}
}

// take spends cost at the time now from a bucket that is full at the time full, and returns when it will be full then.
func (p pace) take(full, cost, now int64) (int64, Result) {
	// A bucket can lack no more than all it holds. It seems to when the clock was set back; then it counts as empty now
	// instead of staying shut until the old time comes again.
	full = min(max(full, now), now+p.span)
	cost = max(cost, 0)
	if cost > p.burst {
		return full, p.result(full, now, -1)
	}
	if after := full + cost*p.interval; after-now <= p.span {
		return after, p.result(after, now, 0)
	}
	return full, p.result(full, now, full+cost*p.interval-now-p.span)
}

func (p pace) result(full, now, retry int64) Result {
	return Result{
		Allowed:    retry == 0,
		Remaining:  (p.span - (full - now)) / p.interval,
		RetryAfter: time.Duration(retry),
		Reset:      time.Duration(full - now),
	}
}

// rescale returns when a bucket that was written at another interval is full, so that as many units are spent as before.
func (p pace) rescale(full, interval, now int64) int64 {
	if full <= now || interval <= 0 {
		return full
	}
	high, low := bits.Mul64(uint64(full-now), uint64(p.interval))
	if high >= uint64(interval) {
		return now + p.span
	}
	lacking, _ := bits.Div64(high, low, uint64(interval))
	if lacking > math.MaxInt64 {
		return now + p.span
	}
	return now + min(int64(lacking), p.span)
}
