package discover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"headgate/config/model"
)

// kube follows the EndpointSlices of a service by a list and a watch (kubernetes.io/docs/reference/using-api/api-concepts,
// "Efficient detection of changes"). It implements Source.
type kube struct {
	is      model.DiscoverKube
	api     *api
	account string // a folder with the account's files
	random  func() float64

	namespace string           // whose service it is, once that is known
	slices    map[string]slice // by name
	version   string           // the resourceVersion from which is watched; "": there is no list yet
	fresh     bool             // the next list must not come from a cache, which may be older than what is known
}

const (
	// accountFolder is where a pod finds its account's files (kubernetes.io/docs/tasks/run-application/access-api-from-pod).
	accountFolder = "/var/run/secrets/kubernetes.io/serviceaccount"
	// watchFor is the least that a watch lasts before the server ends it, and twice that the most: servers' own default.
	watchFor = 5 * time.Minute
	// pageSize is how many slices are asked for at a time; a slice has up to 1,000 endpoints.
	pageSize = 100
	// maxSlices bounds the slices of one service: each has a hundred endpoints unless somebody has configured less.
	maxSlices = 2000
)

// metadata is what objects and lists say of themselves (ObjectMeta, ListMeta).
type metadata struct {
	Name            string `json:"name"`
	Namespace       string `json:"namespace"`
	ResourceVersion string `json:"resourceVersion"`
	Continue        string `json:"continue"` // of a list that goes on
}

// sliceList is an EndpointSliceList.
type sliceList struct {
	Kind     string   `json:"kind"`
	Metadata metadata `json:"metadata"`
	Items    []slice  `json:"items"`
}

// watchEvent is a line of a watch (WatchEvent). The object is a slice, or a Status if the type is ERROR.
type watchEvent struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
}

// errExpired is what a server says that has forgotten the version from which is watched.
var errExpired = errors.New("the version of the list has expired")

// newKube returns a source; env tells the variables of the environment.
func newKube(m model.DiscoverKube, env func(string) string, account string) *kube {
	k := &kube{is: m, account: account, random: rand.Float64, slices: map[string]slice{}}
	base, t := strings.TrimRight(m.Address, "/"), trust{ca: m.CA}
	pod := m.Address == ""
	if host := env("KUBERNETES_SERVICE_HOST"); pod && host != "" {
		base = "https://" + net.JoinHostPort(host, env("KUBERNETES_SERVICE_PORT"))
	}
	if pod && t.ca == "" {
		t.ca = account + "/ca.crt"
	}
	k.api = newAPI("kubernetes", base, nil, t)
	k.api.hint = map[int]string{
		http.StatusUnauthorized: "the token is not, or no longer, good",
		http.StatusForbidden:    "the account needs a role with the verbs list and watch on endpointslices of discovery.k8s.io in the namespace",
	}
	file := m.TokenFile
	if pod && file == "" && m.Token.Empty() {
		file = account + "/token"
	}
	switch {
	case file != "":
		k.api.token = func() (string, error) {
			text, err := readCredential(file)
			return strings.TrimSpace(string(text)), err
		}
	case !m.Token.Empty():
		k.api.token = func() (string, error) { return m.Token.Reveal(), nil }
	}
	return k
}

// Watch implements Source.
func (k *kube) Watch(ctx context.Context, found func([]Target, error)) {
	defer k.api.client.CloseIdleConnections()
	failures := backoff{random: k.random}
	for {
		err := k.follow(ctx, found, func() { failures.failures = 0 })
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errExpired):
			k.version = ""
		case err != nil:
			k.version = "" // what happened meanwhile is not known
			found(nil, err)
		}
		if !sleep(ctx, failures.next()) {
			return
		}
	}
}

// follow watches from where the last watch ended, or from a list.
func (k *kube) follow(ctx context.Context, found func([]Target, error), steady func()) error {
	path, err := k.path()
	if err != nil {
		return err
	}
	if k.version == "" {
		if err := k.list(ctx, path); err != nil {
			return err
		}
		found(k.targets())
	}
	seconds := (1 + k.random()) * watchFor.Seconds() // gateways that began together do not ask together again
	watch, err := k.api.stream(ctx, path, k.query(url.Values{
		"watch": {"1"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {k.version}, "timeoutSeconds": {strconv.Itoa(int(seconds))},
	}))
	if err != nil {
		return expiry(err)
	}
	return watch.run(ctx, reader{take: k.take, steady: steady, settle: func() error {
		found(k.targets())
		return nil
	}})
}

// path is the collection of the namespace's slices.
func (k *kube) path() (string, error) {
	if k.api.base == "" {
		return "", errors.New("this is no pod of Kubernetes: KUBERNETES_SERVICE_HOST is not set; write address, and token_file or token")
	}
	if k.namespace = k.is.Namespace; k.namespace == "" {
		text, err := readCredential(k.account + "/namespace")
		if err != nil {
			return "", fmt.Errorf("the gateway's own namespace is not known; write namespace: %w", err)
		}
		k.namespace = strings.TrimSpace(string(text))
	}
	return "/apis/discovery.k8s.io/v1/namespaces/" + url.PathEscape(k.namespace) + "/endpointslices", nil
}

func (k *kube) query(q url.Values) url.Values {
	q.Set("labelSelector", "kubernetes.io/service-name="+k.is.Service)
	return q
}

// list asks for all slices, page by page. The first list may come from the server's cache, which spares it its store.
func (k *kube) list(ctx context.Context, path string) error {
	all, next := map[string]slice{}, ""
	for {
		q := k.query(url.Values{"limit": {strconv.Itoa(pageSize)}})
		switch {
		case next != "":
			q.Set("continue", next)
		case !k.fresh:
			q.Set("resourceVersion", "0")
		}
		var page sliceList
		if err := k.api.read(ctx, path, q, &page); err != nil {
			return expiry(err)
		}
		if page.Kind != "EndpointSliceList" || page.Metadata.ResourceVersion == "" {
			return fmt.Errorf("the answer of kubernetes is not a list of EndpointSlices, but %q", cut(page.Kind))
		}
		for _, s := range page.Items {
			all[s.Metadata.Name] = s
		}
		if len(all) > maxSlices {
			return fmt.Errorf("the service has more than %d EndpointSlices", maxSlices)
		}
		if next = page.Metadata.Continue; next == "" {
			k.slices, k.version, k.fresh = all, page.Metadata.ResourceVersion, true
			return nil
		}
	}
}

// expiry tells what 410 means apart from other errors.
func expiry(err error) error {
	var no *refusal
	if errors.As(err, &no) && no.status == http.StatusGone {
		return errExpired
	}
	return err
}

// take takes in a line of the watch. A bookmark changes nothing, and says that the server is there and all is as it was.
func (k *kube) take(line []byte) (bool, error) {
	var e watchEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return false, fmt.Errorf("the watch of kubernetes is not of events: %w", err)
	}
	if e.Type == "ERROR" {
		return false, watchError(e.Object)
	}
	var s slice
	if err := json.Unmarshal(e.Object, &s); err != nil {
		return false, fmt.Errorf("the watch of kubernetes is not of EndpointSlices: %w", err)
	}
	if s.Kind != "EndpointSlice" || s.Metadata.ResourceVersion == "" {
		return false, fmt.Errorf("the watch of kubernetes is not of EndpointSlices, but of %q", cut(s.Kind))
	}
	switch e.Type {
	case "ADDED", "MODIFIED":
		k.slices[s.Metadata.Name] = s
		if len(k.slices) > maxSlices {
			return false, fmt.Errorf("the service has more than %d EndpointSlices", maxSlices)
		}
	case "DELETED":
		delete(k.slices, s.Metadata.Name)
	case "BOOKMARK":
	default:
		return false, fmt.Errorf("the watch of kubernetes says %q, which is none of its events", cut(e.Type))
	}
	k.version = s.Metadata.ResourceVersion
	return true, nil
}

// watchError reads the Status that ends a watch.
func watchError(object []byte) error {
	var status struct {
		Code            int
		Message, Reason string
	}
	if err := json.Unmarshal(object, &status); err != nil {
		return fmt.Errorf("the watch of kubernetes ended with an error that cannot be read: %w", err)
	}
	if status.Code == http.StatusGone || status.Reason == "Expired" || status.Reason == "Gone" {
		return errExpired
	}
	return &refusal{"kubernetes", cut(status.Message), "", status.Code}
}
