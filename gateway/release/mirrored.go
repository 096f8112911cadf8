package release

import (
	"errors"

	"headgate/config/decode"
	"headgate/internal/metric"
)

// What became of copies, why others were not made, and what a comparison has shown: the labels of metrics.
const (
	outcomeAnswered = "answered"
	outcomeFailed   = "failed"
	outcomeLate     = "timeout"
	outcomePanicked = "panic"

	reasonCopy       = "copy"
	reasonBusy       = "concurrency"
	reasonTooLarge   = "body_too_large"
	reasonIncomplete = "body_incomplete"
	reasonUpgrade    = "upgrade"
	reasonStream     = "stream"

	resultSame      = "same"
	resultDifferent = "different"
	resultUnknown   = "not_compared"
)

// mirrored counts what a mirror does. Its numbers outlive reloads: the registry has them by name.
type mirrored struct {
	outcomes, reasons, results, kinds map[string]*metric.Counter
}

func newMirrored(r *metric.Registry, upstream string) *mirrored {
	family := func(name, help, label string, values ...string) map[string]*metric.Counter {
		all := map[string]*metric.Counter{}
		for _, v := range values {
			all[v] = r.Counter(name, help, metric.Label{Name: "upstream", Value: upstream}, metric.Label{Name: label, Value: v})
		}
		return all
	}
	return &mirrored{
		outcomes: family("headgate_mirror_copies_total", "Copies that a mirror has sent, by what became of them: "+
			"answered, failed, timeout, panic.", "outcome", outcomeAnswered, outcomeFailed, outcomeLate, outcomePanicked),
		reasons: family("headgate_mirror_left_out_total", "Exchanges that a mirror has not copied, by reason: copy (of another mirror), "+
			"concurrency (as many are under way as may be), body_too_large, "+
			"body_incomplete (the reply came before all of it, or it was too large), upgrade, "+
			"stream (gRPC, or events are asked for).", "reason",
			reasonCopy, reasonBusy, reasonTooLarge, reasonIncomplete, reasonUpgrade, reasonStream),
		results: family("headgate_mirror_compared_total", "Answers to copies that were compared, by result: same, different, not_compared "+
			"(a body was too large, incomplete, or encoded otherwise than by gzip).",
			"result", resultSame, resultDifferent, resultUnknown),
		kinds: family("headgate_mirror_differences_total", "Answers to copies that were different, by what was: status, header, body.",
			"kind", inStatus, inHeader, inBody),
	}
}

func (m *mirrored) copies(shard uint32, outcome string)  { m.outcomes[outcome].Inc(shard) }
func (m *mirrored) leftOut(shard uint32, reason string)  { m.reasons[reason].Inc(shard) }
func (m *mirrored) compared(shard uint32, result string) { m.results[result].Inc(shard) }
func (m *mirrored) differ(shard uint32, kind string)     { m.kinds[kind].Inc(shard) }

// under moves the places of problems under a key.
func under(err error, key string) error {
	var all []error
	for _, e := range decode.Flatten(err) {
		var at *decode.PathError
		if errors.As(e, &at) {
			e = &decode.PathError{Path: append([]string{key}, at.Path...), Err: at.Err}
		}
		all = append(all, e)
	}
	return errors.Join(all...)
}
