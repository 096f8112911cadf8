// Package exchange is one request and its reply, as everything between the client's wire and the upstream's sees them.
// It knows no protocol and no policy.
package exchange

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"
)

// Exchange is one request, what was learned about it, and its reply. It is used by one goroutine at a time and is valid
// until its Done hooks have returned; strings taken from it may be kept.
type Exchange struct {
	ID       string    // correlation id, in every log line, trace and problem reply
	Shard    uint32    // the same for all exchanges of one connection; picks a shard of anything sharded
	Start    time.Time // when the request's head was complete: the "now" of limits and token checks
	Client   Client
	Request  Request
	Reply    Reply
	Route    *Route    // what matched; never nil once the policies run
	Params   []Param   // what the route's path template captured
	Consumer *Consumer // who calls, once a policy has found out; nil: nobody known
	Claims   Claims    // what a verified token says; nil: no token
	Err      *Error    // why the gateway answered by itself or broke off; nil: it did not
	Trace    Trace     // W3C trace context
	Usage    Usage     // what was measured
	Original Original  // what the client asked, before any policy or rewrite changed the request

	Affinity uint64 // pin of the target that should be asked if it can be (upstream.Pin); 0: any

	Finish func(error) // set by the handler when Reply returned ErrSwitched; the error is that of carrying the connection
	Cancel *Canceler   // ends it from outside
	Wire   Wire        // the client's

	slots []any
}

// Handler carries exchanges for a wire, several at once where a connection has several.
type Handler interface {
	// Serve carries one exchange from its request to the end of its reply, which it sends through x.Wire.
	Serve(x *Exchange)
	// Refuse answers and records a request that is not acceptable; x.Err says why.
	Refuse(x *Exchange)
}

// Wire is the client's side of an exchange, whatever protocol it speaks.
type Wire interface {
	// Inform sends an informational reply (1xx) with the given fields.
	Inform(x *Exchange, status int, h *Header) error
	// Reply sends x.Reply: its head, and its body up to the end. The error says that the client did not get all of it, or is
	// ErrSwitched.
	Reply(x *Exchange) error
	// Interrupt makes a read of the request's body that is waiting return with an error.
	Interrupt()
}

// Patient is what a Wire may be, too. How long a request's body may be silent is decided in three steps:
//
//   - At first the listener's limits hold: so long without a byte, and a least rate.
//   - A body of messages, such as that of a gRPC call, comes when its sender has something to say, and its reply may begin with
//     the last of them. Who sends it on over a connection that it does not hold up says so (Unhurried): then the upstream's
//     limit takes the place of the listener's, as it does for both sides together later on.
//   - Once the reply to a request has begun that is still being read (Request.Streaming), its body is one side of a
//     conversation: a Wire holds it to no time limit at all, and who reads the reply does.
type Patient interface {
	// Unhurried says that the request's body is made of messages: it is held to no least rate any more, and may be without a
	// byte for idle, while it is waited for. It is called before whoever sends the body on reads it.
	Unhurried(idle time.Duration)
}

// ErrSwitched is what Wire.Reply returns when it has sent the head of a reply that switches the connection, and the wire
// will carry that after the handler has returned, on a smaller stack. The handler leaves x.Finish, which the wire calls once,
// at the end.
var ErrSwitched = errors.New("exchange: the connection is switched, and carried later")

// Claims answers questions about a verified token.
type Claims interface {
	// Claim returns a claim by its dotted path ("sub", "realm.roles"): a string, bool, float64, []any, map[string]any or nil.
	Claim(path string) any
}

// Client is where the request came from.
type Client struct {
	Peer    netip.AddrPort // the other end of the connection
	Local   netip.AddrPort // where the client's connection came to, as far as the wire knows
	Addr    string         // its address as text, made once for each connection
	IP      netip.Addr     // the client's address, behind trusted proxies if there are any
	Trusted bool           // the peer is a trusted proxy
	Secure  bool           // the client's connection, or the trusted proxy's word for it, is encrypted
	TLS     *TLS           // of the connection itself, shared by its exchanges; nil: in clear
}

// Request is what the client asks, and what the upstream will be asked.
type Request struct {
	Method    string
	Path      string // as it came, byte for byte, without the query; a rewrite replaces it
	Query     string // what follows the '?', without it
	HasQuery  bool   // there was a "?", even with nothing behind it
	Expect    bool   // the client waits for 100 (Continue) before it sends the body
	Streaming bool   // the reply came while the body was still being read: another goroutine has it
	Host      string // authority: host and optional port
	Scheme    string // "http" or "https"
	Proto     string // "HTTP/1.1", "HTTP/2.0", "HTTP/3.0", or "TCP" for a connection that is no HTTP
	Upgrade   string // protocol that the client wants to switch to, lower case, such as "websocket"; "": none
	Header    Header
	Body      Body
	Trailer   Header // filled once the body has been read to its end
}

// Reply is what the client will get.
type Reply struct {
	Status   int
	Source   Source
	Header   Header
	Body     Body
	Trailer  Header // filled once the body has been read to its end
	Switched Stream // with status 101: the upstream's side of what the connection has become; nil: none
	Tunnel   Tunnel // with Switched: what carries it, by the route's settings
}

// Tunnel carries a connection that was switched to another protocol.
type Tunnel interface {
	// Carry carries bytes between the client's side and x.Reply.Switched until the connection has ended, and fills what
	// x.Usage says of it. The error is an *Error that says whose side broke. Neither stream is closed.
	Carry(x *Exchange, client Stream) error
}

// Stream is one side of a connection that carries bytes both ways: one goroutine may read while another writes.
type Stream interface {
	io.ReadWriter
	// CloseWrite ends what we send; the other direction goes on.
	CloseWrite() error
	// Interrupt unblocks whatever waits, from another goroutine; the stream is of no use afterwards.
	Interrupt()
}

// Starter is a Tunnel that needs nobody to wait for it: Start returns at once, and ended is called with Carry's error, once,
// from another goroutine.
type Starter interface {
	Start(x *Exchange, client Stream, ended func(error))
}

// Body is a message body that is pulled. A nil Reader means that there is none.
type Body struct {
	Reader io.Reader
	Length int64 // in bytes; -1: not known ahead
}

// None reports whether there is no body at all.
func (b Body) None() bool { return b.Reader == nil }

// Piecewise is what a body's Reader may implement so that its bytes can be handed on without a copy: Next returns the
// next piece, valid until the following call, and io.EOF at the end, with the last piece or behind it. A Reader may also
// have Ready() bool, whether Next or Read returns without waiting, so that whoever passes it on knows when to let go what it
// has, and Done() bool, whether the piece that was read last is known to have been the last.
type Piecewise interface {
	Next() ([]byte, error)
}

// Consumer is a known caller.
type Consumer struct {
	Name   string
	Groups []string
	Labels map[string]string
}

// InGroup reports whether the consumer belongs to the group. A nil consumer belongs to none.
func (c *Consumer) InGroup(group string) bool {
	if c == nil {
		return false
	}
	for _, g := range c.Groups {
		if g == group {
			return true
		}
	}
	return false
}

// Route names what matched, for policies, logs and metrics. It is immutable and shared by all its exchanges.
type Route struct {
	API, Version, Name string
	Upstream           string // "" when the route answers without one
	Index              int    // dense within one snapshot

	// Waiting is the share of the requests to the upstream that lately had to wait for it, or were refused, in percent; nil: there
	// is no upstream.
	Waiting func(now time.Time) int
}

// Param is one captured piece of the path, percent-decoded.
type Param struct{ Name, Value string }

// Param returns a captured piece of the path by name, or "".
func (x *Exchange) Param(name string) string {
	for i := range x.Params {
		if x.Params[i].Name == name {
			return x.Params[i].Value
		}
	}
	return ""
}

// Original is what the client asked, for the record.
type Original struct {
	Method, Host, Path, Query string
}

// Usage is what was measured of an exchange.
type Usage struct {
	RequestBytes, ReplyBytes int64         // body bytes as they crossed the client's wire
	UpstreamStart            time.Duration // from Exchange.Start until the upstream was asked
	UpstreamTime             time.Duration // from asking the upstream to the head of its answer
	Target                   string        // address of the upstream target that answered
	Variant                  string        // that a split has chosen; "": there was no split
	Attempts                 int
	Fallback                 string // why the upstream's fallback answered, such as no_target; "": it did not
	Aborted                  bool   // the client did not get a whole reply
	Cached                   bool
	GRPC                     GRPCStatus
	Closed                   string        // why a switched connection ended, such as client_closed; "": none was
	CloseStatus              uint16        // of a WebSocket's close frame; 0: none
	FirstByte                time.Duration // from Exchange.Start to the first byte of the reply's body; 0: not measured
	Events                   int           // of an event stream, that came
	LargestGap               time.Duration // between two of them, or before the first
}

// GRPCStatus is the status code with which a gRPC call ended, plus one; 0: the exchange was no call, or ended without a status.
type GRPCStatus uint8

// Code returns the status code, 0 (OK) to 16, if there is one.
func (s GRPCStatus) Code() (code int, ok bool) { return int(s) - 1, s > 0 }

// Trace is the W3C trace context of an exchange.
type Trace struct {
	ID      [16]byte
	Span    [8]byte // the gateway's own span
	Parent  [8]byte // the caller's span; zero: none
	Sampled bool
}

// Context returns the exchange's context: done when the client is gone or the deadline has passed. Asking for it costs;
// only steps that wait do.
func (x *Exchange) Context() context.Context {
	if x.Cancel == nil {
		return context.Background()
	}
	return x.Cancel.Context()
}

// MakeSlots gives the exchange n empty slots, keeping memory.
func (x *Exchange) MakeSlots(n int) {
	clear(x.slots)
	if cap(x.slots) < n {
		x.slots = make([]any, n)
	}
	x.slots = x.slots[:n]
}

// Reset forgets everything about the last request, keeping memory, so that the exchange can be pooled.
func (x *Exchange) Reset() {
	request, reply, params, slots := x.Request, x.Reply, x.Params, x.slots
	for _, h := range []*Header{&request.Header, &request.Trailer, &reply.Header, &reply.Trailer} {
		h.Reset("")
	}
	clear(params)
	clear(slots)
	*x = Exchange{Shard: x.Shard, Cancel: x.Cancel, Wire: x.Wire, Params: params[:0], slots: slots}
	x.Request.Header, x.Request.Trailer = request.Header, request.Trailer
	x.Reply.Header, x.Reply.Trailer = reply.Header, reply.Trailer
}

// Slot is a typed place on every exchange, asked for while a document is compiled.
type Slot[T any] struct{ index int }

// NewSlot returns the slot with that index; policy.Slot hands the indexes out.
func NewSlot[T any](index int) Slot[T] { return Slot[T]{index} }

// Get returns what was put into the slot during this exchange.
func (s Slot[T]) Get(x *Exchange) (T, bool) {
	v, ok := x.slots[s.index].(T)
	return v, ok
}

// Set puts a value into the slot. A pointer costs no allocation.
func (s Slot[T]) Set(x *Exchange, v T) { x.slots[s.index] = v }
