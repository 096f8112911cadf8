package discover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"headgate/config/model"
)

// dns asks for a name again whenever the answer expires. It implements Source.
type dns struct {
	is       model.DiscoverDNS
	resolver resolver
	random   func() float64
	had      map[dnsmessage.Type]bool // kinds of addresses that the last good answers had
}

const (
	// early is the share of a time to live by which is asked earlier, at most: gateways do not ask all at once.
	early = 0.1
	// maxServices bounds the hosts that services name and whose addresses are asked for.
	maxServices = 1000
)

func newDNS(m model.DiscoverDNS, r resolver, random func() float64) *dns {
	return &dns{is: m, resolver: r, random: random, had: map[dnsmessage.Type]bool{}}
}

// Watch implements Source.
func (d *dns) Watch(ctx context.Context, found func([]Target, error)) {
	failures := backoff{random: d.random}
	for {
		list, ttl, err := d.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		found(list, err)
		pause := failures.next()
		if err == nil {
			failures.failures = 0
			pause = max(d.is.MinTTL, min(ttl, d.is.MaxTTL))
			pause -= time.Duration(d.random() * early * float64(pause))
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

func (d *dns) ask(ctx context.Context) ([]Target, time.Duration, error) {
	var (
		list []Target
		ttl  time.Duration
		err  error
	)
	if d.is.SRV {
		list, ttl, err = d.services(ctx)
	} else {
		list, ttl, err = d.addresses(ctx, d.is.Name, d.is.Port)
	}
	if errors.Is(err, errNoName) {
		err = fmt.Errorf("%s: %w", d.is.Name, err)
	}
	return list, ttl, err
}

// addresses asks for both kinds. One that fails is left out, unless it has had addresses: they are not given up for that.
func (d *dns) addresses(ctx context.Context, host string, port int) (list []Target, ttl time.Duration, err error) {
	var failed error
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		a, err := d.resolver.lookup(ctx, host, kind)
		switch {
		case errors.Is(err, errNoName):
			continue
		case err != nil && d.had[kind]:
			return nil, 0, err
		case err != nil:
			failed = err
			continue
		}
		d.had[kind] = true
		if len(list) == 0 || a.ttl < ttl {
			ttl = a.ttl
		}
		for _, r := range a.records {
			list = append(list, at(r, host, port))
		}
	}
	if len(list) > 0 {
		return list, ttl, nil
	}
	if failed == nil {
		failed = errNoName
	}
	return nil, 0, failed
}

func at(r record, host string, port int) Target {
	return Target{Address: net.JoinHostPort(r.ip.Unmap().String(), strconv.Itoa(port)), Host: strings.TrimSuffix(host, "."), Weight: 1}
}

// services asks for services and for the addresses of their hosts, unless these came along (RFC 2782).
func (d *dns) services(ctx context.Context) (list []Target, ttl time.Duration, err error) {
	a, err := d.resolver.lookup(ctx, d.is.Name, dnsmessage.TypeSRV)
	if err != nil {
		return nil, 0, err
	}
	if len(a.records) > maxServices {
		return nil, 0, fmt.Errorf("%s has %d services; at most %d", d.is.Name, len(a.records), maxServices)
	}
	ttl = a.ttl
	weights := scale(a.records)
	for i, r := range a.records {
		host := r.srv.Target.String()
		if host == "." { // decidedly not available
			continue
		}
		some, life := along(a.more, host, int(r.srv.Port))
		if len(some) == 0 {
			if some, life, err = d.addresses(ctx, host, int(r.srv.Port)); err != nil {
				return nil, 0, fmt.Errorf("%s, a host of %s: %w", host, d.is.Name, err)
			}
		}
		ttl = min(ttl, life)
		for _, t := range some {
			t.Weight, t.Priority = weights[i], int(r.srv.Priority)
			list = append(list, t)
		}
	}
	return list, ttl, nil
}

// along returns the addresses of a host that came with the services.
func along(more []record, host string, port int) (list []Target, ttl time.Duration) {
	for _, r := range more {
		if r.ip.IsValid() && strings.EqualFold(r.name, host) {
			if len(list) == 0 || r.ttl < ttl {
				ttl = r.ttl
			}
			list = append(list, at(r, host, port))
		}
	}
	return list, ttl
}

// scale brings the weights of services, from 0 to 65535 within a priority, below MaxWeight. One of 0 is asked seldom, not
// never; where all are 0, all are alike.
func scale(records []record) []int {
	greatest := map[uint16]int{}
	for _, r := range records {
		greatest[r.srv.Priority] = max(greatest[r.srv.Priority], int(r.srv.Weight))
	}
	weights := make([]int, len(records))
	for i, r := range records {
		weights[i] = int(r.srv.Weight)
		if g := greatest[r.srv.Priority]; g > MaxWeight {
			weights[i] = weights[i] * MaxWeight / g
		}
		weights[i] = max(weights[i], 1)
	}
	return weights
}
