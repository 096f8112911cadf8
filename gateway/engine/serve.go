package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/grpc"
	"headgate/gateway/record"
	"headgate/gateway/route"
	"headgate/gateway/upstream"
	"headgate/gateway/wire/h1"
)

// carriage is one exchange on its way.
type carriage struct {
	engine   *Engine
	snapshot *Snapshot
	door     *Door
	x        *exchange.Exchange
	route    *Route
	answer   func(*exchange.Exchange) // instead of the route's own way to a reply
	rpc      *grpc.Call               // nil: the exchange is no gRPC call
	call     upstream.Call            // to the upstream, if it was asked
	leave    func()                   // gives the place of a switched connection back; nil: none is held
	chained  bool                     // the route's policies have begun
	sent     bool                     // the reply has been handed to the wire
	later    bool                     // the wire will say when the exchange has ended
	ended    bool                     // carry returned without a panic
}

// carry is the life of one request in a straight line.
func (c *carriage) carry() {
	x := c.x
	looped := !c.door.receive(x)
	c.engine.Record.Begin(x)
	c.rpc = grpc.Recognize(x)
	if c.atDoor() {
		x.Route = c.route.Info
		x.MakeSlots(c.route.Slots)
		c.send()
		c.ended = true
		return
	}
	c.find(looped)
	if x.Request.Upgrade != "" {
		c.upgrade()
	}
	x.Route = c.route.Info
	x.MakeSlots(c.route.Slots)
	c.chained = true
	if c.limit() && c.hold() && c.route.Chain.Request(x) {
		c.reply()
	}
	c.expired()
	c.route.Chain.Response(x)
	if x.Reply.Body.Reader != nil {
		c.engine.Record.Watch(x)
		x.Reply.Body.Reader = c.route.Chain.ResponseBody(x, x.Reply.Body.Reader)
	}
	c.send()
	c.ended = true
}

// find sets the route, which is the one for what was not found when nothing else fits.
func (c *carriage) find(looped bool) {
	x := c.x
	switch reason := route.CheckPath(x.Request.Path, c.door.EncodedSlash, c.door.EmptySegment); {
	case looped:
		c.answer = refusal(exchange.LoopDetected, "")
		return
	case misdirected(x):
		c.answer = refusal(exchange.Misdirected, "")
		return
	case x.Request.Method == "CONNECT":
		c.answer = refusal(exchange.NotImplemented, "")
		return
	case x.Request.Method == "TRACE":
		c.answer = notAllowed("")
		return
	case x.Request.Path == "*":
		c.answer = allowed("")
		return
	case reason != "":
		c.answer = refusal(exchange.AmbiguousPath, reason)
		return
	}
	found, outcome := c.match(x.Request.Method)
	switch outcome.Status {
	case route.Matched:
		c.route = found
	case route.NoMethod:
		c.otherMethod(outcome.Allow)
	}
}

func (c *carriage) match(method string) (*Route, route.Outcome) {
	x := c.x
	r, params, outcome := c.snapshot.Table.Match(method, x.Request.Host, x.Request.Path, &x.Request.Header, x.Request.Query, x.Params[:0])
	x.Params = params
	return r, outcome
}

// otherMethod settles what asks with a method that no route here takes. OPTIONS is answered; when it announces another
// request (a CORS preflight), the policies of that request's route get to see it first.
func (c *carriage) otherMethod(allow string) {
	if c.x.Request.Method != "OPTIONS" {
		c.answer = notAllowed(allow)
		return
	}
	c.answer = allowed(allow)
	if announced := c.x.Request.Header.Get("Access-Control-Request-Method"); announced != "" {
		if found, outcome := c.match(announced); outcome.Status == route.Matched {
			c.route = found
		}
	}
}

func refusal(code exchange.Code, detail string) func(*exchange.Exchange) {
	return func(x *exchange.Exchange) {
		x.Problem(code, detail)
		x.Err = &exchange.Error{Code: code, Source: exchange.FromClient, Detail: detail}
	}
}

func notAllowed(allow string) func(*exchange.Exchange) {
	refuse := refusal(exchange.MethodNotAllowed, "")
	return func(x *exchange.Exchange) {
		refuse(x)
		x.Reply.Header.Add("Allow", allow) // RFC 9110 section 15.5.6: it may be empty
	}
}

func allowed(allow string) func(*exchange.Exchange) {
	return func(x *exchange.Exchange) {
		x.Answer(204, "", "")
		if allow != "" {
			x.Reply.Header.Add("Allow", allow)
		}
	}
}

// limit lets the time begin to count that the upstream's document or a call allows for the whole exchange.
func (c *carriage) limit() bool {
	if c.answer == nil && c.route.Upstream != nil {
		c.route.Upstream.Limit(c.x)
	}
	if e := c.rpc.Begin(c.x, c.route.GRPC); e != nil {
		return c.fail(e)
	}
	return true
}

// expired makes the reply a problem when the exchange's time has passed before there was anything for the client to read.
func (c *carriage) expired() {
	if x := c.x; x.Cancel != nil && x.Cancel.Expired() {
		var met error
		if x.Err != nil {
			met = x.Err
		}
		c.fail(late(met))
	}
}

// late is the error of an exchange whose time has passed, whatever that looked like where it was met.
func late(met error) *exchange.Error {
	return &exchange.Error{Code: exchange.DeadlineExceeded, Source: exchange.FromGateway, Cause: met}
}

// hold reads the whole request body when a policy wants to see it, up to the limit that the policy names.
func (c *carriage) hold() bool {
	x, limit := c.x, int64(c.route.Chain.BufferLimit())
	body := &x.Request.Body
	if limit == 0 || body.None() {
		return true
	}
	if body.Length > limit {
		return c.fail(&exchange.Error{Code: exchange.BodyTooLarge, Source: exchange.FromClient})
	}
	if x.Request.Expect {
		x.Request.Expect = false
		var none exchange.Header
		if err := x.Wire.Inform(x, 100, &none); err != nil {
			return c.fail(&exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: err})
		}
	}
	if x.Cancel != nil {
		x.Cancel.Guard(x.Wire) // a client that does not send must not outlast the exchange's time
		defer x.Cancel.Guard(nil)
	}
	whole, err := io.ReadAll(io.LimitReader(body.Reader, limit+1))
	switch {
	case err != nil:
		return c.fail(bodyError(err))
	case int64(len(whole)) > limit:
		return c.fail(&exchange.Error{Code: exchange.BodyTooLarge, Source: exchange.FromClient})
	}
	*body = exchange.Body{Reader: bytes.NewReader(whole), Length: int64(len(whole))}
	return true
}

// bodyError says why a request's body could not be read.
func bodyError(err error) *exchange.Error {
	var known *exchange.Error
	if errors.As(err, &known) {
		return known
	}
	var malformed *h1.Error
	if errors.As(err, &malformed) {
		return &exchange.Error{Code: malformed.Code, Source: exchange.FromClient, Detail: malformed.Reason, Cause: err}
	}
	return &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: err}
}

// fail makes the reply a problem. It returns false for the convenience of those who stop there.
func (c *carriage) fail(e *exchange.Error) bool {
	c.x.Problem(e.Code, e.Detail)
	if e.RetryAfter > 0 {
		c.x.Reply.Header.Add("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second))) // RFC 9110 section 10.2.3
	}
	c.x.Err = e
	return false
}

// reply gets the reply: from the upstream, or a fixed one.
func (c *carriage) reply() {
	x, r := c.x, c.route
	switch {
	case c.answer != nil:
		c.answer(x)
		return
	case r.Answer != nil:
		r.Answer(x)
		return
	}
	if r.Rewrite != nil && !r.Rewrite(x) {
		c.fail(&exchange.Error{Code: exchange.AmbiguousPath, Source: exchange.FromClient, Detail: "It cannot be rewritten safely."})
		return
	}
	if x.Request.Body.Reader != nil {
		x.Request.Body.Reader = r.Chain.RequestBody(x, x.Request.Body.Reader)
	}
	if x.Request.Upgrade != "" && !c.enter() {
		return
	}
	c.rpc.Forward(x)
	call, err := r.send(x)
	if err != nil {
		x.Reply.Header.Reset("") // of an informational or broken reply
		c.fail(bodyError(err))
		return
	}
	c.call = call
	if x.Request.Upgrade != "" {
		c.switched()
	}
}

// send hands the reply to the client's wire.
func (c *carriage) send() {
	c.sent = true
	c.door.secure(c.x)
	c.door.advertise(c.x)
	c.rpc.Settle(c.x)
	record.StampReply(c.x)
	if err := c.x.Wire.Reply(c.x); err == exchange.ErrSwitched {
		c.later = true
	} else if err != nil {
		c.abort(err)
	}
	c.rpc.Ended(c.x)
}

// abort notes that the client did not get the whole reply, and through whose doing.
func (c *carriage) abort(err error) {
	c.x.Usage.Aborted = true
	if c.x.Err != nil {
		return
	}
	if c.x.Cancel != nil && c.x.Cancel.Expired() {
		c.x.Err = late(err)
		return
	}
	var known *exchange.Error
	if errors.As(err, &known) {
		c.x.Err = known
		return
	}
	source := exchange.FromClient
	code := exchange.ClientGone
	var malformed *h1.Error
	if errors.As(err, &malformed) || errors.Is(err, io.ErrUnexpectedEOF) {
		source, code = exchange.FromUpstream, exchange.UpstreamInvalid
	}
	c.x.Err = &exchange.Error{Code: code, Source: source, Cause: err}
}

// end runs whatever happened: the client of a panic gets an answer if it has had none, the upstream's connection is
// given back or closed, and what happened is recorded, once.
func (c *carriage) end() {
	if c.later && c.ended {
		c.x.Finish = c.finisher()
		return
	}
	defer c.snapshot.unpin(c.x.Shard)
	if !c.ended {
		if r := recover(); r != nil {
			c.panicked(r)
		}
	}
	if c.call != nil {
		c.call.Close()
	}
	c.giveBack()
	c.rpc.Release()
	if c.chained {
		c.route.Chain.Done(c.x)
	}
	c.engine.Record.End(c.x, c.route.Meter)
}

func (c *carriage) panicked(r any) {
	x := c.x
	c.engine.Log.Error("an exchange panicked", "id", x.ID, "route", c.route.Name, "panic", r, "stack", string(debug.Stack()))
	e := &exchange.Error{Code: exchange.Internal, Source: exchange.FromGateway, Cause: fmt.Errorf("panic: %v", r)}
	if c.sent {
		x.Err, x.Usage.Aborted = e, true
		x.Wire.Interrupt() // what was sent cannot be completed
		return
	}
	defer func() {
		if again := recover(); again != nil { // the wire itself is broken; there is nobody left to tell
			x.Usage.Aborted = true
		}
	}()
	c.fail(e)
	c.send()
}
