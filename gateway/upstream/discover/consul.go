package discover

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"headgate/config/model"
)

// consul asks for the healthy instances of a service by blocking queries (developer.hashicorp.com/consul/api-docs/features/
// blocking). It implements Source.
type consul struct {
	is     model.DiscoverConsul
	client *http.Client
	random func() float64
}

const (
	// consulWait is how long the agent may hold a query that has nothing new; it may add a sixteenth.
	consulWait = 5 * time.Minute
	// consulPatience is how long an answer may take beyond that.
	consulPatience = 15 * time.Second
	// consulPause is the least between two queries: a catalogue that changes all the time is not asked all the time.
	consulPause = 500 * time.Millisecond
	// maxConsul bounds an answer.
	maxConsul = 32 << 20
)

// entry is an instance in the catalogue.
type entry struct {
	Node struct {
		Address string
		Meta    map[string]string
	}
	Service struct {
		Address  string
		Port     int
		Weights  struct{ Passing int }
		Meta     map[string]string
		Tags     []string
		Locality struct{ Zone string }
	}
}

// Watch implements Source.
func (c *consul) Watch(ctx context.Context, found func([]Target, error)) {
	defer c.client.CloseIdleConnections()
	failures := backoff{random: c.random}
	index := uint64(0)
	for {
		list, now, err := c.ask(ctx, index)
		if ctx.Err() != nil {
			return
		}
		pause := consulPause
		switch {
		case err != nil && !errors.As(err, new(*partial)):
			found(nil, err)
			pause, index = failures.next(), 0
		default:
			found(list, err)
			failures.failures = 0
			if now < index { // the agent has been restarted or restored: from the beginning
				now = 0
			}
			index = now
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// ask returns the instances that pass their checks, once something has changed since index; 0: at once.
func (c *consul) ask(ctx context.Context, index uint64) ([]Target, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, consulWait+consulWait/16+consulPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url(index), nil)
	if err != nil {
		return nil, 0, err
	}
	if token := c.is.Token.Reveal(); token != "" {
		r.Header.Set("X-Consul-Token", token)
	}
	reply, err := c.client.Do(r)
	if err != nil {
		return nil, 0, advise(err)
	}
	defer reply.Body.Close()
	switch reply.StatusCode {
	case http.StatusOK:
	case http.StatusForbidden:
		return nil, 0, fmt.Errorf("consul answers 403: the token may not read service %s (it needs service:read and node:read)", c.is.Service)
	default:
		return nil, 0, fmt.Errorf("consul answers %d", reply.StatusCode)
	}
	next, err := strconv.ParseUint(reply.Header.Get("X-Consul-Index"), 10, 64)
	if err != nil {
		return nil, 0, errors.New("the answer is not Consul's: it has no X-Consul-Index")
	}
	var entries []entry
	if err := json.NewDecoder(io.LimitReader(reply.Body, maxConsul)).Decode(&entries); err != nil {
		return nil, 0, fmt.Errorf("the answer is not a list of instances: %w", err)
	}
	list := make([]Target, 0, len(entries))
	var wrong []error
	for i := range entries {
		t, err := entries[i].target()
		if err == nil {
			err = t.check()
		}
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		list = append(list, t)
	}
	return list, next, incomplete(wrong)
}

func (c *consul) url(index uint64) string {
	q := url.Values{"passing": {"1"}}
	if c.is.Tag != "" {
		q.Set("tag", c.is.Tag)
	}
	if c.is.Datacenter != "" {
		q.Set("dc", c.is.Datacenter)
	}
	if index > 0 {
		q.Set("index", strconv.FormatUint(index, 10))
		q.Set("wait", strconv.Itoa(int(consulWait.Seconds()))+"s")
	}
	return c.is.Address + "/v1/health/service/" + url.PathEscape(c.is.Service) + "?" + q.Encode()
}

// target is where an instance answers: at its own address, or its node's. One whose priority is none is left out.
func (e *entry) target() (Target, error) {
	host := e.Service.Address
	if host == "" {
		host = e.Node.Address
	}
	zone := cmp.Or(e.Service.Locality.Zone, e.Service.Meta["zone"], e.Node.Meta["zone"])
	t := Target{
		Address: net.JoinHostPort(host, strconv.Itoa(e.Service.Port)), Zone: zone,
		Weight: max(1, min(e.Service.Weights.Passing, MaxWeight)),
	}
	text := cmp.Or(e.Service.Meta["priority"], e.Node.Meta["priority"])
	for _, tag := range e.Service.Tags {
		if of, ok := strings.CutPrefix(tag, "priority="); ok && text == "" {
			text = of
		}
	}
	if text == "" {
		return t, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > MaxPriority {
		return t, fmt.Errorf("%s has the priority %q; write a whole number from 0 to %d", t.Address, cut(text), MaxPriority)
	}
	t.Priority = n
	return t, nil
}

// advise says what to write when a certificate is not believed.
func advise(err error) error {
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return fmt.Errorf("%w; name the PEM file of the authority in consul.tls.ca", err)
	case errors.As(err, new(x509.HostnameError)):
		return fmt.Errorf("%w; write a name that it is for into consul.tls.server_name", err)
	}
	return err
}
