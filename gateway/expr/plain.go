package expr

import (
	"strconv"
	"strings"

	"headgate/gateway/exchange"
	"headgate/internal/expr"
)

// plain reads expressions that need no CEL. Whatever it does not understand is left to CEL, which also tells the errors:
// so a reading may give up anywhere, and must mean what CEL means wherever it does not (compiler_test.go proves it).
type plain struct {
	vars map[string]*variable
	rest string
	deep int // parentheses and negations that are open
}

// maxPlainDepth bounds recursion; what is deeper goes to CEL, which has its own bound and says so.
const maxPlainDepth = 20

// test is a condition in plain form.
type test = exchanged[bool]

// plainBool returns a plain condition, or nil.
func (c *Compiler) plainBool(src string) test {
	p := plain{vars: c.vars, rest: src}
	t := p.or()
	if p.space(); t == nil || p.rest != "" || len(src) > expr.MaxSource {
		return nil
	}
	return t
}

// plainText returns plain text: a variable or a literal, or nil.
func (c *Compiler) plainText(src string) exchanged[string] {
	p := plain{vars: c.vars, rest: src}
	var get exchanged[string]
	if literal, ok := p.literal(); ok {
		get = func(*exchange.Exchange) string { return literal }
	} else if r, ok := p.reference(); ok {
		get = c.print(r)
	}
	if p.space(); p.rest != "" {
		return nil
	}
	return get
}

// print returns the text of a variable, or nil when it has none.
func (c *Compiler) print(r reference) exchanged[string] {
	switch v := r.variable; {
	case v.number != nil:
		return func(x *exchange.Exchange) string { return strconv.Itoa(v.number(x)) }
	case v.boolean != nil:
		return func(x *exchange.Exchange) string { return strconv.FormatBool(v.boolean(x)) }
	case v.list != nil:
		return func(x *exchange.Exchange) string { return strings.Join(v.list(x), ",") }
	case v.Type == expr.Values && r.name != "":
		return func(x *exchange.Exchange) string {
			s, err := expr.Print(claimed(x, r.name))
			if err != nil {
				c.failures.Inc(x.Shard)
			}
			return s
		}
	}
	return r.text()
}

func (p *plain) or() test {
	left := p.and()
	for left != nil && p.take("||") {
		right := p.and()
		if right == nil {
			return nil
		}
		a := left
		left = func(x *exchange.Exchange) bool { return a(x) || right(x) }
	}
	return left
}

func (p *plain) and() test {
	left := p.condition()
	for left != nil && p.take("&&") {
		right := p.condition()
		if right == nil {
			return nil
		}
		a := left
		left = func(x *exchange.Exchange) bool { return a(x) && right(x) }
	}
	return left
}

// condition reads what && and || combine. What ! and ( open is bounded.
func (p *plain) condition() test {
	if p.deep++; p.deep > maxPlainDepth {
		return nil
	}
	defer func() { p.deep-- }()
	switch {
	case p.peek("!="):
		return nil
	case p.take("!"):
		return p.negated()
	case p.take("("):
		inner := p.or()
		if inner == nil || !p.take(")") {
			return nil
		}
		return inner
	}
	if literal, ok := p.literal(); ok {
		return p.memberOfList(literal)
	}
	if t := p.function(); t != nil {
		return t
	}
	r, ok := p.reference()
	if !ok {
		return nil
	}
	switch v := r.variable; {
	case v.boolean != nil:
		return v.boolean
	case v.number != nil:
		return p.compareNumber(v.number)
	default:
		return p.compareText(r)
	}
}

// negated reads what ! stands before; it binds tighter than any comparison, so none may follow.
func (p *plain) negated() test {
	if !p.peek("(") && !p.peek("!") && !p.peek("has(") && !p.peek("inCIDR(") {
		r, ok := p.reference()
		switch {
		case !ok:
			return nil
		case r.variable.boolean != nil:
			return not(r.variable.boolean)
		}
		return not(p.method(r))
	}
	return not(p.condition())
}

func not(t test) test {
	if t == nil {
		return nil
	}
	return func(x *exchange.Exchange) bool { return !t(x) }
}

// compareText reads what follows a text, a name in a table or a claim.
func (p *plain) compareText(r reference) test {
	get := r.text()
	if r.variable.Type == expr.Values && r.name != "" {
		// A claim that is not a text equals no text.
		get = func(x *exchange.Exchange) string {
			s, ok := claimed(x, r.name).(string)
			if !ok {
				return unlike
			}
			return s
		}
	}
	if get == nil {
		return nil
	}
	switch {
	case p.take("=="):
		return p.withLiteral(func(want string) test { return func(x *exchange.Exchange) bool { return get(x) == want } })
	case p.take("!="):
		return p.withLiteral(func(want string) test { return func(x *exchange.Exchange) bool { return get(x) != want } })
	case p.word("in"):
		return p.oneOf(get)
	}
	return p.method(r)
}

// method reads what is asked of a text; of a claim it is left to CEL, since it may be no text.
func (p *plain) method(r reference) test {
	get := r.text()
	switch {
	case get == nil:
		return nil
	case p.take(".startsWith("):
		return p.argument(func(s string) test { return func(x *exchange.Exchange) bool { return strings.HasPrefix(get(x), s) } })
	case p.take(".endsWith("):
		return p.argument(func(s string) test { return func(x *exchange.Exchange) bool { return strings.HasSuffix(get(x), s) } })
	case p.take(".contains("):
		return p.argument(func(s string) test { return func(x *exchange.Exchange) bool { return strings.Contains(get(x), s) } })
	}
	return nil
}

// unlike stands for a claim that is not a text. No literal equals it: source texts are valid UTF-8.
const unlike = "\xff"

func (p *plain) withLiteral(compare func(string) test) test {
	literal, ok := p.literal()
	if !ok {
		return nil
	}
	return compare(literal)
}

func (p *plain) argument(compare func(string) test) test {
	t := p.withLiteral(compare)
	if t == nil || !p.take(")") {
		return nil
	}
	return t
}

// oneOf reads the list of literals behind "in".
func (p *plain) oneOf(get exchanged[string]) test {
	literals, ok := p.literals()
	if !ok {
		return nil
	}
	return func(x *exchange.Exchange) bool {
		s := get(x)
		for _, l := range literals {
			if s == l {
				return true
			}
		}
		return false
	}
}

// memberOfList reads what follows a literal: in groups.
func (p *plain) memberOfList(literal string) test {
	if !p.word("in") {
		return nil
	}
	r, ok := p.reference()
	if !ok || r.variable.list == nil {
		return nil
	}
	list := r.variable.list
	return func(x *exchange.Exchange) bool {
		for _, s := range list(x) {
			if s == literal {
				return true
			}
		}
		return false
	}
}

// compareNumber reads a comparison with a whole number.
func (p *plain) compareNumber(get exchanged[int]) test {
	for _, op := range []struct {
		sign    string
		compare func(n int) test
	}{
		{"==", func(n int) test { return func(x *exchange.Exchange) bool { return get(x) == n } }},
		{"!=", func(n int) test { return func(x *exchange.Exchange) bool { return get(x) != n } }},
		{"<=", func(n int) test { return func(x *exchange.Exchange) bool { return get(x) <= n } }},
		{">=", func(n int) test { return func(x *exchange.Exchange) bool { return get(x) >= n } }},
		{"<", func(n int) test { return func(x *exchange.Exchange) bool { return get(x) < n } }},
		{">", func(n int) test { return func(x *exchange.Exchange) bool { return get(x) > n } }},
	} {
		if p.take(op.sign) {
			n, ok := p.number()
			if !ok {
				return nil
			}
			return op.compare(n)
		}
	}
	return nil
}

// function reads has(table.name) and inCIDR(client.ip, ...); nil leaves the place where it was.
func (p *plain) function() test {
	before := p.rest
	t := p.has()
	if t == nil {
		p.rest = before
		t = p.inCIDR()
	}
	if t == nil || !p.take(")") {
		p.rest = before
		return nil
	}
	return t
}

func (p *plain) has() test {
	if !p.take("has(") {
		return nil
	}
	start := p.rest
	r, ok := p.reference()
	if !ok || r.name == "" || strings.Contains(start[:len(start)-len(p.rest)], "[") {
		return nil
	}
	if r.variable.Type == expr.Values {
		return func(x *exchange.Exchange) bool { return x.Claims != nil && x.Claims.Claim(r.name) != nil }
	}
	return func(x *exchange.Exchange) bool {
		_, ok := r.variable.look(x, r.name)
		return ok
	}
}

func (p *plain) inCIDR() test {
	if !p.take("inCIDR(") {
		return nil
	}
	r, ok := p.reference()
	if !ok || r.variable.Name != "client.ip" || !p.take(",") {
		return nil
	}
	texts, ok := p.literals()
	if !ok {
		one, found := p.literal()
		if !found {
			return nil
		}
		texts = []string{one}
	}
	ranges := make([]func(*exchange.Exchange) bool, len(texts))
	for i, s := range texts {
		in, err := expr.ParseRange(s)
		if err != nil {
			return nil
		}
		ranges[i] = func(x *exchange.Exchange) bool { return expr.InRange(x.Client.IP, in) }
	}
	return func(x *exchange.Exchange) bool {
		for _, in := range ranges {
			if in(x) {
				return true
			}
		}
		return false
	}
}
