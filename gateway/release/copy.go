package release

import (
	"context"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"

	"headgate/gateway/exchange"
	"headgate/gateway/upstream"
)

// original is the call of an exchange whose answer is compared with that to its copy.
type original struct {
	call   upstream.Call // nil: an upstream's fallback has answered by itself
	answer *answer
	body   *tape         // nil: there is none, or it is not compared
	ended  chan struct{} // closed when the exchange has ended
}

// watch keeps what is compared of an exchange's reply while the client is sent it.
func (m *Mirror) watch(x *exchange.Exchange, call upstream.Call) *original {
	o := &original{call: call, answer: m.compare.head(&x.Reply), ended: make(chan struct{})}
	if b := &x.Reply.Body; m.compare.bodies() && b.Reader != nil && b.Length <= int64(m.compare.limit) {
		o.body = record(b, m.compare.limit)
	}
	return o
}

// Close implements upstream.Call.
func (o *original) Close() {
	if o.call != nil {
		o.call.Close()
	}
	close(o.ended)
}

// drop ends the recording of a body that will not be compared: what is kept of it would stay as long as the client reads.
func (o *original) drop() {
	if o != nil && o.body != nil {
		o.body.copied()
	}
}

// whole waits for the end of the exchange and returns its answer; false: it takes longer than the copy may.
func (o *original) whole(ctx context.Context) (*answer, bool) {
	select {
	case <-o.ended:
	case <-ctx.Done():
	}
	select {
	case <-o.ended:
	default:
		return nil, false
	}
	if o.body != nil {
		o.answer.body, o.answer.known = o.body.copied()
	}
	return o.answer, true
}

// run sends a copy and reads its answer. Whatever happens here stays here.
func (m *Mirror) run(x *exchange.Exchange, first *original) {
	defer func() {
		if r := recover(); r != nil {
			m.counts.copies(x.Shard, outcomePanicked)
			m.env.Log.Error("a mirrored copy panicked", "upstream", m.name, "id", x.ID, "panic", r, "stack", string(debug.Stack()))
		}
		first.drop()
		m.mu.Lock()
		delete(m.running, x.Cancel)
		m.mu.Unlock()
		x.Cancel.Rest()
	}()
	second, err := m.ask(x, first != nil)
	if err != nil {
		outcome := outcomeFailed
		if x.Cancel.Expired() {
			outcome = outcomeLate
		}
		m.counts.copies(x.Shard, outcome)
		return
	}
	m.counts.copies(x.Shard, outcomeAnswered)
	if first == nil {
		return
	}
	a, over := first.whole(x.Context())
	if !over {
		m.counts.compared(x.Shard, resultUnknown)
		return
	}
	m.judge(x, a, second)
}

// ask sends the copy and reads the answer to its end.
func (m *Mirror) ask(x *exchange.Exchange, compared bool) (a *answer, err error) {
	call, err := m.other.Send(x)
	if err != nil {
		return nil, err
	}
	if call != nil { // nil: the upstream's fallback has answered by itself
		defer call.Close()
	}
	if compared {
		a = m.compare.head(&x.Reply)
	}
	body := x.Reply.Body.Reader
	if body == nil {
		return a, nil
	}
	if compared && m.compare.bodies() {
		kept, err := io.ReadAll(io.LimitReader(body, int64(m.compare.limit)+1))
		if err != nil {
			return nil, err
		}
		a.body, a.known = kept, len(kept) <= m.compare.limit
	}
	_, err = io.Copy(io.Discard, body) // as long as the time allows
	return a, err
}

// judge compares the two answers, counts and, now and then, tells.
func (m *Mirror) judge(x *exchange.Exchange, a, b *answer) {
	list, compared := m.compare.differences(a, b)
	for i, d := range list {
		if i == 0 || list[i-1].kind != d.kind {
			m.counts.differ(x.Shard, d.kind)
		}
	}
	switch {
	case len(list) > 0:
		m.counts.compared(x.Shard, resultDifferent)
		m.tell(x, list)
	case compared:
		m.counts.compared(x.Shard, resultSame)
	default:
		m.counts.compared(x.Shard, resultUnknown)
	}
}

// maxTold bounds what is told of one difference: names in JSON are the services' to choose.
const maxTold = 200

// tell writes a difference to the log, unless one was written a moment ago. Places are told and what stands there is not:
// it may be a secret, or somebody's own.
func (m *Mirror) tell(x *exchange.Exchange, list []difference) {
	now, last := m.env.Clock.Now().Unix(), m.told.Load()
	if now-last < tellEvery || !m.told.CompareAndSwap(last, now) {
		return
	}
	args := []any{"upstream", m.name, "id", x.ID, "method", x.Request.Method, "path", cut(x.Request.Path)}
	for i, d := range list {
		if i == 0 || list[i-1].kind != d.kind {
			args = append(args, slog.String(d.kind, cut(d.where)))
		}
	}
	m.env.Log.Info("a mirrored copy was answered otherwise", args...)
}

func cut(s string) string {
	if len(s) > maxTold {
		s = strings.ToValidUTF8(s[:maxTold], "") + "..."
	}
	return s
}
