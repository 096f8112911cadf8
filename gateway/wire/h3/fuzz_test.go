package h3

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"headgate/gateway/exchange"
)

// Whatever a field section holds: a request that is taken has a valid target and host, no field that belongs to a
// connection, and stays within the limits.
func FuzzHead(f *testing.F) {
	for _, b := range [][]byte{get(), post("content-length", "3", "expect", "100-continue"), get("cookie", "a", "cookie", "b")} {
		f.Add(b[2:])
	}
	f.Add(block(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/"))
	l := limits().Limits
	f.Fuzz(func(t *testing.T, b []byte) {
		var r exchange.Request
		h, err := parseHead(b, &l, &r)
		if err != nil {
			var refused *exchange.Error
			var broken *violation
			if !errors.As(err, &refused) && !errors.As(err, &broken) {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		if !exchange.ValidName(r.Method) || r.Host == "" || strings.ContainsAny(r.Path+r.Query+r.Host, " \r\n\t#") || h.length < -1 {
			t.Fatalf("%+v", r)
		}
		if r.Header.Len() > l.Fields {
			t.Fatalf("%d fields", r.Header.Len())
		}
		for name, value := range r.Header.All() {
			if !exchange.ValidName(name) || !exchange.ValidValue(value) || name == "connection" || name == "host" || upper(name) {
				t.Fatalf("%q: %q", name, value)
			}
		}
	})
}

// Whatever comes on the control stream: it ends with an error that says how, and takes no more than its limits.
func FuzzControl(f *testing.F) {
	f.Add(frame(frameSettings, []byte{0x6, 0x40, 0x64}))
	f.Add(append(frame(frameSettings, nil), frame(frameGoAway, []byte{0})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, read := range map[string]func(*reader) error{"control": readControl, "encoder": readEncoder, "decoder": readDecoder} {
			err := read(&reader{from: bytes.NewReader(b), buf: make([]byte, controlBuffer)})
			var broken *violation
			if !errors.Is(err, io.EOF) && !errors.As(err, &broken) {
				t.Fatalf("%s: %v", name, err)
			}
		}
	})
}
