package chaos

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"headgate/internal/testkit/standin"
)

// found is what the tests read of discovery in /status.
type found struct {
	Name      string `json:"name"`
	Discovery struct {
		State, Error, LeftOut string
		Held, Damped          int
		Errors, Changes       int64
	} `json:"discovery"`
	Targets []struct {
		Address string `json:"address"`
	} `json:"targets"`
}

// discovery returns what /status says of an upstream.
func (g *gateway) discovery(t *testing.T, upstream string) found {
	t.Helper()
	var s struct {
		Upstreams []found `json:"upstreams"`
	}
	if err := json.Unmarshal([]byte(g.mustAsk(t, "/status")), &s); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(s.Upstreams, func(f found) bool { return f.Name == upstream })
	if i < 0 {
		t.Fatalf("no upstream %s", upstream)
	}
	return s.Upstreams[i]
}

// discovers waits until /status says of an upstream what is wanted.
func (g *gateway) discovers(t *testing.T, upstream, what string, holds func(found) bool) {
	t.Helper()
	eventually(t, what, func() (bool, string) {
		f := g.discovery(t, upstream)
		return holds(f), fmt.Sprintf("%d targets, %+v", len(f.Targets), f.Discovery)
	})
}

// count waits until an upstream has so many targets.
func (g *gateway) count(t *testing.T, upstream string, n int) {
	t.Helper()
	g.discovers(t, upstream, fmt.Sprintf("%d targets", n), func(f found) bool { return len(f.Targets) == n })
}

// socket serves a handler on a socket of Unix, whose path is short enough for one.
func socket(t *testing.T, h http.Handler) (path string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // it is a temporary one
	path = filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return path, serveOn(t, l, h)
}

// serveOn serves a handler until the end of the test, or until stop is called, which ends its streams, too.
func serveOn(t *testing.T, l net.Listener, h http.Handler) (stop func()) {
	t.Helper()
	s, ended := &http.Server{Handler: h}, make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(l) // it ends by being closed
	}()
	stop = func() { s.Close(); <-ended }
	t.Cleanup(stop)
	return stop
}

// web is a server on this machine.
func web(t *testing.T, h http.Handler) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, h)
	return "http://" + l.Addr().String()
}

// deployment is somebody who starts and ends the instances of a service.
type deployment struct {
	come   func(name, address string)
	ending func(name, address string) // it was told to end
	gone   func(name string)
}

// dockerOf runs instances as containers of an engine.
func dockerOf(e *standin.Docker) deployment {
	all := map[string]standin.Container{}
	return deployment{
		come: func(name, address string) {
			_, port, _ := strings.Cut(address, ":")
			n, _ := strconv.Atoi(port) // a listener's address has one
			all[name] = standin.At(name, "127.0.0.1", n, "headgate.upstream=a")
			e.Put(all[name], "start")
		},
		ending: func(name, _ string) { e.Kill(all[name], 15) },
		gone:   func(name string) { e.Stop(all[name]) },
	}
}

// kubeOf runs instances as pods, each in a slice of its own.
func kubeOf(k *standin.Kubernetes) deployment {
	put := func(name, address string, ending bool) {
		_, port, _ := strings.Cut(address, ":")
		n, _ := strconv.Atoi(port) // a listener's address has one
		s := standin.SliceOf("a", name, n, "127.0.0.1")
		yes, no := true, false
		if s.Endpoints[0].Conditions = (standin.Conditions{Ready: &yes, Serving: &yes, Terminating: &no}); ending {
			s.Endpoints[0].Conditions = standin.Conditions{Ready: &no, Serving: &yes, Terminating: &yes}
		}
		k.Put(s)
	}
	return deployment{
		come:   func(name, address string) { put(name, address, false) },
		ending: func(name, address string) { put(name, address, true) },
		gone:   func(name string) { k.Delete(name) },
	}
}

// Every instance is replaced as containers and pods are, one after the other and twice over, under load: it is told to end
// at the moment at which the gateway can learn it, and not later. No request is lost.
func TestRollingReplacementThroughAnEngineLosesNoRequest(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) (deployment, string){
		"docker": func(t *testing.T) (deployment, string) {
			e := standin.NewDocker("1.52")
			path, _ := socket(t, e)
			return dockerOf(e), "docker: {address: unix://" + path + "}"
		},
		"kubernetes": func(t *testing.T) (deployment, string) {
			k := standin.NewKubernetes("")
			return kubeOf(k), "kubernetes: {service: a, namespace: default, address: '" + web(t, k) + "'}"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service, source := start(t)
			var running []*replaceable
			for i := range 3 {
				r := startReplaceable(t)
				running = append(running, r)
				service.come(fmt.Sprintf("i%d", i), r.address)
			}
			g := startGateway(t, `
listeners: {public: {address: "${LISTEN}"}}
upstreams: {a: {discover: {`+source+`}}}
apis: {all: {upstream: a}}
`)
			g.count(t, "a", 3)
			l := rollingLoad(g.listen).begin()
			for i := range 6 {
				old := running[i%3]
				next := startReplaceable(t)
				running[i%3] = next
				service.come(fmt.Sprintf("i%d", i+3), next.address)
				g.count(t, "a", 4)
				service.ending(fmt.Sprintf("i%d", i), old.address)
				if err := old.server.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				service.gone(fmt.Sprintf("i%d", i))
				g.count(t, "a", 3)
			}
			l.end()
			if faults := l.faults(); len(faults) > 0 {
				t.Errorf("%d of %d requests were lost; the first: %v", len(faults), l.sent.Load(), faults[0])
			}
			t.Logf("%d requests, 6 instances replaced", l.sent.Load())
		})
	}
}

// rollingLoad asks what a replaceable answers.
func rollingLoad(address string) *load {
	return &load{
		address: address, every: 2 * time.Millisecond, workers: 16,
		ask: func(n int) string { return request(fmt.Sprintf("GET /%d", n)) },
		judge: func(n int, r reply, err error) error {
			if want := fmt.Sprintf("R /%d", n); err != nil || r.status != 200 || r.body != want {
				return fmt.Errorf("%d %q, %v", r.status, r.body, err)
			}
			return nil
		},
	}
}

// An engine that goes takes no target away, nor does a start at which it is not there; it is said, and it comes back.
func TestAnEngineThatIsDownAtStartIsReplacedByTheLastAnswer(t *testing.T) {
	t.Setenv("HEADGATE_STATE", t.TempDir())
	e := standin.NewDocker("1.47")
	path, stop := socket(t, e)
	r := startReplaceable(t)
	dockerOf(e).come("i0", r.address)
	e.Put(standin.At("wrong", "127.0.0.1", 1, "headgate.upstream=a", "headgate.weight=x"), "start")
	g := startGateway(t, `
listeners: {public: {address: "${LISTEN}"}}
upstreams: {a: {discover: {docker: {address: "unix://`+path+`"}}}}
apis: {all: {upstream: a}}
`)
	g.count(t, "a", 1)
	if s := g.mustAsk(t, "/status"); !strings.Contains(s, "container wrong: its label headgate.weight is") {
		t.Errorf("nothing tells of the container that was left out:\n%s", s)
	}
	stop()
	g.discovers(t, "a", "it is noticed", func(f found) bool { return f.Discovery.State == "last_good" && len(f.Targets) == 1 })
	g.kill()
	g.stopped = true
	g.process = start(t, g.binary, "run", g.document, "--test-clock")
	g.awaitReady(t)
	if got := connect(t, g.listen).get(t, "/"); got.status != 200 {
		t.Errorf("after a restart without the engine: %d", got.status)
	}
	g.discovers(t, "a", "it is noticed", func(f found) bool { return f.Discovery.State == "last_good" && f.Discovery.Error != "" })
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, e)
	g.discovers(t, "a", "the engine is back", func(f found) bool { return f.Discovery.State == "current" })
}
