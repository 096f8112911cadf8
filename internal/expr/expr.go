// Package expr compiles small typed expressions in CEL (the Common Expression Language, cel.dev) and runs them many
// times. It knows nothing of requests: its user names the variables and hands in their values.
//
// It differs from plain CEL where plain CEL would surprise somebody who writes a gateway's document:
//
//   - A name that a table does not have reads as "" instead of breaking the evaluation; has(t.name) and "name" in t tell
//     the difference.
//   - A path into a table of any values (t.a.b) is one lookup of "a.b".
//   - Where a list is needed, a text from such a table is a list of one, and "" is the empty list: the audience of a
//     token may be one or several (RFC 7519 section 4.1.3).
//   - The name in a table of texts may have dashes: header.x-tenant is header["x-tenant"], since texts cannot be
//     subtracted.
//
// CEL's environment is built when the first expression is compiled: programs without one do not pay for it.
package expr

import (
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"
)

const (
	// MaxSource bounds an expression in bytes: documents from many authors must not buy minutes of parsing.
	MaxSource = 4096
	// maxNodes bounds the tree after macros: nested macros multiply their text.
	maxNodes = 2000
	// maxDepth bounds the recursion of parsing and checking.
	maxDepth = 50
	// maxLoops bounds loops inside loops: each level multiplies the cost by the length of what the client sent.
	maxLoops = 2
	// maxCost bounds one evaluation, in CEL's units (about one for each step or ten bytes of text handled): a client that
	// sends a huge header must not buy seconds of looping.
	maxCost = 100_000
	// maxRegexp bounds a compiled regular expression: counted repetition multiplies.
	maxRegexp = 2000
)

// Type is what a variable holds, or what an expression must give.
type Type uint8

// The types.
const (
	Bool   Type = iota // bool
	Int                // int
	Text               // string
	List               // []string
	Texts              // Table of strings
	Values             // Table of anything that JSON has
	Time               // time.Time
)

// String returns the type as the reference prints it.
func (t Type) String() string {
	return [...]string{"bool", "int", "text", "list of texts", "table of texts", "table of values", "time"}[t]
}

func (t Type) cel() *cel.Type {
	return [...]*cel.Type{
		cel.BoolType, cel.IntType, cel.StringType, cel.ListType(cel.StringType),
		cel.MapType(cel.StringType, cel.StringType), cel.MapType(cel.StringType, cel.DynType), cel.TimestampType,
	}[t]
}

// Variable is one name that expressions may use. Name may have dots.
type Variable struct {
	Name string
	Type Type
	Doc  string
}

// Language is a set of variables whose values are found in an S. It is safe for concurrent use.
type Language[S any] struct {
	words
	value func(S, string) any
	env   func() (*cel.Env, error)
}

// words is what the language has names for.
type words struct{ vars []Variable }

// New returns the language with these variables. For each evaluation value returns a bool, int, string, []string,
// time.Time or Table by the variable's name, as declared. New costs nothing until an expression is compiled.
func New[S any](vars []Variable, value func(s S, name string) any) *Language[S] {
	l := &Language[S]{words: words{vars}, value: value}
	l.env = sync.OnceValues(l.build)
	return l
}

func (l *Language[S]) build() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.CustomTypeAdapter(adapter{types.DefaultTypeAdapter}),
		cel.ParserExpressionSizeLimit(MaxSource),
		cel.ParserRecursionLimit(maxDepth),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegexp),
		cel.CrossTypeNumericComparisons(true),
		cel.ASTValidators(
			cel.ValidateRegexLiterals(), cel.ValidateRegexProgramSizeLimit(maxRegexp),
			cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(),
			cel.ValidateComprehensionNestingLimit(maxLoops)),
		cel.EnableIdentifierEscapeSyntax(), // undash writes it
		ext.Strings(),
	}
	options = append(options, functions()...)
	for _, v := range l.vars {
		options = append(options, cel.VariableWithDoc(v.Name, v.Type.cel(), v.Doc))
	}
	return cel.NewEnv(options...)
}

// Program is a compiled expression. It is safe for concurrent use.
type Program[S any] struct {
	program     cel.Program
	activations sync.Pool
}

// Compile compiles an expression that must give a Bool or a Text. A Text may also come from a number, a bool or a list:
// see Print. Errors are of type *Error.
func (l *Language[S]) Compile(src string, want Type) (*Program[S], error) {
	if len(src) > MaxSource {
		return nil, &Error{1, 1, fmt.Sprintf("the expression has %d bytes; at most %d are allowed", len(src), MaxSource)}
	}
	if !utf8.ValidString(src) {
		return nil, &Error{1, 1, "the expression is not valid UTF-8"}
	}
	env, err := l.env()
	if err != nil {
		return nil, err
	}
	plain, shift := l.undash(src)
	parsed, issues := env.Parse(plain)
	if issues.Err() != nil {
		return nil, l.explain(src, issues, shift)
	}
	if err := l.rewrite(parsed.NativeRep()); err != nil {
		return nil, shift.move(err)
	}
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		return nil, l.explain(src, issues, shift)
	}
	if err := fits(checked.OutputType(), want); err != nil {
		return nil, err
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost),
		cel.OptimizeRegex(interpreter.MatchesRegexOptimization))
	if err != nil {
		return nil, &Error{1, 1, err.Error()}
	}
	p := &Program[S]{program: program}
	p.activations.New = func() any { return &activation[S]{value: l.value} }
	return p, nil
}

// fits reports whether what an expression gives can become what is wanted.
func fits(given *cel.Type, want Type) error {
	switch kind := given.Kind(); {
	case kind == types.DynKind, kind == types.BoolKind:
		return nil
	case want == Text && (kind == types.StringKind || kind == types.IntKind || kind == types.UintKind ||
		kind == types.DoubleKind || kind == types.ListKind || kind == types.NullTypeKind):
		return nil
	case want == Bool:
		return &Error{1, 1, fmt.Sprintf(`the expression gives %s; true or false is needed, as from ==, in or has()`, article(given))}
	default:
		return &Error{1, 1, fmt.Sprintf("the expression gives %s; a text, number, bool or list is needed", article(given))}
	}
}

// activation hands the variables of one evaluation to CEL.
type activation[S any] struct {
	value func(S, string) any
	s     S
}

// ResolveName implements cel.Activation.
func (a *activation[S]) ResolveName(name string) (any, bool) {
	v := a.value(a.s, name)
	return v, v != nil
}

// Parent implements cel.Activation.
func (a *activation[S]) Parent() cel.Activation { return nil }

func (p *Program[S]) eval(s S) (ref.Val, error) {
	a := p.activations.Get().(*activation[S])
	a.s = s
	v, _, err := p.program.Eval(a)
	var none S
	a.s = none
	p.activations.Put(a)
	return v, err
}

var errNotBool = errors.New("the expression gave neither true nor false")

// Bool evaluates an expression that was compiled to give one. A missing value is false. Errors say why there is no
// answer: what the client sent does not have the expected type, or costs too much to look at.
func (p *Program[S]) Bool(s S) (bool, error) {
	v, err := p.eval(s)
	if err != nil {
		return false, err
	}
	switch v := v.(type) {
	case types.Bool:
		return bool(v), nil
	case types.String:
		if v == "" {
			return false, nil
		}
	case types.Null:
		return false, nil
	}
	return false, errNotBool
}

// Text evaluates an expression that was compiled to give one.
func (p *Program[S]) Text(s S) (string, error) {
	v, err := p.eval(s)
	if err != nil {
		return "", err
	}
	return printVal(v)
}
