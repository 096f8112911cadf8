package pool

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestIdleTimeFollowsWhatTheTargetSays(t *testing.T) {
	for _, c := range []struct {
		says, want time.Duration
		why        string
	}{
		{0, 55 * time.Second, "pool.idle_timeout"},
		{time.Second, 500 * time.Millisecond, "the target says"},
		{5 * time.Second, 4 * time.Second, "the target says that it keeps idle connections for 5s"},
		{75 * time.Second, 55 * time.Second, "pool.idle_timeout"},
		{24 * time.Hour, 55 * time.Second, "pool.idle_timeout"},
	} {
		l := idleTime{most: 55 * time.Second}
		l.hear(c.says)
		if got := l.limit(); got != c.want || !strings.Contains(l.why(), c.why) {
			t.Errorf("%v: %v, %s", c.says, got, l.why())
		}
	}
}

func TestIdleTimeFollowsATargetThatSaysSomethingElse(t *testing.T) {
	l := idleTime{most: 55 * time.Second}
	for _, says := range []time.Duration{5 * time.Second, 20 * time.Second, 3 * time.Second} {
		if l.hear(says); l.limit() != says-time.Second {
			t.Errorf("%v after %v", l.limit(), says)
		}
	}
}

// A death is a connection found closed: when, and after how long without a request.
type death struct{ at, age time.Duration }

func TestIdleTimeIsLearnedFromConnectionsThatWereFoundClosed(t *testing.T) {
	const s = time.Second
	for name, c := range map[string]struct {
		deaths []death
		want   time.Duration
	}{
		"two are not enough":         {[]death{{10 * s, 31 * s}, {50 * s, 33 * s}}, 55 * s},
		"three are":                  {[]death{{10 * s, 31 * s}, {50 * s, 33 * s}, {90 * s, 30 * s}}, 27 * s},
		"many at one moment are one": {[]death{{10 * s, 31 * s}, {10 * s, 2 * s}, {10 * s, 9 * s}, {10 * s, 4 * s}}, 55 * s},
		"of those the oldest counts": {[]death{{10 * s, 40 * s}, {10 * s, 2 * s}, {20 * s, 40 * s}, {20 * s, 3 * s}, {30 * s, 40 * s}},
			36 * s},
		"those closed at their last use": {[]death{{10 * s, 0}, {20 * s, s / 2}, {30 * s, 0}, {40 * s, 0}}, 55 * s},
		"never below a second":           {[]death{{10 * s, s}, {20 * s, s}, {30 * s, s}}, s},
		"one long ago is forgotten":      {[]death{{10 * s, 31 * s}, {20 * s, 31 * s}, {1000 * s, 31 * s}}, 55 * s},
	} {
		l := idleTime{most: 55 * s}
		for _, d := range c.deaths {
			l.died(d.at, d.age)
		}
		if got := l.limit(); got != c.want {
			t.Errorf("%s: %v, want %v (%s)", name, got, c.want, l.why())
		}
		l.tidy(c.deaths[len(c.deaths)-1].at + forgetDeaths)
		if got := l.limit(); got != 55*s {
			t.Errorf("%s: still %v after ten minutes", name, got)
		}
	}
}

// Whatever is heard and found, the time stays between what is useful and what the document says, and there is a reason.
func TestIdleTimeIsNeverMoreThanTheDocumentSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := idleTime{most: time.Duration(rapid.IntRange(2, 100).Draw(t, "most")) * time.Second}
		now := time.Duration(0)
		for range rapid.IntRange(0, 50).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 300_000).Draw(t, "later")) * time.Millisecond
			switch d := time.Duration(rapid.IntRange(0, 100_000).Draw(t, "d")) * time.Millisecond; rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				l.hear(d.Truncate(time.Second))
			case 1:
				l.died(now, d)
			default:
				l.tidy(now)
			}
			heard := time.Duration(l.heard.Load())
			least := time.Second
			if heard > 0 {
				least = min(least, heard/2)
			}
			if got := l.limit(); got > l.most || got < min(least, l.most) || l.why() == "" {
				t.Fatalf("%v of %v: %s", got, l.most, l.why())
			}
		}
	})
}
