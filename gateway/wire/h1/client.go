package h1

import (
	"cmp"
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// Conn is a connection to an upstream target. It is used for one call after another and holds no buffer in between.
type Conn struct {
	*sock.Conn
	Opened time.Duration // on the sweeper's coarse clock
	Until  time.Duration // on that clock: when it is not to be used again; 0: there is no such time
	Idle   time.Duration // since when it has been idle
	Kept   time.Duration // how long the target says that it keeps it idle (RFC 2068 section 19.7.1.1); 0: it does not say
	Calls  int           // how many calls it has carried: of how many the final head has arrived
	Reused int           // what Calls was when its owner handed it out again; -1: it is new
}

// Owner is told when a connection has become free for the next call, which is before the call's reply has reached the
// client, or is to be closed.
type Owner interface {
	Free(c *Conn, reusable bool)
}

// Plan is how a call is made: what the upstream and its document say.
type Plan struct {
	Limits   *Limits
	Host     string // Host field instead of the request's; "": the request's
	Target   string // Host field of a request that came without one, as HTTP/1.0 allows
	Response time.Duration
	Idle     time.Duration // without progress, in either direction
}

// Call is one request on one upstream connection, and its reply. The reply's body is read from it.
type Call struct {
	conn   *Conn
	owner  Owner
	plan   *Plan
	in     sock.Reader
	body   Body
	out    *[]byte
	keep   bool // the reply allows another call on the connection
	sent   bool // something of the reply has arrived
	over   bool // the reply is complete
	pump   *pump
	upload time.Duration // see Uploaded
	cancel *exchange.Canceler
	method string
	ownKey bool // the key of a WebSocket is the gateway's own
}

var calls = sync.Pool{New: func() any { return new(Call) }}

// NewCall returns a call from the pool; Close gives it back.
func NewCall(plan *Plan) *Call {
	c := calls.Get().(*Call)
	c.plan = plan
	c.out = sock.Get()
	return c
}

// Prepare makes the bytes that the call begins with: the head and, when the body has already arrived, the body. It
// reports whether that is everything, so that the call can be repeated on another connection.
func (c *Call) Prepare(x *exchange.Exchange) (whole bool) {
	c.method = x.Request.Method
	openEnded(&x.Request.Body, &x.Request.Header)
	if x.Request.Upgrade != "" {
		c.handshake(&x.Request)
	}
	out := appendRequestHead((*c.out)[:0], &x.Request, cmp.Or(c.plan.Host, x.Request.Host, c.plan.Target))
	body, whole := atHand(x, cap(*c.out)-len(out))
	if whole {
		x.Usage.RequestBytes += int64(len(body))
	}
	*c.out = append(out, body...)
	return whole
}

// atHand returns the request's body if it can be had without waiting and fits in room bytes.
func atHand(x *exchange.Exchange, room int) (p []byte, ok bool) {
	b := &x.Request.Body
	switch r := b.Reader.(type) {
	case nil:
		return nil, true
	case *Body:
		if r.Done() {
			return nil, true
		}
		if r.kind == byLength && r.left <= int64(room) {
			p = r.AtHand()
		}
		return p, p != nil
	case interface{ Len() int }: // in memory: made by a policy, or held for one
		if int64(r.Len()) != b.Length || r.Len() > room {
			return nil, false
		}
		p = make([]byte, r.Len())
		_, err := io.ReadFull(b.Reader, p)
		return p, err == nil
	}
	return nil, false
}

func appendRequestHead(b []byte, r *exchange.Request, host string) []byte {
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Path...)
	if r.HasQuery {
		b = append(b, '?')
		b = append(b, r.Query...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\n"...)
	b = r.Header.AppendTo(b)
	switch {
	case r.Body.Reader == nil:
		if r.Body.Length == 0 && (r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH") {
			b = append(b, "Content-Length: 0\r\n"...) // RFC 9110 section 8.6
		}
	case r.Body.Length >= 0:
		b = appendLength(b, r.Body.Length)
	default:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	if r.Upgrade != "" {
		b = appendUpgrade(b, r.Upgrade)
	}
	if r.Expect {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	return append(b, "\r\n"...)
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// Do makes the prepared call on a connection and fills x.Reply up to the head of the final reply. When it fails, Fresh
// tells whether the upstream had begun to answer, and the connection has been closed.
func (c *Call) Do(x *exchange.Exchange, conn *Conn, owner Owner, whole bool) error {
	c.conn, c.owner, c.sent, c.cancel, c.upload = conn, owner, false, x.Cancel, 0
	c.in = sock.Reader{Conn: conn.Conn}
	if x.Cancel != nil && !x.Cancel.Guard(conn.Conn) {
		return c.fail(x, context.Canceled)
	}
	conn.Arm(sock.PhaseWrite, c.plan.Response)
	if whole {
		if err := c.in.Ask(*c.out); err != nil {
			return c.fail(x, err)
		}
	} else {
		_, _ = conn.Write(*c.out) // a reply may be there already; if it is not, the pump meets the error again
		if !x.Request.Expect {    // else it is the upstream that the body waits for
			conn.Disarm()
		}
		c.pump = startPump(x, conn, c.plan)
	}
	head, err := c.reply(x)
	if err != nil {
		return c.fail(x, err)
	}
	if c.pump != nil {
		x.Request.Streaming = !c.pump.replied()
		c.upload = c.pump.upload()
	}
	conn.Disarm()
	conn.Calls++
	if head.KeepIdle > 0 {
		conn.Kept = head.KeepIdle
	}
	if x.Reply.Status == 101 {
		c.switched(x)
		return nil
	}
	c.keep = !head.Close
	c.begin(x, &head)
	return nil
}

// Uploaded returns how long after the beginning of Do the last piece of the request's body came that was sent before the reply's
// head was here: up to then it was mostly the client who took the time. 0: the body was at hand.
func (c *Call) Uploaded() time.Duration { return c.upload }

// Begun reports whether anything of a reply had arrived when Do failed.
func (c *Call) Begun() bool { return c.sent }

// reply reads heads until the final one, passing the others on.
func (c *Call) reply(x *exchange.Exchange) (Head, error) {
	for informational := 0; ; informational++ {
		head, err := c.head(x)
		if err != nil || x.Reply.Status >= 200 {
			return head, err
		}
		if x.Reply.Status == 101 {
			return head, c.checkSwitch(x, &head)
		}
		if informational == maxInformational {
			return head, errInformational
		}
		if x.Reply.Status == 100 {
			if !x.Request.Expect {
				continue // nobody asked; RFC 9110 section 15.2 lets a proxy drop it
			}
			x.Request.Expect = false
			if c.pump != nil {
				c.pump.asked()
			}
		}
		if err := x.Wire.Inform(x, x.Reply.Status, &x.Reply.Header); err != nil {
			return head, err
		}
	}
}

var errInformational = bad("The upstream sent too many informational replies.")

// head reads one reply head.
func (c *Call) head(x *exchange.Exchange) (Head, error) {
	for scanned := 0; ; {
		p := c.in.Buffered()
		c.sent = c.sent || len(p) > 0
		end, err := findHead(p, scanned)
		if err != nil {
			return Head{}, err
		}
		if end > c.plan.Limits.Head {
			return Head{}, errHeadTooLarge
		}
		if end > 0 {
			head, err := ParseResponse(p[:end], c.plan.Limits, c.method, &x.Reply)
			c.in.Discard(end)
			return head, err
		}
		scanned = len(p)
		c.in.Enlarge()
		if err := c.in.Fill(c.plan.Limits.Head); err != nil {
			return Head{}, err
		}
	}
}

// begin sets the reply's body up.
func (c *Call) begin(x *exchange.Exchange, head *Head) {
	kind := noBody
	switch {
	case !hasBody(c.method, x.Reply.Status):
		x.Reply.Body = exchange.Body{Length: head.Length} // of the reply that a GET would have got
	case head.Chunked:
		kind = byChunks
	case head.Length >= 0:
		kind = byLength
	default:
		kind, c.keep = byClose, false
	}
	c.body.begin(&c.in, head, kind, &x.Reply.Trailer, c.plan.Limits, c.plan.Idle)
	if c.body.Done() {
		if hasBody(c.method, x.Reply.Status) {
			x.Reply.Body = exchange.Body{}
		}
		c.ended()
		return
	}
	c.body.onEnd = c
	if x.Request.Streaming {
		c.body.beside = c.pump
	}
	x.Reply.Body = exchange.Body{Reader: &c.body, Length: c.body.Size()}
}

// ended gives the connection back as soon as the reply is complete. Bytes behind it were not asked for, and a request
// that is still on its way would get into the next one's: that is for Close to see.
func (c *Call) ended() {
	c.over = true
	if c.conn != nil && (c.pump == nil || c.pump.finished()) {
		c.letGo(c.reusable())
	}
}

func (c *Call) reusable() bool {
	return c.over && c.keep && len(c.in.Buffered()) == 0 && (c.pump == nil || c.pump.finished()) && !c.conn.Interrupted()
}

// letGo parts with the connection. From then on a cancellation must not reach it: the next call may be using it.
func (c *Call) letGo(reusable bool) {
	conn := c.conn
	c.conn = nil
	if c.cancel != nil {
		c.cancel.Guard(nil)
	}
	if !reusable {
		_ = conn.Close() // nothing is owed to an upstream whose reply is complete or useless
	}
	c.owner.Free(conn, reusable)
}

// Close ends the call, whether or not its reply was read to the end, and gives its memory back.
func (c *Call) Close() {
	if c.pump != nil {
		_ = c.pump.stop() // its error was met, or no longer matters
	}
	if c.conn != nil {
		c.letGo(c.reusable())
	}
	c.in.Release()
	if c.out != nil {
		sock.Put(c.out)
	}
	*c = Call{}
	calls.Put(c)
}

// Discard gives up a reply that is not wanted, so that the prepared call can be made again on another connection. What is at
// hand of the reply's body is skipped, so that the connection can be used again.
func (c *Call) Discard() {
	if c.pump != nil {
		_ = c.pump.stop() // its error was met, or no longer matters
		c.pump = nil
	}
	if c.conn != nil && !c.over {
		c.body.AtHand()
	}
	if c.conn != nil {
		c.letGo(c.reusable())
	}
	c.in.Release()
	c.body, c.keep, c.over = Body{}, false, false
}

// Move makes x the exchange whose reply this is. Until then it was that of a copy of x, which is not used any more.
func (c *Call) Move(x *exchange.Exchange) { c.body.trailer = &x.Reply.Trailer }

// fail closes the connection and says what went wrong, in whose doing it was: the request's body may be the cause.
func (c *Call) fail(x *exchange.Exchange, err error) error {
	interrupted, expired := c.conn.Interrupted(), c.conn.Expired()
	c.letGo(false)
	if p := c.pump; p != nil {
		c.pump = nil
		if cause := p.stop(); cause != nil && p.clientFailed {
			return cause
		}
	}
	c.in.Release()
	var malformed *Error
	switch {
	case x.Cancel != nil && x.Cancel.Canceled():
		return &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: err}
	case expired:
		return &exchange.Error{Code: exchange.UpstreamTimeout, Source: exchange.FromUpstream, Cause: err}
	case errors.As(err, &malformed), errors.Is(err, sock.ErrFull):
		return &exchange.Error{Code: exchange.UpstreamInvalid, Source: exchange.FromUpstream, Cause: err}
	case interrupted:
		return &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: err}
	}
	return &exchange.Error{Code: exchange.UpstreamClosed, Source: exchange.FromUpstream, Retry: !c.sent, Cause: err}
}
