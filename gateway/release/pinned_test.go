package release

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/gateway/release/sticky"
	"headgate/gateway/upstream"
	"headgate/internal/clock"
	"headgate/internal/sock"
)

// shops returns an upstream of n real services, each of which says who it is.
func shops(t *testing.T, name string, n int) (*upstream.Upstream, map[string]*httptest.Server) {
	t.Helper()
	e, r := newEnv()
	var m model.Upstream
	m.SetDefaults()
	m.Balance.SlowStart, m.Timeouts.Connect = 0, time.Minute // a busy machine is no reason to ask somebody else
	servers := map[string]*httptest.Server{}
	for range n {
		var who string
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, who) }))
		who = s.Listener.Addr().String()
		s.Start()
		t.Cleanup(s.Close)
		servers[who] = s
		m.Targets = append(m.Targets, model.Target{URL: s.URL, Weight: 1})
	}
	u, err := upstream.New(name, m, upstream.Env{
		Sweeper: sock.NewSweeper(), Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Metrics: r, Expr: e.Expr,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u, servers
}

func pinned(to Service) *Pinned { return pinnedBy(to, "0123456789abcdef0123456789abcdef") }

func pinnedBy(to Service, keys ...string) *Pinned {
	var m model.Sticky
	m.SetDefaults()
	c := sticky.New("shop", &m)
	var list [][]byte
	for _, k := range keys {
		list = append(list, []byte(k))
	}
	c.Use(list...)
	e, _ := newEnv()
	return NewPinned(c, to, e)
}

// browser is a client that keeps its cookie.
type browser struct {
	t      *testing.T
	cookie string
	set    int // how often it was given one
}

func (b *browser) ask(s Service, fields ...string) (who, variant string) {
	b.t.Helper()
	x := request("GET", "/", nil, 0)
	if b.cookie != "" {
		x.Request.Header.Add("Cookie", b.cookie)
	}
	for i := 0; i < len(fields); i += 2 {
		x.Request.Header.Add(fields[i], fields[i+1])
	}
	call, err := s.Send(x)
	if err != nil {
		b.t.Fatal(err)
	}
	if call != nil {
		defer call.Close()
	}
	body, err := io.ReadAll(x.Reply.Body.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	if field, ok := x.Reply.Header.Lookup("Set-Cookie"); ok {
		b.cookie, _, _ = strings.Cut(field, ";")
		b.set++
	}
	return string(body), x.Usage.Variant
}

func TestAClientComesBackToItsTargetUntilThatIsGone(t *testing.T) {
	u, servers := shops(t, "shop", 4)
	p := pinned(u)
	seen := map[string]bool{}
	for range 20 {
		b := &browser{t: t}
		first, _ := b.ask(p)
		seen[first] = true
		for range 10 {
			if who, _ := b.ask(p); who != first {
				t.Fatalf("%s answers, and %s has answered before", who, first)
			}
		}
		if b.set != 1 {
			t.Fatalf("the cookie was set %d times, and the pin has not changed", b.set)
		}
	}
	if len(seen) < 2 {
		t.Errorf("all clients go to %v", seen)
	}
	b := &browser{t: t}
	first, _ := b.ask(p)
	servers[first].Close()
	second, _ := b.ask(p)
	if second == first || b.set != 2 {
		t.Fatalf("%s answers, the cookie was set %d times", second, b.set)
	}
	for range 10 {
		if who, _ := b.ask(p); who != second || b.set != 2 {
			t.Fatalf("%s answers, not %s; the cookie was set %d times", who, second, b.set)
		}
	}
}

func TestAClientComesBackToItsVariantAndToTheTargetInIt(t *testing.T) {
	one, _ := shops(t, "v1", 3)
	two, _ := shops(t, "v2", 3)
	e, _ := newEnv()
	build := func(weights string) Service {
		m := model.Split{Variants: variants(weights), Header: "X-Variant"}
		s, err := NewSplit("shop", &m, map[string]Service{"v1": one, "v2": two}, e)
		if err != nil {
			t.Fatal(err)
		}
		return pinned(s)
	}
	before, after := build("v1=3 v2=1"), build("v1=1 v2=3")
	moved, clients := 0, 40
	for range clients {
		b := &browser{t: t}
		who, variant := b.ask(before)
		for range 3 {
			if w, v := b.ask(before); w != who || v != variant {
				t.Fatalf("%s of %s answers, and %s of %s has before", w, v, who, variant)
			}
		}
		_, now := b.ask(after)
		if now != variant {
			moved++
		}
		if variant == "v2" && now == "v1" {
			t.Error("v2 has grown, and a client of it moves away")
		}
	}
	if moved == 0 || moved == clients {
		t.Errorf("%d of %d clients have moved, and half of them should", moved, clients)
	}
}

func TestAClientKeepsItsTargetWhenTheKeyIsReplaced(t *testing.T) {
	u, _ := shops(t, "shop", 4)
	before, both, after := pinnedBy(u, "the first key"), pinnedBy(u, "the second key", "the first key"), pinnedBy(u, "the second key")
	for range 10 {
		b := &browser{t: t}
		first, _ := b.ask(before)
		for range 5 {
			if who, _ := b.ask(both); who != first || b.set != 2 {
				t.Fatalf("%s answers, not %s; the cookie was set %d times", who, first, b.set)
			}
		}
		if who, _ := b.ask(after); who != first || b.set != 2 {
			t.Fatalf("without the old key %s answers, not %s; the cookie was set %d times", who, first, b.set)
		}
	}
}
