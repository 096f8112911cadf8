package client

import (
	"io"
	"net/http"
	"runtime"
	"testing"

	"headgate/gateway/exchange"
)

// silentBody is a request's body that says one thing and then nothing, as wires have it: in pieces of their own.
type silentBody struct {
	first chan []byte
	end   chan struct{}
}

func (b *silentBody) Next() ([]byte, error) {
	select {
	case p := <-b.first:
		return p, nil
	case <-b.end:
		return nil, io.EOF
	}
}

func (b *silentBody) Read([]byte) (int, error) { return 0, io.ErrNoProgress }

// A call whose client says little holds little memory, however long it lasts.
func TestASilentCallHoldsLittleMemory(t *testing.T) {
	const calls, most = 90, 48 << 10 // a buffer for large pieces is 32 KiB, and one or two were held
	c, _ := connect(t, serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	}), terms())
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools held goes with the second
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	end := make(chan struct{})
	open := func() *Call {
		x := ask("POST", "/")
		b := &silentBody{make(chan []byte, 1), end}
		b.first <- []byte("hello")
		x.Request.Body = exchange.Body{Reader: b, Length: -1}
		call, err := do(t, c, x, plan)
		if err != nil {
			t.Fatal(err)
		}
		return call
	}
	all := []*Call{open()}
	before := used()
	for range calls {
		all = append(all, open())
	}
	each := (int64(used()) - int64(before)) / calls
	t.Log(each, "bytes each, with those of the target")
	if each > most {
		t.Errorf("%d bytes for each silent call, of at most %d", each, most)
	}
	close(end)
	for _, call := range all {
		call.Close()
	}
}
