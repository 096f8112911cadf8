package revoke

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ocsp"

	"headgate/config/model"
	"headgate/internal/clock"
	"headgate/internal/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// holder is a certificate with its key.
type holder struct {
	*x509.Certificate
	key crypto.Signer
}

// issue makes a certificate, of itself when there is no issuer.
func issue(t *testing.T, issuer *holder, name string, change func(*x509.Certificate)) *holder {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	number, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: number, Subject: pkix.Name{CommonName: name}, NotBefore: noon.Add(-time.Hour),
		NotAfter: noon.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true}
	if change != nil {
		change(c)
	}
	parent, signer := c, crypto.Signer(key)
	if issuer != nil {
		parent, signer = issuer.Certificate, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &holder{parsed, key}
}

func authority(t *testing.T, issuer *holder, name string) *holder {
	return issue(t, issuer, name, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil
	})
}

// chain is the verified chain of a client, its own certificate first.
func chain(holders ...*holder) [][]*x509.Certificate {
	var c []*x509.Certificate
	for _, h := range holders {
		c = append(c, h.Certificate)
	}
	return [][]*x509.Certificate{c}
}

// crl makes a list of the authority's, good from noon-1h to noon+24h, with the given certificates revoked.
func (h *holder) crl(t *testing.T, change func(*x509.RevocationList), revoked ...*holder) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: noon.Add(-time.Hour), NextUpdate: noon.Add(24 * time.Hour)}
	for _, r := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: r.SerialNumber, RevocationTime: noon.Add(-time.Hour)})
	}
	if change != nil {
		change(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, h.Certificate, h.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func inPEM(ders ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range ders {
		_ = pem.Encode(&b, &pem.Block{Type: "X509 CRL", Bytes: der}) // into memory
	}
	return b.Bytes()
}

// house is a keeper with what is around it.
type house struct {
	t       *testing.T
	clock   *clock.Manual
	metrics *metric.Registry
	log     *bytes.Buffer
	keeper  *Keeper
	dir     string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, clock: clock.NewManual(noon), metrics: metric.NewRegistry(), log: new(bytes.Buffer), dir: t.TempDir()}
	transport := &http.Transport{}
	h.keeper = NewKeeper(Options{Clock: h.clock, Log: slog.New(slog.NewTextHandler(h.log, nil)), Metrics: h.metrics, Transport: transport})
	t.Cleanup(func() { h.keeper.answers.close(); transport.CloseIdleConnections() })
	return h
}

func (h *house) write(name string, content []byte) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func (h *house) checker(c model.ClientAuth, authorities ...*holder) *Checker {
	h.t.Helper()
	r, err := h.compile(c, authorities...)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := r.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return r
}

func (h *house) compile(c model.ClientAuth, authorities ...*holder) (*Checker, error) {
	d := model.ClientAuth{}
	d.SetDefaults()
	d.CRL = c.CRL
	if c.OCSP != "" {
		d.OCSP = c.OCSP
	}
	if c.CRLFail != "" {
		d.CRLFail = c.CRLFail
	}
	if c.Refresh != 0 {
		d.Refresh = c.Refresh
	}
	var certs []*x509.Certificate
	for _, a := range authorities {
		certs = append(certs, a.Certificate)
	}
	return h.keeper.Compile("public", &d, certs)
}

// counted reports whether the exposition has the line.
func (h *house) counted(line string) bool {
	h.t.Helper()
	var b strings.Builder
	text := metric.NewText(&b)
	h.metrics.Expose(text)
	if err := text.Close(); err != nil {
		h.t.Fatal(err)
	}
	return strings.Contains(b.String(), line+"\n")
}

// responder is a real OCSP responder for one authority.
type responderServer struct {
	t      *testing.T
	issuer *holder
	clock  clock.Clock
	url    string

	mu      sync.Mutex
	signer  *holder // nil: the issuer
	status  map[string]int
	next    time.Duration // 0: no nextUpdate
	this    time.Duration // from now
	broken  func(http.ResponseWriter)
	asked   int
	release chan struct{} // not nil: answers wait for it
}

func newResponder(t *testing.T, issuer *holder, c clock.Clock) *responderServer {
	t.Helper()
	r := &responderServer{t: t, issuer: issuer, clock: c, status: map[string]int{}, next: 24 * time.Hour}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	r.url = s.URL
	return r
}

func (r *responderServer) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	request, err := ocsp.ParseRequest(body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	r.asked++
	release, broken := r.release, r.broken
	r.mu.Unlock()
	if release != nil {
		<-release
	}
	if broken != nil {
		broken(w)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	status, known := r.status[request.SerialNumber.String()]
	if !known {
		status = ocsp.Good
	}
	signer := r.issuer
	template := ocsp.Response{Status: status, SerialNumber: request.SerialNumber, ThisUpdate: r.clock.Now().Add(r.this), RevokedAt: noon}
	if r.signer != nil {
		signer, template.Certificate = r.signer, r.signer.Certificate
	}
	if r.next != 0 {
		template.NextUpdate = r.clock.Now().Add(r.next)
	}
	der, err := ocsp.CreateResponse(r.issuer.Certificate, signer.Certificate, template, signer.key)
	if err != nil {
		r.t.Error(err)
		return
	}
	_, _ = w.Write(der) // the asker may have gone
}

func (r *responderServer) set(change func(*responderServer)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

func (r *responderServer) questions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// client makes a certificate that names the responder.
func (r *responderServer) client(name string) *holder {
	return issue(r.t, r.issuer, name, func(c *x509.Certificate) { c.OCSPServer = []string{"ldap://nowhere", r.url} })
}

// extension makes one of a list's extensions.
func extension(t *testing.T, id asn1.ObjectIdentifier, value any) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: id, Critical: true, Value: der}
}

// await waits until the condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
		time.Sleep(time.Millisecond)
	}
}
