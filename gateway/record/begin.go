package record

import (
	"encoding/binary"
	"strings"

	"headgate/gateway/exchange"
)

// Names of the fields that Begin reads and writes.
const (
	requestID   = "X-Request-Id"
	traceparent = "traceparent"
	tracestate  = "tracestate"
	baggage     = "baggage"
)

// Begin is called once for each exchange as soon as its request's head is complete, before any policy. It remembers what was
// asked, gives the exchange its correlation id and its trace context, and puts both on the request to the upstream.
//
// The id is the X-Request-Id of a trusted peer if that is 1 to 128 visible ASCII characters, else a new UUIDv7.
//
// With a collector configured the exchange gets a span of its own and the upstream gets a traceparent that names it;
// without one a valid traceparent is passed on as it came. A malformed one is replaced either way, and then tracestate,
// which belongs to it, is dropped (W3C Trace Context section 3.3).
func (r *Recorder) Begin(x *exchange.Exchange) {
	s := r.current.Load()
	r.totals.At(x.Shard)[totalBegun].Add(1)
	q := &x.Request
	x.Original = exchange.Original{Method: q.Method, Host: q.Host, Path: q.Path, Query: q.Query}

	in := readContext(&q.Header)
	id := ""
	if x.Client.Trusted && in.ids == 1 && validID(in.id) {
		id = strings.Clone(in.id) // the id is kept for long, the head it came in must not be
	}
	parent, ok := exchange.Trace{}, false
	if in.parents == 1 {
		parent, ok = parseTraceparent(in.parent)
	}
	fresh := s.tracer != nil || (in.parents > 0 && !ok)
	r.assign(x, s, id, parent, fresh)
	if in.states && (!ok || in.badState) {
		q.Header.Del(tracestate)
	}
	if in.badBaggage {
		q.Header.Del(baggage)
	}
}

// assign gives the exchange its id, unless there is one, and its trace; fresh: with a span of its own. Both texts share
// one allocation.
func (r *Recorder) assign(x *exchange.Exchange, s *settings, id string, parent exchange.Trace, fresh bool) {
	x.Trace = parent
	if id != "" && !fresh {
		x.ID = id
		return
	}
	var random [5]uint64
	if fresh {
		r.source.draw(x.Shard, random[:])
	} else {
		r.source.draw(x.Shard, random[:2])
	}
	var room [uuidLen + traceparentLen]byte
	text := room[:0]
	if id == "" {
		text = appendUUID(text, x.Start, [2]uint64(random[:2]))
	}
	idLen := len(text)
	if fresh {
		s.startSpan(x, random[2:])
		text = appendTraceparent(text, &x.Trace, clientSpan(x.Trace.Span))
	}
	both := string(text)
	if id == "" {
		id = both[:idLen]
		x.Request.Header.Set(requestID, id)
	}
	if fresh {
		x.Request.Header.Set(traceparent, both[idLen:])
	}
	x.ID = id
}

// startSpan makes x.Trace, which holds the caller's context or nothing, the gateway's own.
func (s *settings) startSpan(x *exchange.Exchange, random []uint64) {
	t := &x.Trace
	begunHere := t.ID == [16]byte{}
	if begunHere {
		binary.BigEndian.PutUint64(t.ID[:8], random[0]|1) // never all zeros
		binary.BigEndian.PutUint64(t.ID[8:], random[1])
	}
	binary.BigEndian.PutUint64(t.Span[:], random[2]&^1|1<<63) // see clientSpan; never all zeros
	if begunHere || !s.believesParent(x) {
		t.Sampled = random[1]>>1 < s.threshold
	}
}

// StampReply puts the correlation id on the reply. It is called once, on the head that the client will get, after the
// policies have seen it.
func StampReply(x *exchange.Exchange) {
	if x.ID != "" {
		x.Reply.Header.Set(requestID, x.ID)
	}
}

// incoming is what the request's head says about correlation, read in one pass.
type incoming struct {
	id, parent                   string
	ids, parents                 int
	states, badState, badBaggage bool
}

func readContext(h *exchange.Header) (in incoming) {
	members, items := 0, 0
	for i := range h.Len() {
		f := h.At(i)
		switch len(f.Name) {
		case len(requestID):
			if exchange.EqualFold(f.Name, requestID) {
				in.id = f.Value
				in.ids++
			}
		case len(traceparent):
			if exchange.EqualFold(f.Name, traceparent) {
				in.parent = f.Value
				in.parents++
			}
		case len(tracestate):
			if exchange.EqualFold(f.Name, tracestate) {
				in.states = true
				in.badState = in.badState || !validTracestate(f.Value, &members)
			}
		case len(baggage):
			if exchange.EqualFold(f.Name, baggage) {
				in.badBaggage = in.badBaggage || !validBaggage(f.Value, &items)
			}
		}
	}
	return in
}
