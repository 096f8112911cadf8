package secure

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

const (
	// helloBuffer is what the first bytes of a client are read into; most hellos fit, and longer ones take two reads.
	helloBuffer = 2 << 10
	// lingerTime and lingerBytes bound how long and how much is still read from a client that was refused: closing at once
	// would reset the connection, and it would not learn why.
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

var hellos = sync.Pool{New: func() any { b := make([]byte, helloBuffer); return &b }}

// errBusy says that a handshake did not get its turn in time.
var errBusy = errors.New("too many handshakes at one time")

// errChallenge is no error: an authority has seen its proof.
var errChallenge = errors.New("an ACME challenge was answered")

// errPlain says that the client does not speak TLS but HTTP.
var errPlain = errors.New("the client speaks HTTP without TLS")

// Greet makes the handshake with a client, puts TLS over the connection and notes in the client what was agreed on. It is a
// listen.Step: it waits no longer than the handshake's timeout. After an error, which it has counted and of which the
// client knows, the connection is of no use.
//
// It is to be called on a goroutine that ends soon after: its stack has grown.
func (t *Terms) Greet(c *sock.Conn, client *exchange.Client) error {
	began := t.keeper.options.Clock.Now()
	c.Arm(sock.PhaseWrite, t.config.Timeout)
	buf := hellos.Get().(*[]byte)
	n, err := c.Read(*buf)
	if err != nil {
		hellos.Put(buf)
		return t.refuse(c, nil, err)
	}
	first := (*buf)[:n]
	if speaksHTTP(first) {
		hellos.Put(buf)
		tellPlain(c)
		return t.refuse(c, nil, errPlain)
	}
	c.Unread(first)
	b := &socket{Conn: c.Below(), ahead: n, terms: t, began: began}
	layer := tls.Server(b, t.state.Load().config)
	if err = b.enter(); err == nil {
		err = layer.Handshake()
		b.leave()
	}
	if err != nil {
		err = t.refuse(c, b, err)
	} else {
		err = t.welcome(c, client, layer, b)
	}
	if b.ahead <= 0 { // all of it has been read; otherwise it stays with the connection
		hellos.Put(buf)
	}
	return err
}

// welcome notes what was agreed on.
func (t *Terms) welcome(c *sock.Conn, client *exchange.Client, layer *tls.Conn, b *socket) error {
	c.Disarm()
	if c.Expired() { // at the last moment
		return t.refuse(c, b, os.ErrDeadlineExceeded)
	}
	s := layer.ConnectionState()
	t.meters.done(&s, t.keeper.options.Clock.Now().Sub(b.began))
	c.Over(layer)
	if s.NegotiatedProtocol == ChallengeProtocol {
		linger(c)
		return errChallenge
	}
	client.TLS = t.describe(&s, b.served)
	b.served, b.terms = nil, nil
	return nil
}

// refuse counts a handshake that failed and lets the client read why.
func (t *Terms) refuse(c *sock.Conn, b *socket, err error) error {
	why := causeOf(c, b, err)
	t.meters.failed(why)
	t.keeper.options.Log.Debug("a handshake failed", "listener", t.listener, "client", c.RemoteAddr(), "cause", why, "error", err)
	if why != causeTimeout && why != causeClosed && why != causeBusy {
		linger(c)
	}
	return err
}

// linger ends the sending side and throws away what still comes, within bounds.
func linger(c *sock.Conn) {
	if c.CloseWrite() != nil {
		return
	}
	c.Arm(sock.PhaseRead, lingerTime)
	below := c.Below()
	buf := hellos.Get().(*[]byte)
	defer hellos.Put(buf)
	for total := 0; total < lingerBytes; {
		n, err := below.Read(*buf)
		if err != nil {
			return
		}
		total += n
	}
}

// speaksHTTP reports whether a client's first bytes are those of a request without TLS. A handshake begins with 22
// (RFC 8446 section 5.1), which is no letter.
func speaksHTTP(b []byte) bool {
	method, _, spaced := bytes.Cut(b[:min(len(b), longestMethod)], []byte(" "))
	if len(method) == 0 || !spaced && len(b) > longestMethod {
		return false
	}
	for _, c := range method {
		if (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// longestMethod is more than any registered method of HTTP has letters (RFC 9110 section 16.1.1).
const longestMethod = 32

// tellPlain answers a request that should have come over TLS. It fits into the empty socket, so it does not wait.
func tellPlain(c io.Writer) {
	code := exchange.PlainHTTP
	body := fmt.Sprintf(`{"type":"about:blank","title":%q,"status":%d,"code":%q}`, code.Title, code.Status, code.Name)
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", code.Status,
		exchange.StatusText(code.Status), exchange.ProblemType, len(body), body) // the client may have gone
}

// socket is what TLS stands on: the socket itself, and during the handshake what is learned on the way.
type socket struct {
	net.Conn
	terms   *Terms // nil: the handshake is over
	began   time.Time
	ahead   int     // bytes that were read before the handshake and not yet taken
	holding bool    // it is this handshake's turn
	served  *served // the certificate that was shown; nil: the session was resumed
	bare    bool    // there was none to show
	unknown bool    // strict_sni refuses the name
}

// Read lets others have their turn while the client is waited for.
func (b *socket) Read(p []byte) (int, error) {
	if b.ahead > 0 || b.terms == nil {
		n, err := b.Conn.Read(p)
		b.ahead -= n
		return n, err
	}
	b.leave()
	n, err := b.Conn.Read(p)
	if err == nil {
		err = b.enter()
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}

func (b *socket) enter() error {
	t := b.terms
	if t.gate.slots == nil {
		return nil
	}
	if !t.gate.enter(t.config.Timeout - t.keeper.options.Clock.Now().Sub(b.began)) {
		return errBusy
	}
	b.holding = true
	return nil
}

func (b *socket) leave() {
	if b.holding {
		b.holding = false
		b.terms.gate.leave()
	}
}
