package pool

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"syscall"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// handshakeError is a connection that was made and could not be encrypted.
type handshakeError struct {
	cause string
	err   error
}

// Error says what it was in the operator's words, then in the library's.
func (e *handshakeError) Error() string { return "TLS handshake: " + e.cause + ": " + e.err.Error() }

// Unwrap returns the library's error.
func (e *handshakeError) Unwrap() error { return e.err }

// HandshakeCause names why it broke, as in metrics.
func (e *handshakeError) HandshakeCause() string { return e.cause }

// The causes of failed handshakes, as they stand in metrics and logs.
const (
	causeExpired   = "certificate_expired"
	causeAuthority = "unknown_authority"
	causeName      = "wrong_name"
	causePin       = "not_pinned"
	causeInvalid   = "certificate_invalid"
	causeRefused   = "refused_by_target"
	causeNotTLS    = "not_tls"
	causeTimeout   = "timeout"
	causeClosed    = "closed"
)

// untrusted are the causes that say that somebody answered whom we do not believe.
var untrusted = map[string]bool{causeExpired: true, causeAuthority: true, causeName: true, causePin: true, causeInvalid: true}

// handshakeCause names why a handshake failed.
func handshakeCause(err error) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		alert     tls.AlertError
		remote    *net.OpError
		header    tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, errPin):
		return causePin
	case errors.As(err, &authority):
		return causeAuthority
	case errors.As(err, &name):
		return causeName
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return causeExpired
	case errors.As(err, &invalid), errors.As(err, &verify):
		return causeInvalid
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return causeTimeout
	case errors.As(err, &header):
		return causeNotTLS
	case errors.As(err, &alert), errors.As(err, &remote) && remote.Op == "remote error":
		return causeRefused
	}
	return causeClosed
}

// DialError says whose doing it was that no connection was made. Nothing has been sent, so somebody else may be asked.
func DialError(x *exchange.Exchange, err error) error {
	if x.Cancel != nil && x.Cancel.Canceled() {
		return &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: err}
	}
	e := &exchange.Error{Code: exchange.UpstreamUnreachable, Source: exchange.FromUpstream, Retry: true, Cause: err}
	var h *handshakeError
	switch {
	case errors.As(err, &h) && untrusted[h.cause]:
		e.Code = exchange.UpstreamUntrusted
	case errors.Is(err, errUnresolved):
		e.Code = exchange.UpstreamUnresolved
	case errors.Is(err, ErrNoStream), errors.Is(err, ErrBusy):
		e.Code, e.Source = exchange.UpstreamBusy, exchange.FromGateway
	case errors.Is(err, sock.ErrNotTCP):
		e.Code, e.Source, e.Retry = exchange.Internal, exchange.FromGateway, false
	case ownShortage(err):
		e.Source = exchange.FromGateway
	}
	return e
}

// ownShortage reports whether this machine is out of what a connection needs, of which no target is to blame.
func ownShortage(err error) bool {
	for _, e := range [...]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
