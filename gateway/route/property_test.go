package route

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Small alphabets, so that rules meet often.
var (
	genSegment = rapid.SampledFrom([]string{"a", "b", "c", "x", "a%2Fb", "%61", "{p}", "{q}", "*"})
	genTail    = rapid.SampledFrom([]string{"", "", "/", "/**", "/{rest...}"})
	genExpr    = rapid.SampledFrom([]string{"~/[ab]", "~/a.*", "~/(a|b)/c", "~.*", "~/[a-z]+", "~/a/b", "~(/x)?", `~/\w\b.*`})
	genBase    = rapid.SampledFrom([]string{"", "/", "/a", "/a/b", "/x/"})
	genMethods = rapid.SampledFrom([][]string{nil, nil, {"GET"}, {"POST"}, {"HEAD"}, {"GET", "POST"}, {"HEAD", "PUT"}, {"OPTIONS"},
		{"PURGE"}})
	genHosts  = rapid.SampledFrom([][]string{nil, nil, {"a.test"}, {"*.test"}, {"*.a.test"}, {"a.test", "*.b.test"}})
	genValue  = rapid.SampledFrom([]string{"1", "2", "*", "~[12]", "~2|3"})
	genFields = rapid.MapOfN(rapid.SampledFrom([]string{"x-a", "x-b"}), genValue, 0, 2)
)

var genRule = rapid.Custom(func(t *rapid.T) Rule[int] {
	r := Rule[int]{Base: genBase.Draw(t, "base"), Methods: genMethods.Draw(t, "methods"), Hosts: genHosts.Draw(t, "hosts")}
	if rapid.IntRange(0, 4).Draw(t, "expression") == 0 {
		r.Path = genExpr.Draw(t, "path")
	} else {
		seen := map[string]bool{}
		for _, s := range rapid.SliceOfN(genSegment, 0, 3).Draw(t, "segments") {
			if strings.HasPrefix(s, "{") && seen[s] {
				s = "*"
			}
			seen[s] = true
			r.Path += "/" + s
		}
		r.Path += genTail.Draw(t, "tail")
	}
	if rapid.IntRange(0, 2).Draw(t, "predicates") == 0 {
		r.Headers, r.Query = genFields.Draw(t, "headers"), genFields.Draw(t, "query")
	}
	return r
})

var genRequest = rapid.Custom(func(t *rapid.T) request {
	q := request{
		method: rapid.SampledFrom([]string{"GET", "HEAD", "POST", "PUT", "OPTIONS", "PURGE", "BREW"}).Draw(t, "method"),
		host: rapid.SampledFrom([]string{"a.test", "A.TEST:80", "b.test.", "c.a.test", "d.c.a.test", "c.b.test:8080", "test",
			"other"}).Draw(t, "host"),
		header: map[string]string{},
	}
	segment := rapid.SampledFrom([]string{"a", "b", "c", "x", "z", "", "%61", "a%2Fb", "%2F", "ab"})
	for _, s := range rapid.SliceOfN(segment, 1, 5).Draw(t, "path") {
		q.path += "/" + s
	}
	value := rapid.SampledFrom([]string{"1", "2", "3"})
	header := rapid.MapOfN(rapid.SampledFrom([]string{"x-a", "x-b"}), value, 0, 2).Draw(t, "header")
	maps.Copy(q.header, header)
	var pairs []string
	for _, name := range []string{"x-a", "x-b"} {
		if rapid.Bool().Draw(t, name) {
			pairs = append(pairs, name+"="+value.Draw(t, "value"))
		}
	}
	q.query = strings.Join(pairs, "&")
	return q
})

func name(rules []Rule[int]) []Rule[int] {
	for i := range rules {
		rules[i].Value, rules[i].Name = i+1, "rule "+string(rune('A'+i))
	}
	return rules
}

// Whatever the rules, the tree finds what a linear scan by specificity finds, with the same captures and Allow list.
func TestTreeFindsWhatALinearScanFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := name(rapid.SliceOfN(genRule, 1, 12).Draw(t, "rules"))
		table, conflicts := Build(rules)
		for len(conflicts) > 0 { // leave out whose fault it is
			drop := map[int]bool{}
			for _, c := range conflicts {
				drop[c.Rule] = true
			}
			var kept []Rule[int]
			for i := range rules {
				if !drop[i] {
					kept = append(kept, rules[i])
				}
			}
			rules = kept
			table, conflicts = Build(rules)
		}
		for _, q := range rapid.SliceOfN(genRequest, 1, 20).Draw(t, "requests") {
			want, wantParams, wantOutcome := refMatch(rules, q)
			got, params, outcome := table.Match(q.method, q.host, q.path, q.exchangeHeader(), q.query, nil)
			if got != want || outcome != wantOutcome || !slices.Equal(params, wantParams) {
				t.Fatalf("%+v\ngot  %d %v %+v\nwant %d %v %+v", q, got, params, outcome, want, wantParams, wantOutcome)
			}
			checkCandidates(t, table, q, got, outcome)
		}
	})
}

// The candidates that explain a search name the rule that it found, and a reason for every other one.
func checkCandidates(t *rapid.T, table *Table[int], q request, got int, outcome Outcome) {
	taken, others := 0, 0
	for _, c := range table.Candidates(q.method, q.host, q.path, q.exchangeHeader(), q.query, 100) {
		if c.Why != "" {
			others++
		} else if taken != 0 {
			t.Fatalf("%+v: %d and %d are both taken", q, taken, c.Value)
		} else {
			taken = c.Value
		}
	}
	if taken != got || outcome.Status == NoMethod && others == 0 {
		t.Fatalf("%+v leads to %d, explained as %d and %d others", q, got, taken, others)
	}
}

// The order of the rules changes nothing, neither what matches nor which conflicts there are.
func TestOrderOfRulesDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := name(rapid.SliceOfN(genRule, 1, 8).Draw(t, "rules"))
		shuffled := rapid.Permutation(rules).Draw(t, "shuffled")
		a, first := Build(rules)
		b, second := Build(shuffled)
		if (len(first) > 0) != (len(second) > 0) {
			t.Fatalf("one order has conflicts, the other has not: %v, %v", first, second)
		}
		if len(first) > 0 {
			return
		}
		for _, q := range rapid.SliceOfN(genRequest, 1, 10).Draw(t, "requests") {
			va, _, oa := a.Match(q.method, q.host, q.path, q.exchangeHeader(), q.query, nil)
			vb, _, ob := b.Match(q.method, q.host, q.path, q.exchangeHeader(), q.query, nil)
			if va != vb || oa != ob {
				t.Fatalf("%+v: %d %v, shuffled %d %v", q, va, oa, vb, ob)
			}
		}
	})
}

// A witness fits both rules of its conflict; and no two rules that a request shows to be equally specific escape.
func TestConflictsAreReal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := name(rapid.SliceOfN(genRule, 2, 8).Draw(t, "rules"))
		_, conflicts := Build(rules)
		for _, c := range conflicts {
			if c.Witness == nil {
				if c.Kind != Invalid {
					t.Fatalf("no witness: %+v", c)
				}
				continue
			}
			q := request{method: c.Witness.Method, host: c.Witness.Host, path: c.Witness.Path, header: c.Witness.Headers}
			var pairs []string
			for k, v := range c.Witness.Query {
				pairs = append(pairs, k+"="+v)
			}
			q.query = strings.Join(pairs, "&")
			for _, i := range []int{c.Rule, c.Other} {
				if got, _, _ := refMatch(rules[i:i+1], q); got != rules[i].Value {
					t.Fatalf("%s\nwitness %s does not fit %+v", c.Reason, c.Witness, rules[i])
				}
			}
		}
	})
}

// A rule that is called shadowed never wins.
func TestShadowedRulesNeverWin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := name(rapid.SliceOfN(genRule, 2, 8).Draw(t, "rules"))
		_, conflicts := Build(rules)
		for _, c := range conflicts {
			if c.Kind != Shadowed {
				continue
			}
			both := []Rule[int]{rules[c.Rule], rules[c.Other]}
			for _, q := range rapid.SliceOfN(genRequest, 1, 20).Draw(t, "requests") {
				if got, _, _ := refMatch(both, q); got == rules[c.Rule].Value {
					t.Fatalf("%s\nbut %+v reaches it", c.Reason, q)
				}
			}
		}
	})
}
