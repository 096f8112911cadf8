package proxyheader

import (
	"errors"
	"net/netip"
	"time"

	"github.com/gaissmai/bart"

	"headgate/gateway/exchange"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

// Gate reads the header of those who may send one. It is immutable and serves all connections of a listener at once.
type Gate struct {
	from     bart.Lite
	optional bool
	timeout  time.Duration
	metrics  *metric.Registry
	listener string
}

// Options say who may send a header, and how long that may take.
type Options struct {
	From     []netip.Prefix // those who must send one; the first bytes of others are never looked at
	Optional bool           // who may leave it out
	Timeout  time.Duration  // for the whole header, from when the connection was accepted
}

// New returns a gate of the listener with that name.
func New(listener string, o Options, m *metric.Registry) *Gate {
	g := &Gate{optional: o.Optional, timeout: o.Timeout, metrics: m, listener: listener}
	for _, p := range o.From {
		g.from.Insert(p)
	}
	return g
}

// Sends reports whether connections from the address begin with a header.
func (g *Gate) Sends(a netip.Addr) bool { return g.from.Contains(a) }

// Greet reads the header of a connection from an address that sends one, and makes the client the one that it names. What
// follows the header stands in front of the connection again. After an error the connection is to be closed; it has been
// counted by its cause, unless nothing at all came, which is how balancers look whether we live.
func (g *Gate) Greet(c *sock.Conn, client *exchange.Client) error {
	if !g.Sends(client.Peer.Addr()) {
		return nil
	}
	h, err := g.read(c)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			g.metrics.Counter("headgate_proxy_header_failures_total", "Connections closed because of their PROXY header, by cause: missing, "+
				"malformed, too_long, unsupported, checksum, timeout, closed.",
				metric.Label{Name: "listener", Value: g.listener}, metric.Label{Name: "cause", Value: string(e.Cause)}).Inc(0)
		}
		return err
	}
	if h.Version == 0 || h.Own {
		return nil
	}
	client.Peer, client.Local = h.Source, h.Destination
	client.Addr = h.Source.Addr().String()
	return nil
}

// read reads up to the end of the header, or finds that there is none where it may be left out: then Version is 0.
func (g *Gate) read(c *sock.Conn) (Header, error) {
	buf := sock.Get()
	defer sock.Put(buf)
	late := g.wake(c)
	for have := 0; ; {
		n, err := c.Read((*buf)[have:MaxHeader])
		have += n
		b := (*buf)[:have]
		if err != nil {
			return g.ended(c, b, late(), err)
		}
		h, length, err := Parse(b)
		var e *Error
		switch {
		case errors.As(err, &e) && e.Cause == Missing && g.optional:
			length = 0
		case err != nil:
			late()
			return Header{}, err
		case length == 0:
			continue
		}
		late()
		giveBack(c, b[length:])
		return h, nil
	}
}

// wake ends a read at the timeout. The function that it returns calls that off and reports whether it was too late; the
// connection can be read from afterwards either way. A timer of the connection's own could not be taken back.
func (g *Gate) wake(c *sock.Conn) (late func() bool) {
	woken := make(chan struct{})
	timer := time.AfterFunc(g.timeout, func() {
		c.WakeReader()
		close(woken)
	})
	return func() bool {
		if timer.Stop() {
			return false
		}
		<-woken
		c.Rearm()
		return true
	}
}

// ended is what becomes of a connection that is silent, or at its end, before its header was whole.
func (g *Gate) ended(c *sock.Conn, b []byte, late bool, err error) (Header, error) {
	switch {
	case late && g.optional && !Begun(b): // the client waits for the service to speak first
		giveBack(c, b)
		return Header{}, nil
	case late:
		return Header{}, fault(Timeout, "it did not come in time")
	case len(b) > 0:
		return Header{}, fault(Closed, "the connection ended inside it")
	}
	return Header{}, err
}

// giveBack puts what was read behind the header back. It is copied, for the buffer is somebody else's soon.
func giveBack(c *sock.Conn, b []byte) {
	if len(b) > 0 {
		c.Unread(append([]byte(nil), b...))
	}
}
