package policytest

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v4"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/metric"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// Contract proves that a kind of policy keeps the promises of policy.Hooks and of the house, with its defaults and with
// the options of every example of its README. It is run from policies/ or from the kind's folder.
func Contract(t *testing.T, kind policy.Kind) {
	hold(&contract{kind: kind, readme: ReadReadme(t, kind.Name)}, t)
}

func hold(c *contract, t *testing.T) {
	t.Run("its README has every section and tells every code", c.sections)
	t.Run("its defaults hold or name every key that is required", c.defaults)
	t.Run("its examples decode and build", c.examples)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *yaml.Node)
	}{
		{"closing leaves no goroutine behind", c.closing},
		{"Now never waits and Later ends with its context", c.waiting},
		{"Done ends an exchange once, however it went", c.endings},
		{"a reload keeps what is kept", c.reload},
		{"it answers only with codes that it declares", c.codes},
		{"its metrics are well named and documented", c.metrics},
	} {
		kept := t.Run(part.name, func(t *testing.T) {
			for _, o := range c.variants(t) {
				part.run(t, o)
			}
		})
		if !kept {
			return // what breaks one promise may block in the next
		}
	}
}

type contract struct {
	kind   policy.Kind
	readme Readme
}

// variants returns the options that the examples use, and nil where the defaults hold.
func (c *contract) variants(t *testing.T) []*yaml.Node {
	t.Helper()
	var list []*yaml.Node
	if p, problems := New(t).build(c.kind, nil); len(problems) == 0 {
		p.Close()
		list = append(list, nil)
	}
	for _, e := range c.readme.Examples {
		for _, o := range options(e.Decode(t, c.readme.Path), c.kind.Name) {
			if o != nil {
				list = append(list, o)
			}
		}
	}
	if len(list) == 0 {
		t.Fatalf("%s is not built by its defaults, and no example in %s shows options", c.kind.Name, c.readme.Path)
	}
	return list
}

func (c *contract) sections(t *testing.T) {
	r := c.readme
	if r.Title != c.kind.Name {
		t.Errorf("%s has the title %q, want %q", r.Path, r.Title, c.kind.Name)
	}
	if !slices.Equal(r.Order, sections) {
		t.Errorf("%s has the sections %q, want %q", r.Path, r.Order, sections)
	}
	for _, s := range sections {
		if s != "Options" && strings.TrimSpace(r.Sections[s]) == "" {
			t.Errorf("%s says nothing under %s", r.Path, s)
		}
	}
	if !strings.Contains(r.Sections["Options"], OptionsBegin) || !strings.Contains(r.Sections["Options"], OptionsEnd) {
		t.Errorf("%s has no place for its table of options between %s and %s", r.Path, OptionsBegin, OptionsEnd)
	}
	for _, code := range c.kind.Codes {
		if !strings.Contains(r.Sections["Description"], "`"+code.Name+"`") {
			t.Errorf("%s does not say when it answers %d `%s`", r.Path, code.Status, code.Name)
		}
	}
	if len(r.Examples) == 0 {
		t.Errorf("%s has no example", r.Path)
	}
}

// The marks between which a README's table of options is generated.
const (
	OptionsBegin = "<!-- options -->"
	OptionsEnd   = "<!-- /options -->"
)

func (c *contract) defaults(t *testing.T) {
	var required []string
	for i := range c.kind.Config.NumField() {
		if f := c.kind.Config.Field(i); f.Tag.Get("required") == "true" {
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			required = append(required, name)
		}
	}
	p, problems := New(t).build(c.kind, nil)
	if len(problems) == 0 {
		p.Close()
		if len(required) > 0 {
			t.Errorf("it is built without %s, which its tags require", strings.Join(required, ", "))
		}
		return
	}
	var missing []string
	for _, p := range problems {
		if p.Code == "missing_key" {
			missing = append(missing, p.Path)
		}
	}
	slices.Sort(required)
	slices.Sort(missing)
	if len(required) > 0 && !slices.Equal(required, missing) {
		t.Errorf("without options it misses %q, and its tags require %q:\n%v", missing, required, problems)
	}
}

func (c *contract) examples(t *testing.T) {
	used := false
	for _, e := range c.readme.Examples {
		for _, o := range options(e.Decode(t, c.readme.Path), c.kind.Name) {
			used = true
			p, problems := New(t).build(c.kind, o)
			if len(problems) > 0 {
				t.Errorf("%s, example at line %d:\n%v", c.readme.Path, e.Line, problems)
				continue
			}
			p.Close()
		}
	}
	if !used {
		t.Errorf("no example of %s uses %s", c.readme.Path, c.kind.Name)
	}
}

// traffic runs every sample once and returns what became of it.
func traffic(p *Policy) (outcomes []Outcome) {
	for _, s := range samples() {
		outcomes = append(outcomes, p.Run(s(), echo))
	}
	return outcomes
}

func (c *contract) closing(t *testing.T, options *yaml.Node) {
	leaks := goleak.IgnoreCurrent()
	w := known(t)
	p, problems := w.build(c.kind, options)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	traffic(p)
	p.Close()
	goleak.VerifyNone(t, leaks)
}

func (c *contract) reload(t *testing.T, options *yaml.Node) {
	w := known(t)
	before, problems := w.build(c.kind, options)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	traffic(before)
	kept := w.Keeper.Len()
	after, problems := w.build(c.kind, options)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if n := w.Keeper.Len(); n != kept {
		t.Errorf("the same options keep %d values after a reload, %d before: something was started afresh", n, kept)
	}
	before.Close()
	if n := w.Keeper.Len(); n != kept {
		t.Errorf("closing what was before the reload leaves %d of %d kept values", n, kept)
	}
	traffic(after)
	after.Close()
	if n := w.Keeper.Len(); n != 0 {
		t.Errorf("%d values are kept for nobody", n)
	}
}

func (c *contract) codes(t *testing.T, options *yaml.Node) {
	w := known(t)
	p, problems := w.build(c.kind, options)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	defer p.Close()
	declared := append(slices.Clone(c.kind.Codes), exchange.Codes()...)
	for range 3 { // limits answer only after a while
		for _, out := range traffic(p) {
			x := out.Exchange
			if x.Err != nil && !slices.Contains(declared, x.Err.Code) {
				t.Errorf("it answers with %q, which its Spec does not declare", x.Err.Code.Name)
			}
			if out.Status < 100 || out.Status > 599 {
				t.Errorf("it leaves the status %d", out.Status)
			}
			for name, value := range x.Reply.Header.All() {
				if !exchange.ValidName(name) || !exchange.ValidValue(value) {
					t.Errorf("it leaves the reply field %q: %q", name, value)
				}
			}
		}
	}
}

// shared are metrics that belong to no policy.
var shared = regexp.MustCompile(`^headgate_(policy|expression|metric)_`)

func (c *contract) metrics(t *testing.T, options *yaml.Node) {
	w := known(t)
	p, problems := w.build(c.kind, options)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	defer p.Close()
	traffic(p)
	w.Metrics.Visit(func(f *metric.Family, s *metric.Series) {
		if shared.MatchString(f.Name) {
			return
		}
		if !strings.HasPrefix(f.Name, "headgate_") {
			t.Errorf("metric %s does not begin with headgate_", f.Name)
		}
		if !strings.Contains(c.readme.Sections["Metrics"], "`"+f.Name) {
			t.Errorf("%s does not explain the metric %s", c.readme.Path, f.Name)
		}
		if len(s.Labels) < 2 || s.Labels[0].Name != "api" || s.Labels[1].Name != "policy" {
			t.Errorf("metric %s does not begin with the labels of its Env: %v", f.Name, s.Labels)
		}
	}, func(func(metric.Emit)) {})
	var page strings.Builder
	text := metric.NewText(&page)
	w.Metrics.Expose(text)
	if err := text.Close(); err != nil {
		t.Fatal(err)
	}
	lint, err := promlint.New(strings.NewReader(page.String())).Lint()
	if err != nil {
		t.Errorf("the metrics cannot be read: %v\n%s", err, page.String())
	}
	for _, l := range lint {
		t.Errorf("metric %s: %s", l.Metric, l.Text)
	}
}
