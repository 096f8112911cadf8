// Package acme gets certificates from authorities that speak ACME (RFC 8555), and renews them, with certmagic.
//
// A Keeper outlives reloads. From each listener's part of a document it makes a Source, which does nothing until its
// document is live; sources with the same authority, account and folder share one manager, so that a reload that changes
// something else leaves certificates, accounts and attempts alone. Control of a name is proven by answers that the
// gateway's own doors give: Keeper.Answer for HTTP-01 and Source.Challenge for TLS-ALPN-01.
package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	rfc8555 "github.com/mholt/acmez/v3/acme"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/listen/secure"
	"headgate/internal/clock"
	"headgate/internal/metric"
)

// maxDomains bounds the names of one listener. Each has a certificate of its own, and public authorities hand out about
// three hundred in three hours.
const maxDomains = 1000

// Options is what a keeper stands on.
type Options struct {
	Clock   clock.Clock // of what operators are told; certificates are held against the machine's own
	Log     *slog.Logger
	Metrics *metric.Registry
}

// Keeper holds managers over reloads, and what they prove control with. It is safe for concurrent use.
type Keeper struct {
	options Options
	pace    pace
	proofs  *proofs

	mu       sync.Mutex
	managers map[string]*manager
	closed   bool
}

// pace is how often things are done.
type pace struct {
	retries []time.Duration // after each failed attempt; the last one again and again
	check   time.Duration   // between two looks for certificates that end soon
	share   float64         // of a certificate's life that is left when it is renewed; 0: certmagic's own, a third
}

// NewKeeper returns a keeper that manages nothing yet. Nothing runs before Run.
func NewKeeper(o Options) *Keeper {
	// Five failures an hour are what public authorities put up with for one name.
	p := pace{check: 10 * time.Minute, retries: []time.Duration{
		time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour,
	}}
	return &Keeper{options: o, pace: p, proofs: newProofs(), managers: map[string]*manager{}}
}

// Run lets managers work until ctx is done, and then waits for what they do to end.
func (k *Keeper) Run(ctx context.Context) error {
	<-ctx.Done()
	k.mu.Lock()
	k.closed = true
	var stopping sync.WaitGroup
	for _, m := range k.managers {
		stopping.Go(m.stop)
	}
	k.mu.Unlock()
	stopping.Wait()
	return nil
}

// Answer returns what HTTP-01 asks for (RFC 8555 section 8.3), when a certificate for the host is being got.
func (k *Keeper) Answer(host, token string) (authorization string, ok bool) {
	if authorization, ok = k.proofs.answer(host, token); ok {
		return authorization, true
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	for _, m := range k.managing(host) {
		if c, found := shared(m.issuer.storage, rfc8555.ChallengeTypeHTTP01, host); found && c.Token == token {
			return c.KeyAuthorization, true
		}
	}
	return "", false
}

// managing returns who manages a name. Only for such names is the storage looked into: strangers must not make us read files.
func (k *Keeper) managing(name string) (list []*manager) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range k.managers {
		if m.domain(name) != nil {
			list = append(list, m)
		}
	}
	return list
}

// Source hands out the certificates of one listener. It implements secure.Challenger.
type Source struct {
	keeper  *Keeper
	manager *manager
	domains []string
	once    sync.Once // Close
	live    bool      // under Keeper.mu
}

var _ secure.Challenger = (*Source)(nil)

// Compile makes the source of a listener's acme, whose paths can be opened as they are. It must be closed. Its problems
// point to their places below acme.
func (k *Keeper) Compile(a *model.ACME) (*Source, error) {
	domains, err := check(a)
	if err != nil {
		return nil, err
	}
	roots, err := readRoots(a.Roots)
	if err != nil {
		return nil, decode.At("roots", "%w", err)
	}
	s := settings{directory: a.Directory, email: a.Email, roots: a.Roots, storage: a.Storage, challenges: a.Challenges}
	k.mu.Lock()
	defer k.mu.Unlock()
	m := k.managers[s.key()]
	if m == nil {
		m = newManager(k, s, roots)
		k.managers[s.key()] = m
	}
	m.uses++
	return &Source{keeper: k, manager: m, domains: domains}, nil
}

// check finds what tags cannot say, and returns the domains in the form in which they are asked for.
func check(a *model.ACME) (domains []string, err error) {
	var wrong []error
	problem := func(path, format string, args ...any) { wrong = append(wrong, decode.At(path, format, args...)) }
	if !a.Agreed {
		problem("agree_to_terms", "an authority gives certificates only to those who have agreed to its terms of service; read them and "+
			"write agree_to_terms: true")
	}
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		problem("directory", "%q is not the address of a directory; write https://HOST/PATH", a.Directory)
	}
	if a.Email != "" && (strings.Count(a.Email, "@") != 1 || strings.ContainsAny(a.Email, " ,:;<>?")) {
		problem("email", "%q is not an address of mail; write one such as ops@example.com, without mailto", a.Email)
	}
	if a.Storage == "" {
		problem("storage", "keys and certificates must be kept, or every start would ask for new ones; write a folder")
	}
	if len(a.Domains) == 0 || len(a.Domains) > maxDomains {
		problem("domains", "there are %d names; a listener has 1 to %d", len(a.Domains), maxDomains)
	}
	for i, d := range a.Domains {
		at, name := fmt.Sprintf("domains.%d", i), strings.ToLower(d)
		if err := checkDomain(name); err != nil {
			problem(at, "%w", err)
		} else if slices.Contains(domains, name) {
			problem(at, "%q stands twice in the list; leave one out", d)
		}
		domains = append(domains, name)
	}
	return domains, errors.Join(wrong...)
}

func checkDomain(name string) error {
	if _, err := netip.ParseAddr(name); err == nil {
		return fmt.Errorf("%s is an address; write a name, or use certificates or internal", name)
	}
	if strings.HasPrefix(name, "*.") {
		return fmt.Errorf("%q: control of all names below one cannot be proven by http-01 or tls-alpn-01; list the names", name)
	}
	if len(name) > 253 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" ||
		slices.ContainsFunc(strings.Split(name, "."), func(label string) bool {
			return label == "" || len(label) > 63 || strings.Trim(label, "-") != label
		}) {
		return fmt.Errorf("%q is not a host name; write letters outside ASCII in their xn-- form", name)
	}
	return nil
}

// Kind implements secure.Source.
func (s *Source) Kind() string { return "acme" }

// Names implements secure.Source.
func (s *Source) Names() []string { return s.domains }

// Certificate implements secure.Source. A client that asks for no name, or another one, gets the first.
func (s *Source) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.TrimSuffix(strings.ToLower(hello.ServerName), ".")
	if !slices.Contains(s.domains, name) {
		name = s.domains[0]
	}
	return s.manager.certificate(name), nil
}

// Challenge implements secure.Challenger.
func (s *Source) Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := s.keeper.proofs.certificate(hello.ServerName); c != nil {
		return c, nil
	}
	name := strings.TrimSuffix(strings.ToLower(hello.ServerName), ".")
	for _, m := range s.keeper.managing(name) {
		if c, found := shared(m.issuer.storage, rfc8555.ChallengeTypeTLSALPN01, name); found {
			return acmez.TLSALPN01ChallengeCert(c)
		}
	}
	return nil, fmt.Errorf("no authority is to be shown control of %q now", hello.ServerName)
}

// Status implements secure.Source.
func (s *Source) Status() (list []secure.Status) {
	now := s.keeper.options.Clock.Now()
	for _, d := range s.domains {
		list = append(list, s.manager.status(d, now))
	}
	return list
}

// Live begins to get the certificates that there are not, and to renew them all.
func (s *Source) Live() {
	k := s.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if !s.live && !k.closed {
		s.live = true
		s.manager.add(s.domains)
	}
}

// Close ends that, for what no other source needs.
func (s *Source) Close() error {
	var idle *manager
	s.once.Do(func() {
		k := s.keeper
		k.mu.Lock()
		defer k.mu.Unlock()
		if s.live {
			s.manager.remove(s.domains)
		}
		if s.manager.uses--; s.manager.uses == 0 {
			delete(k.managers, s.manager.settings.key())
			idle = s.manager
		}
	})
	if idle != nil {
		idle.stop()
	}
	return nil
}
