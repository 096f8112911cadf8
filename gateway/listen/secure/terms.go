package secure

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
)

// Terms are how one listener of one document is encrypted.
type Terms struct {
	keeper     *Keeper
	listener   string
	config     model.ListenerTLS
	protocols  []string // of ALPN
	pairs      []*pair
	bundles    []*bundle
	sources    []Source
	extensions []Extension
	gate       gate
	meters     *meters
	state      atomic.Pointer[state]
}

// Compile makes the terms of a listener, which has tls. Relative paths begin in the folder. Nothing runs before Live; Close
// must be called in any case but an error, which may be several joined ones of decode.At, below listeners.NAME.tls.
func (k *Keeper) Compile(listener string, l *model.Listener, folder string) (*Terms, error) {
	t := &Terms{keeper: k, listener: listener, config: located(*l.TLS, folder), meters: newMeters(listener, k.options.Metrics)}
	t.gate.limit(l.TLS.Handshakes)
	if problems := append(t.extend(), k.adopt(t, l)...); len(problems) > 0 {
		return nil, errors.Join(errors.Join(problems...), t.Close())
	}
	return t, nil
}

// adopt reads the files of new terms and keeps them up to date, unless something is wrong with them.
func (k *Keeper) adopt(t *Terms, l *model.Listener) []error {
	k.mu.Lock()
	defer k.mu.Unlock()
	problems := t.readFiles()
	if len(problems) == 0 && len(t.pairs)+len(t.sources) == 0 {
		problems = append(problems, decode.At("", "it has no certificate; name files in certificates, an authority in acme, or, for a laptop "+
			"or a test, names in internal"))
	}
	if len(problems) == 0 && len(k.tickets.secrets) == 0 {
		if _, err := k.tickets.turn(k.options.Clock.Now(), k.rotation(), k.options.Random); err != nil {
			problems = append(problems, decode.At("tickets", "no key could be made: %s", err))
		}
	}
	if len(problems) > 0 {
		return problems
	}
	t.protocols = t.alpn(l)
	k.terms[t] = false
	t.rebuild()
	k.follow()
	return nil
}

// alpn lists the protocols that are spoken, the best first.
func (t *Terms) alpn(l *model.Listener) (ids []string) {
	speaks := func(p string) bool { return len(l.Protocols) == 0 || slices.Contains(l.Protocols, p) }
	if l.TCP == nil {
		if speaks("h2") {
			ids = append(ids, "h2")
		}
		if speaks("h1") {
			ids = append(ids, "http/1.1")
		}
	}
	for _, s := range t.sources {
		if _, ok := s.(Challenger); ok {
			if len(ids) == 0 { // RFC 7301 section 3.2: who offers nothing that we speak is refused, so something must be named
				ids = append(ids, "http/1.1")
			}
			return append(ids, ChallengeProtocol)
		}
	}
	return ids
}

// extend asks for what others add.
func (t *Terms) extend() (problems []error) {
	for _, f := range t.keeper.options.Extend {
		e, err := f(t.listener, &t.config)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		t.extensions = append(t.extensions, e)
		for _, s := range e.Sources {
			for _, name := range s.Names() {
				if err := checkName(normal(name)); err != nil {
					problems = append(problems, decode.At("", "%s: %s", s.Kind(), err))
				}
			}
		}
		t.sources = append(t.sources, e.Sources...)
	}
	return problems
}

// readFiles reads certificates and authorities. It is called with the keeper's lock held.
func (t *Terms) readFiles() (problems []error) {
	for i, c := range t.config.Certificates {
		p, f := t.keeper.pair(files{c.Cert, c.Key})
		if f != nil {
			problems = append(problems, at(f.message, "certificates", strconv.Itoa(i), f.part))
			continue
		}
		t.pairs = append(t.pairs, p)
	}
	if t.config.ClientAuth == nil {
		return problems
	}
	if len(t.config.ClientAuth.CA) == 0 {
		problems = append(problems, decode.At("client_auth.ca", "it names no file of authorities, so no client could be believed"))
	}
	for i, name := range t.config.ClientAuth.CA {
		b, f := t.keeper.bundle(name)
		if f != nil {
			problems = append(problems, at(f.message, "client_auth", "ca", strconv.Itoa(i)))
			continue
		}
		t.bundles = append(t.bundles, b)
	}
	return problems
}

func at(message string, path ...string) error {
	return &decode.PathError{Path: path, Err: fmt.Errorf("%s", message)}
}

// Live says that the document is the live one from now on.
func (t *Terms) Live() {
	k := t.keeper
	k.mu.Lock()
	k.terms[t] = true
	k.mu.Unlock()
	for _, w := range t.Warnings(k.options.Clock.Now()) {
		k.options.Log.Warn("clients may refuse a certificate", "listener", t.listener, "reason", w)
	}
	for _, e := range t.extensions {
		if e.Live != nil {
			e.Live()
		}
	}
}

// Retire says that another document is the live one: the certificates are no longer shown to operators. Handshakes that
// run, and connections, go on.
func (t *Terms) Retire() {
	t.keeper.mu.Lock()
	defer t.keeper.mu.Unlock()
	if _, known := t.keeper.terms[t]; known {
		t.keeper.terms[t] = false
	}
}

// Close gives up what the terms hold, whether they have been live or not.
func (t *Terms) Close() error {
	t.keeper.mu.Lock()
	t.keeper.release(t)
	t.keeper.mu.Unlock()
	return closeAll(t.extensions)
}

// Warnings says what clients may hold against the certificates that are served, each with its place below tls.
func (t *Terms) Warnings(now time.Time) (all []error) {
	t.keeper.mu.Lock()
	defer t.keeper.mu.Unlock()
	for i, p := range t.pairs {
		for _, w := range warnings(p.chain, now) {
			all = append(all, at(p.Cert+": "+w, "certificates", strconv.Itoa(i), inCert))
		}
	}
	return all
}

// state is what handshakes go by, until a file changes.
type state struct {
	table    *table
	config   *tls.Config // over TCP
	refusing *tls.Config // for names that strict_sni refuses
	quic     *tls.Config // over QUIC
	identity [sha256.Size]byte
}

// setKeys gives the configurations the keys of tickets. They may be in use.
func (s *state) setKeys(r *ring) {
	keys := r.keys(s.identity)
	s.config.SetSessionTicketKeys(keys)
	s.quic.SetSessionTicketKeys(keys)
}

// rebuild makes the state anew from what the files hold now. It is called with the keeper's lock held.
func (t *Terms) rebuild() {
	next := &state{table: newTable(t.pairs, t.sources), identity: t.identity()}
	if old := t.state.Load(); old != nil && old.identity == next.identity {
		next.config, next.refusing, next.quic = old.config, old.refusing, old.quic
	} else {
		t.configure(next)
		next.setKeys(&t.keeper.tickets)
	}
	t.state.Store(next)
}

// identity is a fingerprint of whom is believed and how it is checked, so that a session that began under other terms is
// not resumed under these.
func (t *Terms) identity() [sha256.Size]byte {
	a := t.config.ClientAuth
	if a == nil {
		return identityOf([]byte("none"))
	}
	parts := [][]byte{[]byte(a.Mode), []byte(a.OCSP), []byte(a.CRLFail), fmt.Append(nil, a.CRL)}
	var authorities [][]byte
	for _, b := range t.bundles {
		for _, c := range b.authorities {
			authorities = append(authorities, c.Raw)
		}
	}
	slices.SortFunc(authorities, bytes.Compare)
	return identityOf(append(parts, authorities...)...)
}

// pool holds the authorities whose clients are believed.
func (t *Terms) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, b := range t.bundles {
		for _, c := range b.authorities {
			pool.AddCert(c)
		}
	}
	return pool
}
