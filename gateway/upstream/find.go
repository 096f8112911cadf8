package upstream

import (
	"errors"
	"net"
	"slices"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream/discover"
	"headgate/gateway/upstream/pool"
	"headgate/internal/metric"
)

// seek prepares discovery: nothing is asked yet, and the targets are those of the last good answer.
func (u *Upstream) seek() ([]wanted, error) {
	m := u.config.Discover
	if m == nil {
		return nil, nil
	}
	source, about, err := discover.New(u.Name, m)
	if err != nil {
		var errs []error
		for _, e := range decode.Flatten(err) {
			var at *decode.PathError
			if errors.As(e, &at) {
				e = &decode.PathError{Path: append([]string{"discover"}, at.Path...), Err: at.Err}
			}
			errs = append(errs, e)
		}
		return nil, errors.Join(errs...)
	}
	u.finder = &discover.Follower{
		Upstream: u.Name, Source: source, About: about, Rules: discover.Rules{MaxRemoval: m.MaxRemoval, Hold: m.Hold},
		Clock: u.env.Clock, Log: u.env.Log, Store: u.env.Discovered,
	}
	return u.found(u.finder.Recall()), nil
}

// found turns what discovery says into what is wanted.
func (u *Upstream) found(list []discover.Target) []wanted {
	all := make([]wanted, 0, len(list))
	for _, t := range list {
		e := pool.At(u.config.Discover.Scheme, t.Address, t.Host)
		if e.Host == "" {
			e.Host, _, _ = net.SplitHostPort(t.Address) // discovery has checked it
		}
		w := wanted{end: e, weight: t.Weight, priority: t.Priority, zone: t.Zone}
		if t.Draining {
			w.weight = 0
		}
		all = append(all, w)
	}
	return all
}

// find begins discovery, unless it has begun.
func (u *Upstream) find() {
	if u.finder == nil {
		return
	}
	u.finder.Start(func(list []discover.Target) {
		came, went := u.replace(u.found(list))
		u.env.Log.Info("targets were discovered", "targets", len(list), "new", came, "gone", went)
	})
}

// await waits for the first answer of discovery where no target is known yet, no longer than a connection may take. It
// reports whether it is worth choosing again.
func (u *Upstream) await(x *exchange.Exchange) bool {
	if u.finder == nil || len(u.set.Load().targets) > 0 {
		return false
	}
	asked := u.finder.Asked()
	select {
	case <-asked: // it is known that there is none
		return len(u.set.Load().targets) > 0
	default:
	}
	patience := time.NewTimer(u.config.Timeouts.Connect)
	defer patience.Stop()
	select {
	case <-asked:
	case <-patience.C:
	case <-x.Context().Done():
	}
	return len(u.set.Load().targets) > 0
}

// Sought names the source that knows the targets; "": they stand in the document.
func (u *Upstream) Sought() string {
	if u.finder == nil {
		return ""
	}
	return u.finder.About
}

// checkDiscover wants either targets or discover.
func checkDiscover(m *model.Upstream) error {
	if m.Discover == nil {
		return nil
	}
	switch {
	case len(m.Targets) > 0:
		return decode.At("discover", "targets and discover exclude each other; discover: {file: PATH} reads a list that may change")
	case pool.At(m.Discover.Scheme, "", "").H2 && m.Protocol == "h1":
		return decode.At("discover.scheme", "h2c is HTTP/2, and protocol is h1; write http, or leave protocol out")
	}
	return nil
}

// expected are the endpoints whose kinds the document tells, to check what goes together with them.
func expected(m *model.Upstream, ends []pool.Endpoint) []pool.Endpoint {
	if m.Discover == nil {
		return ends
	}
	return append(slices.Clone(ends), pool.At(m.Discover.Scheme, "", ""))
}

// collectDiscovery gives the metrics of discovery.
func (u *Upstream) collectDiscovery(s *discover.Status, emit metric.Emit) {
	label := metric.Label{Name: "upstream", Value: u.Name}
	emit("headgate_discovery_current", "Whether the last answer of discovery was a good one.", metric.TypeGauge,
		boolean(s.Error == "" && s.Answered != nil), label)
	emit("headgate_discovery_targets", "Targets known by discovery.", metric.TypeGauge, float64(len(u.set.Load().targets)), label)
	emit("headgate_discovery_held_targets", "Targets that discovery names no more and that are kept, because they would be too many at once "+
		"or have come and gone before.", metric.TypeGauge, float64(s.Held+s.Damped), label)
	emit("headgate_discovery_errors_total", "Answers of discovery that were none.", metric.TypeCounter, float64(s.Errors), label)
	emit("headgate_discovery_changes_total", "Changes of the targets by discovery.", metric.TypeCounter, float64(s.Changes), label)
	if s.Answered != nil {
		emit("headgate_discovery_answer_timestamp_seconds", "When discovery gave its last good answer.", metric.TypeGauge,
			float64(s.Answered.Unix()), label)
	}
}
