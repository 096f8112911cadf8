package release

import (
	"errors"
	"maps"
	"slices"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
)

var errAllZero = errors.New("all weights of the split are 0")

func sortedNames(m map[string]model.Variant) []string { return slices.Sorted(maps.Keys(m)) }

// compile settles what decides, and finds what the document's types cannot say.
func (s *Split) compile(m *model.Split, e Env) error {
	var errs []error
	var err error
	if m.By != "" {
		if s.key, err = e.Expr.String(m.By); err != nil {
			errs = append(errs, decode.At("by", "%w", err))
		}
	}
	if m.Allow != "" {
		if s.allow, err = e.Expr.Bool(m.Allow); err != nil {
			errs = append(errs, decode.At("allow_override", "%w", err))
		}
	}
	named := m.Header != "" || m.Cookie != ""
	if m.Allow != "" && !named {
		errs = append(errs, decode.At("allow_override", "nothing can be overridden; write header or cookie, which may name a variant"))
	}
	if m.Header != "" && !exchange.ValidName(m.Header) {
		errs = append(errs, decode.At("header", "%q cannot be the name of a header field; write one such as X-Variant", m.Header))
	}
	if m.Cookie != "" && !exchange.ValidName(m.Cookie) {
		errs = append(errs, decode.At("cookie", "%q cannot be the name of a cookie; write one such as variant", m.Cookie))
	}
	if !named && !weighted(m) {
		errs = append(errs, decode.At("variants", "all weights are 0, and nothing overrides them; give one of the variants a weight"))
	}
	return errors.Join(errs...)
}

// weighted reports whether some variant has a weight at some time.
func weighted(m *model.Split) bool {
	for _, v := range m.Variants {
		if v.Weight > 0 || v.Ramp != nil && v.Ramp.To > 0 {
			return true
		}
	}
	return false
}
