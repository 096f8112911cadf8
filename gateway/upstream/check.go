package upstream

import (
	"errors"
	"fmt"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/upstream/health"
	"headgate/gateway/upstream/pool"
)

// readTargets reads every target's URL. All of an upstream carry HTTP, or all carry bytes.
func readTargets(m *model.Upstream) ([]pool.Endpoint, error) {
	var errs []error
	ends := make([]pool.Endpoint, len(m.Targets))
	for i, t := range m.Targets {
		e, err := pool.ReadURL(t.URL)
		place := fmt.Sprintf("targets.%d", i)
		switch {
		case err != nil:
			errs = append(errs, decode.At(place, "%w", err))
		case i > 0 && ends[0].Address != "" && e.Raw != ends[0].Raw:
			errs = append(errs, decode.At(place, "%q: an upstream has either tcp targets or HTTP ones, and the first one is %s",
				t.URL, m.Targets[0].URL))
		case e.H2 && m.Protocol == "h1":
			errs = append(errs, decode.At(place, "%q is HTTP/2, and protocol is h1; write http://%s, or leave protocol out", t.URL, e.Address))
		}
		ends[i] = e
	}
	if len(m.Targets) == 0 && m.Discover == nil {
		errs = append(errs, decode.At("targets", "an upstream needs at least one target, such as http://10.0.0.4:9000, or discover"))
	}
	return ends, errors.Join(errs...)
}

// check finds what the document's types cannot say.
func check(m *model.Upstream, ends []pool.Endpoint) error {
	raw, secure := false, false
	for _, e := range ends {
		raw, secure = raw || e.Raw, secure || e.Secure
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
func checkHealth(m *model.Upstream, ends []pool.Endpoint, raw bool) error {
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
	case h.GRPC != nil && len(h.GRPC.Service) > health.MaxServiceName:
		return decode.At("health.grpc.service", "the name has %d characters; at most %d", len(h.GRPC.Service), health.MaxServiceName)
	case h.Path != "" && h.Path[0] != '/':
		return decode.At("health.path", "%q does not begin with a slash; write /%s", h.Path, h.Path)
	}
	return health.Check(h)
}

// speaksH2 reports whether every target may be spoken to over HTTP/2.
func speaksH2(m *model.Upstream, ends []pool.Endpoint) bool {
	for _, e := range ends {
		if pool.VersionOf(e, m.Protocol) == pool.H1 {
			return false
		}
	}
	return true
}
