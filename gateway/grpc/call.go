package grpc

import (
	"math"
	"sync"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/internal/clock"
)

// Settings are what the document says about the calls of an API. They are immutable.
type Settings struct {
	translate bool          // gRPC-Web to gRPC
	longest   time.Duration // that a call may take; 0: any
	clock     clock.Clock
}

// NewSettings compiles the document's part.
func NewSettings(m model.GRPC, c clock.Clock) *Settings {
	return &Settings{translate: m.Web == "translate", longest: m.MaxDeadline, clock: c}
}

// Call is an exchange that is a gRPC, gRPC-Web or Connect call. A nil *Call is an exchange that is none, of which every
// method leaves everything as it is. The methods are called in the order in which they stand here.
type Call struct {
	protocol   protocol
	subtype    string // behind the stem of the request's media type
	text       bool   // a gRPC-Web reply is to be base64
	translated bool   // the upstream is spoken to in gRPC although the client speaks gRPC-Web
	until      time.Time
	clock      clock.Clock // of a call whose route leads somewhere
	in         decoder
	out        reply
}

var calls = sync.Pool{New: func() any { return new(Call) }}

// Recognize returns what the exchange is as a call, or nil when it is none.
func Recognize(x *exchange.Exchange) *Call {
	p, subtype, ok := recognize(&x.Request)
	if !ok {
		return nil
	}
	c := calls.Get().(*Call)
	c.protocol, c.subtype = p, subtype
	if p.isWeb() {
		c.text = wantsText(&x.Request.Header, p)
	}
	return c
}

// Begin is called when the route is known and before its policies see the request: gRPC-Web becomes gRPC, and the time that
// the client allows begins to count. s is that of the route; nil: it leads nowhere. The error says what of the request's
// head is not valid.
func (c *Call) Begin(x *exchange.Exchange, s *Settings) *exchange.Error {
	if c == nil || s == nil {
		return nil
	}
	if err := c.limit(x, s); err != nil {
		return err
	}
	if s.translate && c.protocol.isWeb() {
		c.translate(&x.Request)
	}
	return nil
}

// limit bounds the exchange by what the client allows and the document grants.
func (c *Call) limit(x *exchange.Exchange, s *Settings) *exchange.Error {
	c.clock = s.clock
	name, parse := c.timeoutField()
	limit := time.Duration(math.MaxInt64)
	if value, given := x.Request.Header.Lookup(name); given {
		d, ok := parse(value)
		if !ok {
			detail := name + " is not 1 to 8 digits and one of H, M, S, m, u and n."
			if c.protocol.isConnect() {
				detail = name + " is not 1 to 10 digits."
			}
			return &exchange.Error{Code: exchange.BadRequest, Source: exchange.FromClient, Detail: detail}
		}
		limit = d
	}
	if s.longest > 0 {
		limit = min(limit, s.longest)
	}
	if limit > endless {
		return nil
	}
	c.until = x.Start.Add(limit)
	if x.Cancel != nil {
		x.Cancel.Expire(s.clock.Now(), c.until)
	}
	return nil
}

// endless is a timeout that no timer is needed for.
const endless = 365 * 24 * time.Hour

func (c *Call) timeoutField() (name string, parse func(string) (time.Duration, bool)) {
	if c.protocol.isConnect() {
		return "Connect-Timeout-Ms", parseConnectTimeout
	}
	return "Grpc-Timeout", parseTimeout
}

// slack is how early a service that was told the time that is left may break off because of it: what is told is rounded
// down to a unit.
const slack = 2 * time.Millisecond

// timely is e, unless the service broke off because the call's time has passed, which it may notice a moment before us.
func (c *Call) timely(e *exchange.Error) *exchange.Error {
	if e.Code.Name != exchange.UpstreamClosed.Name || c.until.IsZero() || c.left() > slack {
		return e
	}
	return &exchange.Error{Code: exchange.DeadlineExceeded, Source: exchange.FromGateway, Cause: e}
}

func (c *Call) left() time.Duration { return c.until.Sub(c.clock.Now()) }

// translate makes a gRPC-Web request one of gRPC.
func (c *Call) translate(r *exchange.Request) {
	c.translated = true
	r.Header.Set("Content-Type", typeGRPC+c.subtype)
	r.Header.Del("X-Grpc-Web")
	r.Header.Del("Accept") // what the client takes is gRPC-Web
	if c.protocol == webText && r.Body.Reader != nil {
		c.in = decoder{from: r.Body.Reader}
		r.Body = exchange.Body{Reader: &c.in, Length: -1}
	}
}

// Forward is called before the upstream is asked: it is told how much of the time is left.
func (c *Call) Forward(x *exchange.Exchange) {
	if c == nil || c.clock == nil {
		return
	}
	if x.Cancel != nil {
		if at, ok := x.Cancel.Until(); ok {
			c.until = at // of the client's and the document's times the earliest
		}
	}
	if c.until.IsZero() {
		return
	}
	h := &x.Request.Header
	if name, _ := c.timeoutField(); c.protocol.isConnect() {
		h.Set(name, formatConnectTimeout(c.left()))
	} else {
		h.Set(name, formatTimeout(c.left()))
	}
}

// Settle is called once, on the reply as policies left it and before it is sent: what is not gRPC becomes a reply that the
// call's client understands, and gRPC becomes gRPC-Web for those who asked so.
func (c *Call) Settle(x *exchange.Exchange) {
	if c == nil {
		return
	}
	if e := x.Err; e != nil && e.Code.Status == x.Reply.Status && x.Reply.Source != exchange.FromUpstream {
		x.Err = c.timely(e)
		x.Reply.Status = x.Err.Code.Status
	}
	switch {
	case c.protocol.isConnect():
		c.settleConnect(x)
	default:
		c.settle(x)
	}
}

// Ended is called when the reply has been sent, or could not be: how the call ended is noted for the record.
func (c *Call) Ended(x *exchange.Exchange) {
	if c == nil || c.protocol.isConnect() || x.Usage.GRPC != 0 {
		return
	}
	value, ok := x.Reply.Trailer.Lookup("Grpc-Status")
	if !ok {
		value, ok = x.Reply.Header.Lookup("Grpc-Status")
	}
	if s, valid := parseStatus(value); ok && valid {
		c.note(x, s)
	} else if x.Err != nil {
		c.note(x, ofProblem(x.Err.Code.Name, x.Err.Code.Status))
	}
}

func (c *Call) note(x *exchange.Exchange, s Status) { x.Usage.GRPC = exchange.GRPCStatus(s) + 1 }

// Release gives the call's memory back when nothing of the exchange is read any more.
func (c *Call) Release() {
	if c == nil {
		return
	}
	c.in.release()
	c.out.release()
	*c = Call{}
	calls.Put(c)
}
