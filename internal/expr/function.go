package expr

import (
	"fmt"
	"net/netip"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Function describes one function of the language beyond CEL's own, for the reference.
type Function struct{ Signature, Doc string }

// Functions lists what is there beyond CEL's operators, its standard functions and its string extensions.
func Functions() []Function {
	return []Function{
		{"inCIDR(address, range)", "Whether an address lies in a CIDR range, or is that address. A text that is not an address lies in none."},
		{"inCIDR(address, [range, range])", "Whether an address lies in any of several ranges."},
	}
}

// asList is the function that rewrite puts where a list is needed; the @ keeps it out of users' reach.
const asList = "@list"

func functions() []cel.EnvOption {
	list := cel.ListType(cel.DynType)
	return []cel.EnvOption{
		cel.Function(asList, cel.Overload("dyn_as_list", []*cel.Type{cel.DynType}, list, cel.UnaryBinding(toList))),
		cel.Function("inCIDR",
			cel.Overload("in_cidr", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType, cel.BinaryBinding(inCIDR)),
			cel.Overload("in_cidrs", []*cel.Type{cel.StringType, cel.ListType(cel.StringType)}, cel.BoolType, cel.BinaryBinding(inAny)),
		),
	}
}

func toList(v ref.Val) ref.Val {
	switch t := v.(type) {
	case traits.Lister, traits.Mapper:
		return v
	case types.String:
		if t == "" {
			return types.NewRefValList(types.DefaultTypeAdapter, nil)
		}
	}
	return types.NewRefValList(types.DefaultTypeAdapter, []ref.Val{v})
}

// ParseRange reads a CIDR range, or an address as the range of itself. An IPv4 range may be written as IPv4-mapped IPv6.
func ParseRange(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, rangeError(s)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, rangeError(s)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, rangeError(s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

func rangeError(s string) error {
	return fmt.Errorf("%q is neither an address nor a range such as 10.0.0.0/8 or 2001:db8::/32", s)
}

// InRange reports whether the address lies in the range, also when it is IPv4-mapped or has a zone.
func InRange(a netip.Addr, p netip.Prefix) bool { return p.Contains(a.Unmap().WithZone("")) }

func inCIDR(address, in ref.Val) ref.Val {
	p, err := ParseRange(string(in.(types.String)))
	if err != nil {
		return types.WrapErr(err)
	}
	a, err := netip.ParseAddr(string(address.(types.String)))
	return types.Bool(err == nil && InRange(a, p))
}

func inAny(address, in ref.Val) ref.Val {
	list := in.(traits.Lister)
	n, _ := list.Size().(types.Int)
	for i := range n {
		text, ok := list.Get(i).(types.String)
		if !ok {
			return types.NewErr("inCIDR needs ranges as texts")
		}
		if r := inCIDR(address, text); r != types.False {
			return r
		}
	}
	return types.False
}
