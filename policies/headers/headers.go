// Package headers is the policy headers: it removes, renames, sets and adds header fields, both ways.
package headers

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// Config is the options of headers.
type Config struct {
	Request  edits `yaml:"request" doc:"Changes to the request on its way to the upstream."`
	Response edits `yaml:"response" doc:"Changes to the reply on its way to the client, also to the gateway's own."`
}

// edits are the changes to one header, in the order in which they are made.
type edits struct {
	Remove []string          `yaml:"remove" doc:"Fields that are taken out; X-Internal-* takes out all that begin so."`
	Rename map[string]string `yaml:"rename" doc:"Fields that get another name, in place of any that has it already."`
	Set    map[string]string `yaml:"set" doc:"Fields that get exactly this value, a template."`
	Add    map[string]string `yaml:"add" doc:"Fields that are added to those of the same name; a template."`
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "headers",
	Summary: "Removes, renames, sets and adds header fields, both ways.",
	Stage:   policy.Shape,
	Check:   check,
	Build:   build,
})

// owned are the fields that are not a policy's to change, and what to use instead.
var owned = map[string]string{
	"host":              "the upstream is asked for another host by the host option of upstreams or by the rewrite policy",
	"content-length":    "the gateway writes it to fit the body",
	"transfer-encoding": "the gateway writes it to fit the body",
	"trailer":           "the gateway writes it to fit the trailer section",
	"connection":        "it is about one connection; timeouts and pools are options of listeners and upstreams",
	"keep-alive":        "it is about one connection; timeouts and pools are options of listeners and upstreams",
	"proxy-connection":  "it is about one connection, which the gateway keeps itself",
	"te":                "it is about one connection, which the gateway keeps itself",
	"upgrade":           "it is about one connection; upgrades are passed on by the gateway",
	"expect":            "the gateway answers it",
}

func check(c Config) error {
	return errors.Join(checkEdits("request", c.Request), checkEdits("response", c.Response))
}

func checkEdits(side string, e edits) error {
	var wrong []error
	fail := func(path []string, format string, args ...any) {
		wrong = append(wrong, &decode.PathError{Path: append([]string{side}, path...), Err: fmt.Errorf(format, args...)})
	}
	name := func(s string, path ...string) {
		if !exchange.ValidName(s) {
			fail(path, "%q is not a name of a header field; letters, digits and !#$%%&'*+-.^_`|~ are allowed", s)
		} else if instead := owned[strings.ToLower(s)]; instead != "" {
			fail(path, "%s cannot be changed here: %s", s, instead)
		}
	}
	for i, n := range e.Remove {
		if prefix, _ := strings.CutSuffix(n, "*"); strings.Contains(prefix, "*") || len(prefix) < 2 && prefix != n {
			fail([]string{"remove", index(i)}, "%q would take out more than can be meant; * stands at the end, after two characters or more", n)
			continue
		}
		name(n, "remove", index(i))
	}
	for _, from := range sorted(e.Rename) {
		name(from, "rename", from)
		name(e.Rename[from], "rename", from)
		for _, other := range sorted(e.Rename) {
			if from != other && (strings.EqualFold(e.Rename[from], other) || strings.EqualFold(from, other)) {
				fail([]string{"rename", from}, "%s is renamed itself, so the outcome would hang on the order; rename in two policies", other)
			}
		}
	}
	for list, values := range map[string]map[string]string{"set": e.Set, "add": e.Add} {
		seen := map[string]bool{}
		for _, n := range sorted(values) {
			name(n, list, n)
			if seen[strings.ToLower(n)] {
				fail([]string{list, n}, "%s stands here twice; case makes no difference in names of fields", n)
			}
			seen[strings.ToLower(n)] = true
			if problem := checkValue(n, values[n]); problem != "" {
				fail([]string{list, n}, "%s", problem)
			}
		}
	}
	return errors.Join(wrong...)
}

func checkValue(name, value string) string {
	switch {
	case value == "":
		return "the value is empty; remove: [" + name + "] takes a field out"
	case !strings.ContainsAny(value, "{}") && !exchange.ValidValue(value):
		return strconv.Quote(value) + " cannot be the value of a header field: no line breaks, controls or white space at its ends"
	}
	return ""
}

func build(c Config, e policy.Env) (policy.Hooks, error) {
	s := &shaper{
		log: e.Log,
		dropped: e.Metrics.Counter("headgate_headers_dropped_total",
			"Fields left out because their template gave what cannot be a value.", e.Labels...),
	}
	request, err := compile("request", c.Request, e.Expr)
	response, err2 := compile("response", c.Response, e.Expr)
	if err := errors.Join(err, err2); err != nil {
		return policy.Hooks{}, err
	}
	s.request, s.response = request, response
	var h policy.Hooks
	if !request.empty() {
		h.Request.Now = s.shapeRequest
	}
	if !response.empty() {
		h.Response.Now = s.shapeResponse
	}
	return h, nil
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
