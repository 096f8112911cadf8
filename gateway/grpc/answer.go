package grpc

import (
	"encoding/json"
	"strconv"
	"strings"

	"headgate/gateway/exchange"
)

// codeField is the trailer that names the problem, as "code" does in a problem document.
const codeField = "headgate-code"

// settle makes a reply one for a client of gRPC or gRPC-Web.
func (c *Call) settle(x *exchange.Exchange) {
	r := &x.Reply
	p, subtype, isCall := c.replyType(r)
	switch {
	case !isCall:
		c.refuse(x)
	case c.translated:
		c.toWeb(x, subtype)
	case r.Body.Reader == nil, p == webText: // whose end cannot be seen without decoding all of it
	case p == web:
		r.Body = exchange.Body{Reader: c.out.envelope(c, x), Length: -1}
	default:
		r.Body.Reader = c.out.guard(c, x)
	}
	if isCall && r.Status != 200 && r.Header.Has("Grpc-Status") {
		r.Status = 200 // what counts is there, and a client that sees another status first would not look at it
	}
}

// replyType reports whether a reply is one of the protocol that the upstream was spoken to in.
func (c *Call) replyType(r *exchange.Reply) (p protocol, subtype string, ok bool) {
	if p, subtype, ok = readType(r.Header.Get("Content-Type")); !ok {
		return p, subtype, false
	}
	wanted := c.protocol.isWeb() && !c.translated
	if r.Status != 200 && !r.Header.Has("Grpc-Status") {
		return p, subtype, false
	}
	return p, subtype, p.isWeb() == wanted
}

// refuse makes a reply that is not gRPC one that is: "trailers-only", status 200 with the call's status in the head, since
// clients look nowhere else.
func (c *Call) refuse(x *exchange.Exchange) {
	r := &x.Reply
	status, message, code := judge(x)
	c.note(x, status)
	strip(&r.Header)
	r.Status, r.Body = 200, exchange.Body{}
	r.Trailer.Reset("")
	r.Header.Add("Content-Type", c.mediaType(c.subtype))
	addStatus(&r.Header, status, message, code)
	if after, ok := digits(r.Header.Get("Retry-After"), 6); ok && pushable(status) {
		r.Header.Add("grpc-retry-pushback-ms", strconv.FormatInt(after*1000, 10)) // gRFC A6
	}
}

// pushable reports whether a client whose service config retries would retry such a call.
func pushable(s Status) bool { return s == Unavailable || s == ResourceExhausted }

// judge tells what a reply that is not gRPC means: ours by its problem, another's by its HTTP status.
func judge(x *exchange.Exchange) (s Status, message, code string) {
	r := &x.Reply
	if e := x.Err; e != nil && e.Code.Status == r.Status && r.Source != exchange.FromUpstream {
		message = e.Code.Title
		if e.Detail != "" {
			message += " " + e.Detail
		}
		return ofProblem(e.Code.Name, r.Status), message, e.Code.Name
	}
	message = "HTTP status " + strconv.Itoa(r.Status)
	if text := exchange.StatusText(r.Status); text != "" {
		message += " (" + text + ")"
	}
	if r.Source != exchange.FromUpstream {
		return ofOwnStatus(r.Status), message, ""
	}
	message = "The service behind this API gave an answer that is not gRPC: " + message
	if contentType := r.Header.Get("Content-Type"); contentType != "" {
		message += ", content-type " + contentType
	}
	return ofForeignStatus(r.Status), message + ".", ""
}

// strip takes out of a header what speaks of a body that is not sent, or of a status that is not that of this reply.
func strip(h *exchange.Header) {
	h.DelFunc(func(name, _ string) bool {
		for _, n := range [...]string{
			"Content-Type", "Content-Length", "Content-Encoding", "Content-Language", "Content-Disposition", "Content-Range",
			"Transfer-Encoding", "Trailer", "ETag", "Last-Modified", "Accept-Ranges", "Grpc-Status", "Grpc-Message",
			"Grpc-Status-Details-Bin",
		} {
			if exchange.EqualFold(name, n) {
				return true
			}
		}
		return false
	})
}

func addStatus(h *exchange.Header, s Status, message, code string) {
	h.Add("grpc-status", strconv.Itoa(int(s)))
	if message = strings.TrimSpace(message); message != "" {
		h.Add("grpc-message", encodeMessage(message))
	}
	if code != "" {
		h.Add(codeField, code)
	}
}

// mediaType is the Content-Type of a reply to the call.
func (c *Call) mediaType(subtype string) string {
	switch {
	case !c.protocol.isWeb():
		return typeGRPC + subtype
	case c.text:
		return typeWebText + subtype
	}
	return typeWeb + subtype
}

// toWeb makes a reply of gRPC one of gRPC-Web. One without a body has its status in the head and keeps it there, where a
// browser's client finds it when the cors policy exposes it.
func (c *Call) toWeb(x *exchange.Exchange, subtype string) {
	r := &x.Reply
	r.Header.Set("Content-Type", c.mediaType(subtype))
	r.Header.Del("Trailer")
	r.Header.Del("Content-Length")
	if r.Body.Reader != nil {
		r.Body = exchange.Body{Reader: c.out.web(c, x), Length: -1}
	}
}

// connectError is an error as Connect writes it.
type connectError struct {
	Code    string `json:"code"`
	Message string `json:"message,omitempty"`
}

// settleConnect gives a problem of ours the form of Connect's errors, whose codes are those of gRPC. What comes from the
// upstream is Connect already, or means what its HTTP status says.
func (c *Call) settleConnect(x *exchange.Exchange) {
	r := &x.Reply
	if r.Source == exchange.FromUpstream {
		if _, ok := stem(r.Header.Get("Content-Type"), typeConnect); ok && c.protocol == connectStream && r.Body.Reader != nil {
			r.Body = exchange.Body{Reader: c.out.envelope(c, x), Length: -1}
		}
		return
	}
	if x.Err == nil || x.Err.Code.Status != r.Status {
		return
	}
	status, message, code := judge(x)
	e := connectError{connectNames[status], message}
	strip(&r.Header)
	r.Header.Add(codeField, code)
	if c.protocol == connectUnary {
		r.Header.Add("Content-Type", "application/json")
		r.Body = exchange.Text(jsonText(e))
		return
	}
	r.Status = 200
	r.Header.Add("Content-Type", typeConnect+c.subtype)
	r.Body = exchange.Text(string(endStream(e)))
}

// endStream is the last message of a Connect stream that failed.
func endStream(e connectError) []byte {
	return appendFrame(nil, endStreamFlag, []byte(jsonText(struct {
		Error connectError `json:"error"`
	}{e})))
}

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil { // strings always marshal
		return "{}"
	}
	return string(b)
}
