// Package revoke finds out whether a client's certificate was revoked before it ended: by lists that authorities publish
// (CRL, RFC 5280 section 5), read from files that are watched, and by asking the certificate's responder (OCSP, RFC 6960).
//
// A Keeper holds what outlives a reload: the lists and the answers. From each listener's part of a document it compiles a
// Checker, whose Verify is asked in every handshake.
package revoke

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/listen/secure"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/watch"
)

// renewInterval is how often answers that end soon are looked for.
const renewInterval = 2 * time.Second

// Options is what a keeper stands on.
type Options struct {
	Clock     clock.Clock
	Log       *slog.Logger
	Metrics   *metric.Registry
	Transport http.RoundTripper // to OCSP responders
}

// Keeper holds lists and answers over reloads. It is safe for concurrent use.
type Keeper struct {
	options Options
	answers *answers
	watched watch.Files

	mu    sync.Mutex
	files map[string]*file
}

// NewKeeper returns a keeper that holds nothing yet. Nothing runs before Run.
func NewKeeper(o Options) *Keeper {
	k := &Keeper{options: o, answers: newAnswers(o), files: map[string]*file{}}
	o.Metrics.Collect("revocation lists", k.collect)
	return k
}

// Run watches files and renews answers until ctx is done.
func (k *Keeper) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	watching.Go(func() { k.watched.Run(ctx, k.look) })
	t := time.NewTicker(renewInterval)
	defer t.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-t.C:
			k.answers.renew()
		}
	}
	k.answers.close()
	watching.Wait()
	return nil
}

// look reads the files that have changed.
func (k *Keeper) look() {
	k.mu.Lock()
	files := slices.Collect(maps.Values(k.files))
	k.mu.Unlock()
	for _, f := range files {
		f.look(k.options.Clock.Now(), k.options.Log)
	}
}

// Checker looks for revocations by the rules of one listener.
type Checker struct {
	keeper  *Keeper
	files   []*file
	crlHard bool
	ocsp    string
	refresh time.Duration
	lists   outcomes
	asked   outcomes
	closed  sync.Once
}

// Compile makes a checker of a listener's client_auth, whose CRL files are given as paths that can be opened. authorities
// are the certificates of its CA bundles. It returns nil when nothing is to be checked. A problem points to its place below
// client_auth. A checker must be closed.
func (k *Keeper) Compile(listener string, c *model.ClientAuth, authorities []*x509.Certificate) (*Checker, error) {
	if len(c.CRL) == 0 && c.OCSP == "off" {
		return nil, nil
	}
	r := &Checker{keeper: k, crlHard: c.CRLFail == "hard", ocsp: c.OCSP, refresh: c.Refresh}
	if len(c.CRL) > 0 {
		r.lists = k.outcomes(listener, "crl")
	}
	if c.OCSP != "off" {
		r.asked = k.outcomes(listener, "ocsp")
	}
	var problems []error
	for i, path := range c.CRL {
		f, err := k.take(path, authorities)
		if err != nil {
			problems = append(problems, decode.At(fmt.Sprintf("crl.%d", i), "%w", err))
			continue
		}
		r.files = append(r.files, f)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// take returns the file at the path, which is read and parsed unless the one in use is the same.
func (k *Keeper) take(path string, authorities []*x509.Certificate) (*file, error) {
	raw, sum, err := read(path)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	f := k.files[path]
	k.mu.Unlock()
	var lists []*list
	if f != nil && f.content.Load().sum == sum {
		lists = f.lists()
		if err = signed(lists, authorities); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	} else {
		lists, err = good(path, raw, authorities)
	}
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if f = k.files[path]; f == nil {
		f = &file{path: path}
		k.files[path] = f
		k.rewatch()
	}
	f.uses++
	f.mu.Lock()
	defer f.mu.Unlock()
	f.content.Store(&content{lists, sum})
	f.authorities, f.sum, f.trouble = authorities, sum, nil
	return f, nil
}

// rewatch is called with mu held.
func (k *Keeper) rewatch() { k.watched.Set(slices.Collect(maps.Keys(k.files))) }

// Close gives the checker's files back.
func (c *Checker) Close() error {
	c.closed.Do(func() {
		k := c.keeper
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, f := range c.files {
			if f.uses--; f.uses == 0 {
				delete(k.files, f.path)
				k.rewatch()
			}
		}
	})
	return nil
}

// Verify says whether one of the verified chains may be believed. An error that is secure.ErrRevoked says that a
// certificate was revoked; any other, that it is not known and must be by the listener's rules.
func (c *Checker) Verify(chains [][]*x509.Certificate) error {
	err := errors.New("there is no verified chain")
	for _, chain := range chains {
		if err = c.chain(chain); err == nil {
			return nil
		}
	}
	return err
}

// chain checks all of a chain against lists, but for the authority that is trusted by configuration, and asks the responder
// of the client's own certificate.
func (c *Checker) chain(chain []*x509.Certificate) error {
	if len(c.files) > 0 {
		for i := range len(chain) - 1 {
			if err := c.listed(chain[i], chain[i+1]); err != nil {
				return err
			}
		}
	}
	if c.ocsp == "off" || len(chain) < 2 {
		return nil
	}
	return c.ask(chain[0], chain[1])
}

// listed looks for a certificate in its authority's lists.
func (c *Checker) listed(cert, issuer *x509.Certificate) error {
	now := c.keeper.options.Clock.Now()
	current, outdated := false, false
	for _, f := range c.files {
		for _, l := range f.lists() {
			if !l.by(issuer) {
				continue
			}
			if l.has(cert) {
				c.lists.revoked.Inc(0)
				return fmt.Errorf("%w: serial number %x is in %s, which %s signed", secure.ErrRevoked, cert.SerialNumber, f.path, issuer.Subject)
			}
			if l.covers(cert) {
				current = current || l.current(now)
				outdated = outdated || !l.current(now)
			}
		}
	}
	switch {
	case current:
		c.lists.good.Inc(0)
		return nil
	case outdated:
		c.lists.outdated.Inc(0)
	default:
		c.lists.missing.Inc(0)
	}
	if !c.crlHard {
		return nil
	}
	if outdated {
		return fmt.Errorf("the revocation list of %s is outdated, and crl_fail is hard: fetch a newer one", issuer.Subject)
	}
	return fmt.Errorf("there is no revocation list of %s, and crl_fail is hard: add its list to crl", issuer.Subject)
}

// outcomes counts what came of checks.
type outcomes struct{ good, revoked, unknown, outdated, missing, failed *metric.Counter }

func (k *Keeper) outcomes(listener, method string) outcomes {
	count := func(outcome string) *metric.Counter {
		return k.options.Metrics.Counter("headgate_client_revocation_checks_total",
			"Certificates of clients that were looked for in revocation lists (crl) or asked for (ocsp), by outcome: good, revoked, "+
				"unknown to the responder, outdated list, missing (no list, no responder) or failed (no answer).",
			metric.Label{Name: "listener", Value: listener}, metric.Label{Name: "method", Value: method},
			metric.Label{Name: "outcome", Value: outcome})
	}
	o := outcomes{good: count("good"), revoked: count("revoked"), missing: count("missing")}
	if method == "crl" {
		o.outdated = count("outdated")
	} else {
		o.unknown, o.failed = count("unknown"), count("failed")
	}
	return o
}
