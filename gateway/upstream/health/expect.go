package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/internal/expr"
)

// maxProbeBody is how much of a probe's answer is read, and looked at: a service that answers with more is not let fill the
// memory.
const maxProbeBody = 64 << 10

// expectation is what the answer to a probe by HTTP must be.
type expectation struct {
	status []int // none: 200 to 399
	body   *regexp.Regexp
	json   *expr.Program[object]
	source string // of json
}

// language is what is said about a body in JSON.
func language() *expr.Language[object] {
	return expr.New([]expr.Variable{{Name: "json", Type: expr.Values, Doc: "The body, an object."}},
		func(o object, name string) any {
			if name == "json" {
				return o
			}
			return nil
		})
}

// compile compiles what a document expects; nil expects 200 to 399. Errors point into expect.
func compile(m *model.HealthExpect) (*expectation, error) {
	e := new(expectation)
	if m == nil {
		return e, nil
	}
	e.status = m.Status
	for i, s := range m.Status {
		if s < 100 || s > 599 {
			return nil, decode.At(fmt.Sprintf("status.%d", i), "%d is not a status; between 100 and 599", s)
		}
	}
	var err error
	if m.Body != "" {
		if e.body, err = regexp.Compile(m.Body); err != nil {
			return nil, decode.At("body", "%w", err)
		}
	}
	if e.source = m.JSON; m.JSON != "" {
		if e.json, err = language().Compile(m.JSON, expr.Bool); err != nil {
			return nil, decode.At("json", "%w", err)
		}
	}
	return e, nil
}

// meets says why an answer is not what is expected, or nil. Its body is read, but not closed.
func (e *expectation) meets(answer *http.Response, url string) error {
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxProbeBody+1))
	if err != nil {
		return err
	}
	whole := len(body) <= maxProbeBody
	body = body[:min(len(body), maxProbeBody)]
	status := answer.StatusCode
	switch {
	case len(e.status) > 0 && !slices.Contains(e.status, status):
		return &unwell{probeStatus, fmt.Sprintf("GET %s answered %d; %s is expected", url, status, numbers(e.status))}
	case len(e.status) == 0 && (status < 200 || status > 399):
		return &unwell{probeStatus, fmt.Sprintf("GET %s answered %d", url, status)}
	case e.body != nil && !e.body.Match(body):
		return &unwell{probeBody, fmt.Sprintf("GET %s answered %s, which does not match %s", url, excerpt(body), e.body)}
	case e.json == nil:
		return nil
	case !whole:
		return &unwell{probeJSON, fmt.Sprintf("GET %s answered more than %d bytes, which are not looked at as JSON", url, maxProbeBody)}
	}
	var o object
	if err := json.Unmarshal(body, &o); err != nil {
		return &unwell{probeJSON, fmt.Sprintf("GET %s answered %s, which is no object of JSON", url, excerpt(body))}
	}
	yes, err := e.json.Bool(o)
	switch {
	case err != nil:
		return &unwell{probeJSON, fmt.Sprintf("GET %s answered %s, of which %s cannot be said: %v", url, excerpt(body), e.source, err)}
	case !yes:
		return &unwell{probeJSON, fmt.Sprintf("GET %s answered %s, of which %s is not true", url, excerpt(body), e.source)}
	}
	return nil
}

func numbers(list []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", " or "), "[]")
}

// maxExcerpt is how much of a body stands in an explanation.
const maxExcerpt = 100

func excerpt(body []byte) string {
	if len(body) > maxExcerpt {
		return fmt.Sprintf("%.*q...", maxExcerpt, body)
	}
	return fmt.Sprintf("%q", body)
}

// object is a body in JSON, as expressions see it.
type object map[string]any

// Find implements expr.Table: a name as it is, or the way down into objects with dots.
func (o object) Find(name string) (any, bool) {
	if v, ok := o[name]; ok {
		return v, true
	}
	for at := range name {
		if name[at] != '.' {
			continue
		}
		if inner, ok := o[name[:at]].(map[string]any); ok {
			if v, ok := object(inner).Find(name[at+1:]); ok {
				return v, true
			}
		}
	}
	return nil, false
}

// Names implements expr.Table.
func (o object) Names() []string { return slices.Sorted(maps.Keys(o)) }

// Check finds what the types of a document cannot say about expect; errors point into the upstream's section.
func Check(h *model.Health) error {
	if h.Expect == nil {
		return nil
	}
	if h.Path == "" {
		return decode.At("health.expect", "only an answer to path can be expected to be something; write path: /healthz")
	}
	_, err := compile(h.Expect)
	var at *decode.PathError
	if errors.As(err, &at) {
		return &decode.PathError{Path: append([]string{"health", "expect"}, at.Path...), Err: at.Err}
	}
	return err
}
