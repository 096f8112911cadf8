package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	rfc8555 "github.com/mholt/acmez/v3/acme"
)

// issuer asks an authority for certificates. It implements certmagic.Issuer. certmagic's own would open ports for the
// proofs when they seem to be free; ours are given by the gateway's doors and nobody else.
type issuer struct {
	settings settings
	client   *http.Client
	storage  certmagic.Storage
	proofs   *proofs
	log      *slog.Logger
}

var (
	_ certmagic.Issuer            = (*issuer)(nil)
	_ certmagic.RenewalInfoGetter = (*issuer)(nil)
)

// IssuerKey implements certmagic.Issuer: certificates of different authorities do not replace each other.
func (i *issuer) IssuerKey() string {
	u, err := url.Parse(i.settings.directory)
	if err != nil {
		return certmagic.StorageKeys.Safe(i.settings.directory)
	}
	return strings.Trim(u.Host+"-"+strings.ReplaceAll(strings.Trim(u.Path, "/"), "/", "-"), "-")
}

func (i *issuer) protocol() *acmez.Client {
	return &acmez.Client{
		Client:           &rfc8555.Client{Directory: i.settings.directory, HTTPClient: i.client, UserAgent: "Headgate", Logger: i.log},
		ChallengeSolvers: i.proofs.solvers(i.settings.challenges, i.storage),
	}
}

// Issue implements certmagic.Issuer.
func (i *issuer) Issue(ctx context.Context, request *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	chains, err := i.order(ctx, request)
	var p rfc8555.Problem
	if errors.As(err, &p) && p.Type == rfc8555.ProblemTypeAccountDoesNotExist {
		// The authority has forgotten us, as those for tests do when they start anew.
		if err := i.storage.Delete(ctx, i.accountKey()); err != nil {
			return nil, err
		}
		chains, err = i.order(ctx, request)
	}
	if err != nil {
		return nil, err
	}
	if len(chains) == 0 {
		return nil, errors.New("the authority sent no certificate")
	}
	return &certmagic.IssuedCertificate{Certificate: chains[0].ChainPEM, Metadata: chains[0]}, nil
}

func (i *issuer) order(ctx context.Context, request *x509.CertificateRequest) ([]rfc8555.Certificate, error) {
	client := i.protocol()
	account, err := i.account(ctx, client.Client)
	if err != nil {
		return nil, err
	}
	parameters, err := acmez.OrderParametersFromCSR(account, request)
	if err != nil {
		return nil, err
	}
	return client.ObtainCertificate(ctx, parameters)
}

// GetRenewalInfo implements certmagic.RenewalInfoGetter: an authority may say when to renew (RFC 9773).
func (i *issuer) GetRenewalInfo(ctx context.Context, c certmagic.Certificate) (rfc8555.RenewalInfo, error) {
	return i.protocol().GetRenewalInfo(ctx, c.Leaf)
}

// record is an account as it is kept.
type record struct {
	Account rfc8555.Account `json:"account"`
	Key     string          `json:"key"` // PEM
}

func (i *issuer) accountKey() string {
	who := i.settings.email
	if who == "" {
		who = "default"
	}
	return path.Join("accounts", certmagic.StorageKeys.Safe(i.IssuerKey()), certmagic.StorageKeys.Safe(who)+".json")
}

// account returns the account of these settings, which is registered if there is none yet.
func (i *issuer) account(ctx context.Context, client *rfc8555.Client) (a rfc8555.Account, err error) {
	if a, err = i.load(ctx); !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	lock := "account_" + i.accountKey()
	if err := i.storage.Lock(ctx, lock); err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, i.storage.Unlock(context.WithoutCancel(ctx), lock)) }()
	if a, err = i.load(ctx); !errors.Is(err, fs.ErrNotExist) {
		return a, err // somebody else was faster
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return a, err
	}
	a = rfc8555.Account{TermsOfServiceAgreed: true, PrivateKey: key} // a document without agree_to_terms is refused
	if i.settings.email != "" {
		a.Contact = []string{"mailto:" + i.settings.email}
	}
	if a, err = client.NewAccount(ctx, a); err != nil {
		return a, fmt.Errorf("registering an account: %w", err)
	}
	return a, i.save(ctx, a)
}

func (i *issuer) load(ctx context.Context) (a rfc8555.Account, err error) {
	content, err := i.storage.Load(ctx, i.accountKey())
	if err != nil {
		return a, err
	}
	var r record
	if err := json.Unmarshal(content, &r); err != nil {
		return a, fmt.Errorf("the account in %s cannot be read: %w; remove the file so that a new one is registered", i.accountKey(), err)
	}
	key, err := certmagic.PEMDecodePrivateKey([]byte(r.Key))
	if err != nil {
		return a, fmt.Errorf("the account's key in %s cannot be read: %w; remove the file so that a new account is registered",
			i.accountKey(), err)
	}
	r.Account.PrivateKey = key
	return r.Account, nil
}

func (i *issuer) save(ctx context.Context, a rfc8555.Account) error {
	key, err := certmagic.PEMEncodePrivateKey(a.PrivateKey)
	if err != nil {
		return err
	}
	content, err := json.Marshal(record{a, string(key)})
	if err != nil {
		return err
	}
	return i.storage.Store(ctx, i.accountKey(), content)
}
