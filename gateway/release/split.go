// Package release is how a new version of a service gets its requests: a split shares them among upstreams, a sticky cookie
// keeps a client with what answered it, and a mirror sends copies to an upstream whose answers nobody gets.
package release

import (
	"log/slog"
	"math"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/upstream"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/spread"
)

// Service answers exchanges, as upstream.Upstream does: it fills x.Reply up to its head, and the call is closed at the
// exchange's end. The error is always an *exchange.Error.
type Service interface {
	Send(x *exchange.Exchange) (upstream.Call, error)
}

// Env is what releases need besides their part of the document.
type Env struct {
	Expr    policy.Compiler
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics *metric.Registry
	Random  func() uint64 // spread evenly; safe for concurrent use
}

// Split shares exchanges among variants. It is immutable and safe for concurrent use.
//
// Each variant draws for the key, by a hash that both go into and that is divided by the variant's weight, and the best
// draw wins (weighted rendezvous hashing; Schindelhauer and Schomaker, SPAA 2005). When a weight grows only keys that now
// belong to this variant move, and no two splits sort their keys alike, since the split's name goes into the hash, too.
type Split struct {
	name     string
	variants []variant
	key      func(*exchange.Exchange) string        // nil: there is none
	allow    func(*exchange.Exchange) (bool, error) // nil: everybody may choose
	header   string
	cookie   string
	random   func() uint64
}

// variant is one upstream of a split.
type variant struct {
	name   string
	asks   string // the upstream's name
	to     Service
	inner  assigner // the same as to, if that assigns by a number
	pinner pinner   // names to's targets; nil: nobody does
	salt   uint64
	weight float64
	ramp   *ramp
	meter  *meter
}

// ramp is how a weight changes by time.
type ramp struct {
	to    float64
	start time.Time
	over  time.Duration
}

// at returns the weight at a time: a matter of the clock alone, so that neither a restart nor another node changes it.
func (v *variant) at(now time.Time) float64 {
	r := v.ramp
	if r == nil {
		return v.weight
	}
	switch since := now.Sub(r.start); {
	case since <= 0:
		return v.weight
	case since >= r.over:
		return r.to
	default:
		return v.weight + (r.to-v.weight)*(float64(since)/float64(r.over))
	}
}

// NewSplit compiles the split of an upstream; to are the services of its variants' upstreams, by the upstreams' names.
// Errors point into the split.
func NewSplit(name string, m *model.Split, to map[string]Service, e Env) (*Split, error) {
	s := &Split{name: name, header: m.Header, cookie: m.Cookie, random: e.Random}
	if err := s.compile(m, e); err != nil {
		return nil, err
	}
	for _, n := range sortedNames(m.Variants) {
		v := m.Variants[n]
		one := variant{
			name: n, asks: v.Upstream, to: to[v.Upstream], pinner: pinnerOf(to[v.Upstream]), weight: v.Weight,
			salt: spread.Text(spread.Next(spread.Text(spread.Start, name)), n), meter: newMeter(e.Metrics, name, n),
		}
		one.inner = assignerOf(one.to)
		if v.Ramp != nil {
			one.ramp = &ramp{v.Ramp.To, v.Ramp.Start, v.Ramp.Over}
		}
		s.variants = append(s.variants, one)
	}
	return s, nil
}

// Send asks the upstream of the variant that the exchange belongs to.
func (s *Split) Send(x *exchange.Exchange) (upstream.Call, error) {
	call, _, err := s.send(x, s.random())
	return call, err
}

// send is Send with a number by which the exchange is assigned where it has no key. It also returns who names the target
// that has answered.
func (s *Split) send(x *exchange.Exchange, number uint64) (call upstream.Call, p pinner, err error) {
	v, _ := s.choose(x, number)
	if v == nil {
		return nil, nil, &exchange.Error{Code: exchange.NoTarget, Source: exchange.FromGateway, Cause: errAllZero}
	}
	if x.Usage.Variant == "" { // of a split in a split, what the route sees
		x.Usage.Variant = v.name
	}
	if p = v.pinner; v.inner != nil {
		call, p, err = v.inner.send(x, number)
	} else {
		call, err = v.to.Send(x)
	}
	v.meter.count(x, err)
	return call, p, err
}

// Pick chooses for an exchange that comes by a fallback and returns the name of the variant's upstream; "": all weights are 0.
// Without a key it is chance that decides. settle counts what has become of the exchange.
func (s *Split) Pick(x *exchange.Exchange) (upstream string, settle func(error)) {
	v, _ := s.choose(x, s.random())
	if v == nil {
		return "", func(error) {}
	}
	if x.Usage.Variant == "" {
		x.Usage.Variant = v.name
	}
	return v.asks, func(err error) { v.meter.count(x, err) }
}

// The reasons for which a variant is chosen.
const (
	byOverride = "override"
	byKey      = "key"
	byNumber   = "number"
)

// choose returns the exchange's variant and why it is that one; nil: all weights are 0.
func (s *Split) choose(x *exchange.Exchange, number uint64) (v *variant, why string) {
	if v := s.override(x); v != nil {
		return v, byOverride
	}
	if s.key != nil {
		if key := s.key(x); key != "" {
			return s.assign(spread.Mix(spread.Text(spread.Start, key)), x.Start), byKey
		}
	}
	return s.assign(spread.Mix(number), x.Start), byNumber
}

// override returns the variant that the request names, if it may.
func (s *Split) override(x *exchange.Exchange) *variant {
	v := s.named(x)
	if v == nil || s.allow == nil {
		return v
	}
	if yes, err := s.allow(x); !yes || err != nil { // without an answer nobody is allowed
		return nil
	}
	return v
}

// named returns the variant that the request names. A name that is none says nothing.
func (s *Split) named(x *exchange.Exchange) *variant {
	if s.header != "" {
		if v := s.find(x.Request.Header.Get(s.header)); v != nil {
			return v
		}
	}
	if s.cookie != "" {
		name, _ := x.Request.Header.Cookie(s.cookie)
		return s.find(name)
	}
	return nil
}

func (s *Split) find(name string) *variant {
	for i := range s.variants {
		if s.variants[i].name == name {
			return &s.variants[i]
		}
	}
	return nil
}

// assign returns the variant with the best draw; nil: all weights are 0. A draw is exponentially distributed with the
// weight as its rate, and the least of several such belongs to each with its share of the rates.
func (s *Split) assign(key uint64, now time.Time) (best *variant) {
	least := math.Inf(1)
	for i := range s.variants {
		v := &s.variants[i]
		w := v.at(now)
		if w <= 0 {
			continue
		}
		if draw := -math.Log(unit(spread.Mix(key^v.salt))) / w; draw < least {
			best, least = v, draw
		}
	}
	return best
}

// unit spreads a number over what is between 0 and 1, without either.
func unit(n uint64) float64 { return (float64(n>>11) + 0.5) / (1 << 53) }
