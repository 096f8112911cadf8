package upstream

import (
	"headgate/gateway/upstream/discover"
	"headgate/gateway/upstream/gate"
	"headgate/gateway/upstream/health"
	"headgate/gateway/upstream/pool"
	"headgate/internal/metric"
)

// Status is what operators see of an upstream.
type Status struct {
	Name    string         `json:"name"`
	Balance string         `json:"balance"`
	Health  health.Rules   `json:"health"`
	Targets []TargetStatus `json:"targets"`
	gate.Status

	Retry RetryStatus  `json:"retry"`
	Hedge *HedgeStatus `json:"hedge,omitempty"` // when the document wants it

	Discovery *discover.Status `json:"discovery,omitempty"` // when the targets do not stand in the document

	Certificate *pool.CertificateStatus `json:"certificate,omitempty"` // that we show to targets
	Problem     string                  `json:"problem,omitempty"`     // why a newer file of certificates is not used
}

// TargetStatus is what operators see of a target.
type TargetStatus struct {
	Address   string  `json:"address"`
	Weight    int     `json:"weight"`
	Priority  int     `json:"priority"`
	Zone      string  `json:"zone,omitempty"`
	InFlight  int64   `json:"in_flight"`
	Idle      int     `json:"idle_connections"`
	Protocol  string  `json:"protocol"`                 // h1, h2 or tcp; auto: not known yet
	TLS       string  `json:"tls"`                      // off, verified, or insecure: certificates are not verified
	H2Conns   int     `json:"h2_connections,omitempty"` // open
	H2Idle    int     `json:"h2_idle,omitempty"`        // those without a request
	H2Streams int     `json:"h2_streams,omitempty"`     // requests on them
	LatencyMS float64 `json:"latency_ms"`               // remembered, as the balancer sees it
	Failing   float64 `json:"failing"`                  // share of requests that fail lately
	CostMS    float64 `json:"cost_ms"`                  // what one more request would meet, as least-latency sees it
	Started   float64 `json:"started"`                  // share of its weight that it gets: less than 1 in a slow start

	Pool pool.Status `json:"pool"` // connections

	health.Status // its state may also be off: of weight 0, it takes no new requests
}

// Status describes the upstream and its targets as they are now.
func (u *Upstream) Status() Status {
	id := u.identity.Load()
	s := Status{
		Name: u.Name, Balance: u.config.Balance.Algorithm, Health: u.health.Rules(), Targets: []TargetStatus{},
		Certificate: id.Certificate(u.env.Clock.Now()), Problem: id.Problem(),
	}
	if u.finder != nil {
		d := u.finder.Status()
		s.Discovery = &d
	}
	s.Status = u.gate.Status(u.env.Clock.Now())
	set, now := u.set.Load(), u.coarse()
	s.Retry, s.Hedge = u.retries.status(now), u.hedging.status(now)
	for i, t := range set.targets {
		w := &set.wanted[i]
		ts := TargetStatus{
			Address: t.end.Address, Weight: w.weight, Priority: w.priority, Zone: w.zone, InFlight: t.load.InFlight(),
			LatencyMS: t.load.Latency().Seconds() * 1000, Failing: t.load.Failing(), Status: t.health.Status(),
			CostMS: t.load.Cost(now).Seconds() * 1000, Started: set.balancer.Fade(i, now),
		}
		t.transport(&ts, id)
		if w.weight == 0 {
			ts.State, ts.Why = "off", ""
		}
		s.Targets = append(s.Targets, ts)
	}
	return s
}

// transport says how a target is spoken to.
func (t *target) transport(ts *TargetStatus, id *pool.Identity) {
	p := t.pool.Load().Status()
	ts.Idle, ts.Protocol, ts.TLS = p.Idle, p.Protocol, "off"
	ts.H2Conns, ts.H2Idle, ts.H2Streams = p.H2Conns, p.IdleH2, p.H2Streams
	ts.Pool = p
	switch {
	case t.end.Secure && id.Insecure():
		ts.TLS = "insecure"
	case t.end.Secure:
		ts.TLS = "verified"
	}
}

func (u *Upstream) collect(emit metric.Emit) {
	status := u.Status()
	status.Collect(u.Name, emit)
	if status.Discovery != nil {
		u.collectDiscovery(status.Discovery, emit)
	}
	if c := status.Certificate; c != nil {
		emit("headgate_upstream_certificate_expiry_timestamp_seconds", "When the certificate that an upstream shows to its targets expires.",
			metric.TypeGauge, float64(c.NotAfter.Unix()), metric.Label{Name: "upstream", Value: u.Name})
	}
	u.health.Collect(emit)
	for _, t := range status.Targets {
		labels := []metric.Label{{Name: "upstream", Value: u.Name}, {Name: "target", Value: t.Address}}
		emit("headgate_target_available", "Whether a target takes requests.", metric.TypeGauge, boolean(t.State == "available"), labels...)
		emit("headgate_target_in_flight", "Requests waiting for a target's answer.", metric.TypeGauge, float64(t.InFlight), labels...)
		emit("headgate_target_idle_connections", "Idle connections over HTTP/1.1 kept to a target.", metric.TypeGauge, float64(t.Idle), labels...)
		emit("headgate_target_h2_connections", "Connections over HTTP/2 that are open to a target.",
			metric.TypeGauge, float64(t.H2Conns), labels...)
		emit("headgate_target_h2_idle_connections", "Connections over HTTP/2 to a target that have no request.",
			metric.TypeGauge, float64(t.H2Idle), labels...)
		emit("headgate_target_h2_streams", "Requests on connections over HTTP/2 to a target.",
			metric.TypeGauge, float64(t.H2Streams), labels...)
		emit("headgate_target_insecure", "Whether a target's certificate is not verified although it is spoken to over TLS.",
			metric.TypeGauge, boolean(t.TLS == "insecure"), labels...)
		t.Pool.Collect(emit, labels...)
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
