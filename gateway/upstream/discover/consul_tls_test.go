package discover

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headgate/config/model"
)

// signer is an authority; what it signs is good for both sides, as Consul's own authority does it.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	s := &signer{}
	s.cert, s.key = s.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "agents"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return s
}

// sign signs a certificate; that of the signer itself when it has none.
func (s *signer) sign(t *testing.T, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, by := s.cert, s.key
	if parent == nil {
		parent, by = template, key
	}
	template.SerialNumber, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// save writes PEM files of the authority, and of a certificate that it signs.
func (s *signer) save(t *testing.T, folder string, template *x509.Certificate) tls.Certificate {
	t.Helper()
	cert, key := s.sign(t, template)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"ca.pem": {Type: "CERTIFICATE", Bytes: s.cert.Raw}, "own.pem": {Type: "CERTIFICATE", Bytes: cert.Raw},
		"own-key.pem": {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// serveAgent is an agent with verify_incoming; its certificate is for a name and no address.
func serveAgent(t *testing.T, s *signer) (*httptest.Server, func(*signer)) {
	t.Helper()
	agent := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Consul-Index", "1")
		fmt.Fprint(w, instances)
	}))
	terms := make(chan *tls.Config, 1)
	of := func(s *signer) {
		pool := x509.NewCertPool()
		pool.AddCert(s.cert)
		cert := s.save(t, t.TempDir(), &x509.Certificate{DNSNames: []string{"server.dc1.consul"}})
		terms <- &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	}
	of(s)
	agent.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	agent.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := <-terms
		terms <- c
		return c, nil
	}}
	agent.StartTLS()
	t.Cleanup(agent.Close)
	return agent, func(next *signer) {
		<-terms
		of(next)
		agent.CloseClientConnections()
	}
}

func TestAnAgentOverTLSIsAskedAsTheDocumentSays(t *testing.T) {
	t.Parallel()
	s, folder := newSigner(t), t.TempDir()
	agent, renew := serveAgent(t, s)
	gateway := &x509.Certificate{Subject: pkix.Name{CommonName: "gateway"}}
	s.save(t, folder, gateway)
	file := func(name string) string { return filepath.Join(folder, name) }
	own := &model.Certificate{Cert: file("own.pem"), Key: file("own-key.pem")}
	for _, test := range []struct {
		tls  *model.DiscoverTLS
		says string
	}{
		{nil, "write a name that it is for into consul.tls.server_name"},
		{&model.DiscoverTLS{ServerName: "server.dc1.consul"}, "name the PEM file of the authority in consul.tls.ca"},
		{&model.DiscoverTLS{CA: file("none.pem")}, "none.pem: no such file"},
		{&model.DiscoverTLS{CA: file("own-key.pem")}, "holds no certificate"},
		{&model.DiscoverTLS{CA: file("ca.pem")}, "127.0.0.1"},
		{&model.DiscoverTLS{CA: file("ca.pem"), ServerName: "server.dc1.consul"}, "certificate required"},
		{&model.DiscoverTLS{CA: file("ca.pem"), ServerName: "client.dc1.consul", Certificate: own}, "server.dc1.consul"},
	} {
		c := newConsul(model.DiscoverConsul{Address: agent.URL, Service: "shop", TLS: test.tls})
		if list, _, err := c.ask(t.Context(), 0); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%+v: %v and %v; want %s", test.tls, list, err, test.says)
		}
		c.client.CloseIdleConnections()
	}
	c := newConsul(model.DiscoverConsul{Address: agent.URL, Service: "shop", TLS: &model.DiscoverTLS{
		CA: file("ca.pem"), ServerName: "server.dc1.consul", Certificate: own,
	}})
	defer c.client.CloseIdleConnections()
	if list, _, err := c.ask(t.Context(), 0); err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	// Another authority signs from now on: the files are read for the next connection.
	next := newSigner(t)
	renew(next)
	if _, _, err := c.ask(t.Context(), 0); err == nil {
		t.Error("an agent of an unknown authority was believed")
	}
	next.save(t, folder, gateway)
	if list, _, err := c.ask(t.Context(), 0); err != nil || len(list) != 2 {
		t.Errorf("with new files: %v, %v", list, err)
	}
}
