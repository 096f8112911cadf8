package policy

import (
	"reflect"

	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/gateway/exchange"
)

// Spec is what the author of a policy writes. C is its own config struct; C's tags (yaml, doc, required, min, max,
// oneof, pattern, literal) are the one source of the decoder, the checks, the JSON Schema, the form and the reference page.
type Spec[C any] struct {
	Name, Summary string
	Stage         Stage
	Codes         []exchange.Code             // the problems that it answers with
	Default       func() C                    // nil: the zero value
	Check         func(C) error               // what tags cannot say; decode.At("window", ...) points into the YAML
	Build         func(C, Env) (Hooks, error) // pure wiring: no goroutine, no dial
}

// Info is what is known of a kind of policy without its options.
type Info struct {
	Name, Summary string
	Stage         Stage
	Codes         []exchange.Code
	Config        reflect.Type // the config struct, for the schema and the reference
	Default       any          // its default value
}

// Kind is a Spec with its config type erased, so that forty fit in one list.
type Kind struct {
	Info
	build func(*yaml.Node, Env) (Hooks, decode.Problems)
}

// New erases the config type of a Spec.
func New[C any](s Spec[C]) Kind {
	if s.Default == nil {
		s.Default = func() (c C) { return c }
	}
	info := Info{s.Name, s.Summary, s.Stage, s.Codes, reflect.TypeFor[C](), s.Default()}
	return Kind{info, func(node *yaml.Node, env Env) (Hooks, decode.Problems) {
		c := s.Default()
		if ps := decode.Value(node, &c); len(ps) > 0 {
			return Hooks{}, ps
		}
		if s.Check != nil {
			if err := s.Check(c); err != nil {
				return Hooks{}, decode.Locate(node, err)
			}
		}
		hooks, err := s.Build(c, env)
		if err != nil {
			return Hooks{}, decode.Locate(node, err)
		}
		return hooks, nil
	}}
}

// Build decodes a policy's options, checks them and wires its hooks; node may be nil for the defaults. Problems have
// line, column and the path below the options, but no file.
func (k Kind) Build(node *yaml.Node, env Env) (Hooks, decode.Problems) {
	return k.build(node, env)
}
