package upstream

import (
	"bytes"
	"errors"
	"io"
	"strconv"

	"headgate/gateway/exchange"
	"headgate/gateway/upstream/retry"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

// sendOrFallBack is Send for an upstream whose document says what happens when it cannot answer.
func (u *Upstream) sendOrFallBack(x *exchange.Exchange) (Call, error) {
	again, err := u.keepBody(x)
	if err != nil {
		return nil, err
	}
	call, err := u.send(x)
	cause := u.cannotAnswer(x, err)
	if cause == "" {
		return call, err
	}
	if u.env.Respond != nil {
		u.fellBack(x, call, cause)
		u.env.Respond(x)
		return nil, nil
	}
	if !u.maySendElsewhere(x, err, again != nil) {
		return call, err
	}
	other, settle := u.refs[u.config.Fallback.Upstream].Borrow(x)
	if other == nil {
		return call, err
	}
	defer other.Return(x.Shard)
	u.fellBack(x, call, cause)
	if again != nil {
		x.Request.Body = again()
		x.Usage.RequestBytes = 0 // counted again as it is sent
	}
	attempts := x.Usage.Attempts
	x.Usage.Attempts = 0 // the other one has its own number
	call, err = other.Send(x)
	x.Usage.Attempts += attempts
	if settle != nil {
		settle(err)
	}
	return call, err
}

// fellBack notes why, and makes room for another reply.
func (u *Upstream) fellBack(x *exchange.Exchange, call Call, cause string) {
	if call != nil {
		call.Close()
	}
	x.Reply.Header.Reset("")
	x.Reply.Trailer.Reset("")
	x.Reply.Status, x.Reply.Body, x.Reply.Switched = 0, exchange.Body{}, nil
	x.Request.Streaming = false
	x.Usage.Fallback = cause
	u.env.Metrics.Counter("headgate_upstream_fallbacks_total",
		"Requests for which an upstream's fallback was used, by cause: the problem's code, or status_ and the answer's status.",
		metric.Label{Name: "upstream", Value: u.Name}, metric.Label{Name: "cause", Value: cause}).Inc(x.Shard)
}

// cannotAnswer returns the cause when the fallback is to be used, and "" otherwise. What the client has done, or for what its
// time has passed, is no case for it.
func (u *Upstream) cannotAnswer(x *exchange.Exchange, err error) string {
	if err == nil {
		if u.retries.failed(x) {
			return "status_" + strconv.Itoa(x.Reply.Status)
		}
		return ""
	}
	var e *exchange.Error
	if !errors.As(err, &e) || x.Cancel != nil && x.Cancel.Canceled() {
		return ""
	}
	switch e.Code {
	case exchange.NoTarget, exchange.BreakerOpen, exchange.UpstreamBusy, exchange.UpstreamUnreachable, exchange.UpstreamUnresolved,
		exchange.UpstreamUntrusted, exchange.UpstreamClosed, exchange.UpstreamTimeout, exchange.UpstreamInvalid, exchange.UpstreamNoUpgrade:
		return e.Code.Name
	}
	return ""
}

// maySendElsewhere reports whether another service may be asked the same: it can be, and it either may be repeated or the
// first one has not seen it.
func (u *Upstream) maySendElsewhere(x *exchange.Exchange, err error, kept bool) bool {
	if x.Usage.Attempts == 0 {
		return true
	}
	if !kept && !x.Request.Body.None() {
		return false
	}
	var e *exchange.Error
	if errors.As(err, &e) {
		switch e.Code {
		case exchange.NoTarget, exchange.UpstreamBusy, exchange.UpstreamUnreachable, exchange.UpstreamUnresolved, exchange.UpstreamUntrusted:
			return true
		}
	}
	return u.config.Retry.NonIdempotent || retry.Idempotent(x.Request.Method) || hasKey(x)
}

// keepBody reads a body that the fallback's upstream may have to be sent, too, and returns what makes it anew; nil: it is not
// kept, because there is none, it is too large or of unknown length, or the client waits to be asked for it.
func (u *Upstream) keepBody(x *exchange.Exchange) (again func() exchange.Body, err error) {
	b := &x.Request.Body
	if u.env.Respond != nil || b.None() || b.Length < 0 || b.Length > int64(u.config.Retry.Body) || x.Request.Expect {
		return nil, nil
	}
	if x.Cancel != nil {
		x.Cancel.Guard(x.Wire) // a client that does not send must not outlast the exchange's time
		defer x.Cancel.Guard(nil)
	}
	kept := make([]byte, b.Length)
	if _, err := io.ReadFull(b.Reader, kept); err != nil {
		return nil, err
	}
	if err := end(b.Reader); err != nil {
		return nil, err
	}
	again = func() exchange.Body { return exchange.Body{Reader: bytes.NewReader(kept), Length: int64(len(kept))} }
	*b = again()
	return again, nil
}

// Dial opens a connection to a target for bytes that are not ours to understand, as TCP listeners do: chosen as for a
// request, with its PROXY header and its TLS handshake made, and told in x.Usage. A target that cannot be reached is
// counted as failing and another one is asked, and then the fallback's upstream if there is one. x says who the client is and
// may be canceled meanwhile.
//
// The connection is the caller's to close; release must be called at its end, once or more. The error is always an
// *exchange.Error, and then there is neither.
func (u *Upstream) Dial(x *exchange.Exchange) (c *sock.Conn, release func(), err error) {
	c, release, err = u.dial(x)
	if err == nil || u.config.Fallback == nil {
		return c, release, err
	}
	cause := u.cannotAnswer(x, err)
	if cause == "" {
		return c, release, err
	}
	other, _ := u.refs[u.config.Fallback.Upstream].Borrow(x) // never a split, which is for requests
	if other == nil {
		return c, release, err
	}
	defer other.Return(x.Shard)
	u.fellBack(x, nil, cause)
	attempts := x.Usage.Attempts
	x.Usage.Attempts = 0
	c, release, err = other.Dial(x)
	x.Usage.Attempts += attempts
	return c, release, err
}
