package pool

import (
	"testing"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

func TestAgesDifferByATenth(t *testing.T) {
	const now = 10 * time.Minute
	for _, c := range []struct {
		most   time.Duration
		random float64
		want   time.Duration
	}{
		{0, 0.5, 0},
		{time.Hour, 0, now + 54*time.Minute},
		{time.Hour, 0.5, now + time.Hour},
		{time.Hour, 1, now + 66*time.Minute},
	} {
		s := Settings{Random: func() float64 { return c.random }}
		s.Pool.MaxAge = c.most
		if got := s.age(now); got-c.want > time.Second || c.want-got > time.Second {
			t.Errorf("%v at %v: %v, want %v", c.most, c.random, got, c.want)
		}
	}
}

func TestWhoWaitsForAStreamIsBounded(t *testing.T) {
	id, err := ReadIdentity(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := group(t).New(At("h2c", "127.0.0.1:1", "127.0.0.1"), &h1.Plan{Limits: &h1.Limits{}}, id, func() bool { return true })
	p.mux.queue = make([]*waiter, maxWaiting)
	x := &exchange.Exchange{Cancel: new(exchange.Canceler)}
	if g := p.Stream(x, false); g.Err != ErrNoStream {
		t.Errorf("%+v", g)
	}
	if e := DialError(x, ErrNoStream).(*exchange.Error); e.Code != exchange.UpstreamBusy || !e.Retry {
		t.Errorf("%v", e)
	}
}

// After each failure in a row the next try to open a connection ahead waits twice as long, up to a minute, give or take a half.
func TestWhoRefusesIsTriedLessAndLess(t *testing.T) {
	g := group(t)
	g.settings.Pool.Preconnect = 1
	for _, random := range []float64{0, 0.5, 0.999} {
		g.settings.Random = func() float64 { return random }
		p := &Pool{group: g, record: &record{ready: func() bool { return true }}}
		want := time.Second
		for range 12 {
			p.pause()
			got := time.Duration(p.record.warm.after.Load()) - g.settings.Sweeper.Coarse()
			if exactly := time.Duration(float64(want) * (0.5 + random)); got != exactly {
				t.Errorf("%v, want %v", got, exactly)
			}
			if want = min(2*want, time.Minute); p.ahead() {
				t.Error("tried again at once")
			}
		}
	}
}
