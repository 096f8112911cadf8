package release

import (
	"fmt"
	"time"

	"headgate/internal/metric"
)

// Front is what is asked in place of an upstream of the document: a split, or what stands in front of its targets.
type Front struct {
	Name    string // of the upstream
	Service Service
}

// Status is what operators see of a front. Numbers of exchanges are counted since the process began.
type Status struct {
	Name     string          `json:"name"`             // of the upstream
	Cookie   string          `json:"cookie,omitempty"` // that keeps a client at its target; "": none does
	Variants []VariantStatus `json:"variants,omitempty"`
	Mirror   *MirrorStatus   `json:"mirror,omitempty"`
}

// VariantStatus is what operators see of a variant.
type VariantStatus struct {
	Name     string            `json:"name"`
	Upstream string            `json:"upstream"`
	Weight   float64           `json:"weight"` // now
	Share    float64           `json:"share"`  // of the weights of all variants, now: 0 to 1
	Ramp     *RampStatus       `json:"ramp,omitempty"`
	Requests uint64            `json:"requests"`          // that it was chosen for
	Answers  map[string]uint64 `json:"answers,omitempty"` // of these, by status class; none: there was no answer
}

// RampStatus is where a weight stands that changes by time.
type RampStatus struct {
	From  float64   `json:"from"` // weight
	To    float64   `json:"to"`   // weight
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
	Done  float64   `json:"done"` // share of the time that is over: 0 to 1
	Next  string    `json:"next"` // change of the weight, for people
}

// MirrorStatus is what operators see of a mirror. Its counts are those of the metrics, by the same labels.
type MirrorStatus struct {
	Upstream    string            `json:"upstream"`
	Percent     float64           `json:"percent"`
	Conditional bool              `json:"conditional"` // an expression decides as well
	UnderWay    int               `json:"under_way"`   // requests being copied and copies, now
	Limit       int               `json:"concurrency"` // of those
	Copies      map[string]uint64 `json:"copies"`      // by what became of them
	LeftOut     map[string]uint64 `json:"left_out"`    // by reason
	Compared    map[string]uint64 `json:"compared,omitempty"`
	Differences map[string]uint64 `json:"differences,omitempty"` // by what was different
}

// parts are the layers of a front.
func (f Front) parts() (m *Mirror, p *Pinned, s *Split) {
	to := f.Service
	if m, _ = to.(*Mirror); m != nil {
		to = m.to
	}
	if p, _ = to.(*Pinned); p != nil {
		to = p.to
	}
	s, _ = to.(*Split)
	return m, p, s
}

// Status describes the front as it is at a time.
func (f Front) Status(now time.Time) Status {
	m, p, s := f.parts()
	st := Status{Name: f.Name}
	if m != nil {
		st.Mirror = m.status()
	}
	if p != nil {
		st.Cookie = p.cookie.Name()
	}
	if s != nil {
		st.Variants = s.status(now)
	}
	return st
}

// Collect tells the current weights of the variants.
func (f Front) Collect(now time.Time, emit metric.Emit) {
	_, _, s := f.parts()
	if s == nil {
		return
	}
	for i := range s.variants {
		v := &s.variants[i]
		emit("headgate_variant_weight", "Weight that a variant of a split has now, as far as a ramp has brought it.", metric.TypeGauge,
			v.at(now), metric.Label{Name: "split", Value: s.name}, metric.Label{Name: "variant", Value: v.name})
	}
}

func (s *Split) status(now time.Time) (list []VariantStatus) {
	all := 0.0
	for i := range s.variants {
		all += s.variants[i].at(now)
	}
	for i := range s.variants {
		v := &s.variants[i]
		st := VariantStatus{Name: v.name, Upstream: v.asks, Weight: v.at(now), Ramp: v.rampStatus(now)}
		if all > 0 {
			st.Share = st.Weight / all
		}
		st.Requests, st.Answers = v.meter.read()
		list = append(list, st)
	}
	return list
}

func (v *variant) rampStatus(now time.Time) *RampStatus {
	r := v.ramp
	if r == nil {
		return nil
	}
	st := &RampStatus{From: v.weight, To: r.to, Start: r.start.UTC(), End: r.start.Add(r.over).UTC()}
	at := func(t time.Time) string { return t.Format(time.RFC3339) }
	switch since := now.Sub(r.start); {
	case since < 0:
		st.Next = fmt.Sprintf("at %s it begins to go from %.4g to %.4g, which it is at %s", at(st.Start), v.weight, r.to, at(st.End))
	case since >= r.over:
		st.Done, st.Next = 1, fmt.Sprintf("none: it is %.4g since %s", r.to, at(st.End))
	default:
		st.Done = float64(since) / float64(r.over)
		unit, name := time.Hour, "hour"
		if r.over < 2*time.Hour {
			unit, name = time.Minute, "minute"
		}
		st.Next = fmt.Sprintf("by %+.3g each %s, to %.4g at %s", (r.to-v.weight)*float64(unit)/float64(r.over), name, r.to, at(st.End))
	}
	return st
}

// read returns what was counted, in all and by status class.
func (m *meter) read() (all uint64, by map[string]uint64) {
	by = map[string]uint64{}
	for i, c := range m.answers {
		if n := c.Value(); n > 0 {
			by[classes[i]] = n
			all += n
		}
	}
	return all, by
}

func (m *Mirror) status() *MirrorStatus {
	st := &MirrorStatus{
		Upstream: m.asks, Percent: m.percent, Conditional: m.when != nil, Limit: m.limit,
		Copies: values(m.counts.outcomes), LeftOut: values(m.counts.reasons),
	}
	if m.compare != nil {
		st.Compared, st.Differences = values(m.counts.results), values(m.counts.kinds)
	}
	m.mu.Lock()
	st.UnderWay = m.held + len(m.running)
	m.mu.Unlock()
	return st
}

func values(counters map[string]*metric.Counter) map[string]uint64 {
	all := make(map[string]uint64, len(counters))
	for label, c := range counters {
		all[label] = c.Value()
	}
	return all
}
