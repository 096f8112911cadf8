package upstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// ejecting runs f with an upstream of n targets that ejects after three failures for ten seconds, in a time of its own.
func ejecting(t *testing.T, n, maxPercent int, f func(u *Upstream, log *buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := new(buffer)
		e := env(log)
		var addresses []string
		for i := range n {
			addresses = append(addresses, fmt.Sprintf("10.0.0.%d:80", i))
		}
		u := build(t, e, config(func(m *model.Upstream) {
			m.Ejection = model.Ejection{Failures: 3, For: 10 * time.Second, MaxShare: maxPercent}
		}, addresses...))
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = e.Sweeper.Run(ctx) }()
		synctest.Wait()
		f(u, log)
		stop()
		synctest.Wait()
	})
}

func (t *target) fails(n int) {
	for range n {
		t.judge(&exchange.Exchange{}, &exchange.Error{Code: exchange.UpstreamClosed, Source: exchange.FromUpstream}, false, time.Millisecond)
	}
}

func (t *target) answers(status int) {
	t.judge(&exchange.Exchange{Reply: exchange.Reply{Status: status}}, nil, false, time.Millisecond)
}

func (t *target) out() bool { return !t.load.Available(t.upstream.env.Sweeper.Coarse()) }

func TestATargetIsEjectedAfterFailuresInARow(t *testing.T) {
	ejecting(t, 2, 50, func(u *Upstream, log *buffer) {
		a := u.set.Load().targets[0]
		a.fails(2)
		a.answers(200)
		a.fails(2)
		if a.out() {
			t.Error("four failures, but not three in a row")
		}
		a.answers(503)
		if !a.out() {
			t.Error("not ejected after the third")
		}
		s := u.Status().Targets[0]
		if s.State != "ejected" || !strings.Contains(s.Why, "3 requests in a row failed: 2 with no answer, 1 with status 503") ||
			!strings.Contains(log.String(), "a target is ejected") {
			t.Errorf("%+v; log %s", s, log)
		}
		time.Sleep(9 * time.Second)
		if !a.out() {
			t.Error("back too early")
		}
		time.Sleep(3 * time.Second)
		if a.out() || u.Status().Targets[0].State != "available" {
			t.Error("not back")
		}
	})
}

func TestNoMoreThanAShareIsEjected(t *testing.T) {
	for _, test := range []struct{ targets, percent, want int }{
		{2, 50, 1}, {3, 50, 1}, {4, 50, 2}, {5, 50, 2}, {3, 33, 0}, {3, 34, 1}, {4, 0, 0}, {4, 100, 4}, {1, 50, 0}, {1, 100, 1},
	} {
		ejecting(t, test.targets, test.percent, func(u *Upstream, _ *buffer) {
			out := 0
			for _, target := range u.set.Load().targets {
				target.fails(10)
				if target.out() {
					out++
				}
			}
			if out != test.want {
				t.Errorf("%d of %d with max_percent %d, want %d", out, test.targets, test.percent, test.want)
			}
			if choose(u, nil) == nil {
				t.Error("nobody is asked any more")
			}
		})
	}
}

func TestWhatCountsAsAFailureOfATarget(t *testing.T) {
	problem := func(code exchange.Code, source exchange.Source, retry bool) error {
		return &exchange.Error{Code: code, Source: source, Retry: retry}
	}
	for _, test := range []struct {
		name   string
		err    error
		status int
		reused bool
		counts bool
	}{
		{"an answer", nil, 200, false, false},
		{"the client's mistake", nil, 404, false, false},
		{"an error of its own", nil, 500, false, false},
		{"a gateway's error", nil, 502, false, true},
		{"unavailable", nil, 503, false, true},
		{"a gateway's timeout", nil, 504, false, true},
		{"no connection", problem(exchange.UpstreamUnreachable, exchange.FromUpstream, true), 0, false, true},
		{"this machine's own shortage", problem(exchange.UpstreamUnreachable, exchange.FromGateway, true), 0, false, false},
		{"no answer", problem(exchange.UpstreamClosed, exchange.FromUpstream, true), 0, false, true},
		{"a reused connection that had died", problem(exchange.UpstreamClosed, exchange.FromUpstream, true), 0, true, false},
		{"a reused connection that broke in its answer", problem(exchange.UpstreamClosed, exchange.FromUpstream, false), 0, true, true},
		{"too slow", problem(exchange.UpstreamTimeout, exchange.FromUpstream, false), 0, true, true},
		{"not HTTP", problem(exchange.UpstreamInvalid, exchange.FromUpstream, false), 0, false, true},
		{"a client that went away", problem(exchange.ClientGone, exchange.FromClient, false), 0, false, false},
		{"something else", errors.New("something else"), 0, false, false},
	} {
		ejecting(t, 2, 50, func(u *Upstream, _ *buffer) {
			a := u.set.Load().targets[0]
			a.judge(&exchange.Exchange{Reply: exchange.Reply{Status: test.status}}, test.err, test.reused, time.Millisecond)
			if got := a.health.Status().Failures == 1; got != test.counts {
				t.Errorf("%s counts: %v", test.name, got)
			}
		})
	}
}
