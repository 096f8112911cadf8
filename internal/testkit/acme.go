package testkit

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// ACME is an authority that speaks RFC 8555: it verifies signatures and nonces, asks for HTTP-01 and TLS-ALPN-01 on the wire,
// and issues. Set its fields before the first request, or under Set.
type ACME struct {
	HTTP, TLS  string                                   // host:port where ports 80 and 443 of every name are
	Challenges []string                                 // offered; nil: both
	Validity   func(now time.Time) (from, to time.Time) // of certificates; nil: 90 days from an hour ago
	Problem    string                                   // type of the problem that new orders are refused with; "": none

	server  *httptest.Server
	key     *ecdsa.PrivateKey
	root    *x509.Certificate
	mu      sync.Mutex
	nonces  map[string]bool
	account map[string]*jose.JSONWebKey // by address
	orders  []*acmeOrder
	issued  int
}

type acmeOrder struct {
	name, token, thumbprint, status string
	failure                         any
	certificate                     []byte
}

// NewACME starts an authority. Close it.
func NewACME() (*ACME, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "Test authority"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &ACME{key: key, root: root, nonces: map[string]bool{}, account: map[string]*jose.JSONWebKey{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dir", func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.reply(w, 200, map[string]string{"newNonce": a.at("/nonce"), "newAccount": a.at("/account"), "newOrder": a.at("/order")})
	})
	mux.HandleFunc("/nonce", func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.reply(w, 200, nil)
	})
	for path, serve := range map[string]func(http.ResponseWriter, *http.Request, []byte, *jose.JSONWebKey){
		"/account": a.newAccount, "/order": a.newOrder, "/order/{n}": a.showOrder, "/authz/{n}": a.showAuthorization,
		"/challenge/{n}/{type}": a.validate, "/finalize/{n}": a.finalize, "/cert/{n}": a.showCertificate,
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) { a.signed(w, r, serve) })
	}
	a.server = httptest.NewUnstartedServer(mux)
	a.server.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that do not trust it
	a.server.StartTLS()
	return a, nil
}

// Close stops the authority.
func (a *ACME) Close() { a.server.Close() }

// Directory returns the address of the directory.
func (a *ACME) Directory() string { return a.at("/dir") }

// ServerRoot returns the root, in PEM, of the directory's own certificate.
func (a *ACME) ServerRoot() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw})
}

// Root returns the root of the certificates that are issued.
func (a *ACME) Root() *x509.Certificate { return a.root }

// Set changes the authority while it runs.
func (a *ACME) Set(change func(*ACME)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

// Issued returns how many certificates were issued, to how many accounts.
func (a *ACME) Issued() (certificates, accounts int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.issued, len(a.account)
}

func (a *ACME) at(path string) string { return a.server.URL + path }

// reply answers with a nonce, which may be used once.
func (a *ACME) reply(w http.ResponseWriter, status int, body any) {
	nonce := rand.Text()
	a.nonces[nonce] = true
	w.Header().Set("Replay-Nonce", nonce)
	w.Header().Set("Content-Type", "application/json")
	if status >= 400 {
		w.Header().Set("Content-Type", "application/problem+json")
	}
	w.WriteHeader(status)
	if body != nil {
		_ = json.NewEncoder(w).Encode(body) // the asker may have gone
	}
}

func (a *ACME) refuse(w http.ResponseWriter, status int, kind, detail string) {
	a.reply(w, status, problemOf(kind, detail))
}

func problemOf(kind, detail string) map[string]string {
	return map[string]string{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail}
}

// signed verifies a request (RFC 8555 section 6.2) and hands on its payload and the key that signed it.
func (a *ACME) signed(w http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter, *http.Request, []byte, *jose.JSONWebKey)) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s, err := jose.ParseSignedJSON(string(body), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || len(s.Signatures) != 1 {
		a.refuse(w, 400, "malformed", fmt.Sprint(err))
		return
	}
	header := s.Signatures[0].Protected
	key := header.JSONWebKey
	if r.URL.Path != "/account" {
		if key = a.account[header.KeyID]; key == nil {
			a.refuse(w, 400, "accountDoesNotExist", header.KeyID)
			return
		}
	}
	if address := header.ExtraHeaders["url"]; key == nil || address != a.at(r.URL.Path) {
		a.refuse(w, 401, "unauthorized", fmt.Sprint("signed for ", address))
		return
	}
	if !a.nonces[header.Nonce] {
		a.refuse(w, 400, "badNonce", header.Nonce)
		return
	}
	delete(a.nonces, header.Nonce)
	payload, err := s.Verify(key)
	if err != nil {
		a.refuse(w, 401, "unauthorized", err.Error())
		return
	}
	serve(w, r, payload, key)
}

func (a *ACME) newAccount(w http.ResponseWriter, _ *http.Request, payload []byte, key *jose.JSONWebKey) {
	var asked struct {
		Agreed bool `json:"termsOfServiceAgreed"`
	}
	if err := json.Unmarshal(payload, &asked); err != nil || !asked.Agreed {
		a.refuse(w, 403, "userActionRequired", "the terms were not agreed to")
		return
	}
	address := a.at(fmt.Sprintf("/account/%d", len(a.account)))
	a.account[address] = key
	w.Header().Set("Location", address)
	a.reply(w, 201, map[string]string{"status": "valid"})
}

// Forget forgets every account, as an authority for tests does when it starts anew.
func (a *ACME) Forget() { a.Set(func(a *ACME) { a.account = map[string]*jose.JSONWebKey{} }) }

func (a *ACME) newOrder(w http.ResponseWriter, _ *http.Request, payload []byte, key *jose.JSONWebKey) {
	var asked struct {
		Identifiers []struct{ Type, Value string }
	}
	if err := json.Unmarshal(payload, &asked); err != nil || len(asked.Identifiers) != 1 || asked.Identifiers[0].Type != "dns" {
		a.refuse(w, 400, "malformed", "one name of a host, please")
		return
	}
	if a.Problem != "" {
		a.refuse(w, 403, a.Problem, "as configured")
		return
	}
	thumbprint, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		a.refuse(w, 500, "serverInternal", err.Error())
		return
	}
	a.orders = append(a.orders, &acmeOrder{name: asked.Identifiers[0].Value, token: rand.Text(), status: "pending",
		thumbprint: base64.RawURLEncoding.EncodeToString(thumbprint)})
	n := len(a.orders) - 1
	w.Header().Set("Location", a.at(fmt.Sprintf("/order/%d", n)))
	a.reply(w, 201, a.order(n))
}

func (a *ACME) order(n int) map[string]any {
	o := a.orders[n]
	m := map[string]any{"status": o.status, "identifiers": []map[string]string{{"type": "dns", "value": o.name}},
		"authorizations": []string{a.at(fmt.Sprintf("/authz/%d", n))}, "finalize": a.at(fmt.Sprintf("/finalize/%d", n))}
	if o.certificate != nil {
		m["certificate"] = a.at(fmt.Sprintf("/cert/%d", n))
	}
	return m
}

func (a *ACME) number(r *http.Request) (n int) {
	_, _ = fmt.Sscan(r.PathValue("n"), &n) // 0 is an order, too
	return min(max(n, 0), len(a.orders)-1)
}

func (a *ACME) showOrder(w http.ResponseWriter, r *http.Request, _ []byte, _ *jose.JSONWebKey) {
	a.reply(w, 200, a.order(a.number(r)))
}

func (a *ACME) showAuthorization(w http.ResponseWriter, r *http.Request, _ []byte, _ *jose.JSONWebKey) {
	n := a.number(r)
	o := a.orders[n]
	status := map[string]string{"ready": "valid"}[o.status]
	if status == "" {
		status = o.status
	}
	challenges := a.Challenges
	if challenges == nil {
		challenges = []string{"http-01", "tls-alpn-01"}
	}
	var list []map[string]any
	for _, c := range challenges {
		list = append(list, map[string]any{"type": c, "status": status, "token": o.token, "error": o.failure,
			"url": a.at(fmt.Sprintf("/challenge/%d/%s", n, c))})
	}
	a.reply(w, 200, map[string]any{"status": status, "identifier": map[string]string{"type": "dns", "value": o.name}, "challenges": list})
}

// validate asks the name for the proof.
func (a *ACME) validate(w http.ResponseWriter, r *http.Request, _ []byte, _ *jose.JSONWebKey) {
	o := a.orders[a.number(r)]
	a.reply(w, 200, map[string]any{"type": r.PathValue("type"), "status": "processing", "token": o.token, "url": a.at(r.URL.Path)})
	proof := o.token + "." + o.thumbprint
	var err error
	if r.PathValue("type") == "http-01" {
		err = askHTTP(a.HTTP, o.name, o.token, proof)
	} else {
		err = askTLS(a.TLS, o.name, proof)
	}
	if o.status = "ready"; err != nil {
		o.status, o.failure = "invalid", problemOf("connection", err.Error())
	}
}

// askHTTP is RFC 8555 section 8.3.
func askHTTP(address, name, token, proof string) error {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	reply, err := c.Get("http://" + name + "/.well-known/acme-challenge/" + token)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, 1024))
	if err != nil || reply.StatusCode != 200 || strings.TrimSpace(string(body)) != proof {
		return fmt.Errorf("status %d, %q, %v", reply.StatusCode, body, err)
	}
	return nil
}

// askTLS is RFC 8737 section 3.
func askTLS(address, name, proof string) error {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address,
		&tls.Config{ServerName: name, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer c.Close()
	state := c.ConnectionState()
	leaf := state.PeerCertificates[0]
	want := sha256.Sum256([]byte(proof))
	for _, e := range leaf.Extensions {
		var got []byte
		if e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}) && e.Critical {
			if _, err := asn1.Unmarshal(e.Value, &got); err == nil && string(got) == string(want[:]) &&
				state.NegotiatedProtocol == "acme-tls/1" && len(leaf.DNSNames) == 1 && leaf.DNSNames[0] == name {
				return nil
			}
		}
	}
	return fmt.Errorf("%s of %s proves nothing", state.NegotiatedProtocol, leaf.Subject)
}

func (a *ACME) finalize(w http.ResponseWriter, r *http.Request, payload []byte, _ *jose.JSONWebKey) {
	n := a.number(r)
	o := a.orders[n]
	var asked struct{ CSR string }
	err := json.Unmarshal(payload, &asked)
	der, decodeErr := base64.RawURLEncoding.DecodeString(asked.CSR)
	request, parseErr := x509.ParseCertificateRequest(der)
	if err = errors.Join(err, decodeErr, parseErr); err != nil || o.status != "ready" || len(request.DNSNames) != 1 ||
		request.DNSNames[0] != o.name {
		a.refuse(w, 403, "orderNotReady", fmt.Sprint(o.status, err))
		return
	}
	now := time.Now()
	from, to := now.Add(-time.Hour), now.AddDate(0, 0, 90)
	if a.Validity != nil {
		from, to = a.Validity(now)
	}
	a.issued++
	cert, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), NotBefore: from, NotAfter: to,
		DNSNames: []string{o.name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		a.root, request.PublicKey, a.key)
	if err != nil {
		a.refuse(w, 500, "serverInternal", err.Error())
		return
	}
	o.status, o.certificate = "valid", cert
	a.reply(w, 200, a.order(n))
}

func (a *ACME) showCertificate(w http.ResponseWriter, r *http.Request, _ []byte, _ *jose.JSONWebKey) {
	o := a.orders[a.number(r)]
	w.Header().Set("Content-Type", "application/pem-certificate-chain")
	for _, der := range [][]byte{o.certificate, a.root.Raw} {
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // the asker may have gone
	}
}
