package expr

import (
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// rewrite brings what this language adds into CEL's tree, before the types are checked: see the package comment.
func (l *words) rewrite(tree *ast.AST) *Error {
	r := rewriter{language: l, make: ast.NewExprFactory(), info: tree.SourceInfo(), last: ast.MaxID(tree)}
	r.walk(tree.Expr())
	return r.err
}

type rewriter struct {
	language *words
	make     ast.ExprFactory
	info     *ast.SourceInfo
	last     int64    // the highest id of a node so far
	hidden   []string // loop variables, which hide variables of the same name
	err      *Error
}

// walk rewrites below e, and then e itself.
func (r *rewriter) walk(e ast.Expr) {
	switch e.Kind() {
	case ast.SelectKind:
		r.selection(e)
	case ast.CallKind:
		r.call(e)
	case ast.ListKind:
		for _, element := range e.AsList().Elements() {
			r.walk(element)
		}
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			r.walk(entry.AsMapEntry().Key())
			r.walk(entry.AsMapEntry().Value())
		}
	case ast.ComprehensionKind:
		r.loop(e.AsComprehension())
	}
}

// selection makes t.a.b one lookup of "a.b", and has(t.a) the question whether t has "a".
func (r *rewriter) selection(e ast.Expr) {
	s := e.AsSelect()
	table, path, values := r.table(s.Operand())
	if table == nil {
		r.walk(s.Operand())
		return
	}
	if path != "" {
		if !values {
			return // the checker says that a text has no fields
		}
		path += "."
	}
	path += s.FieldName()
	if s.IsTestOnly() {
		name := r.make.NewLiteral(r.id(e.ID()), types.String(path))
		e.SetKindCase(r.make.NewCall(e.ID(), operators.In, name, table))
	} else if path != s.FieldName() {
		e.SetKindCase(r.make.NewSelect(e.ID(), table, path))
	}
}

// table returns the table that e is (path is "") or selects from, if it is one.
func (r *rewriter) table(e ast.Expr) (table ast.Expr, path string, values bool) {
	if v, ok := r.variable(e); ok {
		if v.Type == Texts || v.Type == Values {
			return e, "", v.Type == Values
		}
		return nil, "", false
	}
	if e.Kind() != ast.SelectKind || e.AsSelect().IsTestOnly() {
		return nil, "", false
	}
	s := e.AsSelect()
	table, path, values = r.table(s.Operand())
	if table == nil {
		return nil, "", false
	}
	if path != "" {
		path += "."
	}
	return table, path + s.FieldName(), values
}

// variable returns the variable that e names, which may have dots.
func (r *rewriter) variable(e ast.Expr) (Variable, bool) {
	name := ""
	for ; e.Kind() == ast.SelectKind && !e.AsSelect().IsTestOnly(); e = e.AsSelect().Operand() {
		name = "." + e.AsSelect().FieldName() + name
	}
	if e.Kind() != ast.IdentKind {
		return Variable{}, false
	}
	for _, h := range r.hidden {
		if h == e.AsIdent() {
			return Variable{}, false
		}
	}
	name = e.AsIdent() + name
	for _, v := range r.language.vars {
		if v.Name == name {
			return v, true
		}
	}
	return Variable{}, false
}

func (r *rewriter) call(e ast.Expr) {
	c := e.AsCall()
	if c.IsMemberFunction() {
		r.walk(c.Target())
	}
	args := c.Args()
	for _, a := range args {
		r.walk(a)
	}
	switch {
	case c.FunctionName() == operators.In && len(args) == 2:
		r.list(args[1])
	case c.FunctionName() == "inCIDR" && len(args) == 2:
		r.ranges(args[1])
	}
}

func (r *rewriter) loop(c ast.ComprehensionExpr) {
	r.walk(c.IterRange())
	r.list(c.IterRange())
	depth := len(r.hidden)
	r.hidden = append(r.hidden, c.AccuVar())
	r.walk(c.AccuInit())
	r.walk(c.Result())
	r.hidden = append(r.hidden, c.IterVar())
	if c.HasIterVar2() {
		r.hidden = append(r.hidden, c.IterVar2())
	}
	r.walk(c.LoopCondition())
	r.walk(c.LoopStep())
	r.hidden = r.hidden[:depth]
}

// list wraps a value out of a table of values where a list is needed.
func (r *rewriter) list(e ast.Expr) {
	if !r.value(e) {
		return
	}
	inner := r.make.CopyExpr(e)
	inner.RenumberIDs(r.id)
	e.SetKindCase(r.make.NewCall(e.ID(), asList, inner))
}

// value reports whether e is one value of a table of values: t.name, t["name"].
func (r *rewriter) value(e ast.Expr) bool {
	var table ast.Expr
	switch e.Kind() {
	case ast.SelectKind:
		table = e.AsSelect().Operand()
	case ast.CallKind:
		if c := e.AsCall(); c.FunctionName() == operators.Index {
			table = c.Args()[0]
		}
	}
	if table == nil {
		return false
	}
	v, ok := r.variable(table)
	return ok && v.Type == Values
}

// ranges checks the ranges that are written out, so that a slip is found when the document is read.
func (r *rewriter) ranges(e ast.Expr) {
	switch e.Kind() {
	case ast.ListKind:
		for _, element := range e.AsList().Elements() {
			r.ranges(element)
		}
	case ast.LiteralKind:
		if text, ok := e.AsLiteral().(types.String); ok && r.err == nil {
			if _, err := ParseRange(string(text)); err != nil {
				at := r.info.GetStartLocation(e.ID())
				r.err = &Error{at.Line(), at.Column() + 1, err.Error()}
			}
		}
	}
}

// id returns a new node's id, at the place of an old one.
func (r *rewriter) id(old int64) int64 {
	r.last++
	if offset, ok := r.info.GetOffsetRange(old); ok {
		r.info.SetOffsetRange(r.last, offset)
	}
	return r.last
}
