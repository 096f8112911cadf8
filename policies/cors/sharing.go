package cors

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// The fields of the protocol.
const (
	allowOrigin         = "Access-Control-Allow-Origin"
	allowCredentials    = "Access-Control-Allow-Credentials"
	allowMethods        = "Access-Control-Allow-Methods"
	allowHeaders        = "Access-Control-Allow-Headers"
	allowPrivateNetwork = "Access-Control-Allow-Private-Network"
	exposeHeaders       = "Access-Control-Expose-Headers"
	maxAge              = "Access-Control-Max-Age"
	requestMethod       = "Access-Control-Request-Method"
	requestHeaders      = "Access-Control-Request-Headers"
	requestPrivate      = "Access-Control-Request-Private-Network"
	replies             = "Access-Control-" // what all of them begin with
)

// preflightVary is what a preflight's answer depends on besides the origin.
const preflightVary = requestMethod + ", " + requestHeaders

// maxReflected bounds the list of field names that is sent back to a page that asked for them.
const maxReflected = 4 << 10

// sharing is the policy at work.
type sharing struct {
	all            bool // every origin, and the same answer for all of them
	exact          map[string]struct{}
	below          []*below
	credentials    bool
	private        bool
	methods        string // "": the one that was asked for
	headers        string // "": those that were asked for, if anyHeader
	anyHeader      bool
	expose, maxAge string
	answered       exchange.Slot[bool] // this policy answered a preflight
}

func newSharing(c Config, e policy.Env) *sharing {
	s := &sharing{
		exact: map[string]struct{}{}, credentials: c.Credentials, private: c.PrivateNetwork,
		expose: strings.Join(c.Expose, ", "), maxAge: strconv.FormatInt(int64(c.MaxAge/time.Second), 10),
		answered: policy.Slot[bool](e),
	}
	for _, entry := range c.Origins {
		o, _ := parseOrigin(entry) // check has seen to errors
		switch {
		case o.all:
			s.all = true
		case o.below != nil:
			s.below = append(s.below, o.below)
		default:
			s.exact[o.exact] = struct{}{}
		}
	}
	// "*" in an answer does not cover Authorization, nor anything when there are credentials (Fetch, CORS-preflight fetch):
	// sending back what was asked for means any in every case.
	if !slices.Contains(c.Methods, "*") {
		s.methods = strings.Join(c.Methods, ", ")
	}
	if s.anyHeader = slices.Contains(c.Headers, "*"); !s.anyHeader {
		s.headers = strings.Join(c.Headers, ", ")
	}
	return s
}

// preflight answers the request with which a browser asks whether it may send another. It has no credentials (Fetch,
// CORS-preflight fetch), so it is answered before anybody is identified; an OPTIONS of its own goes on to the upstream.
func (s *sharing) preflight(x *exchange.Exchange) policy.Verdict {
	h := &x.Request.Header
	if x.Request.Method != "OPTIONS" || !h.Has("Origin") || !h.Has(requestMethod) {
		return policy.Continue
	}
	x.Answer(204, "", "")
	s.answered.Set(x, true)
	return policy.Answered
}

// share gives the reply its fields, whoever made it. What the upstream says of its own about sharing is replaced: two
// values would mean that nobody may.
func (s *sharing) share(x *exchange.Exchange) policy.Verdict {
	h := &x.Reply.Header
	h.DelFunc(func(name, _ string) bool {
		return len(name) > len(replies) && exchange.EqualFold(name[:len(replies)], replies)
	})
	preflight, _ := s.answered.Get(x)
	if !s.all {
		addVary(h, "Origin") // also where no origin came or may: a cache must not hand this reply to one that may
	}
	if preflight {
		addVary(h, preflightVary)
		if s.private {
			addVary(h, requestPrivate)
		}
	}
	origin := s.allowed(&x.Request.Header)
	if origin == "" {
		return policy.Continue
	}
	h.Add(allowOrigin, origin)
	if s.credentials {
		h.Add(allowCredentials, "true")
	}
	switch {
	case preflight:
		s.permit(&x.Request.Header, h)
	case s.expose != "":
		h.Add(exposeHeaders, s.expose)
	}
	return policy.Continue
}

// allowed returns what Access-Control-Allow-Origin says to this request's origin; "": nothing.
func (s *sharing) allowed(h *exchange.Header) string {
	origin, n := "", 0
	for v := range h.Values("Origin") {
		origin = v
		n++
	}
	if n != 1 || origin == "" {
		return ""
	}
	if s.all {
		return "*"
	}
	if _, ok := s.exact[origin]; ok {
		return origin
	}
	for _, b := range s.below {
		if b.matches(origin) {
			return origin
		}
	}
	return ""
}

// permit says what the page may send. The lists are whole: it is the browser that compares.
func (s *sharing) permit(request, h *exchange.Header) {
	methods := s.methods
	if methods == "" {
		if asked := request.Get(requestMethod); exchange.ValidName(asked) {
			methods = asked
		}
	}
	if methods != "" {
		h.Add(allowMethods, methods)
	}
	headers := s.headers
	if s.anyHeader {
		headers = reflected(request)
	}
	if headers != "" {
		h.Add(allowHeaders, headers)
	}
	h.Add(maxAge, s.maxAge)
	if s.private && request.Get(requestPrivate) == "true" {
		h.Add(allowPrivateNetwork, "true")
	}
}

// reflected returns the field names that were asked for, if names is what they are.
func reflected(request *exchange.Header) string {
	asked := request.Joined(requestHeaders)
	if len(asked) > maxReflected {
		return ""
	}
	for name := range strings.SplitSeq(asked, ",") {
		if !exchange.ValidName(strings.Trim(name, " \t")) {
			return ""
		}
	}
	return asked
}

// addVary adds names to Vary, unless the first is there or everything is (RFC 9110 section 12.5.5).
func addVary(h *exchange.Header, names string) {
	first, _, _ := strings.Cut(names, ",")
	had := false
	for value := range h.Values("Vary") {
		had = true
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.Trim(name, " \t"); name == "*" || exchange.EqualFold(name, first) {
				return
			}
		}
	}
	if had {
		names = h.Joined("Vary") + ", " + names
	}
	h.Set("Vary", names)
}
