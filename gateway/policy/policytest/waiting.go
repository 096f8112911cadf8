package policytest

import (
	"context"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v4"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// patience is how long a Later may take after its context has ended.
const patience = time.Second

// waiting proves in a bubble, where time stands still unless everybody waits, that Now does not sleep, dial or hand the
// question back twice, and that Later ends when its context does although nobody in the network answers.
func (c *contract) waiting(t *testing.T, options *yaml.Node) {
	synctest.Test(t, func(t *testing.T) {
		w := known(t)
		w.HTTP = &http.Client{Transport: silence{t}}
		p, problems := w.build(c.kind, options)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		for _, s := range samples() {
			x := s()
			x.MakeSlots(p.slots)
			c.step(t, "Request", p.Hooks.Request, x)
			if x.Reply.Status == 0 {
				echo(x, nil)
			}
			c.step(t, "Response", p.Hooks.Response, x)
			atOnce(t, "Done", func() { p.Chain.Done(x) })
		}
		p.Close()
	})
}

// atOnce fails when f lets time pass.
func atOnce(t *testing.T, name string, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if d := time.Since(start); d != 0 {
		t.Errorf("%s waited for %v; only Later may", name, d)
	}
}

func (c *contract) step(t *testing.T, name string, s policy.Step, x *exchange.Exchange) {
	t.Helper()
	v := policy.Wait
	if s.Now != nil {
		atOnce(t, name+".Now", func() { v = callNow(s, x) })
		if v.Waits() && s.Later == nil {
			t.Errorf("%s.Now asks for Later, which there is none of", name)
		}
	}
	if !v.Waits() || s.Later == nil {
		return
	}
	const limit = 10 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start := time.Now()
	if v = s.Later(ctx, x); v.Waits() {
		t.Errorf("%s.Later does not decide", name)
	}
	if d := time.Since(start); d > limit+patience {
		t.Errorf("%s.Later went on for %v after its context had ended", name, d-limit)
	}
}

// callNow calls Now where silence can see on its stack that it did.
//
//go:noinline
func callNow(s policy.Step, x *exchange.Exchange) policy.Verdict { return s.Now(x) }

// silence is a network in which nobody answers.
type silence struct{ t *testing.T }

// RoundTrip implements http.RoundTripper.
func (s silence) RoundTrip(r *http.Request) (*http.Response, error) {
	var stack [64]uintptr
	frames := runtime.CallersFrames(stack[:runtime.Callers(1, stack[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "policytest.callNow") {
			s.t.Errorf("Now asked %s; only Later may", r.URL)
		}
		if !more {
			break
		}
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}
