package record

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"headgate/gateway/exchange"
)

const parentA = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

var uuid7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestTheCorrelationIDOfATrustedPeerIsKeptAndAnyOtherIsReplaced(t *testing.T) {
	g := newRig(t)
	for _, c := range []struct {
		name    string
		trusted bool
		given   []string
		kept    bool
	}{
		{"trusted", true, []string{"abc-123"}, true},
		{"trusted, longest", true, []string{strings.Repeat("x", 128)}, true},
		{"not trusted", false, []string{"abc-123"}, false},
		{"none given", true, nil, false},
		{"empty", true, []string{""}, false},
		{"too long", true, []string{strings.Repeat("x", 129)}, false},
		{"a space", true, []string{"a b"}, false},
		{"a control", true, []string{"a\tb"}, false},
		{"not ASCII", true, []string{"ä"}, false},
		{"two of them", true, []string{"a", "b"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := shop()
			x.Client.Trusted = c.trusted
			for _, v := range c.given {
				x.Request.Header.Add("x-request-ID", v)
			}
			g.Begin(x)
			if kept := len(c.given) == 1 && x.ID == c.given[0]; kept != c.kept {
				t.Errorf("id %q for %q", x.ID, c.given)
			}
			if !c.kept && !uuid7.MatchString(x.ID) {
				t.Errorf("%q is not a UUIDv7", x.ID)
			}
			if got := x.Request.Header.Joined("X-Request-Id"); got != x.ID {
				t.Errorf("the upstream would get %q, not %q", got, x.ID)
			}
			x.Reply.Header.Add("X-Request-Id", "the upstream's own")
			StampReply(x)
			if got := x.Reply.Header.Joined("X-Request-Id"); got != x.ID {
				t.Errorf("the client would get %q, not %q", got, x.ID)
			}
		})
	}
}

func TestUUIDsHoldTheTimeAndSortByIt(t *testing.T) {
	got := string(appendUUID(nil, time.UnixMilli(0x0193_2a5b_c7d8), [2]uint64{1<<64 - 1, 1<<64 - 1}))
	if want := "01932a5b-c7d8-7fff-bfff-ffffffffffff"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := string(appendUUID(nil, time.UnixMilli(1), [2]uint64{})), "00000000-0001-7000-8000-000000000000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s := newSource()
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.Int64Range(0, 1<<47).Draw(t, "ms")
		var r [4]uint64
		s.draw(rapid.Uint32().Draw(t, "shard"), r[:])
		a := string(appendUUID(nil, time.UnixMilli(at), [2]uint64(r[:2])))
		b := string(appendUUID(nil, time.UnixMilli(at+1), [2]uint64(r[2:])))
		if !uuid7.MatchString(a) || a >= b {
			t.Fatalf("%s, then %s", a, b)
		}
	})
}

func TestNoTwoExchangesShareAnID(t *testing.T) {
	g := newRig(t)
	seen := map[string]bool{}
	for i := range 10_000 {
		x := shop()
		x.Shard = uint32(i % 7)
		g.Begin(x)
		if seen[x.ID] {
			t.Fatalf("%s came twice", x.ID)
		}
		seen[x.ID] = true
	}
}

func TestTraceparentIsParsedStrictly(t *testing.T) {
	for _, c := range []struct {
		in      string
		ok      bool
		sampled bool
	}{
		{parentA, true, true},
		{strings.TrimSuffix(parentA, "1") + "0", true, false},
		{strings.TrimSuffix(parentA, "01") + "03", true, true},                    // flags of level 2
		{"cc" + parentA[2:], true, true},                                          // a later version
		{"cc" + parentA[2:] + "-what-the-future-holds", true, true},               // with more behind a dash
		{"cc" + parentA[2:] + "x", false, false},                                  // but not without one
		{"ff" + parentA[2:], false, false},                                        // section 3.2.2.1: forbidden
		{parentA + "-", false, false},                                             // version 00 has no more
		{parentA + " ", false, false},                                             //
		{strings.ToUpper(parentA), false, false},                                  // lower case only
		{"00-00000000000000000000000000000000-00f067aa0ba902b7-01", false, false}, // zero trace
		{"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false, false}, // zero span
		{"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g", false, false},
		{"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false, false},
		{"", false, false},
		{parentA[:54], false, false},
	} {
		got, ok := parseTraceparent(c.in)
		if ok != c.ok || got.Sampled != c.sampled {
			t.Errorf("%q: ok %v, sampled %v", c.in, ok, got.Sampled)
		}
		if !ok && got != (exchange.Trace{}) {
			t.Errorf("%q: a refused context left %v", c.in, got)
		}
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add(parentA)
	f.Add("cc" + parentA[2:] + "-x")
	const ids = `-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}`
	strict := regexp.MustCompile(`^(?:00` + ids + `|(?:[1-9a-e][0-9a-f]|0[1-9a-f]|f[0-9a-e])` + ids + `(?s:-.*)?)$`)
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseTraceparent(s)
		want := strict.MatchString(s) && s[3:35] != strings.Repeat("0", 32) && s[36:52] != strings.Repeat("0", 16)
		if ok != want {
			t.Fatalf("%q: accepted %v, by the grammar %v", s, ok, want)
		}
		if !ok {
			return
		}
		again, ok := parseTraceparent(string(appendTraceparent(nil, &got, got.Parent)))
		if !ok || again != got {
			t.Fatalf("%q: %v came back as %v", s, got, again)
		}
	})
}

func TestTracestateAndBaggageArePassedOnWhenTheyAreValid(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat("a=1,", 33), ",")
	for _, c := range []struct {
		value          string
		state, baggage bool
	}{
		{"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", true, true},
		{"tenant@system=1, ,b=2", true, false},
		{"a@b@c=1", false, false},
		{"Upper=1", false, true},
		{"no-value", false, false},
		{"a=b=c", false, true},
		{"a=ä", false, false},
		{"a=\"q\"", true, false},
		{"userId=alice;prop=1", false, true},
		{many, false, true},
		{"a=" + strings.Repeat("x", 600), false, true},
		{strings.TrimSuffix(strings.Repeat("a=1,", 181), ","), false, false},
		{"a=" + strings.Repeat("x", 8200), false, false},
	} {
		members := 0
		if got := validTracestate(c.value, &members); got != c.state {
			t.Errorf("tracestate %.60q: %v", c.value, got)
		}
		members = 0
		if got := validBaggage(c.value, &members); got != c.baggage {
			t.Errorf("baggage %.60q: %v", c.value, got)
		}
	}
}

func TestTraceContextWithoutACollector(t *testing.T) {
	for _, c := range []struct {
		name          string
		parents       []string
		state         string
		want, passing string // "" for want: none; "new": one of our own
	}{
		{"none", nil, "", "", ""},
		{"valid", []string{parentA}, "a=1", parentA, "a=1"},
		{"malformed", []string{"nonsense"}, "a=1", "new", ""},
		{"twice", []string{parentA, parentA}, "a=1", "new", ""},
		{"state alone", nil, "a=1", "", ""},
		{"bad state", []string{parentA}, "A=1", parentA, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t)
			x := shop()
			for _, p := range c.parents {
				x.Request.Header.Add("Traceparent", p)
			}
			if c.state != "" {
				x.Request.Header.Add("Tracestate", c.state)
			}
			x.Request.Header.Add("Baggage", "bad baggage")
			g.Begin(x)
			got := x.Request.Header.Joined("traceparent")
			if c.want == "new" {
				trace, ok := parseTraceparent(got)
				if !ok || got == parentA || trace.Sampled || trace.ID != x.Trace.ID {
					t.Errorf("got %q", got)
				}
			} else if got != c.want {
				t.Errorf("the upstream would get %q, want %q", got, c.want)
			}
			if got := x.Request.Header.Joined("tracestate"); got != c.passing {
				t.Errorf("tracestate %q, want %q", got, c.passing)
			}
			if x.Request.Header.Has("baggage") {
				t.Error("malformed baggage was passed on")
			}
		})
	}
}

func TestSampling(t *testing.T) {
	unsampled := strings.TrimSuffix(parentA, "1") + "0"
	for _, c := range []struct {
		name    string
		ratio   float64
		believe string
		trusted bool
		parent  string
		want    bool
	}{
		{"begun here, ratio 1", 1, "trusted", false, "", true},
		{"begun here, ratio 0", 0, "trusted", false, "", false},
		{"trusted parent says yes", 0, "trusted", true, parentA, true},
		{"trusted parent says no", 1, "trusted", true, unsampled, false},
		{"a stranger's yes does not count", 0, "trusted", false, parentA, false},
		{"a stranger's no does not count", 1, "trusted", false, unsampled, true},
		{"a stranger's yes counts when configured", 0, "always", false, parentA, true},
		{"nobody's yes counts when configured", 0, "never", true, parentA, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t)
			s := logTo("off")
			s.Tracing.Endpoint, s.Tracing.Ratio, s.Tracing.Parent = "http://127.0.0.1:1", c.ratio, c.believe
			g.configure(t, s)
			x := shop()
			x.Client.Trusted = c.trusted
			if c.parent != "" {
				x.Request.Header.Add("traceparent", c.parent)
			}
			g.Begin(x)
			if x.Trace.Sampled != c.want {
				t.Errorf("sampled %v", x.Trace.Sampled)
			}
			sent, ok := parseTraceparent(x.Request.Header.Joined("traceparent"))
			if !ok || sent.ID != x.Trace.ID || sent.Sampled != c.want || sent.Parent != clientSpan(x.Trace.Span) {
				t.Errorf("the upstream would get %v, the exchange has %v", sent, x.Trace)
			}
			if parent, ok := parseTraceparent(c.parent); ok && (x.Trace.ID != parent.ID || x.Trace.Parent != parent.Parent) {
				t.Errorf("the caller's trace is not continued: %v", x.Trace)
			}
		})
	}
}

func TestTheRatioIsKept(t *testing.T) {
	g := newRig(t)
	s := logTo("off")
	s.Tracing.Endpoint, s.Tracing.Ratio = "http://127.0.0.1:1", 0.25
	g.configure(t, s)
	sampled := 0
	const n = 20_000
	for range n {
		x := shop()
		if g.Begin(x); x.Trace.Sampled {
			sampled++
		}
	}
	if share := float64(sampled) / n; share < 0.22 || share > 0.28 { // ten standard deviations
		t.Errorf("%.3f of the traces were kept, want 0.25", share)
	}
}
