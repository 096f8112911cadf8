package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/listen/acme"
	"headgate/gateway/listen/revoke"
	"headgate/gateway/listen/secure"
	"headgate/internal/authority"
	"headgate/internal/clock"
	"headgate/internal/metric"
)

// trust is where certificates come from besides files, and how revoked ones are noticed.
type trust struct {
	clock  clock.Clock
	log    *slog.Logger
	acme   *acme.Keeper
	revoke *revoke.Keeper
}

func newTrust(c clock.Clock, log *slog.Logger, metrics *metric.Registry) *trust {
	return &trust{
		clock: c, log: log, acme: acme.NewKeeper(acme.Options{Clock: c, Log: log, Metrics: metrics}),
		revoke: revoke.NewKeeper(revoke.Options{Clock: c, Log: log, Metrics: metrics, Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, IdleConnTimeout: outboundTimeout, MaxIdleConnsPerHost: 2,
		}}),
	}
}

// extensions are what listeners' terms are extended by.
func (t *trust) extensions() []secure.Extend {
	return []secure.Extend{t.byACME, t.byOwnAuthority, t.withRevocation}
}

// byACME adds the certificates of a listener's acme.
func (t *trust) byACME(_ string, m *model.ListenerTLS) (secure.Extension, error) {
	if m.ACME == nil {
		return secure.Extension{}, nil
	}
	s, err := t.acme.Compile(m.ACME)
	if err != nil {
		return secure.Extension{}, below(err, "acme")
	}
	return secure.Extension{Sources: []secure.Source{s}, Live: s.Live, Close: s.Close}, nil
}

// withRevocation adds the checks of a listener's client_auth.
func (t *trust) withRevocation(listener string, m *model.ListenerTLS) (secure.Extension, error) {
	if m.ClientAuth == nil {
		return secure.Extension{}, nil
	}
	var authorities []*x509.Certificate
	for _, path := range m.ClientAuth.CA {
		content, err := os.ReadFile(path)
		if err != nil {
			return secure.Extension{}, nil // the terms say so themselves, at its place
		}
		for b, rest := pem.Decode(content); b != nil; b, rest = pem.Decode(rest) {
			if c, err := x509.ParseCertificate(b.Bytes); err == nil { // likewise
				authorities = append(authorities, c)
			}
		}
	}
	c, err := t.revoke.Compile(listener, m.ClientAuth, authorities)
	if err != nil || c == nil {
		return secure.Extension{}, below(err, "client_auth")
	}
	return secure.Extension{Verify: c.Verify, Close: c.Close}, nil
}

// below moves the places of problems under a key.
func below(err error, key string) error {
	var all []error
	for _, e := range decode.Flatten(err) {
		var at *decode.PathError
		if errors.As(e, &at) {
			e = &decode.PathError{Path: slices.Concat([]string{key}, at.Path), Err: at.Err}
		}
		all = append(all, e)
	}
	return errors.Join(all...)
}

// stateVariable names the folder in which this node keeps what is its own.
const stateVariable = "HEADGATE_STATE"

// authorityFolder is where the node's own authority is: the same for every document, so that it is trusted once.
func authorityFolder() (string, error) {
	state, err := stateFolder()
	if err != nil {
		return "", fmt.Errorf("there is no folder for the internal authority: set %s to one that only the gateway may read (%w)",
			stateVariable, err)
	}
	return filepath.Join(state, "authority"), nil
}

// stateFolder is where a node keeps what is its own.
func stateFolder() (string, error) {
	if state := os.Getenv(stateVariable); state != "" {
		return state, nil
	}
	config, err := os.UserConfigDir()
	return filepath.Join(config, "headgate"), err
}

// discoveryFolder is where the last good answers of discovery are; "": there is no place for them, and they are only
// remembered.
func discoveryFolder() string {
	state, err := stateFolder()
	if err != nil {
		return ""
	}
	return filepath.Join(state, "discovery")
}

// stickyFolder is where the key of sticky cookies is that are given none; "": there is no place for it.
func stickyFolder() string {
	state, err := stateFolder()
	if err != nil {
		return ""
	}
	return state
}

func openAuthority(c clock.Clock) (*authority.Authority, error) {
	folder, err := authorityFolder()
	if err != nil {
		return nil, err
	}
	return authority.Open(folder, c)
}

// byOwnAuthority adds certificates of this node's own authority.
func (t *trust) byOwnAuthority(_ string, m *model.ListenerTLS) (secure.Extension, error) {
	if len(m.Internal) == 0 {
		return secure.Extension{}, nil
	}
	var problems []error
	s := &ownSource{trust: t}
	for i, name := range m.Internal {
		if err := authority.CheckName(name); err != nil {
			problems = append(problems, decode.At(fmt.Sprintf("internal.%d", i), "%w", err))
		}
		s.names = append(s.names, strings.ToLower(name))
	}
	return secure.Extension{Sources: []secure.Source{s}, Live: s.live}, errors.Join(problems...)
}

// ownSource hands out certificates of this node's own authority. It implements secure.Source. Nothing is made before a
// document that wants it is live: one that is only checked leaves no trace.
type ownSource struct {
	trust *trust
	names []string

	mu     sync.Mutex
	leaf   *authority.Leaf
	failed error
	again  time.Time // when the next attempt may be after a failure
}

// ownPause is how long an authority that could not be opened is left alone: every handshake would try.
const ownPause = 5 * time.Second

// Kind implements secure.Source.
func (s *ownSource) Kind() string { return "internal" }

// Names implements secure.Source.
func (s *ownSource) Names() []string { return s.names }

// Certificate implements secure.Source.
func (s *ownSource) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	l, err := s.open()
	if err != nil {
		return nil, err
	}
	return l.Certificate()
}

func (s *ownSource) live() {
	if _, err := s.open(); err != nil {
		s.trust.log.Error("the internal authority cannot be used; handshakes for its names fail", "names", s.names, "error", err)
	}
}

func (s *ownSource) open() (*authority.Leaf, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.trust.clock.Now()
	if s.leaf != nil || s.failed != nil && now.Before(s.again) {
		return s.leaf, s.failed
	}
	a, err := openAuthority(s.trust.clock)
	if err == nil {
		s.leaf, err = a.Leaf(s.names)
	}
	if s.failed = err; err != nil {
		s.again = now.Add(ownPause)
	}
	return s.leaf, err
}

// Status implements secure.Source.
func (s *ownSource) Status() []secure.Status {
	st := secure.Status{Source: s.Kind(), Names: s.names}
	c, err := s.Certificate(nil)
	now := s.trust.clock.Now()
	if err != nil {
		st.Error, st.ErrorAt = err.Error(), &now
		return []secure.Status{st}
	}
	secure.Describe(&st, c.Leaf, now)
	return []secure.Status{st}
}
