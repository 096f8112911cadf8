package compile

import (
	"slices"
	"strconv"
	"strings"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/engine"
	"headgate/gateway/exchange"
	"headgate/internal/text"
)

// tcpDoors compiles where the connections of TCP listeners go, once the upstreams are there.
func (j *job) tcpDoors(doors map[string]*engine.Door) {
	for _, name := range j.loaded.Objects("listeners") {
		if d := doors[name]; d != nil && d.Config.TCP != nil {
			d.TCP = j.tcp(name, &d.Config)
		}
	}
}

// tcp compiles one listener.
func (j *job) tcp(name string, l *model.Listener) *engine.TCP {
	path := []string{"listeners", name}
	j.checkTCP(l, path)
	t := &engine.TCP{Nobody: j.way(name, "")}
	at := append(path[:2:2], "tcp")
	for i, r := range l.TCP.BySNI {
		route := append(at[:3:3], "by_sni", strconv.Itoa(i))
		w := j.way(name, r.Upstream)
		w.Names = r.Names
		j.target(w, true, append(route[:5:5], "upstream")...)
		for k, n := range r.Names {
			if err := t.Names.Add(n, w); err != nil {
				j.problem("invalid_value", err.Error(), append(route[:5:5], "names", strconv.Itoa(k))...)
			}
		}
		t.Ways = append(t.Ways, w)
	}
	if l.TCP.Upstream != "" {
		t.Other = j.way(name, l.TCP.Upstream)
		j.target(t.Other, len(l.TCP.BySNI) > 0, append(at[:3:3], "upstream")...)
		t.Ways = append(t.Ways, t.Other)
	}
	return t
}

// way is a way of the listener with a meter that lives as long as the snapshot.
func (j *job) way(listener, upstream string) *engine.Way {
	w := &engine.Way{Info: &exchange.Route{Name: listener, Upstream: upstream}}
	if r := j.compiler.options.Record; r != nil {
		w.Meter = r.Route(w.Info)
		u := &unit{close: []func() error{func() error { w.Meter.Release(); return nil }}}
		j.hold(u)
	}
	return w
}

// encrypts reports whether what goes to the upstream is encrypted on the way.
func encrypts(u model.Upstream) bool {
	if d := u.Discover; d != nil {
		return d.Scheme == "https" || d.Scheme == "tls"
	}
	return slices.ContainsFunc(u.Targets, func(t model.Target) bool {
		return strings.HasPrefix(t.URL, "https://") || strings.HasPrefix(t.URL, "tls://")
	})
}

// checkRoutes finds routes that lead to services that speak no HTTP.
func (j *job) checkRoutes() {
	told := map[string]bool{}
	for _, name := range j.loaded.Objects("apis") {
		a := j.next.apis[name]
		if a == nil {
			continue
		}
		for i := range a.routes {
			c := &a.routes[i]
			s, place := j.next.upstreams[c.info.Upstream], decode.FormatPath(c.asks)
			if s == nil || !s.upstream.Raw() || told[place] {
				continue
			}
			told[place] = true
			j.problem("invalid_value", "the targets of "+strconv.Quote(c.info.Upstream)+" carry bytes and no HTTP, for listeners with tcp; "+
				"an API needs http://, https:// or h2c:// targets", c.asks...)
		}
	}
}

// target finds the upstream of a way. passed: what goes there is TLS already.
func (j *job) target(w *engine.Way, passed bool, path ...string) {
	s := j.next.upstreams[w.Info.Upstream]
	names := j.loaded.Objects("upstreams")
	switch {
	case j.loaded.Document.Upstreams[w.Info.Upstream].Split != nil:
		j.problem("invalid_value", strconv.Quote(w.Info.Upstream)+" is a split, which decides by requests (by, header, cookie), and a "+
			"connection is none; name an upstream with the targets of all versions, which shares connections by their weights: "+
			"targets: [{url: tcp://OLD, weight: 9}, {url: tcp://NEW, weight: 1}]", path...)
	case s == nil && slices.Contains(names, w.Info.Upstream): // it has problems of its own
	case s == nil:
		hint := text.DidYouMean(w.Info.Upstream, names)
		if hint == "" {
			hint = j.upstreamNames()
		}
		j.problem("unknown_upstream", "there is no upstream "+strconv.Quote(w.Info.Upstream)+hint, path...)
	case passed && encrypts(j.loaded.Document.Upstreams[w.Info.Upstream]):
		j.problem("invalid_value", "connections chosen by name are TLS already, and the targets of "+strconv.Quote(w.Info.Upstream)+
			" would have them encrypted twice; write tcp://host:port", path...)
	default:
		w.Upstream = s.upstream
	}
}

// checkTCP finds what does not go together with tcp.
func (j *job) checkTCP(l *model.Listener, path []string) {
	at := func(keys ...string) []string { return append(path[:2:2], keys...) }
	if l.TCP.Upstream == "" && len(l.TCP.BySNI) == 0 {
		j.problem("missing_upstream", "the listener leads nowhere; write upstream or by_sni"+j.upstreamNames(), at("tcp")...)
	}
	for _, wrong := range []struct {
		given bool
		key   []string
		why   string
	}{
		{len(l.Protocols) > 0, []string{"protocols"}, "versions of HTTP, and a listener with tcp speaks none"},
		{l.Redirect != nil, []string{"redirect_to_https"}, "an answer of HTTP, and a listener with tcp gives none"},
		{len(l.Trusted) > 0, []string{"trusted_proxies"},
			"about header fields, and a listener with tcp reads none; a load balancer tells the client by proxy_protocol"},
		{len(l.AllowPath) > 0, []string{"allow_in_path"}, "about paths, and a listener with tcp reads none"},
		{l.TLS != nil && l.TLS.HSTS != nil, []string{"tls", "hsts"}, "a header field, and a listener with tcp sends none"},
		{l.TLS != nil && l.TLS.EarlyData, []string{"tls", "early_data"}, "about requests, and a listener with tcp reads none"},
		{l.TLS != nil && len(l.TCP.BySNI) > 0, []string{"tcp", "by_sni"},
			"for TLS that is passed on undecrypted, and tls beside it decrypts; leave one out"},
	} {
		if wrong.given {
			j.problem("exclusive_keys", wrong.key[len(wrong.key)-1]+" is "+wrong.why, at(wrong.key...)...)
		}
	}
}
