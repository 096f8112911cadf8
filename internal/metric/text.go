package metric

import (
	"bufio"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// TextType is the media type of what Text writes: the Prometheus text exposition format, version 0.0.4.
const TextType = "text/plain; version=0.0.4; charset=utf-8"

// Text writes the Prometheus text exposition format as a stream: nothing of it is held but one buffer.
type Text struct {
	w    *bufio.Writer
	line []byte
	name string
	done map[string]bool
}

// NewText returns a writer of the text format onto w. Close it to see the last bytes and the first error.
func NewText(w io.Writer) *Text {
	return &Text{w: bufio.NewWriterSize(w, 32<<10), done: map[string]bool{}}
}

// Family begins a family; the samples that follow are its own. A family that was begun before is refused with false:
// the format allows a name only once.
func (t *Text) Family(name, help string, kind Type) bool {
	if t.done[name] {
		return false
	}
	t.done[name], t.name = true, name
	b := append(t.line[:0], "# HELP "...)
	b = append(append(b, name...), ' ')
	b = appendEscaped(b, help, false)
	b = append(append(append(b, "\n# TYPE "...), name...), ' ')
	t.write(append(append(b, kind...), '\n'))
	return true
}

// Sample writes one value of the family that was begun.
func (t *Text) Sample(value float64, labels ...Label) {
	b := appendLabels(append(t.line[:0], t.name...), labels, Label{})
	t.write(append(appendFloat(append(b, ' '), value), '\n'))
}

// Histogram writes one histogram of the family that was begun: its upper bounds, the cumulative count at each and above
// the last, and the sum of what was observed.
func (t *Text) Histogram(bounds []float64, cumulative []uint64, sum float64, labels ...Label) {
	b := t.line[:0]
	var le [32]byte
	for i, n := range cumulative {
		bound := math.Inf(1)
		if i < len(bounds) {
			bound = bounds[i]
		}
		b = append(append(b, t.name...), "_bucket"...)
		b = appendLabels(b, labels, Label{"le", string(appendFloat(le[:0], bound))})
		b = append(strconv.AppendUint(append(b, ' '), n, 10), '\n')
	}
	b = appendLabels(append(append(b, t.name...), "_sum"...), labels, Label{})
	b = append(appendFloat(append(b, ' '), sum), '\n')
	b = appendLabels(append(append(b, t.name...), "_count"...), labels, Label{})
	t.write(append(strconv.AppendUint(append(b, ' '), cumulative[len(cumulative)-1], 10), '\n'))
}

// Close writes out what is buffered and returns the first error of writing.
func (t *Text) Close() error { return t.w.Flush() }

func (t *Text) write(b []byte) {
	t.line = b
	_, _ = t.w.Write(b) // the buffer remembers the error until Close
}

func appendLabels(b []byte, labels []Label, last Label) []byte {
	open := byte('{')
	for i := range len(labels) + 1 {
		l := last
		if i < len(labels) {
			l = labels[i]
		}
		if l.Name == "" {
			continue
		}
		b = append(append(append(b, open), l.Name...), `="`...)
		b = append(appendEscaped(b, l.Value, true), '"')
		open = ','
	}
	if open == ',' {
		b = append(b, '}')
	}
	return b
}

// appendEscaped escapes backslash and line feed, and in label values the double quote. What is not UTF-8 is replaced.
func appendEscaped(b []byte, s string, quotes bool) []byte {
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		switch {
		case r == '\\':
			b = append(b, `\\`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '"' && quotes:
			b = append(b, `\"`...)
		default:
			b = append(b, string(r)...)
		}
	}
	return b
}

func appendFloat(b []byte, v float64) []byte {
	switch {
	case math.IsInf(v, 1):
		return append(b, "+Inf"...)
	case math.IsInf(v, -1):
		return append(b, "-Inf"...)
	case math.Abs(v) < 1<<53 && v == math.Trunc(v):
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// Expose writes everything in the registry: the series it holds together with what the Collect functions emit, in order
// of name, and then the sources.
func (r *Registry) Expose(t *Text) {
	emitted := map[string]*emittedFamily{}
	families, series, collects := r.pinned()
	for i, f := range families {
		emitted[f.Name] = &emittedFamily{f.Help, f.Type, series[i], nil}
	}
	emit := func(name, help string, kind Type, value float64, labels ...Label) {
		f := emitted[name]
		if f == nil {
			f = &emittedFamily{help: help, kind: kind}
			emitted[name] = f
		}
		f.values = append(f.values, emittedValue{value, slices.Clone(labels)})
	}
	for _, collect := range collects {
		collect(emit)
	}
	r.mu.Lock()
	refused, sources := r.refused, sortedValues(r.sources)
	r.mu.Unlock()
	emit("headgate_metric_series_refused_total", "Series that were not kept because their family has too many.",
		TypeCounter, float64(refused))
	for _, name := range sortedKeys(emitted) {
		emitted[name].write(t, name)
	}
	for _, source := range sources {
		source(t)
	}
}

type emittedFamily struct {
	help   string
	kind   Type
	series []*Series
	values []emittedValue
}

type emittedValue struct {
	value  float64
	labels []Label
}

func (f *emittedFamily) write(t *Text, name string) {
	if len(f.series)+len(f.values) == 0 || !t.Family(name, f.help, f.kind) {
		return
	}
	for _, s := range f.series {
		switch {
		case s.Counter != nil:
			t.Sample(float64(s.Counter.Value()), s.Labels...)
		case s.Gauge != nil:
			t.Sample(float64(s.Gauge.Value()), s.Labels...)
		case s.Float != nil:
			t.Sample(s.Float.Value(), s.Labels...)
		case s.Histogram != nil:
			cumulative, sum := s.Histogram.Snapshot()
			t.Histogram(s.Histogram.Bounds(), cumulative, sum, s.Labels...)
		}
	}
	for _, v := range f.values {
		t.Sample(v.value, v.labels...)
	}
}
