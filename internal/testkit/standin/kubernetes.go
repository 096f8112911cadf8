package standin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Slice is an EndpointSlice (discovery.k8s.io/v1).
type Slice struct {
	Kind        string      `json:"kind,omitempty"`
	APIVersion  string      `json:"apiVersion,omitempty"`
	Metadata    ObjectMeta  `json:"metadata"`
	AddressType string      `json:"addressType"`
	Endpoints   []Endpoint  `json:"endpoints"`
	Ports       []SlicePort `json:"ports"`
}

// ObjectMeta is what an object says of itself.
type ObjectMeta struct {
	Name              string            `json:"name,omitempty"`
	Namespace         string            `json:"namespace,omitempty"`
	UID               string            `json:"uid,omitempty"`
	ResourceVersion   string            `json:"resourceVersion"`
	CreationTimestamp *string           `json:"creationTimestamp"` // null in bookmarks
	Labels            map[string]string `json:"labels,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
}

// Endpoint is one of a slice.
type Endpoint struct {
	Addresses  []string   `json:"addresses"`
	Conditions Conditions `json:"conditions"`
	NodeName   string     `json:"nodeName,omitempty"`
	Zone       string     `json:"zone,omitempty"`
	Hints      *Hints     `json:"hints,omitempty"`
}

// Conditions of an endpoint; nil is not told.
type Conditions struct {
	Ready       *bool `json:"ready,omitempty"`
	Serving     *bool `json:"serving,omitempty"`
	Terminating *bool `json:"terminating,omitempty"`
}

// Hints say for which zones an endpoint is meant.
type Hints struct {
	ForZones []ForZone `json:"forZones,omitempty"`
}

// ForZone names a zone.
type ForZone struct {
	Name string `json:"name"`
}

// SlicePort is a port of all endpoints of a slice.
type SlicePort struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol,omitempty"`
	Port     int    `json:"port,omitempty"`
}

// Kubernetes is an API server with EndpointSlices. It is an http.Handler and safe for concurrent use.
type Kubernetes struct {
	mu      sync.Mutex
	token   string // the one that is good; "": none is needed
	version int
	first   int // what happened before is forgotten
	slices  map[string]Slice
	history []change
	watches map[chan string]watch
	ended   chan struct{}
	fail    int
	asked   []string
}

type change struct {
	version int
	service string
	line    string
}

// watch is what a watch was asked for.
type watch struct{ service string }

// NewKubernetes returns a server that wants a token; "": none.
func NewKubernetes(token string) *Kubernetes {
	return &Kubernetes{token: token, version: 100, slices: map[string]Slice{}, watches: map[chan string]watch{}, ended: make(chan struct{})}
}

// SliceOf returns a slice of a service in the namespace default, with ready IPv4 endpoints.
func SliceOf(service, name string, port int, addresses ...string) Slice {
	created := "2026-01-02T03:04:05Z"
	s := Slice{
		Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1", AddressType: "IPv4", Ports: []SlicePort{{"http", "TCP", port}},
		Endpoints: []Endpoint{},
		Metadata: ObjectMeta{Name: name, Namespace: "default", UID: "0b1c", CreationTimestamp: &created, Labels: map[string]string{
			"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
		}},
	}
	yes, no := true, false
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, Endpoint{Addresses: []string{a}, Conditions: Conditions{&yes, &yes, &no}, NodeName: "node-1"})
	}
	return s
}

// Put adds a slice, or replaces the one of its name.
func (k *Kubernetes) Put(s Slice) {
	k.mu.Lock()
	defer k.mu.Unlock()
	kind := "ADDED"
	if _, there := k.slices[s.Metadata.Name]; there {
		kind = "MODIFIED"
	}
	k.version++
	s.Metadata.ResourceVersion = strconv.Itoa(k.version)
	k.slices[s.Metadata.Name] = s
	k.tell(kind, s)
}

// Delete removes a slice.
func (k *Kubernetes) Delete(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.slices[name]
	delete(k.slices, name)
	k.version++
	s.Metadata.ResourceVersion = strconv.Itoa(k.version)
	k.tell("DELETED", s)
}

// Bookmark tells every watch how far it has got; skip makes the version grow first, as changes of other objects do.
func (k *Kubernetes) Bookmark(skip int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.version += skip
	k.send(`{"type":"BOOKMARK","object":{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":"` +
		strconv.Itoa(k.version) + `","creationTimestamp":null},"addressType":"","endpoints":null,"ports":null}}` + "\n")
}

// Forget makes every version until now one that has expired, and ends the watches; what is changed then is not told.
func (k *Kubernetes) Forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.version++
	k.first, k.history = k.version, nil
	k.end()
}

// End ends the watches in order, as a server does after their time.
func (k *Kubernetes) End() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.end()
}

func (k *Kubernetes) end() {
	close(k.ended)
	k.ended = make(chan struct{})
}

// Tell sends a line to every watch as it stands.
func (k *Kubernetes) Tell(line string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.send(line + "\n")
}

// Fail answers everything with a status from now on, 0: no more; and ends the watches.
func (k *Kubernetes) Fail(status int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = status
	k.end()
}

// Rotate makes another token the good one, and ends the watches.
func (k *Kubernetes) Rotate(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.token = token
	k.end()
}

// Asked returns what was asked, each as "PATH?QUERY".
func (k *Kubernetes) Asked() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.asked)
}

// Watches returns how many watches are open.
func (k *Kubernetes) Watches() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.watches)
}

func (k *Kubernetes) tell(kind string, s Slice) {
	line, err := json.Marshal(map[string]any{"type": kind, "object": s})
	if err != nil {
		return
	}
	service := s.Metadata.Labels["kubernetes.io/service-name"]
	k.history = append(k.history, change{k.version, service, string(line) + "\n"})
	for w, of := range k.watches {
		if of.service == service {
			offer(w, string(line)+"\n")
		}
	}
}

func (k *Kubernetes) send(line string) {
	for w := range k.watches {
		offer(w, line)
	}
}

func offer(w chan string, line string) {
	select {
	case w <- line:
	default: // who does not read is left behind; a test does not
	}
}

const collection = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"

// ServeHTTP implements http.Handler.
func (k *Kubernetes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	k.asked = append(k.asked, r.URL.RequestURI())
	fail, token := k.fail, k.token
	k.mu.Unlock()
	q := r.URL.Query()
	service, selected := strings.CutPrefix(q.Get("labelSelector"), "kubernetes.io/service-name=")
	w.Header().Set("Content-Type", "application/json")
	switch {
	case token != "" && r.Header.Get("Authorization") != "Bearer "+token:
		status(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized")
	case fail == http.StatusForbidden:
		status(w, fail, "Forbidden", `endpointslices.discovery.k8s.io is forbidden: User "system:serviceaccount:default:gate" cannot list resource `+
			`"endpointslices" in API group "discovery.k8s.io" in the namespace "default"`)
	case fail != 0:
		status(w, fail, "InternalError", "an error on the server has prevented the request from succeeding")
	case r.URL.Path != collection || !selected:
		status(w, http.StatusNotFound, "NotFound", "the server could not find the requested resource")
	case q.Get("watch") == "1":
		k.watch(w, r, service)
	default:
		k.list(w, service, q.Get("limit"), q.Get("continue"))
	}
}

// statusText is a Status, as a refusal is told.
func statusText(code int, reason, message string) string {
	return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":%q,"reason":%q,"code":%d}`,
		message, reason, code)
}

func status(w http.ResponseWriter, code int, reason, message string) {
	w.WriteHeader(code)
	_, _ = w.Write([]byte(statusText(code, reason, message) + "\n")) // who has gone needs no answer
}

func (k *Kubernetes) list(w http.ResponseWriter, service, limit, next string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []Slice
	for _, s := range k.slices {
		if s.Metadata.Labels["kubernetes.io/service-name"] == service && s.Metadata.Name > next {
			s.Kind, s.APIVersion = "", "" // in lists they stand once, outside
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Slice) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	meta := map[string]any{"resourceVersion": strconv.Itoa(k.version)}
	if n, err := strconv.Atoi(limit); err == nil && n > 0 && len(all) > n {
		all = all[:n]
		meta["continue"] = all[n-1].Metadata.Name
	}
	_ = json.NewEncoder(w).Encode(map[string]any{ // who has gone needs no answer
		"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": meta, "items": all,
	})
}

func (k *Kubernetes) watch(w http.ResponseWriter, r *http.Request, service string) {
	from, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil {
		status(w, http.StatusBadRequest, "BadRequest", "resourceVersion: Invalid value")
		return
	}
	lines := make(chan string, 4096)
	k.mu.Lock()
	if from < k.first { // told inside the stream, as the watch cache does
		lines <- `{"type":"ERROR","object":` + statusText(http.StatusGone, "Expired",
			fmt.Sprintf("too old resource version: %d (%d)", from, k.first)) + "}\n"
		close(lines)
	} else {
		for _, c := range k.history {
			if c.version > from && c.service == service {
				offer(lines, c.line)
			}
		}
		k.watches[lines] = watch{service}
	}
	ended := k.ended
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.watches, lines)
		k.mu.Unlock()
	}()
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
		case line, more := <-lines:
			if !more {
				return
			}
			if _, err := w.Write([]byte(line)); err != nil || flush() != nil {
				return
			}
		}
	}
}
