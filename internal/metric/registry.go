package metric

import (
	"slices"
	"strings"
	"sync"
)

// Type is what a family of series is.
type Type string

// The types, by their names in the exposition format.
const (
	TypeCounter   Type = "counter"
	TypeGauge     Type = "gauge"
	TypeHistogram Type = "histogram"
)

// Label is one label of a series.
type Label struct{ Name, Value string }

// Series is one series of a family, to be read at exposition.
type Series struct {
	Labels    []Label
	Counter   *Counter
	Gauge     *Gauge
	Float     *Float
	Histogram *Histogram
}

// Family is all series of one name.
type Family struct {
	Name, Help string
	Type       Type
	series     map[string]*Series
}

// maxSeries bounds the series of one family: a label that takes its values from traffic must not fill the memory.
const maxSeries = 100_000

// Registry holds families by name. Asking twice for the same series returns the same one, so it survives a reload.
type Registry struct {
	mu       sync.Mutex
	families map[string]*Family
	collect  map[string]func(Emit)
	sources  map[string]func(*Text)
	refused  uint64 // series that were not kept because their family was full
}

// Emit hands one value of a scrape-time series to the exposition.
type Emit func(name, help string, kind Type, value float64, labels ...Label)

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{families: map[string]*Family{}, collect: map[string]func(Emit){}, sources: map[string]func(*Text){}}
}

// Counter returns the counter of that name and those labels. Names end in _total.
func (r *Registry) Counter(name, help string, labels ...Label) *Counter {
	s := r.series(name, help, TypeCounter, labels, func(s *Series) { s.Counter = new(Counter) })
	if s.Counter == nil { // the name is taken by another type: count where nobody looks rather than crash
		return new(Counter)
	}
	return s.Counter
}

// Gauge returns the gauge of that name and those labels.
func (r *Registry) Gauge(name, help string, labels ...Label) *Gauge {
	s := r.series(name, help, TypeGauge, labels, func(s *Series) { s.Gauge = new(Gauge) })
	if s.Gauge == nil { // the name is taken by another type: count where nobody looks rather than crash
		return new(Gauge)
	}
	return s.Gauge
}

// Float returns the gauge of a fraction of that name and those labels.
func (r *Registry) Float(name, help string, labels ...Label) *Float {
	s := r.series(name, help, TypeGauge, labels, func(s *Series) { s.Float = new(Float) })
	if s.Float == nil { // the name is taken by another type: count where nobody looks rather than crash
		return new(Float)
	}
	return s.Float
}

// Histogram returns the histogram of that name and those labels; bounds are its upper bounds in ascending order.
func (r *Registry) Histogram(name, help string, bounds []float64, labels ...Label) *Histogram {
	s := r.series(name, help, TypeHistogram, labels, func(s *Series) { s.Histogram = NewHistogram(bounds) })
	if s.Histogram == nil { // the name is taken by another type: count where nobody looks rather than crash
		return NewHistogram(bounds)
	}
	return s.Histogram
}

// Collect registers a function that is asked at every scrape, under a key that replaces an earlier one; nil removes it.
func (r *Registry) Collect(key string, f func(Emit)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f == nil {
		delete(r.collect, key)
		return
	}
	r.collect[key] = f
}

// Source registers a function that writes families of its own, which no one else writes, at every scrape; a key replaces
// an earlier one and nil removes it. It is for what has too many series to keep each in the registry.
func (r *Registry) Source(key string, f func(*Text)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f == nil {
		delete(r.sources, key)
		return
	}
	r.sources[key] = f
}

func (r *Registry) series(name, help string, kind Type, labels []Label, fresh func(*Series)) *Series {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.families[name]
	if f == nil {
		f = &Family{Name: name, Help: help, Type: kind, series: map[string]*Series{}}
		r.families[name] = f
	}
	key := seriesKey(labels)
	s := f.series[key]
	if s == nil {
		s = &Series{Labels: slices.Clone(labels)}
		fresh(s)
		if len(f.series) >= maxSeries {
			r.refused++
			return s
		}
		f.series[key] = s
	}
	return s
}

func seriesKey(labels []Label) string {
	var b strings.Builder
	for _, l := range labels {
		b.WriteString(l.Name)
		b.WriteByte(0)
		b.WriteString(l.Value)
		b.WriteByte(0)
	}
	return b.String()
}

// Forget removes every series that has all the given labels; the document no longer has what they count.
func (r *Registry) Forget(labels ...Label) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.families {
		for key, s := range f.series {
			if containsAll(s.Labels, labels) {
				delete(f.series, key)
			}
		}
	}
}

func containsAll(have, want []Label) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}

// Visit calls series for every series of every family, in order of name and labels, and then collect for the
// scrape-time functions. The registry is not locked meanwhile, so a slow reader holds up nobody.
func (r *Registry) Visit(series func(*Family, *Series), collect func(func(Emit))) {
	families, all, collects := r.pinned()
	for i, f := range families {
		for _, s := range all[i] {
			series(f, s)
		}
	}
	for _, c := range collects {
		collect(c)
	}
}

// pinned copies what there is to visit.
func (r *Registry) pinned() (families []*Family, series [][]*Series, collects []func(Emit)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range sortedKeys(r.families) {
		f := r.families[name]
		families = append(families, f)
		series = append(series, sortedValues(f.series))
	}
	return families, series, sortedValues(r.collect)
}

func sortedValues[V any](m map[string]V) []V {
	values := make([]V, 0, len(m))
	for _, k := range sortedKeys(m) {
		values = append(values, m[k])
	}
	return values
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
