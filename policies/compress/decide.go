package compress

import (
	"io"
	"strconv"
	"strings"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

func itoa(n int) string { return strconv.Itoa(n) }

// compressor is the policy of one route.
type compressor struct {
	offers  []*offer
	types   []string // lower case
	minSize int64
	running exchange.Slot[*stream]
}

// decide marks a reply that will be compressed, before its head goes out.
func (p *compressor) decide(x *exchange.Exchange) policy.Verdict {
	r := &x.Reply
	if r.Status == 304 {
		vary(&r.Header) // as the reply that it stands for had (RFC 9110 section 15.4.5)
	}
	if !p.worthIt(x) {
		return policy.Continue
	}
	vary(&r.Header)
	o := choose(x.Request.Header.Joined("Accept-Encoding"), p.offers)
	if o == nil {
		return policy.Continue
	}
	r.Header.Set("Content-Encoding", o.name)
	left := r.Body.Length
	r.Body.Length = -1
	if etag := r.Header.Get("ETag"); etag != "" && !strings.HasPrefix(etag, "W/") {
		r.Header.Set("ETag", "W/"+etag) // RFC 9110 section 8.8.1: the bytes are others now
	}
	for _, name := range [...]string{"Accept-Ranges", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest"} {
		r.Header.Del(name) // they speak of the bytes that came
	}
	if !r.Body.None() { // a reply to HEAD has the fields of GET's: a cache takes others for a change (RFC 9111 section 4.3.5)
		p.running.Set(x, &stream{offer: o, left: left})
	}
	return policy.Continue
}

// worthIt reports whether the reply would be smaller and is ours to change. A range is of the bytes that the upstream has.
func (p *compressor) worthIt(x *exchange.Exchange) bool {
	r := &x.Reply
	switch {
	case r.Status < 200, r.Status == 204, r.Status == 206, r.Status == 304:
		return false
	case r.Body.Length >= 0 && r.Body.Length < p.minSize:
		return false
	case r.Body.None() && x.Request.Method != "HEAD":
		return false
	case r.Header.Has("Content-Range"), r.Header.Has("Content-Encoding"):
		return false
	case mentions(r.Header.Joined("Cache-Control"), "no-transform"):
		return false
	}
	return p.compressible(r.Header.Get("Content-Type"))
}

// compressible reports whether the media type, without its parameters, is one of those named.
func (p *compressor) compressible(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	kind, subtype, ok := strings.Cut(strings.TrimSpace(media), "/")
	if !ok || ofMessages(subtype) {
		return false
	}
	for _, t := range p.types {
		wantKind, want, _ := strings.Cut(t, "/")
		if !exchange.EqualFold(kind, wantKind) {
			continue
		}
		suffix, isSuffix := strings.CutPrefix(want, "*+")
		switch {
		case want == "*", !isSuffix && exchange.EqualFold(subtype, want):
			return true
		case isSuffix && len(subtype) > len(suffix)+1 && subtype[len(subtype)-len(suffix)-1] == '+' &&
			exchange.EqualFold(subtype[len(subtype)-len(suffix):], suffix):
			return true
		}
	}
	return false
}

// ofMessages reports whether the subtype is one of gRPC's or Connect's streams, whose messages are compressed one by one if at
// all: their clients know no Content-Encoding, and must see each message when it comes.
func ofMessages(subtype string) bool {
	for _, stem := range [...]string{"grpc", "connect"} {
		if len(subtype) >= len(stem) && exchange.EqualFold(subtype[:len(stem)], stem) &&
			(len(subtype) == len(stem) || subtype[len(stem)] == '+' || subtype[len(stem)] == '-') {
			return true
		}
	}
	return false
}

// vary tells caches that the reply depends on Accept-Encoding.
func vary(h *exchange.Header) {
	old := h.Joined("Vary")
	switch {
	case old == "":
		h.Add("Vary", "Accept-Encoding")
	case !mentions(old, "Accept-Encoding") && !mentions(old, "*"):
		h.Add("Vary", "Accept-Encoding")
	}
}

// mentions reports whether a comma-separated list holds the word.
func mentions(list, word string) bool {
	for item := range strings.SplitSeq(list, ",") {
		if exchange.EqualFold(strings.TrimSpace(item), word) {
			return true
		}
	}
	return false
}

// wrap puts the encoder between the upstream's body and the client.
func (p *compressor) wrap(x *exchange.Exchange, body io.Reader) io.Reader {
	s, ok := p.running.Get(x)
	if !ok {
		return body
	}
	s.begin(body)
	return s
}

// done gives the encoder back, also when the client went away in the middle.
func (p *compressor) done(x *exchange.Exchange) {
	if s, ok := p.running.Get(x); ok && s != nil {
		s.end()
	}
}
