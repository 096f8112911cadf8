// Package standin has servers that speak the APIs of a Docker engine and of Kubernetes, as far as discovery asks them, for
// tests on machines that can run neither. Formats and refusals are those of the real ones.
package standin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Container is one in an engine's list (ContainerSummary in docs.docker.com/reference/api/engine).
type Container struct {
	ID              string `json:"Id"`
	Names           []string
	Image           string
	ImageID         string
	Command         string
	Created         int64
	Ports           []Port
	Labels          map[string]string
	State           string
	Status          string
	HostConfig      HostConfig
	NetworkSettings NetworkSettings
	Health          *Health `json:",omitempty"`
}

// Port is one that a container exposes, or that the engine publishes (PortSummary).
type Port struct {
	IP          string `json:",omitempty"`
	PrivatePort int
	PublicPort  int `json:",omitempty"`
	Type        string
}

// HostConfig says which network is a container's first.
type HostConfig struct{ NetworkMode string }

// NetworkSettings are a container's networks by name.
type NetworkSettings struct{ Networks map[string]*Network }

// Network is a container's place in one (EndpointSettings).
type Network struct {
	NetworkID         string
	EndpointID        string
	Gateway           string
	IPAddress         string
	IPPrefixLen       int
	GlobalIPv6Address string
	DNSNames          []string
}

// Health is what a container's own check has found: none, starting, healthy or unhealthy. Engines tell it so since version
// 1.52 of the API; before it stands in Status alone.
type Health struct {
	Status        string
	FailingStreak int
}

// Docker is an engine. It is an http.Handler and safe for concurrent use.
type Docker struct {
	mu         sync.Mutex
	version    string // the newest of the API that it knows
	containers []Container
	streams    map[chan string]bool
	fail       int // the status of every answer; 0: none
	asked      []string
	ended      chan struct{} // closed when all streams are to end
}

// NewDocker returns an engine of a version of the API, such as 1.52.
func NewDocker(version string) *Docker {
	return &Docker{version: version, streams: map[chan string]bool{}, ended: make(chan struct{})}
}

// At returns a container that runs, in the network bridge and exposing one port, with the labels KEY=VALUE.
func At(id, ip string, port int, labels ...string) Container {
	c := Container{
		ID: id + strings.Repeat("0", max(0, 64-len(id))), Names: []string{"/" + id}, Image: "shop:1", ImageID: "sha256:4f", Command: "/shop",
		Created: 1739811096, Ports: []Port{{PrivatePort: port, Type: "tcp"}}, Labels: map[string]string{}, State: "running",
		Status: "Up 4 minutes", HostConfig: HostConfig{"bridge"},
	}
	c.NetworkSettings.Networks = map[string]*Network{
		"bridge": {NetworkID: "7ea29fc1412292a2", Gateway: "172.17.0.1", IPAddress: ip, IPPrefixLen: 16},
	}
	for _, l := range labels {
		key, value, _ := strings.Cut(l, "=")
		c.Labels[key] = value
	}
	return c
}

// Put adds a container, or replaces the one of its id, and tells the action, such as start or "health_status: healthy"; ""
// tells nothing.
func (d *Docker) Put(c Container, action string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.IndexFunc(d.containers, func(o Container) bool { return o.ID == c.ID }); i >= 0 {
		d.containers[i] = c
	} else {
		d.containers = append(d.containers, c)
	}
	d.tell(c, action, nil)
}

// Kill tells that a container was sent a signal; it runs on.
func (d *Docker) Kill(c Container, signal int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tell(c, "kill", map[string]string{"signal": strconv.Itoa(signal)})
}

// Stop ends a container, and tells so as an engine does.
func (d *Docker) Stop(c Container) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.containers = slices.DeleteFunc(d.containers, func(o Container) bool { return o.ID == c.ID })
	d.tell(c, "die", map[string]string{"exitCode": "0"})
	d.tell(c, "stop", nil)
}

// Tell tells an event as it stands, with a line feed after it.
func (d *Docker) Tell(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.send(line + "\n")
}

// Fail answers everything with a status from now on, 0: no more; and ends the streams.
func (d *Docker) Fail(status int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = status
	close(d.ended)
	d.ended = make(chan struct{})
}

// Asked returns what was asked, each as "PATH?QUERY".
func (d *Docker) Asked() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.asked)
}

// Streams returns how many streams of events are open.
func (d *Docker) Streams() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.streams)
}

// tell is called with the lock held.
func (d *Docker) tell(c Container, action string, more map[string]string) {
	if action == "" {
		return
	}
	attributes := map[string]string{"image": c.Image, "name": strings.TrimPrefix(c.Names[0], "/")}
	for _, of := range []map[string]string{c.Labels, more} {
		for key, value := range of {
			attributes[key] = value
		}
	}
	now := time.Now()
	line, err := json.Marshal(map[string]any{
		"status": action, "id": c.ID, "from": c.Image, "Type": "container", "Action": action, "scope": "local",
		"Actor": map[string]any{"ID": c.ID, "Attributes": attributes}, "time": now.Unix(), "timeNano": now.UnixNano(),
	})
	if err == nil {
		d.send(string(line) + "\n")
	}
}

func (d *Docker) send(line string) {
	for s := range d.streams {
		select {
		case s <- line:
		default: // engines drop what a client does not read
		}
	}
}

// ServeHTTP implements http.Handler.
func (d *Docker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.asked = append(d.asked, r.URL.RequestURI())
	fail, version := d.fail, d.version
	d.mu.Unlock()
	w.Header().Set("Api-Version", version)
	w.Header().Set("Docker-Experimental", "false")
	w.Header().Set("Ostype", "linux")
	w.Header().Set("Server", "Docker/29.0.0 (linux)")
	path := r.URL.Path
	if rest, ok := strings.CutPrefix(path, "/v"); ok {
		asked, after, _ := strings.Cut(rest, "/")
		if minor(asked) > minor(version) {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("client version %s is too new. Maximum supported API version is %s", asked, version))
			return
		}
		path = "/" + after
	}
	filters, err := readFilters(r.URL.Query().Get("filters"))
	switch {
	case fail != 0:
		refuse(w, fail, "driver failed")
	case err != nil:
		refuse(w, http.StatusBadRequest, "invalid filter")
	case path == "/_ping":
		_, _ = w.Write([]byte("OK")) // who has gone needs no answer
	case path == "/containers/json":
		d.list(w, filters)
	case path == "/events":
		d.events(w, r, filters)
	default:
		refuse(w, http.StatusNotFound, "page not found")
	}
}

func minor(version string) int {
	_, text, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(text) // what is no number is old
	return n
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message}) // who has gone needs no answer
}

// readFilters reads a map of lists; engines take maps of sets, too.
func readFilters(text string) (f map[string][]string, err error) {
	if text == "" {
		return nil, nil
	}
	err = json.Unmarshal([]byte(text), &f)
	return f, err
}

func (d *Docker) list(w http.ResponseWriter, filters map[string][]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []Container{}
	for _, c := range d.containers {
		if has(c.Labels, filters["label"]) && (len(filters["status"]) == 0 || slices.Contains(filters["status"], c.State)) {
			list = append(list, c)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list) // who has gone needs no answer
}

func has(labels map[string]string, want []string) bool {
	for _, l := range want {
		key, value, exact := strings.Cut(l, "=")
		if got, ok := labels[key]; !ok || exact && got != value {
			return false
		}
	}
	return true
}

func (d *Docker) events(w http.ResponseWriter, r *http.Request, filters map[string][]string) {
	lines := make(chan string, 1024)
	d.mu.Lock()
	d.streams[lines] = true
	ended := d.ended
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.streams, lines)
		d.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/json")
	flush := http.NewResponseController(w).Flush
	if flush() != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-ended:
			return
		case line := <-lines:
			var e struct{ Type, Action string }
			if json.Unmarshal([]byte(line), &e) == nil && !wanted(filters, e.Type, e.Action) {
				continue
			}
			if _, err := w.Write([]byte(line)); err != nil || flush() != nil {
				return
			}
		}
	}
}

// wanted filters events: health_status stands for all that begin with it.
func wanted(filters map[string][]string, kind, action string) bool {
	in := func(of, text string) bool {
		return len(filters[of]) == 0 || slices.ContainsFunc(filters[of], func(p string) bool { return strings.HasPrefix(text, p) })
	}
	return in("type", kind) && in("event", action)
}
