package exchange

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// Source says whose doing a reply or an error is.
type Source uint8

// The sources, from the client's side to the far end.
const (
	FromGateway Source = iota
	FromClient
	FromUpstream
)

// String returns "gateway", "client" or "upstream".
func (s Source) String() string { return [...]string{"gateway", "client", "upstream"}[s] }

// Code is one entry of the catalogue of problems: a stable name that clients may program against, the status that goes
// with it and one sentence for the caller.
type Code struct {
	Name   string // lower_snake_case, never reused for another meaning
	Status int
	Title  string // one sentence, for the caller
}

// Error says why an exchange did not go as the client wished: a stable code for the client, a cause for the operator.
type Error struct {
	Code   Code
	Source Source
	Retry  bool   // nothing was done yet, so another attempt is safe
	Detail string // more for the caller; must not reveal internals
	Cause  error  // for the operator's log only

	RetryAfter time.Duration // when it is worth to try again, for the field of that name; 0: not known
}

// Error returns the code's name and the cause.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Code.Name
	}
	return e.Code.Name + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ProblemType is the media type of the gateway's own replies (RFC 9457).
const ProblemType = "application/problem+json"

// Problem makes the reply an RFC 9457 document for the code: type, title, status, code, detail (when there is one) and
// the correlation id. It replaces the reply's header and body.
func (x *Exchange) Problem(code Code, detail string) {
	doc := struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Code   string `json:"code"`
		Detail string `json:"detail,omitempty"`
		ID     string `json:"request_id,omitempty"`
	}{"about:blank", code.Title, code.Status, code.Name, detail, x.ID}
	body, err := json.Marshal(doc)
	if err != nil { // strings always marshal
		body = []byte(`{"type":"about:blank"}`)
	}
	x.Answer(code.Status, ProblemType, string(body))
}

// Answer makes the reply one of the gateway's own, with a body of the given media type.
func (x *Exchange) Answer(status int, contentType, body string) {
	x.Reply.Header.Reset("")
	x.Reply.Trailer.Reset("")
	x.Reply.Status, x.Reply.Source, x.Reply.Body = status, FromGateway, Body{}
	if contentType != "" {
		x.Reply.Header.Add("Content-Type", contentType)
	}
	if body != "" {
		x.Reply.Body = Text(body)
	}
}

// Text is a body at hand.
func Text(s string) Body { return Body{Reader: strings.NewReader(s), Length: int64(len(s))} }

// StatusText returns the reason phrase of a status, or "" for one without.
func StatusText(status int) string { return http.StatusText(status) }

// The problems of the gateway's own line. Policies declare theirs in their Spec.
var (
	RouteNotFound       = Code{"route_not_found", 404, "No API answers at this address."}
	MethodNotAllowed    = Code{"method_not_allowed", 405, "This address does not answer to this method; see the Allow header."}
	AmbiguousPath       = Code{"ambiguous_path", 400, "The path could be read in more than one way."}
	BadRequest          = Code{"bad_request", 400, "The request is not valid HTTP."}
	PlainHTTP           = Code{"plain_http", 400, "This port speaks TLS; ask with https."}
	BodyTooLarge        = Code{"body_too_large", 413, "The request's body is larger than allowed here."}
	TargetTooLong       = Code{"target_too_long", 414, "The request's target is longer than allowed here."}
	Misdirected         = Code{"misdirected_request", 421, "This connection was not opened for this host; open another one."}
	HeadTooLarge        = Code{"head_too_large", 431, "The request's header section is larger than allowed here."}
	ExpectationFailed   = Code{"expectation_failed", 417, "The only expectation that can be met is 100-continue."}
	NotImplemented      = Code{"not_implemented", 501, "This method is not implemented here."}
	VersionNotSupported = Code{"version_not_supported", 505, "This version of HTTP is not supported here."}
	RequestTimeout      = Code{"request_timeout", 408, "The request did not arrive in time."}
	ConnectionRate      = Code{"connection_rate_exceeded", 429, "This client opens new connections too fast."}
	NotTLS              = Code{"not_tls", 400, "The connection does not begin with an acceptable TLS handshake."}
	NameNotServed       = Code{"name_not_served", 421, "No service here answers to the name that was asked for."}
	TooManyConnections  = Code{"too_many_connections", 503, "Too many connections are open; try again later."}
	LoopDetected        = Code{"loop_detected", 508, "The request has passed through this gateway too many times."}
	UpstreamUnreachable = Code{"upstream_unreachable", 502, "The service behind this API could not be reached."}
	UpstreamUnresolved  = Code{"upstream_unresolved", 503, "The name of the service behind this API cannot be resolved."}
	UpstreamUntrusted   = Code{"upstream_untrusted", 502, "The service behind this API could not prove who it is."}
	UpstreamBusy        = Code{"upstream_busy", 503, "The service behind this API has as many requests at one time as it may have."}
	BreakerOpen         = Code{"breaker_open", 503, "The service behind this API fails too often, and is left alone for a while."}
	UpstreamNoUpgrade   = Code{"upstream_no_upgrade", 502, "The service behind this API cannot switch to the protocol that was asked for."}
	UpstreamInvalid     = Code{"upstream_invalid", 502, "The service behind this API gave an answer that is not valid HTTP."}
	UpstreamClosed      = Code{"upstream_closed", 502, "The service behind this API closed the connection before it answered."}
	UpstreamTimeout     = Code{"upstream_timeout", 504, "The service behind this API did not answer in time."}
	DeadlineExceeded    = Code{"deadline_exceeded", 504, "The time that was allowed for this request has passed."}
	Overloaded          = Code{"overloaded", 503, "The gateway is short of memory; try again later."}
	NoTarget            = Code{"no_target", 503, "The service behind this API has no target that could answer."}
	ClientGone          = Code{"client_gone", 499, "The client went away before it was answered."}
	WebSocketVersion    = Code{"websocket_version", 426, "The only version of WebSocket that is spoken here is 13."}
	TooManyUpgrades     = Code{"too_many_upgrades", 503, "Too many connections of this kind are open; try again later."}
	PolicyFailed        = Code{"policy_failed", 500, "The gateway could not decide about this request."}
	PolicyUnavailable   = Code{"policy_unavailable", 503, "Something that the gateway needs to decide about this request is not available."}
	Internal            = Code{"internal_error", 500, "The gateway failed on this request."}

	TooManyUpgradesOfConsumer = Code{"too_many_upgrades_of_consumer", 429, "You have too many connections of this kind open."}
)

// Codes lists the problems of the gateway's own line.
func Codes() []Code {
	return []Code{
		RouteNotFound, MethodNotAllowed, AmbiguousPath, BadRequest, PlainHTTP, BodyTooLarge, TargetTooLong, Misdirected, HeadTooLarge,
		ExpectationFailed, NotImplemented, VersionNotSupported, RequestTimeout, TooManyConnections, LoopDetected,
		ConnectionRate, NotTLS, NameNotServed,
		UpstreamUnreachable, UpstreamUnresolved, UpstreamUntrusted, UpstreamBusy,
		BreakerOpen, UpstreamNoUpgrade, UpstreamInvalid, UpstreamClosed, UpstreamTimeout,
		DeadlineExceeded, Overloaded, NoTarget, ClientGone, WebSocketVersion, TooManyUpgrades, TooManyUpgradesOfConsumer,
		PolicyFailed, PolicyUnavailable, Internal,
	}
}
