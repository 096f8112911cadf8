package jose

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"
)

// Claims is the payload of a verified token. It is immutable.
type Claims struct{ members map[string]any }

// ParseClaims reads a payload: one JSON object, every member once at every depth.
func ParseClaims(payload []byte) (*Claims, error) {
	if !bytes.HasPrefix(bytes.TrimLeft(payload, " \t\r\n"), []byte("{")) || !utf8.Valid(payload) {
		return nil, errors.New("its payload is not a JSON object in UTF-8")
	}
	c := &Claims{}
	if err := json.Unmarshal(payload, &c.members); err != nil {
		return nil, fmt.Errorf("its claims cannot be read: %w", err)
	}
	return c, nil
}

// Claim returns a claim by its dotted path: a string, bool, float64, []any, map[string]any, or nil when there is none. A
// name that has dots itself (https://example.com/roles) is found as well; the longest name wins.
func (c *Claims) Claim(path string) any {
	if c == nil {
		return nil
	}
	return lookup(c.members, path)
}

func lookup(members map[string]any, path string) any {
	if v, ok := members[path]; ok {
		return v
	}
	for end := strings.LastIndexByte(path, '.'); end > 0; end = strings.LastIndexByte(path[:end], '.') {
		inner, ok := members[path[:end]].(map[string]any)
		if !ok {
			continue
		}
		if v := lookup(inner, path[end+1:]); v != nil {
			return v
		}
	}
	return nil
}

// maxSeconds is far beyond any date that tokens mean, and small enough for time.Unix.
const maxSeconds = 1 << 40

// Time returns a NumericDate (RFC 7519 section 2): seconds since 1970, possibly with a fraction. ok is false when there is
// no such claim; a claim of another type is an error.
func (c *Claims) Time(name string) (t time.Time, ok bool, err error) {
	v, there := c.members[name]
	if !there {
		return t, false, nil
	}
	seconds, number := v.(float64)
	if !number {
		return t, false, fmt.Errorf("its %s is not a number", name)
	}
	whole, fraction := math.Modf(max(-maxSeconds, min(seconds, maxSeconds)))
	return time.Unix(int64(whole), int64(fraction*1e9)), true, nil
}

// Strings returns a claim that is a text or a list of texts, such as aud (RFC 7519 section 4.1.3).
func (c *Claims) Strings(name string) ([]string, error) {
	switch v := c.members[name].(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		list := make([]string, len(v))
		for i := range v {
			s, ok := v[i].(string)
			if !ok {
				return nil, fmt.Errorf("its %s has something else than text in it", name)
			}
			list[i] = s
		}
		return list, nil
	}
	return nil, fmt.Errorf("its %s is neither text nor a list of texts", name)
}
