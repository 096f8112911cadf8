package compile

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"headgate/gateway/engine"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/route"
)

// Explanation says what would become of a request, and why.
type Explanation struct {
	Request  string           `json:"request"`
	Outcome  string           `json:"outcome"` // matched, no_route, no_method or refused
	Reason   string           `json:"reason,omitempty"`
	API      string           `json:"api,omitempty"`
	Version  string           `json:"version,omitempty"`
	Route    string           `json:"route,omitempty"`
	Written  string           `json:"written,omitempty"` // where the route stands in the document
	Match    string           `json:"match,omitempty"`
	Params   []exchange.Param `json:"params,omitempty"`
	Allow    string           `json:"allow,omitempty"`  // with no_method
	Others   []Other          `json:"others,omitempty"` // routes of this host and path that are not taken, the most specific first
	Policies []PolicyStep     `json:"policies,omitempty"`
	Upstream string           `json:"upstream,omitempty"`
	Targets  []string         `json:"targets,omitempty"`
	Release  []string         `json:"release,omitempty"` // what stands in front of the upstream, or in its place
	Path     string           `json:"path,omitempty"`    // what the upstream is asked
	Answer   string           `json:"answer,omitempty"`  // what is answered without an upstream
}

// Other is a route that fits host and path and is not taken.
type Other struct {
	Written string `json:"written"`
	Match   string `json:"match"`
	Why     string `json:"why"`
}

// PolicyStep is one policy of the route, in the order in which they see the request.
type PolicyStep struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Stage   string   `json:"stage"`
	Written string   `json:"written"`
	Does    []string `json:"does"`               // request, request body, response, response body, done
	When    string   `json:"when,omitempty"`     // its condition
	MayWait bool     `json:"may_wait,omitempty"` // it may have to ask somebody before it can decide
	Shadow  bool     `json:"shadow,omitempty"`
	OnError string   `json:"on_error"` // reject or allow
	Why     string   `json:"why"`      // it stands at this place
}

// maxOthers bounds the routes that are listed as not taken.
const maxOthers = 20

// Explain says what would become of a request to a URL. Only the URL's host, path and query are looked at; a URL that
// begins with a slash is for any host. Header fields, as pairs of name and value, tell apart routes that ask for them.
func Explain(s *engine.Snapshot, method, target string, header ...[2]string) (Explanation, error) {
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "" && u.Host == "" {
		return Explanation{}, fmt.Errorf("%q is not a URL; write http://host/path or /path", target)
	}
	x := &exchange.Exchange{Start: s.Compiled}
	x.Request = exchange.Request{Method: method, Host: u.Host, Path: rawPath(target), Query: u.RawQuery, Scheme: "http", Proto: "HTTP/1.1"}
	for _, f := range header {
		x.Request.Header.Add(f[0], f[1])
	}
	e := Explanation{Request: method + " " + target}
	if reason := route.CheckPath(x.Request.Path, true, true); reason != "" {
		e.Outcome, e.Reason = "refused", reason
		return e, nil
	}
	r := e.find(s, x)
	x.Route = r.Info
	x.MakeSlots(r.Slots)
	for _, i := range r.Chain.Instances() {
		e.Policies = append(e.Policies, explainPolicy(i))
	}
	e.way(r, x)
	return e, nil
}

// rawPath is the path as it was written, which url.Parse may change.
func rawPath(target string) string {
	if _, rest, ok := strings.Cut(target, "://"); ok {
		if i := strings.IndexAny(rest, "/?#"); i >= 0 && rest[i] == '/' {
			target = rest[i:]
		} else {
			target = "/"
		}
	}
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		target = target[:i]
	}
	return target
}

func (e *Explanation) find(s *engine.Snapshot, x *exchange.Exchange) *engine.Route {
	q := &x.Request
	r, params, outcome := s.Table.Match(q.Method, q.Host, q.Path, &q.Header, q.Query, nil)
	for _, c := range s.Table.Candidates(q.Method, q.Host, q.Path, &q.Header, q.Query, maxOthers) {
		if c.Value != r {
			e.Others = append(e.Others, Other{c.Value.Name, c.Value.Match, c.Why})
		}
	}
	switch outcome.Status {
	case route.Matched:
		x.Params, e.Params = params, params
		e.Outcome, e.Reason = "matched", "the most specific route that fits host, path, method, header fields and query"
		e.API, e.Version, e.Route, e.Written, e.Match = r.Info.API, r.Info.Version, r.Info.Name, r.Name, r.Match
		return r
	case route.NoMethod:
		e.Outcome, e.Allow, e.Reason = "no_method", outcome.Allow, "routes fit everything but the method"
		e.Answer = "405 with Allow: " + outcome.Allow
		if q.Method == "OPTIONS" {
			e.Answer = "204 with Allow: " + outcome.Allow
		}
	default:
		e.Outcome, e.Reason = "no_route", "no route fits host and path"
	}
	return s.NotFound
}

func explainPolicy(i *policy.Instance) PolicyStep {
	h := &i.Hooks
	p := PolicyStep{
		Name: i.Name, Kind: i.Kind, Stage: i.Stage.String(), Written: i.Origin, When: i.Condition, Shadow: i.Shadow, OnError: "reject",
		MayWait: h.Request.Later != nil || h.Response.Later != nil,
	}
	if i.AllowOnError {
		p.OnError = "allow"
	}
	for _, hook := range []struct {
		name  string
		there bool
	}{
		{"request", h.Request.Now != nil || h.Request.Later != nil}, {"request body", h.RequestBody != nil},
		{"response", h.Response.Now != nil || h.Response.Later != nil}, {"response body", h.ResponseBody != nil}, {"done", h.Done != nil},
	} {
		if hook.there {
			p.Does = append(p.Does, hook.name)
		}
	}
	switch {
	case strings.HasPrefix(i.Origin, "policies"):
		p.Why = "written for every request: first in stage " + p.Stage
	case !strings.Contains(i.Origin, ".routes"):
		p.Why = "written for the API: after those for every request in stage " + p.Stage
	default:
		p.Why = "written for the route: last in stage " + p.Stage
	}
	return p
}

// way says what the request leads to. Rewrites and fixed answers are tried out on it.
func (e *Explanation) way(r *engine.Route, x *exchange.Exchange) {
	if d, ok := r.Release.(interface {
		Describe(*exchange.Exchange) []string
	}); ok {
		e.Upstream, e.Release = r.Info.Upstream, d.Describe(x)
	}
	if r.Upstream != nil {
		e.Upstream = r.Upstream.Name
		for _, t := range r.Upstream.Status().Targets {
			e.Targets = append(e.Targets, t.Address)
		}
		slices.Sort(e.Targets)
		if source := r.Upstream.Sought(); source != "" {
			e.Targets = append(e.Targets, "discovered by "+source)
		}
	}
	if e.Upstream != "" {
		if r.Rewrite != nil && !r.Rewrite(x) {
			e.Reason = "the rewritten path could be read in more than one way: such a request is refused"
			return
		}
		e.Path = x.Request.Path
		return
	}
	if e.Answer != "" || r.Answer == nil {
		return
	}
	r.Answer(x)
	e.Answer = fmt.Sprintf("%d %s", x.Reply.Status, exchange.StatusText(x.Reply.Status))
	if location := x.Reply.Header.Get("Location"); location != "" {
		e.Answer += " to " + location
	}
}
