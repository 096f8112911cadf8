package upstream

import (
	"math/rand/v2"
	"slices"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream/balance"
	"headgate/internal/spread"
)

// Expressions compiles what a document asks about requests.
type Expressions interface {
	// String compiles an expression to text; it evaluates to "" where there is no answer.
	String(src string) (func(*exchange.Exchange) string, error)
}

// balancing is what the document says about the choice.
func (u *Upstream) balancing() balance.Config {
	c := &u.config.Balance
	b := balance.Config{
		Algorithm: c.Algorithm, Zone: u.zone(), LocalFloor: float64(c.LocalFloor) / 100, Panic: float64(c.Panic) / 100,
		Strict: u.config.Ejection.OnAllDown == "fail", SlowStart: c.SlowStart, Bound: float64(c.Bound) / 100, Total: u.total,
	}
	if !slices.Contains(balance.Algorithms(), b.Algorithm) { // which has been said of the document already
		b.Algorithm = balance.Algorithms()[0]
	}
	return b
}

// zone is the gateway's own, whose targets are preferred; "": none is.
func (u *Upstream) zone() string {
	switch z := u.config.Balance.Zone; z {
	case "":
		return u.env.Zone
	case "off":
		return ""
	default:
		return z
	}
}

// maxRaces bounds how often a request that found a target full in the last moment looks for another one.
const maxRaces = 4

// choose returns a target that has not been tried and counts the request as its own; whoever gets it calls load.Done. nil:
// there is none; full says that there would be one if it had not as many requests as it may have.
func (s *set) choose(u *Upstream, x *exchange.Exchange, not *balance.Tried) (t *target, full bool) {
	now, limit := u.env.Sweeper.Coarse(), int64(u.config.Pool.Requests)
	if t = s.only; t != nil {
		if s.wanted[0].weight == 0 || not.Has(t.load) || u.strict() && !t.load.Available(now) {
			return nil, false
		}
		if !t.load.Begin(x.Shard, limit) {
			return nil, true
		}
		return t, false
	}
	if x.Affinity != 0 {
		if i, ok := s.pins()[x.Affinity]; ok && s.wanted[i].weight > 0 {
			if t = s.targets[i]; t.load.Available(now) && !not.Has(t.load) && t.load.Begin(x.Shard, limit) {
				return t, false
			}
		}
	}
	for range maxRaces {
		i, full := s.balancer.Pick(&balance.Query{Now: now, Random: rand.Uint64(), Hash: u.hash(x), Shard: x.Shard, Not: not})
		if i == balance.None {
			return nil, full
		}
		if t = s.targets[i]; t.load.Begin(x.Shard, limit) {
			return t, false
		}
	}
	return nil, true
}

// strict reports whether a target that is not well is not asked even if there is no other.
func (u *Upstream) strict() bool { return u.config.Ejection.OnAllDown == "fail" }

// pick is choose, and waits for the first answer of discovery where no target is known yet.
func (u *Upstream) pick(x *exchange.Exchange, not *balance.Tried) (t *target, full bool) {
	if t, full = u.set.Load().choose(u, x, not); t == nil && !full && u.await(x) {
		t, full = u.set.Load().choose(u, x, not)
	}
	return t, full
}

// Pin names a target for Exchange.Affinity, by its address. It is the same for all gateways, and not the same for two
// upstreams.
func (u *Upstream) Pin(address string) uint64 {
	return max(spread.Text(spread.Next(spread.Text(spread.Start, u.Name)), address), 1)
}

// hash places a request among the targets by its key. Where there is none, chance does.
func (u *Upstream) hash(x *exchange.Exchange) uint64 {
	if u.key == nil {
		return 0
	}
	key := u.key(x)
	if key == "" {
		return rand.Uint64()
	}
	return spread.Text(spread.Start, key)
}

// checkBalance compiles the key of consistent hashing; nil: requests have none.
func checkBalance(m *model.Upstream, e Expressions) (func(*exchange.Exchange) string, error) {
	b := &m.Balance
	switch {
	case b.Algorithm == "consistent-hash" && b.Key == "":
		return nil, decode.At("balance.key", "consistent-hash places requests by a key; write an expression such as client.ip or header.x-tenant")
	case b.Algorithm != "consistent-hash" && b.Key != "":
		return nil, decode.At("balance.key", "only consistent-hash uses a key, and the algorithm is %s", b.Algorithm)
	case b.Key == "":
		return nil, nil
	}
	key, err := e.String(b.Key)
	if err != nil {
		return nil, decode.At("balance.key", "%w", err)
	}
	return key, nil
}
