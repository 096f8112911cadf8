package discover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"headgate/config/model"
)

// docker asks an engine for containers (docs.docker.com/reference/api/engine), and again after what its events tell. It
// implements Source.
type docker struct {
	is      model.DiscoverDocker
	api     *api
	host    string // where the engine's machine is asked
	every   time.Duration
	random  func() float64
	leaving map[string]int // containers that were told to end, and for how many rounds that is known
}

const (
	// dockerRound is how often an engine is asked although it tells no event.
	dockerRound = 30 * time.Second
	// maxRounds is how many of these a container that was told to end may take for it; then the signal meant something else.
	maxRounds = 4
	// maxLeaving bounds the containers that are remembered to be ending.
	maxLeaving = MaxTargets
	// thisMachine is where an engine's machine is asked that is reached by a socket.
	thisMachine = "127.0.0.1"
	// dockerMajor and dockerMinor are the newest version of the API that is known here; an engine need not know it.
	dockerMajor, dockerMinor = 1, 52
)

// event is what an engine tells (EventMessage).
type event struct {
	Type, Action string
	Actor        struct {
		ID         string
		Attributes map[string]string
	}
}

func newDocker(upstream string, m model.DiscoverDocker) *docker {
	if len(m.Labels) == 0 {
		m.Labels = []string{m.Prefix + ".upstream=" + upstream}
	}
	d := &docker{is: m, host: thisMachine, every: dockerRound, random: rand.Float64, leaving: map[string]int{}}
	if path, ok := strings.CutPrefix(m.Address, "unix://"); ok {
		d.api = newAPI("docker", "http://docker", func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: apiPatience}).DialContext(ctx, "unix", path)
		}, trust{})
		return d
	}
	_, rest, _ := strings.Cut(m.Address, "://")
	base := "http://" + strings.TrimRight(rest, "/")
	if strings.HasPrefix(m.Address, "https") || m.TLS != nil {
		base = "https" + strings.TrimPrefix(base, "http")
	}
	if u, err := url.Parse(base); err == nil {
		d.host = u.Hostname()
	}
	d.api = newAPI("docker", base, nil, trustIn(m.TLS))
	return d
}

// Watch implements Source.
func (d *docker) Watch(ctx context.Context, found func([]Target, error)) {
	defer d.api.client.CloseIdleConnections()
	failures := backoff{random: d.random}
	for {
		err := d.follow(ctx, found, func() { failures.failures = 0 })
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			found(nil, err)
		}
		if !sleep(ctx, failures.next()) {
			return
		}
	}
}

// follow hears what happens before it asks what there is, so that nothing is missed in between.
func (d *docker) follow(ctx context.Context, found func([]Target, error), steady func()) error {
	version, err := d.version(ctx)
	if err != nil {
		return err
	}
	clear(d.leaving) // who was told to end may have been started again while nobody listened
	events, err := d.api.stream(ctx, version+"/events", dockerFilters(map[string][]string{
		"type": {"container", "network"},
		"event": {"start", "die", "stop", "kill", "pause", "unpause", "health_status", "update", "rename", "destroy",
			"connect", "disconnect"},
	}))
	if err != nil {
		return err
	}
	ask := func() error {
		list, err := d.list(ctx, version)
		if ctx.Err() == nil && (len(list) > 0 || err == nil || errors.As(err, new(*partial))) {
			found(list, err)
			return nil
		}
		return err
	}
	if err := ask(); err != nil {
		events.stop()
		return err
	}
	return events.run(ctx, reader{take: d.take, settle: ask, every: d.every, steady: steady, round: func() error {
		d.forget()
		return ask()
	}})
}

// version asks which version of the API both know, and returns the beginning of its paths.
func (d *docker) version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, apiPatience)
	defer cancel()
	reply, err := d.api.get(ctx, "/_ping", nil)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	text := reply.Header.Get("Api-Version")
	first, second, _ := strings.Cut(text, ".")
	major, err := strconv.ParseUint(first, 10, 16)
	minor, minorErr := strconv.ParseUint(second, 10, 16)
	if err != nil || minorErr != nil {
		return "", fmt.Errorf("the answer at %s is not a Docker engine's: its header Api-Version is %q", d.is.Address, cut(text))
	}
	if major > dockerMajor || major == dockerMajor && minor > dockerMinor {
		major, minor = dockerMajor, dockerMinor
	}
	return fmt.Sprintf("/v%d.%d", major, minor), nil
}

func dockerFilters(f map[string][]string) url.Values {
	text, err := json.Marshal(f)
	if err != nil { // a map of strings always is JSON
		return nil
	}
	return url.Values{"filters": {string(text)}}
}

// take notes what an event says; it reports whether the containers are to be asked for.
func (d *docker) take(line []byte) (bool, error) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		return false, fmt.Errorf("the stream of docker is not of events: %w", err)
	}
	if e.Type == "network" {
		return true, nil
	}
	if e.Type != "container" || !labelled(e.Actor.Attributes, d.is.Labels) {
		return false, nil
	}
	switch e.Action {
	case "kill":
		if ends(e.Actor.Attributes["signal"]) && len(d.leaving) < maxLeaving {
			d.leaving[e.Actor.ID] = 0
		}
	case "die", "start", "destroy":
		delete(d.leaving, e.Actor.ID)
	}
	return true, nil
}

// ends reports whether a signal is one by which engines ask containers to end (INT, QUIT, KILL, TERM).
func ends(signal string) bool {
	return slices.Contains([]string{"2", "3", "9", "15"}, signal)
}

// forget lets containers take part again that were told to end long ago and have not.
func (d *docker) forget() {
	for id, rounds := range d.leaving {
		if d.leaving[id]++; rounds >= maxRounds {
			delete(d.leaving, id)
		}
	}
}

// list asks for the containers that run.
func (d *docker) list(ctx context.Context, version string) ([]Target, error) {
	var all []container
	filters := dockerFilters(map[string][]string{"label": d.is.Labels, "status": {"running"}})
	if err := d.api.read(ctx, version+"/containers/json", filters, &all); err != nil {
		return nil, err
	}
	return d.targets(all)
}
