package acme

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"headgate/gateway/listen/secure"
	"headgate/internal/metric"
)

const (
	// maxAttempts bounds the certificates that are asked for at one time: authorities count what comes at once.
	maxAttempts = 4
	// attemptTimeout bounds one attempt: an authority that never says yes or no must not hold up the other names.
	attemptTimeout = 5 * time.Minute
	// exchangeTimeout bounds one question to the authority.
	exchangeTimeout = 30 * time.Second
	// maxRoots bounds what is read as a file of roots.
	maxRoots = 1 << 20
)

// settings are whom certificates come from and where they are kept.
type settings struct {
	directory, email, roots, storage string
	challenges                       []string
}

func (s settings) key() string {
	return strings.Join(append([]string{s.directory, s.email, s.roots, s.storage}, slices.Sorted(slices.Values(s.challenges))...), "\x00")
}

// manager gets and renews the certificates of some domains from one authority.
type manager struct {
	settings settings
	pace     pace
	log      *slog.Logger
	keeper   *Keeper
	uses     int // sources; under Keeper.mu
	issuer   *issuer

	ctx      context.Context
	cancel   context.CancelFunc
	attempts chan struct{}
	running  sync.WaitGroup

	mu      sync.Mutex
	cache   *certmagic.Cache  // nil: nothing has been live yet
	config  *certmagic.Config // likewise
	domains map[string]*domain

	got, failed *metric.Counter
}

// domain is a name under management.
type domain struct {
	sources int // live ones; under manager.mu
	cancel  context.CancelFunc
	served  atomic.Pointer[served]
	trouble atomic.Pointer[trouble]
}

// served is the certificate that was handed out last, so that the same is the same again.
type served struct {
	hash, staple string
	certificate  *tls.Certificate
}

// trouble is why there is no certificate, or no newer one.
type trouble struct {
	err  string
	at   time.Time
	next time.Time // of an attempt; zero: when certmagic looks again
}

func newManager(k *Keeper, s settings, roots *x509.CertPool) *manager {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: exchangeTimeout, ResponseHeaderTimeout: exchangeTimeout, IdleConnTimeout: exchangeTimeout,
	}
	count := func(result string) *metric.Counter {
		return k.options.Metrics.Counter("headgate_acme_attempts_total",
			"Attempts to get or renew a certificate by ACME, by result: success or failure.", metric.Label{Name: "result", Value: result})
	}
	m := &manager{
		settings: s, pace: k.pace, log: k.options.Log.With("directory", s.directory), keeper: k, attempts: make(chan struct{}, maxAttempts),
		domains: map[string]*domain{}, got: count("success"), failed: count("failure"),
	}
	m.issuer = &issuer{
		settings: s, client: &http.Client{Transport: transport, Timeout: exchangeTimeout}, storage: &certmagic.FileStorage{Path: s.storage},
		proofs: k.proofs, log: slog.New(aside{m.log.Handler()}),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// readRoots reads the certificates by which a directory is verified; none means the system's.
func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxRoots {
		return nil, fmt.Errorf("%s has %d bytes, which is too much for a file of roots; at most %d", path, info.Size(), maxRoots)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return pool, nil
}

// start makes certmagic's parts, of which the cache runs at once. It is called with mu held.
func (m *manager) start() {
	if m.cache != nil {
		return
	}
	if err := os.MkdirAll(m.settings.storage, 0o700); err != nil {
		m.log.Error("the folder for certificates cannot be made; give the gateway a storage that it can write to", "error", err)
	} else if info, err := os.Stat(m.settings.storage); err == nil && info.Mode().Perm()&0o077 != 0 {
		m.log.Warn("others than its owner may look into the folder of private keys; write chmod 700", "storage", m.settings.storage,
			"mode", fmt.Sprintf("%04o", info.Mode().Perm()))
	}
	logger := zapLogger(aside{m.log.Handler()})
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return m.config, nil },
		RenewCheckInterval: m.pace.check, Logger: logger,
	})
	m.config = certmagic.New(m.cache, certmagic.Config{
		RenewalWindowRatio: m.pace.share, OnEvent: m.event, Issuers: []certmagic.Issuer{m.issuer}, Storage: m.issuer.storage, Logger: logger,
		KeySource: certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
	})
}

// stop ends everything and waits for it.
func (m *manager) stop() {
	m.cancel()
	m.running.Wait()
	m.mu.Lock()
	cache := m.cache
	m.cache = nil
	m.mu.Unlock()
	if cache != nil {
		cache.Stop()
	}
	m.issuer.client.CloseIdleConnections()
}

// add begins to manage domains, for one more source.
func (m *manager) add(names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.start()
	for _, name := range names {
		d := m.domains[name]
		if d == nil {
			d = &domain{}
			m.domains[name] = d
			var ctx context.Context
			ctx, d.cancel = context.WithCancel(m.ctx)
			m.running.Go(func() { m.obtain(ctx, name, d) })
		}
		d.sources++
	}
}

// remove ends that for one source.
func (m *manager) remove(names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		d := m.domains[name]
		if d.sources--; d.sources > 0 {
			continue
		}
		d.cancel()
		delete(m.domains, name)
		if m.cache != nil { // nil: it has been stopped
			m.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: name}})
		}
	}
}

// obtain tries until there is a certificate, which certmagic renews from then on.
func (m *manager) obtain(ctx context.Context, name string, d *domain) {
	for failures := 0; ; failures++ {
		err := m.attempt(ctx, name)
		if ctx.Err() != nil {
			m.forget(name)
			return
		}
		if err == nil {
			d.trouble.Store(nil)
			return
		}
		wait := m.pace.retries[min(failures, len(m.pace.retries)-1)]
		m.complain(name, d, err, m.keeper.options.Clock.Now().Add(wait))
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// forget undoes what an attempt that was called off may have finished all the same.
func (m *manager) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.domains[name] == nil && m.cache != nil {
		m.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: name}})
	}
}

// attempt loads the certificate from the storage, or gets one, as soon as it is this name's turn.
func (m *manager) attempt(ctx context.Context, name string) error {
	select {
	case m.attempts <- struct{}{}:
		defer func() { <-m.attempts }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return m.config.ManageSync(ctx, []string{name})
}

// complain tells of a failed attempt, once and with what to do.
func (m *manager) complain(name string, d *domain, err error, next time.Time) {
	m.failed.Inc(0)
	err = cause(err, name)
	args := []any{"domain", name, "error", err, "advice", advice(err, name)}
	if !next.IsZero() {
		args = append(args, "next_attempt", next.Format(time.RFC3339))
	}
	m.log.Error("no certificate could be got", args...)
	d.trouble.Store(&trouble{fmt.Sprintf("%s: %s", err, advice(err, name)), m.keeper.options.Clock.Now(), next})
}

// cause takes off what certmagic puts around an error to name the domain, which we name ourselves.
func cause(err error, name string) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil || !strings.HasPrefix(err.Error(), name+": ") && !strings.HasPrefix(err.Error(), "["+name+"] ") {
			return err
		}
		err = inner
	}
}

// event hears of what certmagic does by itself.
func (m *manager) event(_ context.Context, event string, data map[string]any) error {
	name, _ := data["identifier"].(string)
	renewal, _ := data["renewal"].(bool)
	switch event {
	case "cert_obtained":
		m.got.Inc(0)
		m.log.Info("a certificate was got", "domain", name, "renewal", renewal)
		if d := m.domain(name); d != nil {
			d.trouble.Store(nil)
		}
	case "cert_failed":
		if d := m.domain(name); d != nil && renewal { // the first one's failures are obtain's to tell
			err, _ := data["error"].(error)
			m.complain(name, d, cmp.Or(err, errUnknown), time.Time{})
		}
	}
	return nil
}

var errUnknown = errors.New("it is not known why")

func (m *manager) domain(name string) *domain {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.domains[name]
}

// certificate returns what is served for a name now; nil: there is none yet.
func (m *manager) certificate(name string) *tls.Certificate {
	m.mu.Lock()
	d, cache := m.domains[name], m.cache
	m.mu.Unlock()
	if d == nil || cache == nil {
		return nil
	}
	var best *certmagic.Certificate
	for _, c := range cache.AllMatchingCertificates(name) {
		if c.Leaf != nil && (best == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter)) {
			best = &c
		}
	}
	if best == nil {
		return nil
	}
	hash, staple := best.Hash(), string(best.OCSPStaple)
	if s := d.served.Load(); s != nil && s.hash == hash && s.staple == staple {
		return s.certificate
	}
	s := &served{hash, staple, &best.Certificate}
	d.served.Store(s)
	return s.certificate
}

// status describes a name's certificate, or why there is none.
func (m *manager) status(name string, now time.Time) secure.Status {
	s := secure.Status{Source: "acme", Names: []string{name}}
	if c := m.certificate(name); c != nil {
		secure.Describe(&s, c.Leaf, now)
	}
	d := m.domain(name)
	if d == nil {
		return s
	}
	if t := d.trouble.Load(); t != nil {
		s.Error, s.ErrorAt = t.err, &t.at
		if !t.next.IsZero() {
			s.Warnings = append(s.Warnings, "the next attempt is at "+t.next.UTC().Format(time.RFC3339))
		}
	} else if s.NotAfter.IsZero() {
		s.Warnings = append(s.Warnings, "there is no certificate yet; handshakes for the name fail until there is")
	}
	return s
}

// names lists the domains under management.
func (m *manager) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.domains))
}
