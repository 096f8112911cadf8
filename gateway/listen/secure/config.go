package secure

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"

	"headgate/gateway/exchange"
)

// suites12 are the cipher suites of TLS 1.2: forward secrecy (ECDHE) and authenticated encryption (AEAD) alone, as RFC 9325
// section 4.2 recommends. Those of TLS 1.3 are all of that kind and cannot be chosen.
func suites12() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// curves are the key exchanges: the hybrid one withstands a quantum computer that records today (FIPS 203).
func curves() []tls.CurveID {
	return []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384}
}

// profileModern is the profile without TLS 1.2.
const profileModern = "modern"

// configure makes the configurations of a state.
func (t *Terms) configure(s *state) {
	s.config = &tls.Config{
		Time:                   t.keeper.options.Clock.Now,
		MinVersion:             tls.VersionTLS12,
		CipherSuites:           suites12(),
		CurvePreferences:       curves(),
		NextProtos:             t.protocols,
		GetCertificate:         t.certificate,
		SessionTicketsDisabled: t.config.Tickets.Off,
		// Small records at a connection's start save the reader of a slow line some milliseconds, and cost a system call each.
		DynamicRecordSizingDisabled: true,
	}
	if t.config.Profile == profileModern {
		s.config.MinVersion = tls.VersionTLS13
	}
	if a := t.config.ClientAuth; a != nil {
		s.config.ClientAuth, s.config.ClientCAs = tls.RequireAndVerifyClientCert, t.pool()
		if a.Mode == "request" {
			s.config.ClientAuth = tls.VerifyClientCertIfGiven
		}
		s.config.VerifyConnection = t.verify
	}
	s.quic = s.config.Clone()
	s.quic.MinVersion, s.quic.NextProtos = tls.VersionTLS13, []string{"h3"}
	if t.config.StrictSNI {
		s.refusing = &tls.Config{MinVersion: s.config.MinVersion, SessionTicketsDisabled: true, CurvePreferences: curves()}
		s.config.GetConfigForClient = t.strict
	}
}

// QUIC returns the configuration for a listener over QUIC. It follows changes of files and keys by itself.
func (t *Terms) QUIC() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h3"},
		GetCertificate: t.certificate, // asked for in vain: GetConfigForClient decides; without one QUIC would not start
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			s := t.state.Load()
			if t.config.StrictSNI && !s.table.knows(hello.ServerName) {
				return s.refusing, nil
			}
			return s.quic, nil
		},
	}
}

// strict refuses names that no certificate is for, before a session could be resumed for one.
func (t *Terms) strict(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	s := t.state.Load()
	if s.table.knows(hello.ServerName) || challenged(hello) {
		return nil, nil
	}
	if b, ok := hello.Conn.(*socket); ok {
		b.unknown = true
	}
	return s.refusing, nil
}

// certificate chooses what the client is shown. Without any the handshake ends with the alert unrecognized_name.
func (t *Terms) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s, err := t.state.Load().table.pick(hello)
	if b, ok := hello.Conn.(*socket); ok {
		b.served, b.bare = s, s == nil
	}
	if s == nil || err != nil {
		return nil, err
	}
	return s.certificate, nil
}

// verify has others have their word about a client's certificate, at resumption, too.
func (t *Terms) verify(c tls.ConnectionState) error {
	if len(c.PeerCertificates) == 0 {
		return nil // mode request, and it showed none
	}
	if len(c.VerifiedChains) == 0 {
		return errors.New("the client's certificate has not been verified")
	}
	for _, e := range t.extensions {
		if e.Verify != nil {
			if err := e.Verify(c.VerifiedChains); err != nil {
				return err
			}
		}
	}
	return nil
}

// Describe returns what is known of an encrypted connection, for its exchanges. Of one that was resumed, the certificate is
// the one that would be served for its name today.
func (t *Terms) Describe(c tls.ConnectionState) *exchange.TLS { return t.describe(&c, nil) }

func (t *Terms) describe(c *tls.ConnectionState, s *served) *exchange.TLS {
	d := &exchange.TLS{
		Version: tls.VersionName(c.Version), Cipher: tls.CipherSuiteName(c.CipherSuite), ServerName: normal(c.ServerName),
		ALPN: c.NegotiatedProtocol, Resumed: c.DidResume,
	}
	if s == nil {
		s = t.state.Load().table.usual(d.ServerName)
	}
	if s != nil {
		d.Serves = s.serves
	}
	if len(c.VerifiedChains) > 0 {
		d.Certificate = clientCertificate(c.VerifiedChains[0])
	}
	return d
}

// clientCertificate describes a verified client.
func clientCertificate(chain []*x509.Certificate) *exchange.Certificate {
	leaf := chain[0]
	c := &exchange.Certificate{
		Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), Serial: leaf.SerialNumber.Text(16),
		DNS: leaf.DNSNames, Emails: leaf.EmailAddresses, Thumbprint: thumbprint(leaf), NotAfter: leaf.NotAfter, Chain: chain,
	}
	for _, u := range leaf.URIs {
		c.URIs = append(c.URIs, u.String())
	}
	for _, ip := range leaf.IPAddresses {
		c.IPs = append(c.IPs, address(ip))
	}
	return c
}

// thumbprint is x5t#S256 (RFC 8705 section 3.1).
func thumbprint(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
