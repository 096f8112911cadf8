package headgate_test

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// The budgets of the house. They keep every piece small enough to be read at once.
const (
	maxFunctionLines    = 70
	maxFileLines        = 400
	maxPackageLines     = 3000
	maxPolicyLines      = 500
	maxPolicyExports    = 3
	maxStructFields     = 20
	maxInterfaceMethods = 5
	maxLineLength       = 140
)

// allowance lets one thing break one rule, for a reason. What is not used is reported, so that the list only shrinks.
type allowance struct{ rule, where, reason string }

// allowed is the allow-list. where is a file, a folder, or file:name.
var allowed = []allowance{
	{"words", "gateway/exchange/problem.go", "501's own name in RFC 9110 section 15.6.2"},
	{"words", "docs/reference/problems.md", "as gateway/exchange/problem.go"},
	{"words", "gateway/grpc", "the name of a status code of gRPC"},
	{"words", "gateway/record/meter.go", "as gateway/grpc"},
	{"words", "gateway/upstream/retry", "as gateway/grpc"},
	{"words", "docs/grpc.md", "as gateway/grpc"},
	{"words", "test/conformance/connect_grpc_test.go", "as gateway/grpc"},
	{"words", "test/scripts/retry-mistakes.txt", "as gateway/grpc"},
	{"exit", "bench/main.go", "a program of its own beside the product: its status says whether every answer was right"},
	{"globals", "gateway/policy/hooks.go:Continue", "a verdict without a reason is a constant that Go cannot declare as one"},
	{"globals", "gateway/policy/hooks.go:Wait", "as Continue"},
	{"globals", "gateway/policy/hooks.go:Answered", "as Continue"},
	{"globals", "internal/testkit/gateway.go:ports", "ports belong to the process: two tests of it must not get the same"},
	{"exit", "gateway/policy/policytest/endings.go", "panics on purpose, to prove that Done is called all the same"},
	{"time", "gateway/policy/policytest/waiting.go", "measures on the real clock whether a step waits"},
	{"time", "internal/sock/sweeper.go", "deadlines of sockets run on the machine's own clock: moving ours cuts nobody off"},
}

// report collects offenders of one rule, leaving out what is allowed, and fails the test with all of them.
type report struct {
	rule  string
	lines []string
	used  map[string]bool
}

func check(t *testing.T, rule string, find func(*report)) {
	t.Helper()
	r := &report{rule: rule, used: map[string]bool{}}
	find(r)
	for _, a := range allowed {
		if a.rule == rule && !r.used[a.where] {
			r.lines = append(r.lines, fmt.Sprintf("%s: is in the allow-list of %q and needs it no more", a.where, rule))
		}
	}
	for _, line := range r.lines {
		t.Error(line)
	}
}

// offence reports a breach at path:line in the thing called name.
func (r *report) offence(path string, line int, name, message string, args ...any) {
	for _, a := range allowed {
		if a.rule == r.rule && (a.where == path || a.where == path+":"+name || strings.HasPrefix(path, a.where+"/")) {
			r.used[a.where] = true
			return
		}
	}
	r.lines = append(r.lines, fmt.Sprintf("%s:%d: %s: %s", path, line, name, fmt.Sprintf(message, args...)))
}

func TestFunctionsAreShort(t *testing.T) {
	check(t, "function", func(r *report) {
		for _, f := range code(t) {
			for _, d := range f.ast.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && f.span(fn) > maxFunctionLines {
					r.offence(f.path, f.line(fn.Pos()), fn.Name.Name, "%d lines; at most %d: give the parts names", f.span(fn), maxFunctionLines)
				}
			}
		}
	})
}

func TestFilesAndPackagesAreSmall(t *testing.T) {
	check(t, "size", func(r *report) {
		packages := map[string]int{}
		for _, f := range code(t) {
			lines := strings.Count(f.text, "\n")
			packages[f.folder] += lines
			if lines > maxFileLines {
				r.offence(f.path, lines, "file", "%d lines; at most %d: one file, one subject", lines, maxFileLines)
			}
		}
		for folder, lines := range packages {
			limit := maxPackageLines
			if isPolicy(folder) {
				limit = maxPolicyLines
			}
			if lines > limit {
				r.offence(folder, lines, "package", "%d lines; at most %d", lines, limit)
			}
		}
	})
}

func TestPoliciesExportFewNames(t *testing.T) {
	check(t, "exports", func(r *report) {
		exports := map[string][]string{}
		for _, f := range code(t) {
			if isPolicy(f.folder) {
				exports[f.folder] = append(exports[f.folder], exportedNames(f)...)
			}
		}
		for folder, names := range exports {
			if len(names) > maxPolicyExports {
				r.offence(folder, 1, "package", "exports %s; at most %d names", strings.Join(names, ", "), maxPolicyExports)
			}
			if !slices.Contains(names, "Kind") {
				r.offence(folder, 1, "package", "has no Kind for policies/catalog.go")
			}
		}
	})
}

func isPolicy(folder string) bool {
	return strings.HasPrefix(folder, "policies/") && strings.Count(folder, "/") == 1
}

// exportedNames lists the exported names of a file at package level; methods belong to their types.
func exportedNames(f source) (names []string) {
	add := func(id *ast.Ident) {
		if id.IsExported() {
			names = append(names, id.Name)
		}
	}
	for _, d := range f.ast.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				add(d.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					add(spec.Name)
				case *ast.ValueSpec:
					for _, id := range spec.Names {
						add(id)
					}
				}
			}
		}
	}
	return names
}

func TestStructsAndInterfacesAreSmall(t *testing.T) {
	check(t, "types", func(r *report) {
		for _, f := range code(t) {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				switch typ := spec.Type.(type) {
				case *ast.StructType:
					if n := typ.Fields.NumFields(); n > maxStructFields {
						r.offence(f.path, f.line(spec.Pos()), spec.Name.Name, "%d fields; at most %d", n, maxStructFields)
					}
				case *ast.InterfaceType:
					if n := typ.Methods.NumFields(); n > maxInterfaceMethods {
						r.offence(f.path, f.line(spec.Pos()), spec.Name.Name, "%d methods; at most %d", n, maxInterfaceMethods)
					}
				}
				return true
			})
		}
	})
}

func TestExportedNamesAreExplained(t *testing.T) {
	check(t, "docs", func(r *report) {
		packages := map[string]bool{}
		for _, f := range code(t) {
			packages[f.folder] = packages[f.folder] || f.ast.Doc != nil
			for _, d := range f.ast.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Name.IsExported() && d.Doc == nil && receiverExported(d) {
						r.offence(f.path, f.line(d.Pos()), d.Name.Name, "is exported and has no comment")
					}
				case *ast.GenDecl:
					undocumented(f, d, r)
				}
			}
		}
		for folder, explained := range packages {
			if !explained {
				r.offence(folder, 1, "package", "has no package comment")
			}
		}
	})
}

// undocumented reports exported types, constants and variables that neither have a comment nor stand in a group with one.
func undocumented(f source, d *ast.GenDecl, r *report) {
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil {
				r.offence(f.path, f.line(spec.Pos()), spec.Name.Name, "is exported and has no comment")
			}
		case *ast.ValueSpec:
			for _, id := range spec.Names {
				if id.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
					r.offence(f.path, f.line(id.Pos()), id.Name, "is exported and has no comment")
				}
			}
		}
	}
}

func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.IndexListExpr:
			typ = t.X
		case *ast.Ident:
			return t.IsExported()
		default:
			return true
		}
	}
}

// Calls that only cmd/ may make, and those that only the clock may.
var (
	ending = []string{"os.Exit", "log.Fatal", "log.Fatalf", "log.Fatalln", "log.Panic", "log.Panicf", "panic"}
	timing = []string{"time.Now", "time.Since", "time.Until"}
	clocks = []string{"cmd", "internal/clock", "internal/testkit", "internal/demo", "bench", "test"}
)

func TestOnlyTheBinaryEndsTheProcess(t *testing.T) {
	check(t, "exit", func(r *report) {
		for _, f := range code(t) {
			if !f.under("cmd") {
				calls(f, ending, func(n ast.Node, name string) {
					r.offence(f.path, f.line(n.Pos()), name, "only cmd/ ends the process; return an error")
				})
			}
		}
	})
}

func TestOnlyTheClockTellsTheTime(t *testing.T) {
	check(t, "time", func(r *report) {
		for _, f := range code(t) {
			if !slices.ContainsFunc(clocks, f.under) {
				calls(f, timing, func(n ast.Node, name string) {
					r.offence(f.path, f.line(n.Pos()), name, "time comes from the clock.Clock that one is given, or Exchange.Start")
				})
			}
		}
	})
}

// calls finds calls, and uses as a value, of the named functions.
func calls(f source, names []string, found func(ast.Node, string)) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok && slices.Contains(names, pkg.Name+"."+n.Sel.Name) {
				found(n, pkg.Name+"."+n.Sel.Name)
			}
		case *ast.CallExpr:
			if fn, ok := n.Fun.(*ast.Ident); ok && slices.Contains(names, fn.Name) {
				found(n, fn.Name)
			}
		}
		return true
	})
}

func TestNoInitFunctions(t *testing.T) {
	check(t, "init", func(r *report) {
		for _, f := range sources(t) {
			for _, d := range f.ast.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					r.offence(f.path, f.line(fn.Pos()), "init", "what runs before main cannot be read in main")
				}
			}
		}
	})
}

func TestSourcesAreFormatted(t *testing.T) {
	check(t, "format", func(r *report) {
		for _, f := range sources(t) {
			want, err := format.Source([]byte(f.text))
			if err != nil || string(want) != f.text {
				r.offence(f.path, 1, "file", "is not as gofmt writes it")
			}
		}
	})
}

func TestLinesFitOnAScreen(t *testing.T) {
	check(t, "line", func(r *report) {
		for _, f := range sources(t) {
			free := unbreakable(f)
			for i, line := range strings.Split(f.text, "\n") {
				if n := utf8.RuneCountInString(line); n > maxLineLength && !free[i+1] {
					r.offence(f.path, i+1, "line", "%d characters; at most %d", n, maxLineLength)
				}
			}
		}
	})
}

// unbreakable are the lines that Go gives no way to break: those with struct tags and raw strings.
func unbreakable(f source) map[int]bool {
	free := map[int]bool{}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && lit.Value[0] == '`' {
			for l := f.line(lit.Pos()); l <= f.line(lit.End()); l++ {
				free[l] = true
			}
		}
		return true
	})
	return free
}

// unwelcome are words that announce unfinished work, and places that mean nothing to a reader. They are put together from
// pieces so that this file does not break its own rule.
var unwelcome = regexp.MustCompile(`\bTO` + `DO\b|\bFIX` + `ME\b|\bX` + `XX\b|(?i:\bfor` + ` now\b|\bsimpl` + `ified\b|\bplace` + `holder|\bdum` + `my\b|` +
	`not impl` + `emented|unimpl` + `emented)|/work/(ma` + `in|shared|\.library)|pro` + `xy\.golang\.org|registry\.npm` + `js`)

func TestWordsPromiseNothing(t *testing.T) {
	check(t, "words", func(r *report) {
		for _, path := range textFiles(t) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(string(text), "\n") {
				if word := unwelcome.FindString(line); word != "" {
					r.offence(path, i+1, word, "finish it, or say why it is right as it is")
				}
			}
		}
	})
}

func TestReadmeNamesItsTwoCommands(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"make run", "make test"} {
		if !strings.Contains(string(text), command) {
			t.Errorf("README.md does not name %q", command)
		}
	}
}

// codeSpan matches text that is code, in which there are no links.
var codeSpan = regexp.MustCompile("`[^`\n]+`")

// link matches a Markdown link to a file of ours.
var link = regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)]*)?\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	for _, path := range textFiles(t) {
		if !strings.HasSuffix(path, ".md") {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(string(text), ""), -1) {
			if target := relative(path, m[1]); !exists(target) {
				t.Errorf("%s: links to %s, which is not there", path, m[1])
			}
		}
	}
}
