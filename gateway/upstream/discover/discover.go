// Package discover finds the targets of an upstream: in a file, in the domain name system, in Consul's catalogue, among a
// Docker engine's containers, or in Kubernetes' EndpointSlices.
//
// A Source only says what it is told. A Follower decides what that means: what is empty or failed removes nothing, much that
// goes at once is held for a while, what comes and goes stays longer each time, and the last good answer is kept for a start
// at which the source is down.
package discover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Target is one address of a service, as a source knows it.
type Target struct {
	Address  string `json:"address"`            // host:port to dial
	Host     string `json:"host,omitempty"`     // the name that its certificate must have; "": the host of its address
	Weight   int    `json:"weight"`             // 1 to MaxWeight
	Priority int    `json:"priority,omitempty"` // 0 to MaxPriority; those of the lowest one are used first (RFC 2782)
	Zone     string `json:"zone,omitempty"`     // where it is; "": not known
	Draining bool   `json:"draining,omitempty"` // takes no new requests
}

// Source is somebody who knows the targets of a service.
type Source interface {
	// Watch tells every answer, or why there is none, until ctx is done; then it returns and tells no more. found is called by
	// one goroutine at a time and must be given a list of its own. An answer that is good but for some of what it names is
	// told with both: the others, and what was left out.
	Watch(ctx context.Context, found func([]Target, error))
}

const (
	// MaxTargets bounds the targets of one upstream, whatever a source answers.
	MaxTargets = 10_000
	// MaxWeight is the greatest share of a target beside the others.
	MaxWeight = 1000
	// MaxPriority is the last to be used; it is a number of 16 bits (RFC 2782).
	MaxPriority = 65535
	// maxAddress bounds an address: a host name has at most 253 characters (RFC 1035 section 2.3.4).
	maxAddress = 260
)

// errEmpty is an answer that would leave nobody.
var errEmpty = errors.New("the answer names no target")

// inspect returns the targets of an answer once each, or what is wrong with it.
func inspect(list []Target) ([]Target, error) {
	switch n := len(list); {
	case n == 0:
		return nil, errEmpty
	case n > MaxTargets:
		return nil, fmt.Errorf("the answer names %d targets; at most %d", n, MaxTargets)
	}
	seen := make(map[string]bool, len(list))
	out := make([]Target, 0, len(list))
	for _, t := range list {
		if err := t.check(); err != nil {
			return nil, err
		}
		if !seen[t.Address] {
			seen[t.Address] = true
			out = append(out, t)
		}
	}
	return out, nil
}

func (t Target) check() error {
	host, port, err := net.SplitHostPort(t.Address)
	n, notNumber := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || host == "" || notNumber != nil || n == 0 || len(t.Address) > maxAddress:
		return fmt.Errorf("%.*q is not host:port, such as 10.0.0.4:9000", maxAddress, t.Address)
	case t.Weight < 0 || t.Weight > MaxWeight:
		return fmt.Errorf("%s has weight %d; between 0 and %d", t.Address, t.Weight, MaxWeight)
	case t.Priority < 0 || t.Priority > MaxPriority:
		return fmt.Errorf("%s has priority %d; between 0 and %d", t.Address, t.Priority, MaxPriority)
	}
	return nil
}

const (
	// firstPause is what follows a source's first failure; it doubles with each further one in a row.
	firstPause = time.Second
	// maxPause is the longest: a source that is back is noticed within it.
	maxPause = 30 * time.Second
)

// backoff is the pause after failures in a row.
type backoff struct {
	failures int
	random   func() float64 // from 0 to 1: gateways that lost a source together do not come back together
}

func (b *backoff) next() time.Duration {
	pause := min(firstPause<<min(b.failures, 8), maxPause)
	b.failures++
	return pause/2 + time.Duration(b.random()*float64(pause/2))
}

// sleep waits; false: ctx is done.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
