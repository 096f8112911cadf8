package release

import (
	"headgate/gateway/exchange"
	"headgate/gateway/release/sticky"
	"headgate/gateway/upstream"
)

// Pinned is a service whose clients come back to the target that answered them before and, with a split, to the variant.
type Pinned struct {
	cookie *sticky.Cookie
	to     Service
	inner  assigner // the same as to, if that assigns by a number
	pinner pinner   // names to's targets
	random func() uint64
}

// pinner names targets by their addresses, as Exchange.Affinity wants them.
type pinner interface {
	Pin(address string) uint64
}

// assigner is a service that can be given the number by which it assigns exchanges that have no key: a split, and a mirror
// in front of one. It also returns who names the target that has answered.
type assigner interface {
	send(x *exchange.Exchange, number uint64) (upstream.Call, pinner, error)
}

// assignerOf returns a service as one that assigns; nil: it does not.
func assignerOf(s Service) assigner {
	switch s := s.(type) {
	case *Split:
		return s
	case *Mirror:
		if s.inner != nil {
			return s
		}
	}
	return nil
}

// pinnerOf returns who names the targets of a service; nil: it depends on the exchange, or nobody does.
func pinnerOf(s Service) pinner {
	switch s := s.(type) {
	case *Pinned:
		return s.pinner
	case *Mirror:
		return pinnerOf(s.to)
	case pinner:
		return s
	}
	return nil
}

// NewPinned puts a sticky cookie in front of a service.
func NewPinned(c *sticky.Cookie, to Service, e Env) *Pinned {
	return &Pinned{cookie: c, to: to, pinner: pinnerOf(to), inner: assignerOf(to), random: e.Random}
}

// Send asks for what the client is pinned to, and pins it anew when somebody else has answered, or the key is another one.
func (p *Pinned) Send(x *exchange.Exchange) (upstream.Call, error) {
	pin, known := p.cookie.Take(x)
	if !known {
		pin.Number = uint16(p.random())
	}
	x.Affinity = pin.Target
	call, by, err := p.ask(x, pin.Number)
	if err != nil {
		return nil, err
	}
	target := uint64(0)
	switch {
	case x.Usage.Fallback != "": // a stand-in, for as long as it lasts
		target = pin.Target
	case by != nil:
		target = by.Pin(x.Usage.Target)
	}
	if !known || target != pin.Target || pin.Old {
		pin.Target = target
		p.cookie.Set(x, pin)
	}
	return call, nil
}

func (p *Pinned) ask(x *exchange.Exchange, number uint16) (upstream.Call, pinner, error) {
	if p.inner != nil {
		return p.inner.send(x, uint64(number))
	}
	call, err := p.to.Send(x)
	return call, p.pinner, err
}
