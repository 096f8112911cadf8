package upstream

import (
	"errors"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/internal/metric"
)

// check finds what the document's types cannot say.
func check(m *model.Upstream, ends []endpoint) error {
	raw, secure := false, false
	for _, e := range ends {
		raw, secure = raw || e.raw, secure || e.secure
	}
	var errs []error
	if m.TLS != nil && !secure && len(ends) > 0 {
		errs = append(errs, decode.At("tls", "tls is for targets over TLS, and there is none; write https://host:port, or leave tls out"))
	}
	if raw && m.Protocol == "h2" {
		errs = append(errs, decode.At("protocol", "tcp targets carry bytes and no HTTP; leave protocol out"))
	}
	return errors.Join(append(errs, checkHealth(m, ends, raw))...)
}

// checkHealth wants one kind of probe, and one that the targets can answer.
func checkHealth(m *model.Upstream, ends []endpoint, raw bool) error {
	h := m.Health
	if h == nil {
		return nil
	}
	kinds := 0
	for _, given := range [...]bool{h.Path != "", h.GRPC != nil, h.TCP} {
		if given {
			kinds++
		}
	}
	switch {
	case kinds == 0:
		return decode.At("health", "health says nothing about how to ask; write path: /healthz, grpc: {}, or tcp: true")
	case kinds > 1:
		return decode.At("health", "path, grpc and tcp exclude each other; a target is asked in one way")
	case raw && !h.TCP:
		return decode.At("health", "tcp targets carry bytes and no HTTP; write tcp: true")
	case h.GRPC != nil && m.Protocol == "h1":
		return decode.At("health.grpc", "gRPC needs HTTP/2, and protocol is h1; write protocol: h2")
	case h.GRPC != nil && !speaksH2(m, ends):
		return decode.At("health.grpc", "gRPC needs HTTP/2; write h2c://host:port for targets in clear, or protocol: h2")
	case h.GRPC != nil && len(h.GRPC.Service) > maxServiceName:
		return decode.At("health.grpc.service", "the name has %d characters; at most %d", len(h.GRPC.Service), maxServiceName)
	case h.Path != "" && h.Path[0] != '/':
		return decode.At("health.path", "%q does not begin with a slash; write /%s", h.Path, h.Path)
	}
	return nil
}

// handshakes counts TLS handshakes with targets that failed.
type handshakes struct {
	upstream string
	metrics  *metric.Registry
}

func (h handshakes) failed(t *target, cause string) {
	h.metrics.Counter("headgate_upstream_handshake_failures_total",
		"TLS handshakes with targets that failed, by cause: certificate_expired, unknown_authority, wrong_name, not_pinned, "+
			"certificate_invalid, refused_by_target, not_tls, timeout, closed.",
		metric.Label{Name: "upstream", Value: h.upstream}, metric.Label{Name: "target", Value: t.end.address},
		metric.Label{Name: "cause", Value: cause}).Inc(0)
}

// speaksH2 reports whether every target may be spoken to over HTTP/2.
func speaksH2(m *model.Upstream, ends []endpoint) bool {
	for _, e := range ends {
		if versionOf(e, m.Protocol) == versionH1 {
			return false
		}
	}
	return true
}
