package discover

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"headgate/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// these are targets with one letter each for an address.
func these(letters string) (list []Target) {
	for _, l := range letters {
		list = append(list, Target{Address: string(l) + ":1", Weight: 1})
	}
	return list
}

func letters(list []Target) (s string) {
	for _, t := range list {
		s += strings.TrimSuffix(t.Address, ":1")
	}
	return s
}

func TestWhatFollowsFromAnswers(t *testing.T) {
	type step struct {
		after        time.Duration
		answer       string // "": the same once more
		used         string
		held, damped int
	}
	tests := []struct {
		name  string
		known string
		steps []step
	}{
		{"the first answer is taken as it is", "", []step{{0, "abc", "abc", 0, 0}}},
		{"one after the other is replaced", "abcd", []step{{0, "bcde", "bcde", 0, 0}, {time.Second, "cdef", "cdef", 0, 0}}},
		{"half may go", "abcd", []step{{0, "ab", "ab", 0, 0}}},
		{"more than half is held", "abcd", []step{{0, "a", "abcd", 3, 0}, {59 * time.Second, "", "abcd", 3, 0}, {time.Second, "", "a", 0, 0}}},
		{"the held come back", "abcd", []step{{0, "a", "abcd", 3, 0}, {time.Second, "abcd", "abcd", 0, 0}, {time.Minute, "", "abcd", 0, 0}}},
		{"some of the held come back", "abcd", []step{{0, "a", "abcd", 3, 0}, {time.Second, "abc", "abc", 0, 0}}},
		{"new ones do not drive the held out", "abcd", []step{
			{0, "efghijkl", "abcdefghijkl", 4, 0}, {time.Second, "efghijklm", "abcdefghijklm", 4, 0},
			{time.Minute, "", "efghijklm", 0, 0}}},
		{"two may be replaced at once", "ab", []step{{0, "cd", "cd", 0, 0}}},
		{"one may be replaced", "a", []step{{0, "b", "b", 0, 0}}},
		{"who flaps stays longer each time", "abcd", []step{{0, "abc", "abc", 0, 0}, {time.Second, "abcd", "abcd", 0, 0},
			{time.Second, "abc", "abcd", 0, 1}, {9 * time.Second, "", "abcd", 0, 1}, {time.Second, "", "abc", 0, 0},
			{time.Second, "abcd", "abcd", 0, 0}, {time.Second, "abc", "abcd", 0, 1}, {19 * time.Second, "", "abcd", 0, 1},
			{time.Second, "", "abc", 0, 0}}},
		{"it is forgiven", "abcd", []step{{0, "abc", "abc", 0, 0}, {time.Second, "abcd", "abcd", 0, 0}, {flapWindow, "", "abcd", 0, 0},
			{0, "abc", "abc", 0, 0}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := newView(Rules{50, time.Minute}, these(test.known))
			now := time.Unix(1e9, 0)
			for i, s := range test.steps {
				now = now.Add(s.after)
				if s.answer != "" {
					v.answer = these(s.answer)
				}
				got := v.judge(now)
				if letters(got.targets) != s.used || got.held != s.held || got.damped != s.damped {
					t.Errorf("step %d: %s, %d held, %d damped; want %+v", i, letters(got.targets), got.held, got.damped, s)
				}
				if (s.held+s.damped > 0) != got.wake.After(now) {
					t.Errorf("step %d: judged again at %v", i, got.wake.Sub(now))
				}
			}
		})
	}
}

// arrived is how many of the answer are new.
func arrived(known, list []Target) (n int) {
	for _, t := range list {
		if !strings.Contains(letters(known), letters([]Target{t})) {
			n++
		}
	}
	return n
}

// over reports whether a hold that began at since is over.
func over(v *view, now, since time.Time) bool {
	return !since.IsZero() && now.Sub(since) >= v.rules.Hold
}

// Whatever is answered: what an answer names is used, nobody stays for ever whom it does not name, and unless the hold is
// over no step takes away more than the rules allow.
func TestRulesHoldForAnyAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := newView(Rules{50, time.Minute}, nil)
		now := time.Unix(1e9, 0)
		answers := rapid.SliceOfN(rapid.StringMatching("[a-h]{1,8}"), 1, 40).Draw(t, "answers")
		var known []Target
		var since time.Time
		for _, a := range answers {
			now = now.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "seconds")) * time.Second)
			before := len(v.current)
			list, err := inspect(these(a))
			if err != nil {
				t.Fatal(err)
			}
			v.answer = list
			got := v.judge(now)
			for _, l := range a {
				if !strings.ContainsRune(letters(got.targets), l) {
					t.Fatalf("%s lacks %c of the answer %s", letters(got.targets), l, a)
				}
			}
			lost := before + arrived(known, list) - len(got.targets)
			if !over(v, now, since) && before > smallSet && lost*2 > before {
				t.Fatalf("of %d there went %d", before, lost)
			}
			known, since = got.targets, v.since
		}
		for range 10 {
			now = now.Add(maxFlapHold)
			v.judge(now)
		}
		if len(v.current) != len(v.answer) || len(v.missing) != 0 {
			t.Fatalf("%d used, %d answered", len(v.current), len(v.answer))
		}
	})
}

// A clock that is set back prolongs nothing, and what is held still goes.
func TestAClockThatIsSetBackProlongsNoHold(t *testing.T) {
	v := newView(Rules{50, time.Minute}, these("abcdef"))
	now := time.Unix(1e9, 0)
	v.judge(now)
	v.answer = these("a")
	if got := v.judge(now); got.held != 5 {
		t.Fatalf("%+v", got)
	}
	now = now.Add(40 * time.Second)
	v.judge(now)
	now = now.Add(-time.Hour)
	if got := v.judge(now); got.held != 5 || got.wake.Sub(now) != 20*time.Second {
		t.Errorf("%d held, judged again in %v", got.held, got.wake.Sub(now))
	}
	if got := v.judge(now.Add(20 * time.Second)); letters(got.targets) != "a" {
		t.Errorf("%+v", got)
	}
}

// Whatever a source answers and however the clock jumps: once there are targets there always are, unless an answer says that
// all of them drain; and what is used is what some good answer has named.
func TestThereAreTargetsAfterAnyAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := clock.NewManual(time.Unix(1e9, 0))
		var used []Target
		f := &Follower{
			Upstream: "shop", Source: make(told), About: "told", Rules: Rules{rapid.IntRange(0, 100).Draw(t, "removal"), time.Minute},
			Clock: c, Log: slog.New(slog.DiscardHandler),
		}
		f.Recall()
		f.Start(func(list []Target) { used = list })
		defer f.Stop()
		named, any := "", false
		for range rapid.IntRange(1, 40).Draw(t, "answers") {
			c.Advance(time.Duration(rapid.IntRange(-7200, 7200).Draw(t, "seconds")) * time.Second)
			list := these(rapid.StringMatching("[a-f]{0,6}").Draw(t, "answer"))
			var err error
			switch rapid.SampledFrom([]string{"good", "good", "fails", "wrong", "partial"}).Draw(t, "kind") {
			case "fails":
				list, err = nil, errors.New("away")
			case "wrong":
				list = append(list, Target{Address: "nonsense"})
			case "partial":
				err = incomplete([]error{errors.New("one is wrong")})
				fallthrough
			case "good":
				any = any || len(list) > 0
				named += letters(list)
			}
			f.found(list, err)
			f.again()
			if any != (len(used) > 0) {
				t.Fatalf("%d targets after %q", len(used), named)
			}
			if strings.Trim(letters(used), named) != "" {
				t.Fatalf("%s are used; %s were named", letters(used), named)
			}
		}
	})
}

func TestAnswersThatAreNone(t *testing.T) {
	many := make([]Target, MaxTargets+1)
	for i := range many {
		many[i] = Target{Address: fmt.Sprintf("10.0.0.1:%d", i+1), Weight: 1}
	}
	for _, test := range []struct {
		name string
		list []Target
		want string
	}{
		{"none", nil, "names no target"},
		{"too many", many, "at most 10000"},
		{"no port", []Target{{Address: "a"}}, "host:port"},
		{"a URL", []Target{{Address: "http://a:80"}}, "host:port"},
		{"no host", []Target{{Address: ":80"}}, "host:port"},
		{"port 0", []Target{{Address: "a:0"}}, "host:port"},
		{"a weight", []Target{{Address: "a:1", Weight: 1001}}, "between 0 and 1000"},
		{"a priority", []Target{{Address: "a:1", Priority: 65536}}, "between 0 and 65535"},
		{"a long name", []Target{{Address: strings.Repeat("a", 300) + ":1"}}, "host:port"},
	} {
		if _, err := inspect(test.list); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if list, err := inspect(these("aab")); err != nil || letters(list) != "ab" {
		t.Errorf("%v, %v", list, err)
	}
}
