package h2

import (
	"bytes"
	"io"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// FuzzConnection sends anything behind a good beginning. Whatever comes, the connection ends in time and leaves nothing
// behind: no goroutine, no socket, no stream.
func FuzzConnection(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed)
	}
	r := begin(f, echo, nil)
	f.Fuzz(func(t *testing.T, frames []byte) {
		p := dialRaw(t, r)
		p.write(http2.ClientPreface)
		p.must(p.framer.WriteSettings(http2Window(1 << 20)))
		p.write(string(frames))
		_ = p.net.(interface{ CloseWrite() error }).CloseWrite() // the server may have closed it already
		if _, err := io.Copy(io.Discard, p.net); err != nil && !isReset(err) {
			t.Fatal(err)
		}
	})
}

func isReset(err error) bool { return bytes.Contains([]byte(err.Error()), []byte("reset")) }

// seeds are a frame of each kind, and a few that belong together.
func seeds() (all [][]byte) {
	add := func(write func(f *http2.Framer)) {
		var b bytes.Buffer
		f := http2.NewFramer(&b, nil)
		f.AllowIllegalWrites = true
		write(f)
		all = append(all, b.Bytes())
	}
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for i, fields := 0, post("cookie", "a=b", "cookie", "c=d", "content-length", "4"); i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a buffer takes everything
	}
	whole := http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}
	add(func(f *http2.Framer) {
		_ = f.WriteHeaders(whole)
		_ = f.WriteData(1, true, []byte("body"))
	})
	add(func(f *http2.Framer) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes()[:7]})
		_ = f.WriteContinuation(1, true, block.Bytes()[7:])
		_ = f.WriteRSTStream(1, http2.ErrCodeCancel)
	})
	add(func(f *http2.Framer) {
		_ = f.WriteHeaders(whole)
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x00, 1, 'a', 1, 'b'}, EndHeaders: true, EndStream: true})
	})
	add(func(f *http2.Framer) { _ = f.WritePing(false, [8]byte{1}) })
	add(func(f *http2.Framer) { _ = f.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}) })
	add(func(f *http2.Framer) { _ = f.WriteWindowUpdate(0, 1) })
	add(func(f *http2.Framer) { _ = f.WritePriority(1, http2.PriorityParam{StreamDep: 1}) })
	add(func(f *http2.Framer) { _ = f.WriteGoAway(0, http2.ErrCodeNo, nil) })
	add(func(f *http2.Framer) { _ = f.WriteRawFrame(0x10, 0, 0, []byte("x")) })
	return all
}
