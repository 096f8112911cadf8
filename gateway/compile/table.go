package compile

import (
	"fmt"
	"runtime"

	"headgate/gateway/engine"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/route"
)

// routes makes the snapshot's routes and their table from the units.
func (j *job) routes(s *engine.Snapshot, fronts *releases) {
	var rules []route.Rule[*engine.Route]
	var from []*compiled
	reported := map[string]bool{}
	for _, name := range j.loaded.Objects("apis") {
		a := j.next.apis[name]
		if a == nil {
			continue
		}
		runtime.Gosched()
		for i := range a.routes {
			c := &a.routes[i]
			info := c.info
			info.Index = len(s.Routes)
			r := &engine.Route{
				Info: &info, Name: c.rule.Name, Match: c.match, Chain: c.chain, Slots: c.slots, Rewrite: c.rewrite, Answer: c.answer, Meter: c.meter,
				Upgrades: c.upgrades, GRPC: c.grpc,
			}
			if info.Upstream != "" {
				if found := j.resolve(c); found != nil {
					r.Upstream, info.Waiting = found.upstream, found.upstream.Waiting
				}
				r.Release = fronts.front(info.Upstream)
			}
			rule := c.rule
			rule.Value = r
			rules, from, s.Routes = append(rules, rule), append(from, c), append(s.Routes, r)
		}
	}
	table, conflicts := route.Build(rules)
	for _, c := range conflicts {
		j.conflict(c, from, reported)
	}
	s.Table, s.NotFound = table, j.notFound(len(rules))
}

// conflict tells a conflict where its rule is written, and where the other one is. What is wrong with an API's own keys
// would come for each of its routes; it is told once.
func (j *job) conflict(c route.Conflict, from []*compiled, reported map[string]bool) {
	own := from[c.Rule]
	path := own.path
	switch c.Part {
	case "":
		if len(path) > 2 {
			path = append(path[:len(path):len(path)], "match")
		}
	case "hosts":
		path = append(path[:2:2], "hosts")
	case "base":
		path = append(path[:2:2], "base_path")
	default:
		path = append(path[:len(path):len(path)], "match", c.Part)
	}
	message := c.Reason
	if c.Other >= 0 {
		message += fmt.Sprintf(" (the other is at %s)", j.place(from[c.Other].path))
	}
	p := j.loaded.Problem(string(c.Kind), message, path...)
	if key := p.Path + "\x00" + message; !reported[key] {
		reported[key] = true
		j.problems = append(j.problems, p)
	}
}

// notFound is the route of what no route fits. The policies of every request see it, too.
func (j *job) notFound(index int) *engine.Route {
	return &engine.Route{
		Info: &exchange.Route{Index: index}, Name: "(none)", Match: "what no route matches",
		Chain: policy.NewChain(j.next.global.instances), Slots: j.next.global.slots,
		Answer: func(x *exchange.Exchange) {
			x.Problem(exchange.RouteNotFound, "")
			x.Err = &exchange.Error{Code: exchange.RouteNotFound, Source: exchange.FromClient}
		},
	}
}
