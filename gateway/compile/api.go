package compile

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/engine"
	"headgate/gateway/exchange"
	"headgate/gateway/grpc"
	"headgate/gateway/policy"
	"headgate/gateway/record"
	"headgate/gateway/route"
	"headgate/gateway/wire/tunnel"
	"headgate/internal/text"
)

// routesPerTurn is after how many routes of one API compiling lets others run.
const routesPerTurn = 16

// wholeAPI is the name, in logs and metrics, of the one route of an API that lists none.
const wholeAPI = "(all)"

// api is an API as a unit: everything about its routes that costs to compile.
type api struct {
	unit
	hash   decode.Hash
	global *global
	routes []compiled
}

// compiled is one route without what belongs to a snapshot.
type compiled struct {
	path    []string // in the document
	rule    route.Rule[*engine.Route]
	info    exchange.Route // without the index
	match   string
	chain   *policy.Chain
	slots   int
	rewrite func(*exchange.Exchange) bool
	answer  func(*exchange.Exchange)
	asks    []string // where the upstream is named
	meter   *record.RouteMeter

	upgrades *tunnel.Plan
	grpc     *grpc.Settings
}

// api takes an API over or builds it.
func (j *job) api(name string) {
	hash := j.loaded.Hash("apis", name)
	j.compiler.mu.Lock()
	old := j.compiler.live.apis[name]
	j.compiler.mu.Unlock()
	if old != nil && old.hash == hash && old.global == j.next.global && j.take(&old.unit) {
		j.next.apis[name] = old
		return
	}
	j.count.APIs++
	a := &api{hash: hash, global: j.next.global}
	j.hold(&a.unit)
	lease := j.compiler.keeper.Lease()
	a.close = append(a.close, lease.Release)
	m := j.loaded.Document.APIs[name]
	path := []string{"apis", name}
	slots := policy.NewSlots(a.global.slots)
	shared := list{
		path: append(slices.Clip(path), "policies"), instance: "apis/" + name + "/policies", api: name,
		slots: slots, lease: lease, unit: &a.unit,
	}
	b := apiJob{job: j, api: a, name: name, model: m, list: shared}
	b.chain = slices.Concat(a.global.instances, j.instances(m.Policies, shared))
	b.slots = slots.Len()
	b.all(path)
	j.next.apis[name] = a
}

// apiJob is the building of one API.
type apiJob struct {
	*job
	api   *api
	name  string
	model model.API
	list  list               // of the API's own policies
	chain []*policy.Instance // of every route
	slots int                // of the chain
	grpc  *grpc.Settings
}

func (b *apiJob) all(path []string) {
	b.grpc = grpc.NewSettings(b.model.GRPC, b.compiler.options.Clock)
	b.checkUpgrades()
	if len(b.model.Routes) == 0 {
		if b.model.Upstream == "" {
			b.problem("missing_upstream", "the API has neither routes nor an upstream; write upstream: NAME"+b.upstreamNames(), path...)
		}
		b.add(path, wholeAPI, model.Route{}, nil, b.slots)
		return
	}
	for i, name := range slices.Sorted(maps.Keys(b.model.Routes)) {
		if i%routesPerTurn == 0 {
			runtime.Gosched()
		}
		at := append(slices.Clip(path), "routes", name)
		m := b.model.Routes[name]
		own := b.list
		own.path = append(slices.Clip(at), "policies")
		own.instance = "apis/" + b.name + "/routes/" + name + "/policies"
		own.slots = policy.NewSlots(b.slots)
		instances := b.instances(m.Policies, own)
		b.add(at, name, m, instances, own.slots.Len())
	}
}

// add compiles one route behind the policies of the API.
func (b *apiJob) add(at []string, name string, m model.Route, own []*policy.Instance, slots int) {
	c := compiled{path: slices.Clip(at), slots: slots, grpc: b.grpc, info: exchange.Route{API: b.name, Version: b.model.Version, Name: name}}
	c.rule = route.Rule[*engine.Route]{
		Hosts: b.model.Hosts, Base: b.model.BasePath, Path: m.Match.Path, Methods: m.Match.Methods,
		Headers: m.Match.Headers, Query: m.Match.Query, Name: decode.FormatPath(at),
	}
	c.match = matchText(b.model.BasePath, m.Match)
	c.chain = policy.NewChain(slices.Concat(b.chain, own))
	b.way(&c, m)
	if r := b.compiler.options.Record; r != nil {
		c.meter = r.Route(&c.info)
		b.api.close = append(b.api.close, func() error { c.meter.Release(); return nil })
	}
	b.api.routes = append(b.api.routes, c)
}

// matchText is what a route matches, for people.
func matchText(base string, m model.Match) string {
	methods := strings.Join(m.Methods, ",")
	if methods == "" {
		methods = "any method"
	}
	base = strings.TrimSuffix(base, "/")
	switch {
	case m.Path == "":
		return methods + " " + base + "/**"
	case strings.HasPrefix(m.Path, "~"):
		return methods + " " + base + " " + m.Path
	}
	return methods + " " + base + m.Path
}

// way settles what a route leads to: an upstream, a redirect or a fixed answer.
func (b *apiJob) way(c *compiled, m model.Route) {
	at := func(keys ...string) []string { return append(slices.Clip(c.path), keys...) }
	var ways []string
	for _, w := range []struct {
		key   string
		given bool
	}{{"upstream", m.Upstream != ""}, {"redirect", m.Redirect != nil}, {"respond", m.Respond != nil}} {
		if w.given {
			ways = append(ways, w.key)
		}
	}
	if len(ways) > 1 {
		b.problem("exclusive_keys", strings.Join(ways, " and ")+" exclude each other; a route leads to one of upstream, redirect and respond",
			at(ways[1])...)
		return
	}
	if m.Rewrite != nil && (m.Redirect != nil || m.Respond != nil) {
		b.problem("exclusive_keys", "rewrite changes what an upstream is asked, and this route asks none", at("rewrite")...)
	}
	switch {
	case m.Redirect != nil:
		c.answer = b.redirect(m.Redirect, at("redirect"))
	case m.Respond != nil:
		c.answer = b.respond(m.Respond, at("respond"))
	case m.Upstream != "":
		c.info.Upstream, c.asks = m.Upstream, at("upstream")
	case b.model.Upstream != "":
		c.info.Upstream, c.asks = b.model.Upstream, []string{"apis", b.name, "upstream"}
	case len(c.path) > 2:
		b.problem("missing_upstream", "the route leads nowhere; write upstream, redirect or respond here, or upstream for the whole API"+
			b.upstreamNames(), at()...)
	}
	if c.info.Upstream != "" {
		c.upgrades = b.upgrading(c)
		c.rewrite = b.rewriting(m.Rewrite, c.rule.Path, at("rewrite"))
	}
}

func (j *job) upstreamNames() string {
	if names := j.loaded.Objects("upstreams"); len(names) > 0 && len(names) <= maxHinted {
		return "; there are " + strings.Join(names, ", ")
	}
	return ""
}

// maxHinted is up to how many names a message lists.
const maxHinted = 8

// resolve returns the upstream that a route names.
func (j *job) resolve(c *compiled) *service {
	if s := j.next.upstreams[c.info.Upstream]; s != nil {
		return s
	}
	names := j.loaded.Objects("upstreams")
	if slices.Contains(names, c.info.Upstream) {
		return nil // it has problems of its own
	}
	hint := text.DidYouMean(c.info.Upstream, names)
	if hint == "" {
		hint = j.upstreamNames()
	}
	j.problem("unknown_upstream", fmt.Sprintf("there is no upstream %q%s", c.info.Upstream, hint), c.asks...)
	return nil
}
