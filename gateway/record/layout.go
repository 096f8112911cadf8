package record

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/internal/text"
)

// Compiler compiles the {expression} fields of the access log.
type Compiler interface {
	String(src string) (func(*exchange.Exchange) string, error)
}

// maxFields bounds how much one line can be made to hold by configuration.
const maxFields = 64

// layout is the compiled form of a line.
type layout struct {
	json   bool
	fields []put // each appends what it has, its name in front and a separator behind
}

func newLayout(a *model.AccessLog, m *mask, c Compiler) (*layout, error) {
	known := specs()
	wanted := known[:defaultFields]
	var errs []error
	if len(a.Fields) > maxFields {
		return nil, decode.At("log.access.fields", "%d fields are too many; at most %d", len(a.Fields), maxFields)
	}
	if len(a.Fields) > 0 {
		wanted = nil
		for i, name := range a.Fields {
			at := "log.access.fields." + strconv.Itoa(i)
			s, err := findSpec(name, known, m, c)
			switch {
			case err != nil:
				errs = append(errs, decode.At(at, "%w", err))
			case slices.ContainsFunc(wanted, func(o spec) bool { return o.name == s.name }):
				errs = append(errs, decode.At(at, "field %q stands twice in the list; leave one out", name))
			default:
				wanted = append(wanted, s)
			}
		}
	}
	l := &layout{json: a.Format != "text"}
	for _, s := range wanted {
		if l.json {
			l.fields = append(l.fields, jsonField(s))
		} else {
			l.fields = append(l.fields, textField(s))
		}
	}
	return l, errors.Join(errs...)
}

// findSpec returns the field of that name.
func findSpec(name string, known []spec, m *mask, c Compiler) (spec, error) {
	if h, ok := strings.CutPrefix(name, "header."); ok && exchange.ValidName(h) {
		return headerSpec(name, h, m, func(x *exchange.Exchange) *exchange.Header { return &x.Request.Header }), nil
	}
	if h, ok := strings.CutPrefix(name, "reply_header."); ok && exchange.ValidName(h) {
		return headerSpec(name, h, m, func(x *exchange.Exchange) *exchange.Header { return &x.Reply.Header }), nil
	}
	if src, ok := strings.CutPrefix(name, "{"); ok && strings.HasSuffix(src, "}") {
		return expressionSpec(strings.TrimSuffix(src, "}"), m, c)
	}
	names := make([]string, len(known))
	for i, s := range known {
		if s.name == name {
			return s, nil
		}
		names[i] = s.name
	}
	return spec{}, unknownField(name, names)
}

func unknownField(name string, names []string) error {
	return errors.New(strconv.Quote(name) + " is not a field of the access log" + text.DidYouMean(name, names) +
		"; write one of " + strings.Join(names, ", ") + ", header.NAME, reply_header.NAME or {expression}")
}

func headerSpec(name, header string, m *mask, of func(*exchange.Exchange) *exchange.Header) spec {
	switch {
	case m.header(header):
		return spec{name: name, text: func(l *line) string {
			if !of(l.x).Has(header) {
				return ""
			}
			return masked
		}}
	case exchange.EqualFold(header, "referer") || exchange.EqualFold(header, "location"):
		// These hold URLs, whose queries hold secrets.
		return spec{name: name, ascii: func(b []byte, l *line) []byte {
			url, query, ok := strings.Cut(of(l.x).Get(header), "?")
			if b = appendText(b, url); ok {
				b = l.mask.appendQuery(append(b, '?'), query)
			}
			return b
		}}
	}
	return spec{name: name, text: func(l *line) string { return of(l.x).Get(header) }}
}

func expressionSpec(src string, m *mask, c Compiler) (spec, error) {
	if c == nil {
		return spec{}, errors.New("expressions cannot be used here; write a field's name")
	}
	f, err := c.String(src)
	if err != nil {
		return spec{}, err
	}
	secret := m.mentions(src)
	return spec{name: src, text: func(l *line) (v string) {
		defer func() {
			if recover() != nil { // a broken expression costs its field, not the gateway
				v = "<panic>"
			}
		}()
		if v = f(l.x); v != "" && secret {
			return masked
		}
		return v
	}}, nil
}

// jsonField appends `"name":value,`, or nothing when there is no value.
func jsonField(s spec) put {
	key := string(append(appendString(nil, s.name), ':'))
	quoted := key + `"`
	switch {
	case s.text != nil:
		return func(b []byte, l *line) []byte {
			v := s.text(l)
			if v == "" {
				return b
			}
			return append(appendText(append(b, quoted...), v), '"', ',')
		}
	case s.ascii != nil:
		return unlessEmpty(quoted, s.ascii, `",`)
	}
	return unlessEmpty(key, s.number, ",")
}

func unlessEmpty(before string, value put, after string) put {
	return func(b []byte, l *line) []byte {
		mark := len(b)
		b = append(b, before...)
		at := len(b)
		if b = value(b, l); len(b) == at {
			return b[:mark]
		}
		return append(b, after...)
	}
}

// textField appends `name=value `, or for a bare one `value `, which is "-" when there is none.
func textField(s spec) put {
	value := s.ascii
	if value == nil {
		value = s.number
	}
	if s.text != nil {
		value = func(b []byte, l *line) []byte {
			if v := s.text(l); v != "" {
				b = appendWord(b, v)
			}
			return b
		}
	}
	if !s.bare {
		return unlessEmpty(s.name+"=", value, " ")
	}
	return func(b []byte, l *line) []byte {
		at := len(b)
		if b = value(b, l); len(b) == at {
			b = append(b, '-')
		}
		return append(b, ' ')
	}
}

// append appends one line.
func (y *layout) append(b []byte, l *line) []byte {
	if y.json {
		b = append(b, '{')
	}
	start := len(b)
	for _, f := range y.fields {
		b = f(b, l)
	}
	if len(b) > start {
		b = b[:len(b)-1] // the last separator
	}
	if y.json {
		b = append(b, '}')
	}
	return append(b, '\n')
}
