// Package rewrite is the policy rewrite: it changes what the upstream is asked, path, query, method and host.
//
// Whatever a caller sends, the path that comes out has the shape that the document gives it: values are percent-encoded,
// and a request whose path would come out ambiguous is refused.
package rewrite

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// Config is the options of rewrite.
type Config struct {
	Path        string  `yaml:"path" pattern:"^/" doc:"A template for the whole path, instead of the other ways to change it."`
	StripPrefix string  `yaml:"strip_prefix" pattern:"^/." doc:"Whole segments taken from the beginning of the path, as they are written in requests."`
	Regex       replace `yaml:"regex" doc:"A replacement in the path as it came, after strip_prefix."`
	AddPrefix   string  `yaml:"add_prefix" pattern:"^/." doc:"Put before the path, last."`
	Query       query   `yaml:"query" doc:"Changes to the query parameters."`
	Method      string  `yaml:"method" doc:"The method that the upstream is asked with. HEAD requests keep theirs."`
	Host        string  `yaml:"host" doc:"A template for the host that the upstream is asked for."`
}

// replace is a regular expression and what it is replaced by.
type replace struct {
	Match string `yaml:"match" doc:"A regular expression (RE2)."`
	With  string `yaml:"with" doc:"What every match becomes; $1 and ${name} are what its groups matched."`
}

// query is the changes to the query, in the order in which they are made.
type query struct {
	Remove []string          `yaml:"remove" doc:"Parameters that are taken out."`
	Set    map[string]string `yaml:"set" doc:"Parameters that get exactly this value, a template."`
	Add    map[string]string `yaml:"add" doc:"Parameters that are added to those of the same name; a template."`
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "rewrite",
	Summary: "Changes what the upstream is asked: path, query, method and host.",
	Stage:   policy.Shape,
	Codes:   []exchange.Code{invalid},
	Check:   check,
	Build:   build,
})

var invalid = exchange.Code{Name: "rewrite_invalid", Status: 400, Title: "What the request contains makes no valid address."}

func check(c Config) error {
	var wrong []error
	fail := func(path, format string, args ...any) { wrong = append(wrong, decode.At(path, format, args...)) }
	if c.Path != "" && (c.StripPrefix != "" || c.AddPrefix != "" || c.Regex.Match != "") {
		fail("path", "path gives the whole path, so strip_prefix, regex and add_prefix beside it would be lost; leave one or the other out")
	}
	if literal := expression.ReplaceAllString(c.Path, "x"); c.Path != "" && !strings.ContainsAny(literal, "{}") {
		if reason := wrongPath(literal); reason != "" {
			fail("path", "%q makes no path: it has %s (the query is a matter of query)", c.Path, reason)
		}
	}
	for key, prefix := range map[string]string{"strip_prefix": c.StripPrefix, "add_prefix": c.AddPrefix} {
		if reason := wrongPath(prefix); prefix != "" && reason != "" {
			fail(key, "%q is no beginning of a path: it has %s", prefix, reason)
		}
	}
	if c.Regex.Match != "" || c.Regex.With != "" {
		wrong = append(wrong, checkRegex(c.Regex)...)
	}
	switch {
	case c.Method == "" || exchange.ValidName(c.Method) && !slices.Contains([]string{"HEAD", "CONNECT", "TRACE"}, c.Method):
	case exchange.ValidName(c.Method):
		fail("method", "the upstream cannot be asked with %s instead of what the client asks: the reply would be of another form", c.Method)
	default:
		fail("method", "%q is not a method", c.Method)
	}
	for list, values := range map[string]map[string]string{"set": c.Query.Set, "add": c.Query.Add} {
		if _, ok := values[""]; ok {
			fail("query."+list, "a parameter has no name")
		}
	}
	if c.Host != "" && !strings.ContainsAny(c.Host, "{}") && !validHost(c.Host) {
		fail("host", "%q is not a host with an optional port", c.Host)
	}
	return errors.Join(wrong...)
}

// expression is what stands in braces in most templates; others are judged when they are filled in.
var expression = regexp.MustCompile(`\{[^{}]*\}`)

func checkRegex(r replace) (wrong []error) {
	if r.Match == "" {
		return append(wrong, decode.At("regex.with", "there is no match that it replaces; write match: EXPRESSION beside it"))
	}
	re, err := regexp.Compile(r.Match)
	if err != nil {
		var at *syntax.Error
		if errors.As(err, &at) {
			err = fmt.Errorf("%s: %s", at.Code, at.Expr)
		}
		return append(wrong, decode.At("regex.match", "not a regular expression (RE2): %w", err))
	}
	for _, m := range reference.FindAllStringSubmatch(r.With, -1) {
		name := m[1] + m[2]
		if n, err := strconv.Atoi(name); err == nil && n <= re.NumSubexp() || slices.Contains(re.SubexpNames(), name) || m[0] == "$$" {
			continue
		}
		wrong = append(wrong, decode.At("regex.with", "%s stands for the group %q, which the expression does not have; "+
			"write ${1} where a letter or digit follows, and $$ for a dollar sign", m[0], name))
	}
	return wrong
}

// reference is what regexp.Expand takes for a reference to a group.
var reference = regexp.MustCompile(`\$(?:\$|(\w+)|\{(\w+)\})`)

func build(c Config, e policy.Env) (policy.Hooks, error) {
	r, err := compile(c, e.Expr)
	if err != nil {
		return policy.Hooks{}, err
	}
	return policy.Hooks{Request: policy.Step{Now: r.rewrite}}, nil
}
