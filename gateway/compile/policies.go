package compile

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/policy"
	"headgate/internal/metric"
	"headgate/internal/text"
)

// everyAPI is the api label of the policies of every request.
const everyAPI = "(all)"

// list is where a list of policies stands, and what its policies share.
type list struct {
	path     []string // in the document
	instance string   // prefix of the instances' names
	api      string   // for metrics
	slots    *policy.Slots
	lease    *policy.Lease
	unit     *unit
	grouped  bool // the list is a group's
}

// instances builds the policies of a list, in its order.
func (j *job) instances(policies []model.Policy, l list) []*policy.Instance {
	var all []*policy.Instance
	taken := map[string]int{}
	for i := range policies {
		p := &policies[i]
		at := slices.Clip(append(slices.Clip(l.path), strconv.Itoa(i)))
		name := p.Name
		if name == "" {
			name = p.Kind
		}
		// The second rate-limit of a list is rate-limit-2: state is kept under these names.
		if taken[name]++; taken[name] > 1 {
			if p.Name != "" {
				j.problem("duplicate_name", fmt.Sprintf("another policy of this list is named %q, too", name), append(at, "name")...)
			}
			name += "-" + strconv.Itoa(taken[name])
		}
		if inst := j.instance(p, at, name, l); inst != nil {
			all = append(all, inst)
		}
	}
	return all
}

func (j *job) instance(p *model.Policy, at []string, name string, l list) *policy.Instance {
	o := &j.compiler.options
	inst := &policy.Instance{
		Kind: p.Kind, Name: l.instance + "/" + name, Metrics: o.Metrics,
		Shadow: p.Mode == "shadow", AllowOnError: p.OnError == "allow",
		Labels:    []metric.Label{{Name: "api", Value: l.api}, {Name: "policy", Value: name}},
		Condition: p.When, Origin: decode.FormatPath(at),
	}
	inst.Log = o.Log.With("policy", inst.Name)
	found := len(j.problems)
	if p.When != "" {
		var err error
		if inst.When, err = o.Expr.Bool(p.When); err != nil {
			j.problem("invalid_expression", err.Error(), append(at, "when")...)
		}
	}
	if l.grouped {
		j.checkMember(p, at)
	}
	env := policy.Env{
		Instance: inst.Name, Log: inst.Log, Clock: o.Clock, Metrics: o.Metrics, Labels: inst.Labels, Counters: o.Counters,
		Consumers: j.compiler.consumers, HTTP: o.HTTP, Expr: o.Expr, Keep: l.lease, Slots: l.slots,
		Random: rand.Uint64, Shadow: inst.Shadow,
	}
	if model.GroupKind(p.Kind) {
		j.group(inst, p, at, l, env)
	} else {
		j.single(inst, p, at, l, env)
	}
	if stage, ok := policy.ParseStage(p.Stage); ok {
		inst.Stage = stage
	}
	if len(j.problems) == found {
		return inst
	}
	if l.grouped && inst.Hooks.Close != nil { // no group will close it
		l.unit.close = append(l.unit.close, inst.Hooks.Close)
	}
	return nil
}

// checkMember refuses what a group decides as a whole.
func (j *job) checkMember(p *model.Policy, at []string) {
	for _, e := range []struct{ key, value string }{{"mode", p.Mode}, {"on_error", p.OnError}, {"stage", p.Stage}} {
		if e.value != "" {
			j.problem("misplaced_key", e.key+" belongs to the group as a whole; write it beside any or all", append(at, e.key)...)
		}
	}
}

func (j *job) single(inst *policy.Instance, p *model.Policy, at []string, l list, env policy.Env) {
	kind, ok := j.compiler.kinds[p.Kind]
	if !ok {
		names := slices.Sorted(maps.Keys(j.compiler.kinds))
		hint := text.DidYouMean(p.Kind, names)
		if hint == "" {
			hint = "; there are " + strings.Join(append(names, "any", "all"), ", ")
		}
		j.problem("unknown_policy", fmt.Sprintf("there is no policy %q%s", p.Kind, hint), append(at, p.Kind)...)
		return
	}
	j.count.Policies++
	inst.Stage = kind.Stage
	hooks, problems := kind.Build(p.Options, env)
	if len(problems) > 0 {
		at = append(at, p.Kind)
		file, line, col := j.loaded.At(at)
		for i := range problems {
			if problems[i].Line == 0 {
				problems[i].Line, problems[i].Col = line, col
			}
		}
		j.problems = append(j.problems, problems.In(file, at...)...)
		return
	}
	if hooks.Close != nil && !l.grouped {
		l.unit.close = append(l.unit.close, hooks.Close)
	}
	inst.Hooks = hooks
}

// group builds a group. It stands where the last of its members would: before that it could not be decided.
func (j *job) group(inst *policy.Instance, p *model.Policy, at []string, l list, env policy.Env) {
	found := len(j.problems)
	inner := l
	inner.path, inner.instance, inner.grouped = append(at, p.Kind), inst.Name, true
	members := j.instances(p.Group, inner)
	if len(j.problems) > found {
		for _, m := range members {
			if m.Hooks.Close != nil {
				l.unit.close = append(l.unit.close, m.Hooks.Close)
			}
		}
		return
	}
	for _, m := range members {
		inst.Stage = max(inst.Stage, m.Stage)
	}
	inst.Hooks = policy.Group(members, p.Kind == "all", policy.Slot[*policy.Paused](env))
	if !l.grouped {
		l.unit.close = append(l.unit.close, inst.Hooks.Close)
	}
}

// global is the policies of every request as a unit.
type global struct {
	unit
	instances []*policy.Instance
	slots     int
	hash      decode.Hash
}

// global takes the policies of every request over or builds them.
func (j *job) global() {
	hash := j.loaded.Hash("policies")
	j.compiler.mu.Lock()
	old := j.compiler.live.global
	j.compiler.mu.Unlock()
	if old != nil && old.hash == hash && j.take(&old.unit) {
		j.next.global = old
		return
	}
	g := &global{hash: hash}
	j.hold(&g.unit)
	lease := j.compiler.keeper.Lease()
	g.close = append(g.close, lease.Release)
	slots := new(policy.Slots)
	g.instances = j.instances(j.loaded.Document.Policies, list{
		path: []string{"policies"}, instance: "policies", api: everyAPI, slots: slots, lease: lease, unit: &g.unit,
	})
	g.slots = slots.Len()
	j.next.global = g
}
