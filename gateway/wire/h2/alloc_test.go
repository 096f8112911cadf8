//go:build !race

package h2

import (
	"io"
	"testing"

	"golang.org/x/net/http2"

	"headgate/gateway/exchange"
)

// What a request costs beside its own strings is what the framer allocates for its head. Here all fields are in the
// client's table, so that there are no strings of its own. Under the race detector, pools forget on purpose.
func TestARequestAllocatesNoMoreThanItsHead(t *testing.T) {
	p := dial(t, begin(t, func(x *exchange.Exchange) {
		x.Reply.Status = 204
		_ = x.Wire.Reply(x)
	}, nil))
	p.until("SETTINGS ACK")
	id, reply := uint32(1), make([]byte, 512)
	ask := func() {
		block := p.section(get("user-agent", "a", "accept", "b", "cookie", "c")...)
		p.must(p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true}))
		p.next()
		id += 2
	}
	for range 50 { // tables, buffers and goroutines are there
		ask()
	}
	block := p.section(get("user-agent", "a", "accept", "b", "cookie", "c")...)
	n := testing.AllocsPerRun(500, func() {
		p.must(p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true}))
		id += 2
		if _, err := io.ReadAtLeast(p.net, reply, 9); err != nil {
			t.Fatal(err)
		}
	})
	if n > 2 { // the framer's frame, and what the runtime does now and then
		t.Errorf("%v allocations", n)
	}
}
