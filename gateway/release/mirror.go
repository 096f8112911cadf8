package release

import (
	"bytes"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream"
)

// Mirror sends copies of exchanges to another service. The exchange itself never waits for its copy: what would make it wait
// is left out and counted.
type Mirror struct {
	name    string // of the upstream
	to      Service
	inner   assigner // the same as to, if that assigns by a number
	other   Service  // gets the copies
	asks    string   // other's name
	env     Env
	percent float64
	below   uint64 // percent of 2^53 numbers
	when    func(*exchange.Exchange) (bool, error)
	hide    string // cookie that is the gateway's own; "": none

	timeout time.Duration
	limit   int
	body    int
	compare *comparison // nil: answers are thrown away
	counts  *mirrored
	told    atomic.Int64 // when a difference was last told, in seconds

	copies  sync.WaitGroup
	mu      sync.Mutex
	running map[*exchange.Canceler]struct{} // of the copies under way
	held    int                             // places of exchanges whose copy is not under way yet
}

const (
	// closePatience is how long copies may go on when nobody uses their mirror any more: a reload or a stop must not wait
	// for a service whose answers nobody gets.
	closePatience = 5 * time.Second
	// tellEvery is how often a difference is told in the log: a new version may differ in every answer.
	tellEvery = 1 // seconds
)

// NewMirror puts a mirror in front of a service; other gets the copies, without the cookie that is called hide. Errors
// point into the mirror.
func NewMirror(name string, m *model.Mirror, to, other Service, hide string, e Env) (*Mirror, error) {
	r := &Mirror{
		name: name, to: to, inner: assignerOf(to), other: other, asks: m.Upstream, env: e, percent: m.Percent,
		below: uint64(math.Ceil(m.Percent / 100 * (1 << 53))), hide: hide,
		timeout: m.Timeout, limit: m.Limit, body: int(m.Body), running: map[*exchange.Canceler]struct{}{},
		counts: newMirrored(e.Metrics, name),
	}
	var err error
	if m.When != "" {
		if r.when, err = e.Expr.Bool(m.When); err != nil {
			return nil, decode.At("when", "%w", err)
		}
	}
	if r.compare, err = newComparison(m.Compare); err != nil {
		return nil, under(err, "compare")
	}
	return r, nil
}

// Send asks the service and, once that has begun to answer, sends the copy.
func (m *Mirror) Send(x *exchange.Exchange) (upstream.Call, error) {
	call, _, err := m.mirror(x, func() (upstream.Call, pinner, error) {
		call, err := m.to.Send(x)
		return call, nil, err
	})
	return call, err
}

// send is Send of a mirror in front of a split, with a number by which that assigns the exchange.
func (m *Mirror) send(x *exchange.Exchange, number uint64) (upstream.Call, pinner, error) {
	return m.mirror(x, func() (upstream.Call, pinner, error) { return m.inner.send(x, number) })
}

func (m *Mirror) mirror(x *exchange.Exchange, ask func() (upstream.Call, pinner, error)) (upstream.Call, pinner, error) {
	if isCopy(x) { // of another mirror: two that send copies to each other would never end
		m.counts.leftOut(x.Shard, reasonCopy)
		return ask()
	}
	x.Request.Header.Del(exchange.MirrorMark) // of a policy
	c := m.prepare(x)
	if c == nil {
		return ask()
	}
	begun := false
	defer func() {
		if !begun { // also when the service panics
			m.giveUp()
		}
	}()
	call, by, err := ask()
	if !c.complete() {
		m.counts.leftOut(x.Shard, reasonIncomplete)
		return call, by, err
	}
	begun = true
	return m.begin(c, x, call, err), by, err
}

// isCopy reports whether an exchange is a copy already: of a mirror here, or of another gateway that is trusted to say so.
// From others the mark does not get through the door.
func isCopy(x *exchange.Exchange) bool {
	_, here := x.Wire.(nobody)
	return here || x.Client.Trusted && x.Request.Header.Has(exchange.MirrorMark)
}

// prepare makes the copy of an exchange that is to have one and takes a place for it; nil: it has none.
func (m *Mirror) prepare(x *exchange.Exchange) *twin {
	if m.env.Random()>>11 >= m.below {
		return nil
	}
	if m.when != nil {
		if yes, err := m.when(x); !yes || err != nil {
			return nil
		}
	}
	b := &x.Request.Body
	reason := ""
	switch {
	case x.Request.Upgrade != "":
		reason = reasonUpgrade
	case streams(&x.Request.Header):
		reason = reasonStream
	case b.Reader != nil && b.Length > int64(m.body):
		reason = reasonTooLarge
	case !m.hold():
		reason = reasonBusy
	}
	if reason != "" {
		m.counts.leftOut(x.Shard, reason)
		return nil
	}
	c := newTwin(x)
	c.x.Request.Header.Add(exchange.MirrorMark, "1")
	if m.hide != "" {
		c.x.Request.Header.DropCookie(m.hide)
	}
	if b.Reader != nil && !c.take(b) {
		c.body = record(b, m.body)
	}
	return c
}

// streams reports whether an answer may go on for as long as both sides like: a gRPC call, whose outcome stands behind its
// body where no comparison looks, or events. A copy of it would only keep a place until its time has passed.
func streams(h *exchange.Header) bool {
	const grpc, events = "application/grpc", "text/event-stream"
	t, accept := h.Get("Content-Type"), h.Get("Accept")
	return len(t) >= len(grpc) && exchange.EqualFold(t[:len(grpc)], grpc) ||
		len(accept) >= len(events) && exchange.EqualFold(accept[:len(events)], events)
}

// twin is the copy of an exchange.
type twin struct {
	x    *exchange.Exchange
	body *tape // of the request's body; nil: it has none, or it is there already
}

// newTwin copies what the service is asked and who asks. Nothing of it is written to by two.
func newTwin(x *exchange.Exchange) *twin {
	y := &exchange.Exchange{
		ID: x.ID, Shard: x.Shard, Client: x.Client, Route: x.Route, Consumer: x.Consumer, Claims: x.Claims, Trace: x.Trace,
		Original: x.Original, Wire: nobody{}, Cancel: new(exchange.Canceler),
	}
	y.Params = append(y.Params, x.Params...)
	q := &x.Request
	y.Request = exchange.Request{
		Method: q.Method, Path: q.Path, Query: q.Query, HasQuery: q.HasQuery, Host: q.Host, Scheme: q.Scheme, Proto: q.Proto,
		Body: exchange.Body{Length: q.Body.Length},
	}
	y.Request.Header.CopyFrom(&q.Header)
	return &twin{x: y}
}

// take takes a body that is in memory already, so that it is still sent in one piece and can be sent again.
func (c *twin) take(b *exchange.Body) bool {
	var p []byte
	switch r := b.Reader.(type) {
	case interface{ AtHand() []byte }:
		if p = bytes.Clone(r.AtHand()); p == nil {
			return false
		}
	case *bytes.Reader:
		p = make([]byte, r.Len())
		if _, err := io.ReadFull(r, p); err != nil { // it never fails
			return false
		}
	default:
		return false
	}
	b.Reader, c.x.Request.Body.Reader = bytes.NewReader(p), bytes.NewReader(p)
	return true
}

// complete reports whether all of the request is there to be sent.
func (c *twin) complete() bool {
	if c.body == nil {
		return true
	}
	p, whole := c.body.copied()
	c.x.Request.Body.Reader, c.x.Request.Body.Length = bytes.NewReader(p), int64(len(p))
	return whole
}

// nobody is the wire of a copy: there is no client.
type nobody struct{}

// Inform implements exchange.Wire.
func (nobody) Inform(*exchange.Exchange, int, *exchange.Header) error { return nil }

// Reply implements exchange.Wire.
func (nobody) Reply(*exchange.Exchange) error { return nil }

// Interrupt implements exchange.Wire.
func (nobody) Interrupt() {}

// hold takes a place, if there is one.
func (m *Mirror) hold() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held+len(m.running) >= m.limit {
		return false
	}
	m.held++
	return true
}

// giveUp gives the place of a copy back that is not sent.
func (m *Mirror) giveUp() {
	m.mu.Lock()
	m.held--
	m.mu.Unlock()
}

// begin sends the copy. What it returns is the exchange's call, which tells when its answer is over if that is compared.
func (m *Mirror) begin(c *twin, x *exchange.Exchange, call upstream.Call, err error) upstream.Call {
	var first *original
	if m.compare != nil && err == nil {
		first = m.watch(x, call)
		call = first
	}
	now := m.env.Clock.Now()
	c.x.Start = now
	c.x.Cancel.Expire(now, now.Add(m.timeout))
	m.mu.Lock()
	m.held--
	m.running[c.x.Cancel] = struct{}{}
	m.mu.Unlock()
	m.copies.Go(func() { m.run(c.x, first) })
	return call
}

// Close waits for the copies under way, and ends those that take longer than is sensible. Nobody sends through the mirror
// any more.
func (m *Mirror) Close() error {
	over := make(chan struct{})
	go func() {
		m.copies.Wait()
		close(over)
	}()
	patience := time.NewTimer(closePatience)
	defer patience.Stop()
	select {
	case <-over:
		return nil
	case <-patience.C:
	}
	m.mu.Lock()
	for c := range m.running {
		c.Cancel()
	}
	m.mu.Unlock()
	<-over
	return nil
}
