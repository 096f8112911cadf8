// Package compress is the policy compress: it compresses replies for clients that can read them so.
package compress

import (
	"errors"
	"slices"
	"strings"

	"headgate/config/decode"
	"headgate/gateway/policy"
	"headgate/internal/size"
)

// Config is the options of compress.
type Config struct {
	Encodings []string   `yaml:"encodings" oneof:"zstd br gzip" doc:"What is offered; of several that a client likes equally well the first is taken."`
	Types     []string   `yaml:"types" doc:"Media types that are worth it: type/subtype, type/*, or type/*+suffix."`
	MinSize   size.Bytes `yaml:"min_size" doc:"Smaller replies stay as they are. One whose length is not known ahead is compressed."`
	Level     string     `yaml:"level" oneof:"fast balanced best" doc:"How much work is spent on each reply."`
}

func defaults() Config {
	return Config{
		Encodings: []string{"zstd", "br", "gzip"},
		Types: []string{
			"text/*", "application/json", "application/*+json", "application/xml", "application/*+xml", "application/javascript",
			"application/wasm", "application/x-ndjson", "image/svg+xml",
		},
		MinSize: size.KiB, Level: "fast",
	}
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "compress",
	Summary: "Compresses replies for clients that can read them so.",
	Stage:   policy.Shape,
	Default: defaults,
	Check:   check,
	Build:   build,
})

func check(c Config) error {
	var wrong []error
	if len(c.Encodings) == 0 {
		wrong = append(wrong, decode.At("encodings", "nothing is offered; name at least one of zstd, br and gzip"))
	}
	for i, t := range c.Types {
		kind, subtype, ok := strings.Cut(t, "/")
		if !ok || kind == "" || subtype == "" || kind == "*" || strings.ContainsAny(t, " ;,") || strings.Count(t, "*") > 1 ||
			strings.Contains(subtype, "*") && subtype != "*" && !strings.HasPrefix(subtype, "*+") {
			wrong = append(wrong, decode.At("types."+itoa(i), "%q is not a media type; write type/subtype, type/* or type/*+suffix", t))
		}
	}
	return errors.Join(wrong...)
}

func build(c Config, e policy.Env) (policy.Hooks, error) {
	p := &compressor{offers: newOffers(c.Encodings, c.Level), minSize: int64(c.MinSize), running: policy.Slot[*stream](e)}
	for _, t := range c.Types {
		p.types = append(p.types, strings.ToLower(t))
	}
	slices.Sort(p.types)
	return policy.Hooks{Response: policy.Step{Now: p.decide}, ResponseBody: p.wrap, Done: p.done}, nil
}
