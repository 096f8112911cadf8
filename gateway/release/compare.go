package release

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
)

// comparison says what of two answers must be alike.
type comparison struct {
	status  bool
	headers []string
	body    string // off, bytes or json
	ignore  [][]string
	limit   int
}

// The kinds of differences.
const (
	inStatus = "status"
	inHeader = "header"
	inBody   = "body"
)

// difference is one kind of difference; where names the field or the place in the JSON value, and never what stands there,
// which may be a secret or somebody's own.
type difference struct{ kind, where string }

// answer is what is kept of an answer to compare it.
type answer struct {
	status   int
	fields   []string // of comparison.headers
	encoding string
	body     []byte
	known    bool // body is all of it
}

func newComparison(m *model.MirrorCompare) (*comparison, error) {
	if m == nil {
		return nil, nil
	}
	c := &comparison{status: m.Status, headers: m.Headers, body: m.Body, limit: int(m.MaxBody)}
	var errs []error
	if !m.Status && len(m.Headers) == 0 && m.Body == "off" {
		errs = append(errs, decode.At("", "nothing is compared; write status: true, headers or body, or leave compare out"))
	}
	for i, h := range m.Headers {
		if !exchange.ValidName(h) {
			errs = append(errs, decode.At("headers."+strconv.Itoa(i), "%q cannot be the name of a header field", h))
		}
	}
	if len(m.Ignore) > 0 && m.Body != "json" {
		errs = append(errs, decode.At("ignore", "only JSON values have paths, and body is %s", m.Body))
	}
	for i, path := range m.Ignore {
		steps := strings.Split(path, ".")
		if slices.Contains(steps, "") {
			errs = append(errs, decode.At("ignore."+strconv.Itoa(i), "%q is not a path; write one such as meta.time or items.*.id", path))
		}
		c.ignore = append(c.ignore, steps)
	}
	return c, errors.Join(errs...)
}

// head keeps what is compared of a reply's head.
func (c *comparison) head(r *exchange.Reply) *answer {
	a := &answer{status: r.Status, encoding: strings.ToLower(r.Header.Get("Content-Encoding")), known: r.Body.Reader == nil}
	for _, h := range c.headers {
		a.fields = append(a.fields, r.Header.Joined(h))
	}
	return a
}

// bodies reports whether bodies are compared.
func (c *comparison) bodies() bool { return c.body != "off" }

// differences returns how b differs from a. compared is false when not all of it could be looked at: a body is too large,
// did not come to its end, or is encoded in a way that is not read here.
func (c *comparison) differences(a, b *answer) (list []difference, compared bool) {
	if c.status && a.status != b.status {
		list = append(list, difference{inStatus, strconv.Itoa(a.status) + " and " + strconv.Itoa(b.status)})
	}
	for i, h := range c.headers {
		if a.fields[i] != b.fields[i] {
			list = append(list, difference{inHeader, h})
		}
	}
	if !c.bodies() {
		return list, true
	}
	where, alike, compared := c.compareBodies(a, b)
	if compared && !alike {
		list = append(list, difference{inBody, where})
	}
	return list, compared
}

func (c *comparison) compareBodies(a, b *answer) (where string, alike, compared bool) {
	switch {
	case !a.known || !b.known:
		return "", false, false
	case a.encoding == b.encoding && bytes.Equal(a.body, b.body):
		return "", true, true
	case c.body == "bytes":
		return "", false, true
	}
	x, okA := a.plain(c.limit)
	y, okB := b.plain(c.limit)
	if !okA || !okB {
		return "", false, false
	}
	v, okA := parse(x)
	w, okB := parse(y)
	if !okA || !okB { // of what is no JSON the bytes count
		return "", bytes.Equal(x, y), true
	}
	where, alike = c.alike(v, w, nil)
	return where, alike, true
}

// plain is the body without its encoding.
func (a *answer) plain(limit int) ([]byte, bool) {
	switch a.encoding {
	case "", "identity":
		return a.body, true
	case "gzip", "x-gzip":
	default:
		return nil, false
	}
	z, err := gzip.NewReader(bytes.NewReader(a.body))
	if err != nil {
		return nil, false
	}
	plain, err := io.ReadAll(io.LimitReader(z, int64(limit)+1))
	return plain, err == nil && len(plain) <= limit
}

// parse reads one JSON value and nothing behind it.
func parse(b []byte) (v any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil, false
	}
	_, err := d.Token()
	return v, errors.Is(err, io.EOF)
}

// alike compares two JSON values and returns where they differ first.
func (c *comparison) alike(a, b any, path []string) (where string, same bool) {
	if c.ignored(path) {
		return "", true
	}
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			return c.objects(x, y, path)
		}
	case []any:
		if y, ok := b.([]any); ok {
			return c.lists(x, y, path)
		}
	case json.Number:
		if y, ok := b.(json.Number); ok && sameNumber(x, y) {
			return "", true
		}
	default:
		if a == b { // texts, booleans and null: nothing else is left
			return "", true
		}
	}
	return strings.Join(path, "."), false
}

func (c *comparison) objects(a, b map[string]any, path []string) (where string, same bool) {
	for _, key := range slices.Sorted(maps.Keys(a)) {
		y, there := b[key]
		at := append(path, key)
		if !there && !c.ignored(at) {
			return strings.Join(at, "."), false
		}
		if !there {
			continue
		}
		if where, same := c.alike(a[key], y, at); !same {
			return where, false
		}
	}
	for _, key := range slices.Sorted(maps.Keys(b)) {
		at := append(path, key)
		if _, there := a[key]; !there && !c.ignored(at) {
			return strings.Join(at, "."), false
		}
	}
	return "", true
}

func (c *comparison) lists(a, b []any, path []string) (where string, same bool) {
	for i := range min(len(a), len(b)) {
		if where, same := c.alike(a[i], b[i], append(path, strconv.Itoa(i))); !same {
			return where, false
		}
	}
	if len(a) != len(b) {
		return strings.Join(append(path, strconv.Itoa(min(len(a), len(b)))), "."), false
	}
	return "", true
}

// sameNumber compares numbers by their value where one is written with a point or an exponent. Whole ones may be larger than
// a float64 can tell apart.
func sameNumber(a, b json.Number) bool {
	if a == b {
		return true
	}
	if !strings.ContainsAny(string(a), ".eE") && !strings.ContainsAny(string(b), ".eE") {
		return false
	}
	x, errX := a.Float64()
	y, errY := b.Float64()
	return errX == nil && errY == nil && x == y
}

// ignored reports whether what stands at the path may differ. A star stands for any name or index.
func (c *comparison) ignored(path []string) bool {
	return slices.ContainsFunc(c.ignore, func(steps []string) bool {
		return slices.EqualFunc(steps, path, func(step, name string) bool { return step == "*" || step == name })
	})
}
