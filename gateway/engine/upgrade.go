package engine

import (
	"headgate/gateway/exchange"
	"headgate/gateway/wire/tunnel"
)

// upgrade settles whether the client's wish to switch to another protocol goes on to the upstream. One that does not is no
// wish any more, and the request is answered as any other (RFC 9110 section 7.8).
func (c *carriage) upgrade() {
	x, r := c.x, c.route
	if c.answer != nil || r.Answer != nil || !r.Upgrades.Allows(x.Request.Upgrade) {
		x.Request.Upgrade = ""
		return
	}
	if x.Request.Upgrade != tunnel.WebSocket {
		return
	}
	if wrong := tunnel.CheckHandshake(&x.Request); wrong != nil {
		x.Request.Upgrade = ""
		c.answer = func(x *exchange.Exchange) {
			x.Problem(wrong.Code, wrong.Detail)
			x.Err = wrong
			if wrong.Code == exchange.WebSocketVersion {
				x.Reply.Header.Add("Sec-WebSocket-Version", tunnel.Version) // RFC 6455 section 4.4
			}
		}
	}
}

// enter takes one of the route's places for a switched connection, which is held until the exchange has ended.
func (c *carriage) enter() bool {
	leave, full := c.route.Upgrades.Enter(c.x)
	if full != nil {
		return c.fail(full)
	}
	c.leave = leave
	return true
}

// switched says how the connection is carried if the upstream has switched, and gives the place back if it has not.
func (c *carriage) switched() {
	if c.x.Reply.Switched != nil {
		c.x.Reply.Tunnel = c.route.Upgrades
		if c.x.Cancel != nil {
			c.x.Cancel.Lift() // the time was for the handshake
		}
		return
	}
	c.giveBack()
}

// finisher returns what ends the exchange when its connection has been carried.
func (c *carriage) finisher() func(error) {
	d := *c
	d.later = false
	return func(err error) {
		if err != nil {
			d.abort(err)
		}
		d.end()
	}
}

func (c *carriage) giveBack() {
	if c.leave != nil {
		c.leave()
		c.leave = nil
	}
}
