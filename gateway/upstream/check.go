package upstream

import (
	"errors"
	"fmt"
	"strings"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
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
	return errors.Join(append(errs, checkHealth(m, ends, raw), checkOverload(m, raw))...)
}

// checkOverload finds what does not go together of deadlines, concurrency and fallback.
func checkOverload(m *model.Upstream, raw bool) error {
	var errs []error
	told := func(path, name string) {
		if err := checkFieldName(name); name != "" && err != nil {
			errs = append(errs, decode.At(path, "%s", err))
		}
	}
	told("timeouts.deadline_header", m.Timeouts.Header)
	told("concurrency.brown_out_header", m.Concurrency.BrownOut)
	if h := m.Timeouts.Header; h != "" && strings.EqualFold(h, m.Concurrency.BrownOut) {
		errs = append(errs, decode.At("concurrency.brown_out_header", "%s is deadline_header, too; one field has one meaning", h))
	}
	if raw && m.Timeouts.Total > 0 {
		errs = append(errs, decode.At("timeouts.total", "tcp targets carry connections, which have no answer to be late; leave total out"))
	}
	c := &m.Concurrency
	switch {
	case c.Min > c.Max:
		errs = append(errs, decode.At("concurrency.min", "min is %d, and max is %d; it cannot be more", c.Min, c.Max))
	case c.Mode == "fixed" && c.Limit == 0:
		errs = append(errs, decode.At("concurrency.limit", "fixed needs a limit; write {mode: fixed, limit: 100}, or auto"))
	case c.Mode == "auto" && c.Limit != 0 && (c.Limit < c.Min || c.Limit > c.Max):
		errs = append(errs, decode.At("concurrency.limit", "auto begins at %d, which is not from min (%d) to max (%d)", c.Limit, c.Min, c.Max))
	case c.BrownOut != "" && c.Mode == "off":
		errs = append(errs, decode.At("concurrency.brown_out_header", "with mode: off no request waits, and there is nothing to tell"))
	}
	switch f := m.Fallback; {
	case f == nil:
	case f.Upstream == "" && f.Respond == nil:
		errs = append(errs, decode.At("fallback", "fallback says nothing; write upstream: NAME, or respond: {status: 503, body: ...}"))
	case f.Upstream != "" && f.Respond != nil:
		errs = append(errs, decode.At("fallback.respond", "upstream and respond exclude each other; there is one fallback"))
	case f.Respond != nil && raw:
		errs = append(errs, decode.At("fallback.respond", "tcp targets carry bytes and no HTTP, and an answer is HTTP; write upstream: NAME"))
	}
	return errors.Join(errs...)
}

// checkFieldName finds names of header fields that are not the document's to set: they say how a message is sent, or to whom.
func checkFieldName(name string) error {
	if !exchange.ValidName(name) {
		return fmt.Errorf("%q cannot be the name of a header field", name)
	}
	switch strings.ToLower(name) {
	case "host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer", "te", "expect", "date",
		"content-type", "authorization", "cookie":
		return fmt.Errorf("%s has another meaning; take a name of its own, such as X-Request-Timeout-Ms", name)
	}
	return nil
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
