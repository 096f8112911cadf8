// Package jwks keeps the public keys of an identity provider (RFC 7517) at hand: fetched when first needed, refreshed in
// the background, asked again when a token names an unknown key, and kept when the provider is away.
package jwks

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"headgate/internal/clock"
)

// Options say where the keys are and how long they are good. One of URL and Issuer is given.
type Options struct {
	URL       string        `yaml:"url" doc:"Of the key set. Without one it is found by discovery at issuer."`
	Issuer    string        `yaml:"-"` // find the key set by OpenID Connect Discovery
	Refresh   time.Duration `yaml:"refresh" min:"10s" max:"24h" doc:"How often the keys are fetched again, in the background."`
	MaxStale  time.Duration `yaml:"max_stale" min:"0s" doc:"How long keys are used beyond that when they cannot be refreshed. 0: for ever."`
	Timeout   time.Duration `yaml:"timeout" min:"100ms" max:"1m" doc:"For one fetch."`
	AllowHTTP bool          `yaml:"allow_http" doc:"Fetch without encryption from other machines than this one."`
}

// Errors of Lookup.
var (
	// ErrLimited says that the provider was asked often enough lately.
	ErrLimited = errors.New("the identity provider was asked for unknown keys too often; it is asked again later")
	// ErrUnavailable says that there are no keys that may be used.
	ErrUnavailable = errors.New("the identity provider's keys are not available")
)

// Provider is one identity provider. It is safe for concurrent use and must be closed.
type Provider struct {
	options Options
	client  *http.Client
	clock   clock.Clock
	log     *slog.Logger
	report  func(error) // told of every fetch
	set     atomic.Pointer[Set]
	due     atomic.Int64 // nanoseconds since 1970: not to be fetched by schedule before

	mu       sync.Mutex
	flight   *flight // nil: nobody is fetching
	failures int     // in a row
	budget   budget
	closed   bool

	stop    context.Context
	cancel  context.CancelFunc
	fetches sync.WaitGroup
}

// flight is one fetch that many may wait for.
type flight struct {
	done chan struct{}
	err  error
}

// New returns a provider that has not been asked yet. report is told how every fetch ended.
func New(o Options, client *http.Client, c clock.Clock, log *slog.Logger, report func(error)) *Provider {
	p := &Provider{options: o, client: guarded(client, o), clock: c, log: log, report: report}
	p.stop, p.cancel = context.WithCancel(context.Background())
	return p
}

// Close ends what is being fetched and waits for it.
func (p *Provider) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.fetches.Wait()
	p.client.CloseIdleConnections()
	return nil
}

// Current returns the keys that may be used now, or nil. When they are due it has them refreshed in the background: nobody
// who knows a key waits. It is called for every request and costs two loads.
func (p *Provider) Current(now time.Time) *Set {
	s := p.set.Load()
	if s == nil {
		return nil
	}
	if now.UnixNano() >= p.due.Load() && p.mu.TryLock() { // whoever holds it is about to do the same
		if now.UnixNano() >= p.due.Load() {
			p.begin(now)
		}
		p.mu.Unlock()
	}
	if p.options.MaxStale > 0 && now.Sub(s.Fetched) > p.options.Refresh+p.options.MaxStale {
		return nil
	}
	return s
}

// Lookup asks the provider because there are no keys yet, or because they do not have the one that a token names. It waits
// for the answer, or for the one that others wait for already, and returns the keys that may be used then.
// Without keys it asks as often as the schedule allows after failures; for unknown keys as often as the budget does.
func (p *Provider) Lookup(ctx context.Context, now time.Time, client netip.Addr) (*Set, error) {
	usable := p.Current(now)
	p.mu.Lock()
	f := p.flight
	if f == nil {
		switch {
		case usable != nil && !p.budget.take(client, now):
			p.mu.Unlock()
			return usable, ErrLimited
		case usable == nil && now.UnixNano() < p.due.Load():
			p.mu.Unlock()
			return nil, ErrUnavailable
		}
		f = p.begin(now)
	}
	p.mu.Unlock()
	select {
	case <-f.done:
	case <-ctx.Done():
		return usable, context.Cause(ctx)
	}
	if s := p.Current(p.clock.Now()); s != nil {
		return s, f.err
	}
	return nil, errors.Join(ErrUnavailable, f.err)
}

// begin starts a fetch unless one is under way. The caller holds mu.
func (p *Provider) begin(now time.Time) *flight {
	if p.flight != nil {
		return p.flight
	}
	f := &flight{done: make(chan struct{})}
	if p.closed {
		f.err = ErrUnavailable
		close(f.done)
		return f
	}
	p.flight = f
	p.due.Store(now.Add(p.options.Refresh).UnixNano())
	p.fetches.Go(func() { p.run(f) })
	return f
}

// run fetches once and sets when the next time is.
func (p *Provider) run(f *flight) {
	ctx, cancel := context.WithTimeout(p.stop, p.options.Timeout)
	defer cancel()
	s, err := p.fetch(ctx)
	now := p.clock.Now()
	p.mu.Lock()
	if err == nil {
		p.accept(s, now)
	} else {
		p.failures++
		p.due.Store(now.Add(p.backoff()).UnixNano())
	}
	f.err, p.flight = err, nil
	p.mu.Unlock()
	p.report(err)
	if err != nil && p.stop.Err() == nil {
		p.log.Warn("the keys of an identity provider could not be fetched", "provider", p.name(), "keeping", p.set.Load() != nil, "error", err)
	}
	close(f.done)
}

// accept publishes keys. Keys that are the same keep their version, so that nothing verified with them is forgotten.
func (p *Provider) accept(s *Set, now time.Time) {
	s.Fetched = now
	if old := p.set.Load(); old == nil {
		s.Version = 1
	} else if s.Version = old.Version; old.sum != s.sum {
		s.Version++
	}
	p.set.Store(s)
	p.failures = 0
	p.due.Store(now.Add(p.options.Refresh).UnixNano())
}

const (
	// firstRetry and lastRetry are the pauses after the first failure in a row and after many: short, since without keys
	// nobody gets in, and not shorter, so that a provider in trouble is not kept there.
	firstRetry = time.Second
	lastRetry  = 32 * time.Second
)

func (p *Provider) backoff() time.Duration {
	return min(firstRetry<<min(p.failures-1, 5), lastRetry, p.options.Refresh)
}

func (p *Provider) name() string {
	if p.options.URL != "" {
		return p.options.URL
	}
	return p.options.Issuer
}
