package model

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Policy is one entry of a list of policies: a kind with its options, and the envelope that every policy has.
//
//   - api-key                       # a kind with its defaults
//   - rate-limit: {limit: 100, per: 1m}
//     when: consumer != ""          # the envelope stands beside the kind
//     mode: shadow
//   - any: [api-key, jwt: {...}]    # several ways to log in: one of them, or all
type Policy struct {
	Kind    string
	Options *yaml.Node // nil: the kind's defaults
	Group   []Policy   // of kind any or all
	Envelope
}

// Envelope is what every policy has besides its own options.
type Envelope struct {
	Name    string `yaml:"name" doc:"Tells two policies of one kind apart in logs, metrics and explain."`
	When    string `yaml:"when" doc:"An expression; the policy is left out where it is false."`
	Mode    string `yaml:"mode" oneof:"enforce shadow" doc:"shadow evaluates, records what it would have done and lets pass."`
	OnError string `yaml:"on_error" oneof:"reject allow" doc:"When the policy itself breaks."`
	Stage   string `yaml:"stage" oneof:"admit identify authorize limit validate shape cache" doc:"Instead of the kind's own."`
}

// envelopeKeys are the keys of an entry that are not a kind.
var envelopeKeys = []string{"name", "when", "mode", "on_error", "stage"}

// EnvelopeKey reports whether the key belongs to the envelope.
func EnvelopeKey(key string) bool {
	for _, k := range envelopeKeys {
		if k == key {
			return true
		}
	}
	return false
}

// GroupKind reports whether the kind is a group of policies: any or all.
func GroupKind(kind string) bool { return kind == "any" || kind == "all" }

// SplitMatch reads the short form of a match: "METHOD[,METHOD] /path", or "/path" alone for every method.
func SplitMatch(s string) (methods []string, path string, err error) {
	fields := strings.Fields(s)
	switch {
	case len(fields) == 1:
		path = fields[0]
	case len(fields) == 2:
		methods, path = strings.Split(fields[0], ","), fields[1]
	default:
		return nil, "", fmt.Errorf("%q is not a match; write METHOD /path, such as GET /orders/{id}", s)
	}
	return methods, path, nil
}

// FromScalar reads the short form of a match.
func (m *Match) FromScalar(s string) (err error) {
	m.Methods, m.Path, err = SplitMatch(s)
	return err
}
