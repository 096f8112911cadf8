package upstream

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

// opened is an open connection to a target, ready for the first byte of its protocol.
type opened struct {
	*sock.Conn
	alpn string // agreed by TLS; "": none
}

// open dials, tells who the client is where the document wants that, and shakes hands where the target is over TLS,
// all within the connect timeout. config is nil for a target in clear.
func (p *pool) open(ctx context.Context, client *exchange.Client, config *tls.Config) (opened, error) {
	t := p.target
	ctx, cancel := context.WithTimeout(ctx, t.upstream.config.Timeouts.Connect)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", t.end.address)
	if err != nil {
		return opened{}, err
	}
	sc, err := sock.New(nc, t.upstream.env.Sweeper, nil)
	if err != nil {
		return opened{}, errors.Join(err, nc.Close())
	}
	c := opened{Conn: sc}
	if err := p.greet(ctx, &c, client, config); err != nil {
		sc.Reset() // nothing of worth was said on it
		return opened{}, err
	}
	return c, nil
}

// greet says what comes before the protocol itself.
func (p *pool) greet(ctx context.Context, c *opened, client *exchange.Client, config *tls.Config) error {
	proxied := p.target.upstream.proxied()
	if config == nil && !proxied {
		return nil
	}
	stop := context.AfterFunc(ctx, c.Interrupt)
	if proxied {
		if _, err := c.Write(p.target.upstream.appendProxyHeader(nil, client, c.Conn)); err != nil {
			stop()
			return err
		}
	}
	var err error
	if config != nil {
		err = p.shake(ctx, c, config)
	}
	if !stop() && err == nil { // interrupted at the last moment: it is of no use any more
		err = context.Cause(ctx)
	}
	return err
}

// shake makes the connection one over TLS.
func (p *pool) shake(ctx context.Context, c *opened, config *tls.Config) error {
	layer := tls.Client(c.Below(), config)
	err := layer.Handshake()
	if err == nil {
		c.Over(layer)
		c.alpn = layer.ConnectionState().NegotiatedProtocol
		return nil
	}
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	e := &handshakeError{cause: handshakeCause(err), err: err}
	p.target.upstream.handshakes.failed(p.target, e.cause)
	return e
}

// handshakeError is a connection that was made and could not be encrypted.
type handshakeError struct {
	cause string
	err   error
}

// Error says what it was in the operator's words, then in the library's.
func (e *handshakeError) Error() string { return "TLS handshake: " + e.cause + ": " + e.err.Error() }

// Unwrap returns the library's error.
func (e *handshakeError) Unwrap() error { return e.err }

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

// dialError says whose doing it was that no connection was made. Nothing has been sent, so somebody else may be asked.
func dialError(x *exchange.Exchange, err error) error {
	if x.Cancel != nil && x.Cancel.Canceled() {
		return &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: err}
	}
	e := &exchange.Error{Code: exchange.UpstreamUnreachable, Source: exchange.FromUpstream, Retry: true, Cause: err}
	var h *handshakeError
	switch {
	case errors.As(err, &h) && untrusted[h.cause]:
		e.Code = exchange.UpstreamUntrusted
	case errors.Is(err, errNoStream):
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
