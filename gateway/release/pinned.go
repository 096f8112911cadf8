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
	split  *Split // the same as to, if that is a split
	pinner pinner // names to's targets
	random func() uint64
}

// pinner names targets by their addresses, as Exchange.Affinity wants them.
type pinner interface {
	Pin(address string) uint64
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
	p := &Pinned{cookie: c, to: to, pinner: pinnerOf(to), random: e.Random}
	p.split, _ = to.(*Split)
	return p
}

// Send asks for what the client is pinned to, and pins it anew when somebody else has answered.
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
	if by != nil {
		target = by.Pin(x.Usage.Target)
	}
	if !known || target != pin.Target {
		pin.Target = target
		p.cookie.Set(x, pin)
	}
	return call, nil
}

func (p *Pinned) ask(x *exchange.Exchange, number uint16) (upstream.Call, pinner, error) {
	if p.split != nil {
		return p.split.send(x, uint64(number))
	}
	call, err := p.to.Send(x)
	return call, p.pinner, err
}
