package main

import (
	"math"

	"headgate/bench/figure"
	"headgate/bench/peers"
)

// results holds the samples by case, contestant and round; a round without one is nil.
type results map[string]map[peers.Kind][]sample

func (r results) add(id string, kind peers.Kind, round int, s sample) {
	if r[id] == nil {
		r[id] = map[peers.Kind][]sample{}
	}
	for len(r[id][kind]) <= round {
		r[id][kind] = append(r[id][kind], nil)
	}
	r[id][kind][round] = s
}

// values returns one figure of every round, NaN where there is none.
func (r results) values(id string, kind peers.Kind, m metric) []float64 {
	var out []float64
	for _, s := range r[id][kind] {
		v, ok := s[m]
		if !ok {
			v = math.NaN()
		}
		out = append(out, v)
	}
	return out
}

func (r results) summary(id string, kind peers.Kind, m metric) figure.Summary {
	return figure.Summarize(r.values(id, kind, m))
}

// ratio compares two contestants, or two cases of one, round by round.
func (r results) ratio(id string, kind peers.Kind, otherID string, other peers.Kind, m metric) figure.Summary {
	return figure.Summarize(figure.Ratios(r.values(id, kind, m), r.values(otherID, other, m)))
}
