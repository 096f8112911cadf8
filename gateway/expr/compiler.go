package expr

import (
	"strings"

	"headgate/gateway/exchange"
	"headgate/internal/expr"
	"headgate/internal/metric"
)

// Compiler compiles what documents say about exchanges. It implements policy.Compiler and is safe for concurrent use.
// One serves the whole gateway: CEL's environment is built once, on the first expression that is not plain.
type Compiler struct {
	vars     map[string]*variable
	language *expr.Language[*exchange.Exchange]
	failures *metric.Counter
}

// New returns a compiler that counts evaluations without an answer in the registry.
func New(metrics *metric.Registry) *Compiler {
	list := variables(new(addresses))
	c := &Compiler{vars: make(map[string]*variable, len(list))}
	words := make([]expr.Variable, len(list))
	for i := range list {
		c.vars[list[i].Name] = &list[i]
		words[i] = list[i].Variable
	}
	c.language = expr.New(words, c.value)
	c.failures = metrics.Counter("headgate_expression_failures_total",
		"Evaluations of an expression that had no answer: an unexpected type, or more to look at than allowed.")
	return c
}

// Bool compiles a condition. Errors of compiling are of type *expr.Error and name the place; those of evaluating say why
// there is no answer.
func (c *Compiler) Bool(src string) (func(*exchange.Exchange) (bool, error), error) {
	if test := c.plainBool(src); test != nil {
		return func(x *exchange.Exchange) (bool, error) { return test(x), nil }, nil
	}
	p, err := c.compile(src, expr.Bool)
	if err != nil {
		return nil, err
	}
	return func(x *exchange.Exchange) (bool, error) {
		yes, err := p.Bool(x)
		if err != nil {
			c.failures.Inc(x.Shard)
		}
		return yes, err
	}, nil
}

// String compiles an expression to text: a text as it is, true or false, a number, a list with commas. Evaluating to
// none of these gives "".
func (c *Compiler) String(src string) (func(*exchange.Exchange) string, error) {
	if text := c.plainText(src); text != nil {
		return text, nil
	}
	p, err := c.compile(src, expr.Text)
	if err != nil {
		return nil, err
	}
	return func(x *exchange.Exchange) string { return c.answer(x)(p.Text(x)) }, nil
}

func (c *Compiler) compile(src string, want expr.Type) (*expr.Program[*exchange.Exchange], error) {
	if strings.TrimSpace(src) == "" {
		return nil, &expr.Error{Line: 1, Col: 1, Message: `the expression is empty; write one such as consumer or header.x-tenant == "a"`}
	}
	return c.language.Compile(src, want)
}

// answer counts a text that could not be had.
func (c *Compiler) answer(x *exchange.Exchange) func(string, error) string {
	return func(text string, err error) string {
		if err != nil {
			c.failures.Inc(x.Shard)
		}
		return text
	}
}

// value hands CEL a variable of one exchange.
func (c *Compiler) value(x *exchange.Exchange, name string) any {
	v := c.vars[name]
	switch {
	case v == nil:
		return nil
	case v.text != nil:
		return v.text(x)
	case v.boolean != nil:
		return v.boolean(x)
	case v.number != nil:
		return v.number(x)
	case v.list != nil:
		return v.list(x)
	case v.look != nil:
		return texts{x, v}
	case v.Type == expr.Values:
		return claims{x}
	case v.Type == expr.Time:
		return x.Start
	}
	return nil
}

// texts is a table of texts as expr sees it.
type texts struct {
	x *exchange.Exchange
	v *variable
}

// Find implements expr.Table.
func (t texts) Find(name string) (any, bool) {
	v, ok := t.v.look(t.x, name)
	return v, ok
}

// Names implements expr.Table.
func (t texts) Names() []string { return t.v.names(t.x) }

// claims is the token's claims as expr sees them.
type claims struct{ x *exchange.Exchange }

// Find implements expr.Table.
func (t claims) Find(path string) (any, bool) {
	if t.x.Claims == nil {
		return nil, false
	}
	v := t.x.Claims.Claim(path)
	return v, v != nil
}

// Names implements expr.Table. A token's claims are asked for by name only.
func (t claims) Names() []string { return nil }
