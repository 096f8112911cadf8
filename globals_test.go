package headgate_test

import (
	"go/ast"
	"go/token"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// TestNoMutableGlobals allows at package level what nobody can change: errors, compiled expressions, tables, a policy's
// Kind, problem codes. It refuses variables without a value, those made to be changed, and assignments to any.
func TestNoMutableGlobals(t *testing.T) {
	check(t, "globals", func(r *report) {
		packages := map[string][]source{}
		for _, f := range code(t) {
			packages[f.folder] = append(packages[f.folder], f)
		}
		for _, files := range packages {
			names := map[string]bool{}
			for _, f := range files {
				for _, v := range globals(f) {
					judgeGlobal(f, v, names, r)
				}
			}
			for _, f := range files {
				assignments(f, names, r)
			}
		}
	})
}

// globals lists the variables that a file declares at package level.
func globals(f source) (specs []*ast.ValueSpec) {
	for _, d := range f.ast.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR && !embeds(g) {
			for _, s := range g.Specs {
				specs = append(specs, s.(*ast.ValueSpec))
			}
		}
	}
	return specs
}

func embeds(g *ast.GenDecl) bool {
	isEmbed := func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed") }
	return g.Doc != nil && slices.ContainsFunc(g.Doc.List, isEmbed)
}

func judgeGlobal(f source, v *ast.ValueSpec, names map[string]bool, r *report) {
	for i, id := range v.Names {
		if id.Name == "_" {
			continue
		}
		names[id.Name] = true
		switch {
		case len(v.Values) == 0 && !isPool(v.Type):
			r.offence(f.path, f.line(id.Pos()), id.Name, "a package variable without a value waits to be changed")
		case i < len(v.Values) && !isError(id.Name) && changeable(v.Values[i]) != "":
			r.offence(f.path, f.line(id.Pos()), id.Name, "a package variable must not be %s; hand it in where it is used", changeable(v.Values[i]))
		case isVerdict(v):
			r.offence(f.path, f.line(id.Pos()), id.Name, "a package variable that callers could assign")
		}
	}
}

// isError goes by the name that Go gives to error values.
func isError(name string) bool {
	return strings.HasPrefix(name, "err") || strings.HasPrefix(name, "Err")
}

// isPool allows sync.Pool: what it holds cannot be observed.
func isPool(e ast.Expr) bool {
	s, ok := e.(*ast.SelectorExpr)
	return ok && s.Sel.Name == "Pool"
}

// isVerdict finds exported struct values of the own package that are neither codes, kinds nor errors.
func isVerdict(v *ast.ValueSpec) bool {
	if !v.Names[0].IsExported() || len(v.Values) == 0 {
		return false
	}
	lit, ok := v.Values[0].(*ast.CompositeLit)
	if !ok {
		return false
	}
	id, ok := lit.Type.(*ast.Ident)
	return ok && id.Name != "Code"
}

// changeable says what in a value is made to be changed, or "".
func changeable(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.UnaryExpr:
		if _, ok := e.X.(*ast.CompositeLit); ok && e.Op == token.AND && !isPool(e.X.(*ast.CompositeLit).Type) {
			return "a pointer to something that can change"
		}
	case *ast.CallExpr:
		if id, ok := e.Fun.(*ast.Ident); ok && (id.Name == "make" || id.Name == "new") {
			return "made empty, to be filled later"
		}
	case *ast.CompositeLit:
		if s, ok := e.Type.(*ast.SelectorExpr); ok {
			if pkg, ok := s.X.(*ast.Ident); ok && (pkg.Name == "sync" && s.Sel.Name != "Pool" || pkg.Name == "atomic") {
				return "a " + pkg.Name + "." + s.Sel.Name
			}
		}
	}
	return ""
}

// assignments reports statements that change one of the package's variables: x = , x.f = , x[i] = , x++, &x.
func assignments(f source, names map[string]bool, r *report) {
	for _, d := range f.ast.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		local := locals(fn)
		changed := func(e ast.Expr) {
			if id := root(e); id != nil && names[id.Name] && !local[id.Name] {
				r.offence(f.path, f.line(e.Pos()), id.Name, "%s changes a package variable", fn.Name.Name)
			}
		}
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						changed(e)
					}
				}
			case *ast.IncDecStmt:
				changed(n.X)
			}
			return true
		})
	}
}

// root returns the variable that an expression leads into.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// locals returns every name that a function declares anywhere inside: such a name is taken for the local one.
func locals(fn *ast.FuncDecl) map[string]bool {
	names := map[string]bool{}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			for _, id := range n.Names {
				names[id.Name] = true
			}
		case *ast.ValueSpec:
			for _, id := range n.Names {
				names[id.Name] = true
			}
		case *ast.RangeStmt:
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if id, ok := e.(*ast.Ident); ok && n.Tok == token.DEFINE {
					names[id.Name] = true
				}
			}
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				if id, ok := e.(*ast.Ident); ok && n.Tok == token.DEFINE {
					names[id.Name] = true
				}
			}
		}
		return true
	})
	return names
}

// relative returns where a link of a file leads, from the root.
func relative(from, to string) string { return path.Join(path.Dir(from), to) }

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
