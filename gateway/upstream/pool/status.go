package pool

import (
	"time"

	"headgate/internal/metric"
)

// Status is what operators see of the connections to a target.
type Status struct {
	Protocol  string `json:"-"` // h1, h2 or tcp; auto: not known yet
	H2Conns   int    `json:"-"` // over HTTP/2, open
	IdleH2    int    `json:"-"` // those without a request
	H2Streams int    `json:"-"` // requests on them

	Open     int64             `json:"open"`            // with those that are being opened
	Limit    int               `json:"limit,omitempty"` // of open ones; 0: there is none
	Idle     int               `json:"idle"`            // over HTTP/1.1
	Opened   map[string]uint64 `json:"opened,omitempty"`
	Closed   map[string]uint64 `json:"closed,omitempty"`
	Reused   uint64            `json:"reused"`      // requests on connections that were there already
	Ratio    float64           `json:"reuse_ratio"` // their share of all
	IdleTime string            `json:"idle_time"`   // how long a connection is kept without a request
	IdleWhy  string            `json:"idle_time_why"`
	MaxAge   string            `json:"max_age,omitempty"`      // give or take a tenth
	Requests int               `json:"max_requests,omitempty"` // that one connection carries

	Ahead    uint64 `json:"preconnected,omitempty"`
	AheadWhy string `json:"preconnect_why,omitempty"` // none are opened ahead at present, although the document wants them

	Addresses []string `json:"addresses,omitempty"` // of the host, in the order in which they would be tried
	Resolving string   `json:"resolving,omitempty"` // why there are none
}

// Status describes the pool as it is now.
func (p *Pool) Status() Status {
	r, c := p.record, &p.group.settings.Pool
	s := Status{
		Protocol: "h1", Open: r.open.Load(), Limit: c.Connections, Idle: p.idle.len(), Opened: map[string]uint64{}, Closed: map[string]uint64{},
		Reused: p.reused(), IdleTime: r.idle.limit().String(), IdleWhy: r.idle.why(), Requests: c.MaxRequests, Ahead: r.ahead.Load(),
	}
	switch {
	case p.end.Raw:
		s.Protocol = "tcp"
	case p.mux != nil:
		s.Protocol = [...]string{spokenUnknown: "auto", spokenH1: "h1", spokenH2: "h2"}[p.mux.spoken.Load()]
		s.H2Conns, s.H2Streams = p.mux.load()
		s.IdleH2 = p.mux.idle()
	}
	if c.MaxAge != 0 {
		s.MaxAge = c.MaxAge.String()
	}
	for i, name := range outcomeNames {
		if n := r.opened[i].Load(); n > 0 {
			s.Opened[name] = n
		}
	}
	for i, name := range causeNames {
		if n := r.closed[i].Load(); n > 0 {
			s.Closed[name] = n
		}
	}
	if all := s.Reused + s.Opened["ok"] - min(s.Ahead, s.Opened["ok"]); all > 0 {
		s.Ratio = float64(s.Reused) / float64(all)
	}
	if p.group.idle.tight.Load() {
		s.IdleTime = (r.idle.limit() / tightFactor).String()
		s.IdleWhy = "pool.idle_total is reached, so connections are closed sooner"
	}
	s.AheadWhy = p.whyCold()
	s.Addresses, s.Resolving = r.where.known()
	return s
}

// whyCold says why no connections are opened ahead; "": they are, or nobody wants it.
func (p *Pool) whyCold() string {
	s, w := &p.group.settings, &p.record.warm
	now, after := s.Sweeper.Coarse(), time.Duration(w.after.Load())
	switch {
	case s.Pool.Preconnect == 0:
		return ""
	case p.end.Raw:
		return "connections of TCP listeners are not opened ahead"
	case s.proxied():
		return "with proxy_protocol a connection belongs to one client"
	case !p.record.ready():
		return "the target takes no requests"
	case p.group.idle.tight.Load():
		return "pool.idle_total is reached"
	case now < after:
		return "the target could not be reached; tried again in " + (after - now).Round(time.Second).String()
	}
	return ""
}

// known describes the addresses as they are; nothing where there is only one and it stands in the document.
func (a *whereabouts) known() (list []string, problem string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ip := range a.order() {
		list = append(list, ip.String())
	}
	if a.problem != nil {
		problem = a.problem.Error()
	}
	return list, problem
}

// Collect gives the metrics of a pool. labels name its target.
func (s *Status) Collect(emit metric.Emit, labels ...metric.Label) {
	with := func(name, value string) []metric.Label {
		return append(labels[:len(labels):len(labels)], metric.Label{Name: name, Value: value})
	}
	emit("headgate_target_connections", "Connections that are open to a target, with those that are being opened.",
		metric.TypeGauge, float64(s.Open), labels...)
	emit("headgate_target_reused_connections_total", "Requests that were sent on a connection which was there already.",
		metric.TypeCounter, float64(s.Reused), labels...)
	for _, name := range outcomeNames {
		if n := s.Opened[name]; n > 0 {
			emit("headgate_target_connections_opened_total", "Connections opened to a target, by outcome: ok, refused, timeout, unresolved "+
				"(its name), handshake (failed), busy (there were as many as there may be), failed.",
				metric.TypeCounter, float64(n), with("outcome", name)...)
		}
	}
	for _, name := range causeNames {
		if n := s.Closed[name]; n > 0 {
			emit("headgate_target_connections_closed_total", "Connections to a target that were closed, by cause: idle, age and requests "+
				"(the document's limits), surplus (more are not kept), dead (found closed by the target when it was to be used again), doubt "+
				"(others were), replaced (new certificates, or the upstream is gone), reply (the target closes after its reply, or it was cut "+
				"short), failed (before a reply), timeout, interrupted (the client went away), left (over HTTP/2 by the target), lent (a tunnel "+
				"or a probe has ended).", metric.TypeCounter, float64(n), with("cause", name)...)
		}
	}
	emit("headgate_target_preconnections_total", "Connections opened ahead to a target.", metric.TypeCounter, float64(s.Ahead), labels...)
}
