package client

import (
	"bytes"
	"errors"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

// Do makes the call on a connection where a place was reserved for it and fills x.Reply up to the head of the final reply.
// The place is given back when the call has ended, whatever comes of it. After an error, which is an *exchange.Error or that
// of the request's body, the call has left the connection; see Unprocessed and Repeatable for making it on another one.
func (c *Call) Do(x *exchange.Exchange, conn *Conn) error {
	c.cancel, c.denied, c.upload = x.Cancel, false, 0
	var began time.Time
	if !c.whole {
		began = conn.terms.Clock.Now()
	}
	if err := c.ask(x, conn); err != nil {
		return c.failed(err)
	}
	if err := c.head(x); err != nil {
		return c.failed(err)
	}
	if c.pump != nil {
		if !c.whole {
			c.upload = c.pump.upload(began)
		}
		x.Request.Streaming = !c.pump.replied(x)
	}
	c.reply(x)
	return nil
}

// ask sends the request, or has it sent.
func (c *Call) ask(x *exchange.Exchange, conn *Conn) error {
	p := c.pump
	if p != nil { // it goes on with the next stream
		p.mu.Lock()
		defer p.mu.Unlock()
	}
	sent, err := c.begin(x, conn)
	switch {
	case err != nil:
		return err
	case x.Cancel != nil && !x.Cancel.Guard(c):
		return errCanceled
	case sent || c.tunnel:
		return nil
	case p != nil:
		return p.resume()
	case c.whole:
		c.deliver(x)
		return nil
	}
	if x.Request.Expect { // so the target is waited for, until it asks for the body, or the client sends that anyhow
		c.await()
	}
	c.pump = startPump(x, c, x.Request.Body)
	return nil
}

// begin opens a stream and sends the request's head, and behind it the body if it is at hand and the windows are open.
func (c *Call) begin(x *exchange.Exchange, conn *Conn) (sent bool, err error) {
	if c.tunnel && !conn.Extended() {
		conn.vacate()
		return false, errNoConnect
	}
	trailer := &x.Request.Trailer
	bare := c.whole && len(c.body) == 0 && !c.tunnel && trailer.Len() == 0
	o := &conn.out
	o.mu.Lock()
	id := o.next
	if err := conn.enter(c, id, bare); err != nil {
		o.mu.Unlock()
		conn.vacate()
		return false, err
	}
	o.next += 2
	o.section(id, o.request(&x.Request, c.plan, c.host), bare)
	c.here = true
	if sent = bare; !bare && c.whole && !c.tunnel && c.pump == nil && conn.affordAll(c) { // a pump has its own way to send again
		sent = true
		o.body(id, c.body, trailer.Len() == 0)
		if trailer.Len() > 0 {
			o.section(id, o.trailer(trailer), true)
		}
	}
	o.signal()
	o.mu.Unlock()
	if id >= maxStreamID-2 {
		conn.Retire()
	}
	return sent, nil
}

// deliver has a body at hand sent as windows open, while the reply may come already.
func (c *Call) deliver(x *exchange.Exchange) {
	body := exchange.Body{Reader: bytes.NewReader(c.body), Length: int64(len(c.body))}
	x.Usage.RequestBytes -= body.Length // it is counted when it is sent
	c.pump = startPump(x, c, body)
}

// unless forgives that a body could not be sent when the reply is here: the target did not want to read it.
func (c *Call) unless(err error) error {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	if c.in.ended {
		return nil
	}
	return err
}

// head waits for the final reply's head, passing informational ones on.
func (c *Call) head(x *exchange.Exchange) error {
	in, mu := &c.in, &c.conn.mu
	for {
		mu.Lock()
		switch {
		case len(in.informed) > 0:
			first := in.informed[0]
			in.informed = in.informed[1:]
			mu.Unlock()
			if first.status == 100 {
				if !x.Request.Expect {
					continue // nobody asked; RFC 9110 section 15.2 lets a proxy drop it
				}
				x.Request.Expect = false
				c.relent()
			}
			if err := x.Wire.Inform(x, first.status, &first.header); err != nil {
				return errors.Join(errCanceled, err)
			}
			continue
		case in.status != 0:
			in.due = 0
			mu.Unlock()
			return nil
		case in.err != nil:
			mu.Unlock()
			return in.err
		}
		mu.Unlock()
		<-c.news
	}
}

// reply fills x.Reply.
func (c *Call) reply(x *exchange.Exchange) {
	in, r := &c.in, &x.Reply
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	r.Status, r.Source, r.Body, r.Switched = in.status, exchange.FromUpstream, exchange.Body{}, nil
	r.Header, in.header = in.header, r.Header
	r.Trailer.Reset("")
	c.read.trailer = &r.Trailer
	switch {
	case in.tunnel:
		r.Status, r.Switched = 101, switched{c}
	case !h1.HasBody(c.method, in.status):
		r.Body.Length = in.size // of the reply that a GET would have got
	case in.ended && len(in.filled) == 0 && in.trailer.Len() == 0:
	default:
		r.Body = exchange.Body{Reader: c, Length: in.size}
		if in.size < 0 && in.ended && in.trailer.Len() == 0 {
			r.Body.Length = int64(len(in.filled))
		}
	}
}
