package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Lookup returns the addresses of a host.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// Dial opens a TCP connection to an address.
type Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)

const (
	// maxAddresses bounds how many addresses of a host are tried for one connection, at the same time in the worst case.
	maxAddresses = 16
	// freshAddresses is how long addresses are used without asking again: the resolver of the machine does not say for how
	// long they hold, and a name that changes is followed within as much.
	freshAddresses = 5 * time.Second
	// failedAddresses is the same for the answer that there are none.
	failedAddresses = time.Second
	// staleAddresses is how long they are used when asking fails.
	staleAddresses = 10 * time.Minute
	// attemptDelay is how long an address is tried alone, before the next one is tried beside it (RFC 8305 section 5).
	attemptDelay = 250 * time.Millisecond
	// failureDelay is the same after another address has failed: what is still under way has had its time.
	failureDelay = 50 * time.Millisecond
)

// lookup asks the machine's resolver.
func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// dialer returns how TCP connections are opened. With keepAlive the kernel asks a silent target for a sign of life, three
// times, each a third of keepAlive apart. That is for silence only: what has been sent and is not acknowledged is bounded by
// sock.Conn.AckWithin, see make. TCP_USER_TIMEOUT (RFC 5482) would do it as well, but also ends connections to targets that
// acknowledge and have no room, which are the document's timeouts' to judge.
func dialer(keepAlive time.Duration) Dial {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAlive, Interval: max(keepAlive/keepAliveProbes, time.Second), Count: keepAliveProbes,
	}}
	if keepAlive == 0 {
		d.KeepAlive, d.KeepAliveConfig = -1, net.KeepAliveConfig{}
	}
	return func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", to.String())
	}
}

// keepAliveProbes is how many signs of life may stay out.
const keepAliveProbes = 3

// whereabouts is where a target is: the addresses of its host, and which of them answered last.
type whereabouts struct {
	mu      sync.Mutex
	list    []netip.Addr
	at      time.Time // when they were asked for; zero: never
	asking  chan struct{}
	problem error
	best    netip.Addr
}

var errUnresolved = errors.New("the target's name was not resolved")

// of returns the addresses of a host, the one that answered last first and the families in turn. Who comes while they are
// being asked for waits for the same answer.
func (a *whereabouts) of(ctx context.Context, g *Settings, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	for {
		a.mu.Lock()
		if a.fresh(g.Clock.Now()) {
			defer a.mu.Unlock()
			return a.order(), a.problem
		}
		if asking := a.asking; asking != nil {
			a.mu.Unlock()
			select {
			case <-asking:
				continue
			case <-ctx.Done():
				return nil, errors.Join(errUnresolved, context.Cause(ctx))
			}
		}
		asking := make(chan struct{})
		a.asking = asking
		a.mu.Unlock()
		list, err := g.Lookup(ctx, host)
		a.mu.Lock()
		a.asking = nil
		close(asking)
		if ctx.Err() != nil && err != nil { // says nothing about the name
			a.mu.Unlock()
			return nil, errors.Join(errUnresolved, context.Cause(ctx), err)
		}
		a.learn(g.Clock.Now(), list, err)
		list, err = a.order(), a.problem
		a.mu.Unlock()
		return list, err
	}
}

// fresh reports whether nothing needs to be asked. The lock is held.
func (a *whereabouts) fresh(now time.Time) bool {
	hold := freshAddresses
	if a.problem != nil {
		hold = failedAddresses
	}
	age := now.Sub(a.at) // the clock may have been set back
	return !a.at.IsZero() && age >= 0 && age < hold
}

// learn takes an answer. One that is none leaves what was known, for a while. The lock is held.
func (a *whereabouts) learn(now time.Time, list []netip.Addr, err error) {
	if err == nil && len(list) == 0 {
		err = errors.New("it has no address")
	}
	old := a.at
	a.at = now
	switch {
	case err == nil:
		a.list, a.problem = list[:min(len(list), maxAddresses)], nil
	case len(a.list) > 0 && now.Sub(old) < staleAddresses: // the next one asks again, after as long as a good answer holds
		a.problem = nil
	default:
		a.list, a.problem = nil, fmt.Errorf("%w: %w", errUnresolved, err)
	}
}

// order puts the address that answered last first, and then families in turn, beginning with its one or, when there is none,
// with that of the first address (RFC 8305 section 4). The lock is held.
func (a *whereabouts) order() []netip.Addr {
	if len(a.list) < 2 {
		return a.list
	}
	rest := slices.Clone(a.list)
	first := rest[0]
	if i := slices.Index(rest, a.best); i > 0 {
		first = a.best
		rest = slices.Insert(slices.Delete(rest, i, i+1), 0, first)
	}
	list := make([]netip.Addr, 0, len(rest))
	for six := first.Is6(); len(rest) > 0; six = !six {
		i := max(slices.IndexFunc(rest, func(ip netip.Addr) bool { return ip.Is6() == six }), 0)
		list = append(list, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	return list
}

// worked remembers who answered, or that who answered does not any more.
func (a *whereabouts) worked(ip netip.Addr, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case ok:
		a.best = ip
	case a.best == ip:
		a.best = netip.Addr{}
	}
}

// reach opens a TCP connection to the target, wherever it is.
func (p *Pool) reach(ctx context.Context) (net.Conn, error) {
	s := &p.group.settings
	host, service, err := net.SplitHostPort(p.end.Address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, err
	}
	list, err := p.record.where.of(ctx, s, host)
	if err != nil {
		return nil, err
	}
	if len(list) == 1 {
		return s.Dial(ctx, netip.AddrPortFrom(list[0], uint16(port)))
	}
	r := race{dial: s.Dial, port: uint16(port), where: &p.record.where, done: make(chan attempted, len(list))}
	return r.run(ctx, list)
}

// race is one connection that is tried to several addresses (Happy Eyeballs, RFC 8305).
type race struct {
	dial  Dial
	port  uint16
	where *whereabouts
	done  chan attempted // has room for all, so that nobody waits who has lost
}

type attempted struct {
	from netip.Addr
	conn net.Conn
	err  error
}

// run tries the addresses one after another, each with a head start before the next one, until one of them has answered.
func (r *race) run(ctx context.Context, list []netip.Addr) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := time.NewTimer(0)
	defer next.Stop()
	var errs []error
	for begun, open := 0, 0; ; {
		select {
		case <-next.C:
			if begun == len(list) {
				continue
			}
			go r.try(ctx, list[begun])
			begun++
			open++
			next.Reset(attemptDelay)
		case a := <-r.done:
			open--
			if a.err == nil {
				r.where.worked(a.from, true)
				go r.discard(open)
				return a.conn, nil
			}
			r.where.worked(a.from, false)
			errs = append(errs, a.err)
			switch {
			case open == 0 && begun == len(list):
				return nil, errors.Join(errs...)
			case open == 0: // nobody is given a chance by waiting
				next.Reset(0)
			case begun < len(list):
				next.Reset(failureDelay)
			}
		case <-ctx.Done():
			go r.discard(open)
			return nil, errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
}

func (r *race) try(ctx context.Context, to netip.Addr) {
	c, err := r.dial(ctx, netip.AddrPortFrom(to, r.port))
	r.done <- attempted{to, c, err}
}

// discard closes what arrives too late. It ends soon, since who dials has been told that nobody waits.
func (r *race) discard(n int) {
	for range n {
		if a := <-r.done; a.conn != nil {
			_ = a.conn.Close() // never used
		}
	}
}
