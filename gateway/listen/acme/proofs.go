package acme

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"path"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"
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

// overHTTP and overTLS let an authority's questions be answered while it asks, by this node and by those that share its
// storage: a balancer may send the authority to any of them. They implement acmez.Solver.
type (
	overHTTP struct {
		*proofs
		storage certmagic.Storage
	}
	overTLS struct {
		*proofs
		storage certmagic.Storage
	}
)

// Present implements acmez.Solver.
func (p overHTTP) Present(ctx context.Context, c rfc8555.Challenge) error {
	p.mu.Lock()
	p.tokens[[2]string{c.Identifier.Value, c.Token}] = c.KeyAuthorization
	p.mu.Unlock()
	return share(ctx, p.storage, c)
}

// CleanUp implements acmez.Solver.
func (p overHTTP) CleanUp(ctx context.Context, c rfc8555.Challenge) error {
	p.mu.Lock()
	delete(p.tokens, [2]string{c.Identifier.Value, c.Token})
	p.mu.Unlock()
	return p.storage.Delete(ctx, sharedKey(c.Type, c.Identifier.Value))
}

// Present implements acmez.Solver.
func (p overTLS) Present(ctx context.Context, c rfc8555.Challenge) error {
	cert, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.certs[c.Identifier.Value] = cert
	p.mu.Unlock()
	return share(ctx, p.storage, c)
}

// CleanUp implements acmez.Solver.
func (p overTLS) CleanUp(ctx context.Context, c rfc8555.Challenge) error {
	p.mu.Lock()
	delete(p.certs, c.Identifier.Value)
	p.mu.Unlock()
	return p.storage.Delete(ctx, sharedKey(c.Type, c.Identifier.Value))
}

// solvers are the ways that the document allows; without any both.
func (p *proofs) solvers(challenges []string, storage certmagic.Storage) map[string]acmez.Solver {
	all := map[string]acmez.Solver{
		rfc8555.ChallengeTypeHTTP01: overHTTP{p, storage}, rfc8555.ChallengeTypeTLSALPN01: overTLS{p, storage},
	}
	if len(challenges) == 0 {
		return all
	}
	chosen := map[string]acmez.Solver{}
	for _, c := range challenges {
		chosen[c] = all[c]
	}
	return chosen
}

func sharedKey(challenge, name string) string {
	return path.Join("challenges", challenge, certmagic.StorageKeys.Safe(name)+".json")
}

// share writes a challenge down for other nodes.
func share(ctx context.Context, storage certmagic.Storage, c rfc8555.Challenge) error {
	content, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return storage.Store(ctx, sharedKey(c.Type, c.Identifier.Value), content)
}

// shared returns the challenge that some node has written down for a name.
func shared(storage certmagic.Storage, challenge, name string) (c rfc8555.Challenge, ok bool) {
	content, err := storage.Load(context.Background(), sharedKey(challenge, name))
	return c, err == nil && json.Unmarshal(content, &c) == nil && c.Identifier.Value == name
}
