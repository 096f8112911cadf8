package headers

import (
	"errors"
	"log/slog"
	"strconv"
	"strings"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/metric"
)

// maxValue bounds a value that a template makes: what one field may bring must not fill a head that others have to read.
const maxValue = 8 << 10

// shaper is the policy at work.
type shaper struct {
	request, response changes
	log               *slog.Logger
	dropped           *metric.Counter
}

// changes are edits, compiled.
type changes struct {
	remove   []string
	prefixes []string // of names to remove
	removes  func(name, value string) bool
	rename   []renaming
	set, add []field
}

type renaming struct{ from, to string }

type field struct {
	name   string
	value  string // if it is always the same
	render func(*exchange.Exchange) string
}

func (c *changes) empty() bool {
	return len(c.remove)+len(c.prefixes)+len(c.rename)+len(c.set)+len(c.add) == 0
}

func index(i int) string { return strconv.Itoa(i) }

func compile(side string, e edits, templates policy.Compiler) (changes, error) {
	var c changes
	for _, n := range e.Remove {
		if prefix, ok := strings.CutSuffix(n, "*"); ok {
			c.prefixes = append(c.prefixes, prefix)
		} else {
			c.remove = append(c.remove, n)
		}
	}
	c.removes = startsWithAny(c.prefixes)
	for _, from := range sorted(e.Rename) {
		c.rename = append(c.rename, renaming{from, e.Rename[from]})
	}
	var err, err2 error
	c.set, err = compileFields([]string{side, "set"}, e.Set, templates)
	c.add, err2 = compileFields([]string{side, "add"}, e.Add, templates)
	return c, errors.Join(err, err2)
}

func compileFields(path []string, values map[string]string, templates policy.Compiler) (fields []field, err error) {
	for _, name := range sorted(values) {
		f := field{name: name, value: values[name]}
		if strings.ContainsAny(f.value, "{}") {
			var wrong error
			if f.render, wrong = templates.Template(f.value); wrong != nil {
				err = errors.Join(err, &decode.PathError{Path: append(path[:2:2], name), Err: wrong})
			}
		}
		fields = append(fields, f)
	}
	return fields, err
}

func (s *shaper) shapeRequest(x *exchange.Exchange) policy.Verdict {
	s.apply(&s.request, x, &x.Request.Header)
	return policy.Continue
}

func (s *shaper) shapeResponse(x *exchange.Exchange) policy.Verdict {
	s.apply(&s.response, x, &x.Reply.Header)
	return policy.Continue
}

func (s *shaper) apply(c *changes, x *exchange.Exchange, h *exchange.Header) {
	for _, name := range c.remove {
		h.Del(name)
	}
	if len(c.prefixes) > 0 {
		h.DelFunc(c.removes)
	}
	for _, r := range c.rename {
		if !exchange.EqualFold(r.from, r.to) && h.Has(r.from) {
			h.Del(r.to)
		}
		h.Rename(r.from, r.to)
	}
	for i := range c.set {
		if v := s.value(&c.set[i], x); v != "" {
			h.Set(c.set[i].name, v)
		} else {
			h.Del(c.set[i].name) // rather no field than one that somebody else has filled
		}
	}
	for i := range c.add {
		if v := s.value(&c.add[i], x); v != "" {
			h.Add(c.add[i].name, v)
		}
	}
}

// startsWithAny returns a function that says which fields begin with one of the prefixes and are a policy's to change.
func startsWithAny(prefixes []string) func(name, value string) bool {
	return func(name, _ string) bool {
		for _, p := range prefixes {
			if len(name) >= len(p) && exchange.EqualFold(name[:len(p)], p) {
				return !isOwned(name)
			}
		}
		return false
	}
}

func isOwned(name string) bool {
	for n := range owned {
		if exchange.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// value returns what a field gets, or "" for none. What came from outside may hold anything: a line break in it would end
// the field and begin another of the sender's choice (CWE-113), so such a value is never written.
func (s *shaper) value(f *field, x *exchange.Exchange) string {
	if f.render == nil {
		return f.value
	}
	v := strings.Trim(f.render(x), " \t")
	if len(v) > maxValue || !exchange.ValidValue(v) {
		s.dropped.Inc(x.Shard)
		s.log.Debug("a header field was left out: its template gave what cannot be a value", "id", x.ID, "field", f.name, "bytes", len(v))
		return ""
	}
	return v
}
