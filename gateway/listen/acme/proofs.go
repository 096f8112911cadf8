package acme

import (
	"context"
	"crypto/tls"
	"strings"
	"sync"

	"github.com/mholt/acmez/v3"
	rfc8555 "github.com/mholt/acmez/v3/acme"
)

// proofs is what authorities are about to ask for. There are never more than certificates being got.
type proofs struct {
	mu     sync.RWMutex
	tokens map[[2]string]string        // key authorization by host and token, for HTTP-01
	certs  map[string]*tls.Certificate // by host, for TLS-ALPN-01
}

func newProofs() *proofs {
	return &proofs{tokens: map[[2]string]string{}, certs: map[string]*tls.Certificate{}}
}

// answer compares the host too: somebody who points another name at this machine gets nothing signed for it (RFC 8555
// section 11.1 calls the rest DNS rebinding).
func (p *proofs) answer(host, token string) (string, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if len(p.tokens) == 0 {
		return "", false
	}
	a, ok := p.tokens[[2]string{strings.TrimSuffix(strings.ToLower(host), "."), token}]
	return a, ok
}

func (p *proofs) certificate(name string) *tls.Certificate {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.certs[strings.TrimSuffix(strings.ToLower(name), ".")]
}

// overHTTP and overTLS let an authority's questions be answered while it asks. They implement acmez.Solver.
type (
	overHTTP struct{ *proofs }
	overTLS  struct{ *proofs }
)

// Present implements acmez.Solver.
func (p overHTTP) Present(_ context.Context, c rfc8555.Challenge) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens[[2]string{c.Identifier.Value, c.Token}] = c.KeyAuthorization
	return nil
}

// CleanUp implements acmez.Solver.
func (p overHTTP) CleanUp(_ context.Context, c rfc8555.Challenge) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tokens, [2]string{c.Identifier.Value, c.Token})
	return nil
}

// Present implements acmez.Solver.
func (p overTLS) Present(_ context.Context, c rfc8555.Challenge) error {
	cert, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.certs[c.Identifier.Value] = cert
	return nil
}

// CleanUp implements acmez.Solver.
func (p overTLS) CleanUp(_ context.Context, c rfc8555.Challenge) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.certs, c.Identifier.Value)
	return nil
}

// solvers are the ways that the document allows; without any both.
func (p *proofs) solvers(challenges []string) map[string]acmez.Solver {
	all := map[string]acmez.Solver{rfc8555.ChallengeTypeHTTP01: overHTTP{p}, rfc8555.ChallengeTypeTLSALPN01: overTLS{p}}
	if len(challenges) == 0 {
		return all
	}
	chosen := map[string]acmez.Solver{}
	for _, c := range challenges {
		chosen[c] = all[c]
	}
	return chosen
}
