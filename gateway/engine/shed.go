package engine

import (
	"headgate/gateway/exchange"
	"headgate/gateway/grpc"
)

// shedRetryAfter is what Retry-After says while memory is short, in seconds: the guard looks again several times until then.
const shedRetryAfter = "2"

// shed refuses an exchange because memory is short. It costs as little as an answer can and is recorded under its route, so
// that operators see whom it hits; policies do not see it.
func (c *carriage) shed() {
	x := c.x
	looped := !c.door.receive(x)
	c.engine.Record.Begin(x)
	c.rpc = grpc.Recognize(x)
	c.find(looped)
	x.Route = c.route.Info
	x.MakeSlots(c.route.Slots)
	c.engine.Guard.Shed(x.Shard)
	c.fail(&exchange.Error{Code: exchange.Overloaded, Source: exchange.FromGateway})
	x.Reply.Header.Add("Retry-After", shedRetryAfter)
	c.send()
	c.ended = true
}
