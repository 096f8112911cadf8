package decode

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"headgate/internal/size"
	"headgate/internal/text"
)

// constrain checks min, max, oneof and pattern of a decoded value.
func (d *decoder) constrain(n *yaml.Node, v reflect.Value, tag reflect.StructTag) bool {
	if tag == "" || v.Kind() == reflect.Pointer {
		return true
	}
	good := d.bounds(n, v, tag)
	if v.Kind() == reflect.Slice || v.Kind() == reflect.Map {
		return good
	}
	if set := tag.Get("oneof"); set != "" {
		good = d.oneOf(n, v, strings.Fields(set)) && good
	}
	if pattern := tag.Get("pattern"); pattern != "" && v.Kind() == reflect.String {
		good = d.pattern(n, v.String(), pattern) && good
	}
	return good
}

// elementTag is what of the tag of a list or map holds for each element: never min and max, which are its length's.
func elementTag(tag reflect.StructTag, keys ...string) reflect.StructTag {
	var b strings.Builder
	for _, key := range keys {
		if value := tag.Get(key); value != "" {
			fmt.Fprintf(&b, "%s:%q ", key, value)
		}
	}
	return reflect.StructTag(b.String())
}

func (d *decoder) bounds(n *yaml.Node, v reflect.Value, tag reflect.StructTag) bool {
	low, high := tag.Get("min"), tag.Get("max")
	if low == "" && high == "" {
		return true
	}
	below, above := low != "" && compare(v, low) < 0, high != "" && compare(v, high) > 0
	if !below && !above {
		return true
	}
	what := "is"
	switch v.Kind() {
	case reflect.String:
		what = "has " + strconv.Itoa(v.Len()) + " bytes; its length is"
	case reflect.Slice, reflect.Map:
		d.problem(n, "out_of_range", "%d entries; allowed %s", v.Len(), between(low, high))
		return false
	}
	if what == "is" {
		d.problem(n, "out_of_range", "%s is out of range; allowed %s", d.describe(n), between(low, high))
	} else {
		d.problem(n, "out_of_range", "%s %s %s", d.describe(n), what, between(low, high))
	}
	return false
}

func between(low, high string) string {
	switch {
	case high == "":
		return low + " or more"
	case low == "":
		return "up to " + high
	}
	return low + " to " + high
}

// compare compares a value with a bound as written in a tag. A bound that cannot be read compares equal; the tests of
// the schema find those.
func compare(v reflect.Value, bound string) int {
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		if b, err := time.ParseDuration(bound); err == nil {
			return sign(v.Int(), int64(b))
		}
	case v.Type() == reflect.TypeFor[size.Bytes]():
		if b, err := size.Parse(bound); err == nil {
			return sign(v.Int(), int64(b))
		}
	case v.Kind() == reflect.String || v.Kind() == reflect.Slice || v.Kind() == reflect.Map:
		if b, err := strconv.ParseInt(bound, 10, 64); err == nil {
			return sign(int64(v.Len()), b)
		}
	case v.CanInt():
		if b, err := strconv.ParseInt(bound, 10, 64); err == nil {
			return sign(v.Int(), b)
		}
	case v.CanUint():
		if b, err := strconv.ParseUint(bound, 10, 64); err == nil {
			return sign(v.Uint(), b)
		}
	case v.CanFloat():
		if b, err := strconv.ParseFloat(bound, 64); err == nil {
			return sign(v.Float(), b)
		}
	}
	return 0
}

func sign[T int64 | uint64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (d *decoder) oneOf(n *yaml.Node, v reflect.Value, set []string) bool {
	found := fmt.Sprint(v.Interface())
	if slices.Contains(set, found) {
		return true
	}
	hint := ""
	shown := d.describe(n)
	if shown != masked && len(d.problems) <= maxProblems {
		hint = text.DidYouMean(found, set)
	}
	d.problem(n, "not_one_of", "%s is not allowed; write %s%s", shown, text.List(set), hint)
	return false
}

func (d *decoder) pattern(n *yaml.Node, value, pattern string) bool {
	re := d.patterns[pattern]
	if re == nil {
		var err error
		if re, err = regexp.Compile(pattern); err != nil {
			d.problem(n, "unsupported_type", "the pattern %s of this key cannot be read: %v", pattern, err)
			return false
		}
		if d.patterns == nil {
			d.patterns = map[string]*regexp.Regexp{}
		}
		d.patterns[pattern] = re
	}
	if re.MatchString(value) {
		return true
	}
	d.problem(n, "bad_pattern", "%s %s", d.describe(n), mustMatch(pattern))
	return false
}

// mustMatch says what a pattern asks for; the common one in words.
func mustMatch(pattern string) string {
	if pattern == "^/" {
		return "must begin with /"
	}
	return "must match the regular expression " + pattern
}
