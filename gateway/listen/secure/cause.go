package secure

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"headgate/internal/sock"
)

// cause is why a handshake failed, as it is counted.
type cause uint8

// The causes. What is told by the text of crypto/tls's errors alone is proven by tests, one by one.
const (
	causeTimeout   cause = iota // the client did not do its part in time
	causeBusy                   // too many handshakes at one time
	causeNone                   // there is no certificate, or none yet, that could be shown
	causeVersion                // no version of TLS in common
	causeCipher                 // no cipher suite, key exchange or signature in common
	causeProtocol               // no protocol of ALPN in common
	causeClient                 // the client's own certificate: missing, expired, of an unknown authority
	causeRevoked                // the client's own certificate has been revoked
	causePlain                  // HTTP without TLS
	causeClosed                 // the client went away
	causeUnknown                // strict_sni: no certificate for the name that it asked for
	causeRefused                // the client broke it off with an alert, such as one that does not believe our certificate
	causeMalformed              // what came is not TLS, or breaks its rules
	causes                      // how many there are
)

// String returns the value of the metric's label.
func (c cause) String() string {
	return [causes]string{"timeout", "busy", "no_certificate", "protocol_version", "cipher", "alpn", "client_certificate", "revoked",
		"plain_http", "closed", "unknown_name", "refused_by_client", "other"}[c]
}

// causeOf finds out why a handshake failed. b is nil when it had not begun.
func causeOf(c *sock.Conn, b *socket, err error) cause {
	var remote *net.OpError
	switch {
	case errors.Is(err, errPlain):
		return causePlain
	case errors.Is(err, errBusy):
		return causeBusy
	case c.Expired():
		return causeTimeout
	case errors.Is(err, sock.ErrInterrupted), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return causeClosed
	case b != nil && b.unknown:
		return causeUnknown
	case b != nil && b.bare:
		return causeNone
	case errors.As(err, &remote) && remote.Op == "remote error":
		return causeRefused
	}
	return causeOfTLS(err)
}

// causeOfTLS looks into an error of crypto/tls.
func causeOfTLS(err error) cause {
	var unverified *tls.CertificateVerificationError
	if errors.Is(err, ErrRevoked) {
		return causeRevoked
	}
	if errors.As(err, &unverified) {
		return causeClient
	}
	text := err.Error()
	for _, known := range [...]struct {
		cause cause
		texts []string
	}{
		{causeVersion, []string{"unsupported versions"}},
		{causeProtocol, []string{"unsupported application protocols"}},
		{causeCipher, []string{"no cipher suite supported", "no ECDHE curve", "no key exchanges supported", "signature algorithms",
			"supported by both client and server"}},
		{causeClient, []string{"client didn't provide a certificate", "client's certificate", "client certificate", "verify certificate"}},
	} {
		for _, t := range known.texts {
			if strings.Contains(text, t) {
				return known.cause
			}
		}
	}
	return causeMalformed
}
