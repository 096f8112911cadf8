package expr

import (
	"errors"
	"reflect"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Table is a variable that has values by name.
type Table interface {
	// Find returns the value of that name: a string, or for a table of values anything that JSON has.
	Find(name string) (value any, ok bool)
	// Names returns the names of the table; loops and size() ask for them.
	Names() []string
}

// Print turns a value into text: a text as it is, true and false, a number without needless digits, a list with commas
// between its elements, nothing for null. Anything else (a list in a list, an object) is an error.
func Print(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case float64:
		return printFloat(v), nil
	case []string:
		return strings.Join(v, ","), nil
	case []any:
		return join(len(v), func(i int) (string, error) { return printFlat(v[i]) })
	}
	return "", errNotText
}

var errNotText = errors.New("the expression gave an object or a list of lists, which is not a text")

func printFlat(v any) (string, error) {
	switch v.(type) {
	case []any, []string:
		return "", errNotText
	}
	return Print(v)
}

func printVal(v ref.Val) (string, error) {
	switch v := v.(type) {
	case types.String:
		return string(v), nil
	case types.Bool:
		return strconv.FormatBool(bool(v)), nil
	case types.Int:
		return strconv.FormatInt(int64(v), 10), nil
	case types.Uint:
		return strconv.FormatUint(uint64(v), 10), nil
	case types.Double:
		return printFloat(float64(v)), nil
	case types.Null:
		return "", nil
	case traits.Lister:
		n, _ := v.Size().(types.Int)
		return join(int(n), func(i int) (string, error) {
			element := v.Get(types.Int(i))
			if _, nested := element.(traits.Lister); nested {
				return "", errNotText
			}
			return printVal(element)
		})
	}
	return "", errNotText
}

// printFloat writes whole numbers without an exponent as far as a JSON number is exact: user ids are numbers in some
// tokens.
func printFloat(f float64) string {
	const exact = 1 << 53
	if f > -exact && f < exact {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func join(n int, element func(int) (string, error)) (string, error) {
	var b strings.Builder
	for i := range n {
		s, err := element(i)
		if err != nil {
			return "", err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

// adapter makes CEL values of Go's.
type adapter struct{ types.Adapter }

// NativeToValue implements types.Adapter.
func (a adapter) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case Table:
		return table{v, a}
	case []string:
		return types.NewStringList(a, v)
	}
	return a.Adapter.NativeToValue(v)
}

// table is a Table as CEL sees it: a map that has every name.
type table struct {
	Table
	adapter adapter
}

// Find implements traits.Mapper; a name that is not there reads as "".
func (t table) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key), false
	}
	v, ok := t.Table.Find(string(name))
	if !ok || v == nil {
		return types.String(""), true
	}
	return t.adapter.NativeToValue(v), true
}

// Get implements traits.Indexer.
func (t table) Get(key ref.Val) ref.Val {
	v, _ := t.Find(key)
	return v
}

// Contains implements traits.Container.
func (t table) Contains(key ref.Val) ref.Val {
	name, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key)
	}
	_, ok = t.Table.Find(string(name))
	return types.Bool(ok)
}

// Iterator implements traits.Iterable.
func (t table) Iterator() traits.Iterator {
	return types.NewStringList(t.adapter, t.Names()).Iterator()
}

// Size implements traits.Sizer.
func (t table) Size() ref.Val { return types.Int(len(t.Names())) }

// ConvertToNative implements ref.Val; nothing asks for it.
func (t table) ConvertToNative(reflect.Type) (any, error) {
	return nil, errors.New("a table has no native form")
}

// ConvertToType implements ref.Val.
func (t table) ConvertToType(to ref.Type) ref.Val {
	switch to {
	case types.MapType:
		return t
	case types.TypeType:
		return types.MapType
	}
	return types.NewErr("a table cannot become %v", to)
}

// Equal implements ref.Val; tables are not compared.
func (t table) Equal(ref.Val) ref.Val { return types.False }

// Type implements ref.Val.
func (t table) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (t table) Value() any { return t.Table }
