package discover

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/internal/testkit/standin"
)

// said is an answer of a source.
type said struct {
	list []Target
	err  error
}

// watched runs a source until the test ends and hands out its answers.
func watched(t *testing.T, s Source) <-chan said {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	answers, ended := make(chan said, 1000), make(chan struct{})
	go func() {
		defer close(ended)
		s.Watch(ctx, func(list []Target, err error) { answers <- said{list, err} })
	}()
	t.Cleanup(func() { stop(); <-ended })
	return answers
}

// until reads answers until one is as wanted.
func until(t *testing.T, answers <-chan said, what string, fits func(said) bool) said {
	t.Helper()
	var last said
	for patience := time.After(30 * time.Second); ; {
		select {
		case last = <-answers:
			if fits(last) {
				return last
			}
		case <-patience:
			t.Fatalf("never %s; the last answer: %+v", what, last)
		}
	}
}

// addresses waits for an answer with these targets: their addresses, with ! after those that drain.
func addresses(t *testing.T, answers <-chan said, want string) said {
	t.Helper()
	return until(t, answers, want, func(s said) bool { return s.err == nil && drawn(s.list) == want })
}

func drawn(list []Target) string {
	var words []string
	for _, t := range list {
		if t.Draining {
			t.Address += "!"
		}
		words = append(words, t.Address)
	}
	return strings.Join(words, " ")
}

// failing waits for an answer that is none.
func failing(t *testing.T, answers <-chan said, why string) {
	t.Helper()
	until(t, answers, why, func(s said) bool { return s.err != nil && len(s.list) == 0 && strings.Contains(s.err.Error(), why) })
}

// engine serves a handler on a socket of Unix, as engines do.
func engine(t *testing.T, h http.Handler) (address string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	s.Start()
	t.Cleanup(s.Close)
	return "unix://" + path
}

// ofDocker returns a source for the upstream shop.
func ofDocker(address string, change func(*model.DiscoverDocker)) *docker {
	var m model.DiscoverDocker
	m.SetDefaults()
	if m.Address = address; change != nil {
		change(&m)
	}
	d := newDocker("shop", m)
	d.random = func() float64 { return 0 }
	return d
}

const mine = "headgate.upstream=shop"

func TestContainersAreFollowedByTheEnginesEvents(t *testing.T) {
	t.Parallel()
	e := standin.NewDocker("1.52")
	a, b := standin.At("a", "172.17.0.2", 80, mine), standin.At("b", "172.17.0.3", 80, mine)
	e.Put(a, "")
	e.Put(standin.At("z", "172.17.0.9", 80, "headgate.upstream=other"), "")
	answers := watched(t, ofDocker(engine(t, e), nil))
	addresses(t, answers, "172.17.0.2:80")
	e.Put(b, "start")
	addresses(t, answers, "172.17.0.2:80 172.17.0.3:80")
	e.Kill(a, 15)
	addresses(t, answers, "172.17.0.2:80! 172.17.0.3:80")
	e.Stop(a)
	addresses(t, answers, "172.17.0.3:80")
	e.Put(a, "start")
	addresses(t, answers, "172.17.0.3:80 172.17.0.2:80")
	e.Kill(a, 1) // HUP ends nobody
	a.State = "paused"
	e.Put(a, "pause")
	addresses(t, answers, "172.17.0.3:80")
	a.State, a.Health = "running", &standin.Health{Status: "starting"}
	e.Put(a, "unpause")
	addresses(t, answers, "172.17.0.3:80")
	a.Health.Status = "healthy"
	e.Put(a, "health_status: healthy")
	addresses(t, answers, "172.17.0.3:80 172.17.0.2:80")
	a.NetworkSettings.Networks["bridge"].IPAddress = "172.17.0.7"
	e.Put(a, "")
	e.Tell(`{"Type":"network","Action":"connect","Actor":{"ID":"7ea","Attributes":{"container":"a","name":"bridge","type":"bridge"}}}`)
	addresses(t, answers, "172.17.0.3:80 172.17.0.7:80")
	if first := e.Asked()[:3]; first[0] != "/_ping?" || !strings.HasPrefix(first[1], "/v1.52/events?") ||
		!strings.HasPrefix(first[2], "/v1.52/containers/json?filters=%7B%22label%22%3A%5B%22headgate.upstream%3Dshop%22%5D%2C") {
		t.Errorf("%q", first)
	}
}

func TestTheLastContainersThatEndAreUsedWhileTheyAnswer(t *testing.T) {
	t.Parallel()
	e := standin.NewDocker("1.44")
	a := standin.At("a", "172.17.0.2", 80, mine)
	e.Put(a, "")
	answers := watched(t, ofDocker(engine(t, e), nil))
	addresses(t, answers, "172.17.0.2:80")
	e.Kill(a, 15)
	addresses(t, answers, "172.17.0.2:80")
}

func TestAContainerThatIsToldToEndAndDoesNotTakesPartAgain(t *testing.T) {
	t.Parallel()
	e := standin.NewDocker("1.44")
	a := standin.At("a", "172.17.0.2", 80, mine)
	e.Put(a, "")
	e.Put(standin.At("b", "172.17.0.3", 80, mine), "")
	d := ofDocker(engine(t, e), nil)
	d.every = 300 * time.Millisecond
	answers := watched(t, d)
	addresses(t, answers, "172.17.0.2:80 172.17.0.3:80")
	e.Kill(a, 2)
	addresses(t, answers, "172.17.0.2:80! 172.17.0.3:80")
	addresses(t, answers, "172.17.0.2:80 172.17.0.3:80")
	e.Put(standin.At("c", "172.17.0.4", 80, mine), "") // an event was lost
	addresses(t, answers, "172.17.0.2:80 172.17.0.3:80 172.17.0.4:80")
}

func TestAnEngineThatGoesIsWaitedFor(t *testing.T) {
	t.Parallel()
	e := standin.NewDocker("1.52")
	a := standin.At("a", "172.17.0.2", 80, mine)
	e.Put(a, "")
	answers := watched(t, ofDocker(engine(t, e), nil))
	addresses(t, answers, "172.17.0.2:80")
	e.Fail(500)
	failing(t, answers, "docker answers 500: driver failed")
	e.Put(standin.At("b", "172.17.0.3", 80, mine), "start") // nobody hears it
	e.Fail(0)
	addresses(t, answers, "172.17.0.2:80 172.17.0.3:80")
	e.Kill(a, 15)
	addresses(t, answers, "172.17.0.2:80! 172.17.0.3:80")
	e.Tell("nonsense")
	failing(t, answers, "not of events")
	addresses(t, answers, "172.17.0.2:80 172.17.0.3:80") // it may have been started again since then
	e.Stop(a)
	addresses(t, answers, "172.17.0.3:80")
}

func TestWhatIsNoEngineIsSaidSo(t *testing.T) {
	t.Parallel()
	other := engine(t, http.NotFoundHandler())
	failing(t, watched(t, ofDocker(other, nil)), "docker answers 404")
	web := engine(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	failing(t, watched(t, ofDocker(web, nil)), `is not a Docker engine's: its header Api-Version is ""`)
	failing(t, watched(t, ofDocker("unix:///nowhere/docker.sock", nil)), "no such file")
	endless := engine(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.99")
		switch {
		case strings.HasSuffix(r.URL.Path, "/json"):
			for _, err := fmt.Fprint(w, `[{"Id":"`); err == nil; _, err = fmt.Fprint(w, strings.Repeat("a", 1<<20)) {
			}
		case strings.HasSuffix(r.URL.Path, "/events"):
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush() // who has gone needs none
			<-r.Context().Done()
		}
	}))
	failing(t, watched(t, ofDocker(endless, nil)), "more than 33554432 bytes")
}

func TestWhatContainersSayOfThemselves(t *testing.T) {
	at := func(labels ...string) standin.Container {
		return standin.At("a", "172.17.0.2", 80, append(labels, mine)...)
	}
	with := func(c standin.Container, change func(*standin.Container)) standin.Container { change(&c); return c }
	for _, test := range []struct {
		name   string
		is     standin.Container
		change func(*model.DiscoverDocker)
		want   Target
		wrong  string
	}{
		{"all", at("headgate.port=9000", "headgate.weight=5", "headgate.priority=2", "headgate.zone=b", "headgate.host=shop.example"), nil,
			Target{Address: "172.17.0.2:9000", Weight: 5, Priority: 2, Zone: "b", Host: "shop.example"}, ""},
		{"its only port", at(), nil, Target{Address: "172.17.0.2:80", Weight: 1}, ""},
		{"the document's port", at(), func(m *model.DiscoverDocker) { m.Port = 81 }, Target{Address: "172.17.0.2:81", Weight: 1}, ""},
		{"another prefix", at("shop.port=90"), func(m *model.DiscoverDocker) { m.Prefix, m.Labels = "shop", []string{"headgate.upstream"} },
			Target{Address: "172.17.0.2:90", Weight: 1}, ""},
		{"healthy in words", with(at(), func(c *standin.Container) { c.Status = "Up 4 minutes (healthy)" }), nil,
			Target{Address: "172.17.0.2:80", Weight: 1}, ""},
		{"ill in words", with(at(), func(c *standin.Container) { c.Status = "Up 4 minutes (unhealthy)" }), nil, Target{}, ""},
		{"starting in words", with(at(), func(c *standin.Container) { c.Status = "Up 4 minutes (health: starting)" }), nil, Target{}, ""},
		{"no check", with(at(), func(c *standin.Container) { c.Health = &standin.Health{Status: "none"} }), nil,
			Target{Address: "172.17.0.2:80", Weight: 1}, ""},
		{"the machine's network", with(at(), func(c *standin.Container) { c.HostConfig.NetworkMode = "host" }), nil,
			Target{Address: "127.0.0.1:80", Weight: 1}, ""},
		{"IPv6", with(at(), func(c *standin.Container) {
			c.NetworkSettings.Networks = map[string]*standin.Network{"six": {GlobalIPv6Address: "fd00::2"}}
		}), nil, Target{Address: "[fd00::2]:80", Weight: 1}, ""},
		{"published", with(at(), func(c *standin.Container) {
			c.Ports = []standin.Port{{IP: "0.0.0.0", PrivatePort: 80, PublicPort: 32768, Type: "tcp"}}
		}), func(m *model.DiscoverDocker) { m.Published = true }, Target{Address: "127.0.0.1:32768", Weight: 1}, ""},
		{"not published", at(), func(m *model.DiscoverDocker) { m.Published = true }, Target{}, "container a: its port 80 is not published"},
		{"a weight", at("headgate.weight=much"), nil, Target{}, `its label headgate.weight is "much"; write a whole number from 0 to 1000`},
		{"a priority", at("headgate.priority=-1"), nil, Target{}, "headgate.priority"},
		{"a port", at("headgate.port=0"), nil, Target{}, "from 1 to 65535"},
		{"two ports", with(at(), func(c *standin.Container) { c.Ports = append(c.Ports, standin.Port{PrivatePort: 81, Type: "tcp"}) }), nil,
			Target{}, "it exposes 2 TCP ports; say which by its label headgate.port, or by port in the document"},
		{"two networks", with(at(), two), nil, Target{}, "it is in blue, bridge; say which network"},
		{"the label's network", with(at("headgate.network=blue"), two), nil, Target{Address: "10.1.0.2:80", Weight: 1}, ""},
		{"the document's network", with(at(), two), func(m *model.DiscoverDocker) { m.Network = "blue" },
			Target{Address: "10.1.0.2:80", Weight: 1}, ""},
		{"another network", at(), func(m *model.DiscoverDocker) { m.Network = "blue" }, Target{}, "it is not in the network blue, but in bridge"},
		{"no network", with(at(), func(c *standin.Container) { c.NetworkSettings.Networks = nil }), nil, Target{}, "it is in none"},
		{"no address", with(at(), func(c *standin.Container) { c.NetworkSettings.Networks = map[string]*standin.Network{"bridge": nil} }), nil,
			Target{}, "no address in the network bridge"},
	} {
		list, err := parsed(t, ofDocker("unix:///s", test.change), test.is)
		var want []Target
		if test.want.Address != "" {
			want = []Target{test.want}
		}
		if !reflect.DeepEqual(list, want) || (err == nil) != (test.wrong == "") || err != nil && !strings.Contains(err.Error(), test.wrong) {
			t.Errorf("%s: %+v, %v", test.name, list, err)
		}
	}
}

// two puts a container into two networks. The one it was in stays.
func two(c *standin.Container) {
	c.NetworkSettings.Networks = map[string]*standin.Network{
		"bridge": c.NetworkSettings.Networks["bridge"], "blue": {IPAddress: "10.1.0.2"},
	}
}

// parsed sends containers through their JSON.
func parsed(t testing.TB, d *docker, all ...standin.Container) ([]Target, error) {
	t.Helper()
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	var list []container
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	return d.targets(list)
}

func TestOneWrongContainerKeepsNobodyElseOut(t *testing.T) {
	wrong := standin.At("wrong", "172.17.0.4", 80, mine, "headgate.weight=x")
	list, err := parsed(t, ofDocker("unix:///s", nil), wrong, standin.At("right", "172.17.0.2", 80, mine), wrong, wrong, wrong)
	if drawn(list) != "172.17.0.2:80" || err == nil || strings.Count(err.Error(), "container wrong") != 3 ||
		!strings.HasSuffix(err.Error(), "; and 1 more") {
		t.Errorf("%v, %v", list, err)
	}
}

func FuzzDocker(f *testing.F) {
	seed, err := json.Marshal([]standin.Container{
		standin.At("a", "172.17.0.2", 80, mine), standin.At("b", "fd00::1", 1, mine, "headgate.weight=3"),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed, []byte(`{"Type":"container","Action":"kill","Actor":{"ID":"a","Attributes":{"headgate.upstream":"shop","signal":"15"}}}`))
	f.Add([]byte(`[{"NetworkSettings":{"Networks":{"a":null}},"Labels":null,"State":"running"}]`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, answer, event []byte) {
		for _, published := range []bool{false, true} {
			d := ofDocker("unix:///s", func(m *model.DiscoverDocker) { m.Published = published })
			if _, err := d.take(event); err != nil && len(d.leaving) > 0 {
				t.Error("an event that is none was followed")
			}
			var all []container
			if json.Unmarshal(answer, &all) != nil {
				continue
			}
			list, _ := d.targets(all)
			if len(list) > len(all) {
				t.Errorf("%d targets of %d containers", len(list), len(all))
			}
			for _, target := range list {
				if err := target.check(); err != nil {
					t.Error(err)
				}
			}
			if len(list) > 0 && !hasUsable(list) {
				t.Error("all of them drain")
			}
		}
	})
}

func hasUsable(list []Target) bool {
	for _, t := range list {
		if !t.Draining {
			return true
		}
	}
	return false
}

// awaitUntil waits for something that happens on another goroutine.
func awaitUntil(t *testing.T, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for patience := time.After(30 * time.Second); !holds(); {
		select {
		case <-tick.C:
		case <-patience:
			t.Fatal("not within 30 s")
		}
	}
}
