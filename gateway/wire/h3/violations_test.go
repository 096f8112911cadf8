package h3

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"headgate/gateway/exchange"
)

// fieldsOf is a HEADERS frame with exactly these fields.
func fieldsOf(pairs ...string) []byte { return frame(frameHeaders, block(pairs...)) }

// What is wrong with one request is answered, and the connection goes on (RFC 9114 section 4.1.2).
func TestMalformedRequestsAreRefused(t *testing.T) {
	const ok = "200"
	base := []string{":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "/"}
	with := func(more ...string) []byte { return fieldsOf(append(slices.Clone(base), more...)...) }
	without := func(name string) []byte {
		i := slices.Index(base, name)
		return fieldsOf(slices.Concat(base[:i], base[i+2:])...)
	}
	but := func(name, value string) []byte {
		c := slices.Clone(base)
		c[slices.Index(c, name)+1] = value
		return fieldsOf(c...)
	}
	d := open(t, echo)
	r := d.raw(t)
	for _, c := range []struct {
		name, status, detail string
		bytes                []byte
	}{
		{"as it should be", ok, "", with()},
		{"Host that says the same", ok, "", with("host", "LOCALHOST:443")},
		{"Host instead of an authority", ok, "", slices.Concat(frame(0x21, []byte("grease")),
			fieldsOf(":method", "GET", ":scheme", "https", ":path", "/", "host", "localhost"))},
		{"a scheme in capitals", ok, "", but(":scheme", "HTTPS")},
		{"TE: trailers", ok, "", with("te", "trailers")},
		{"OPTIONS *", ok, "", fieldsOf(":method", "OPTIONS", ":scheme", "https", ":authority", "localhost", ":path", "*")},

		{"no method", "400", "missing", without(":method")},
		{"no scheme", "400", "missing", without(":scheme")},
		{"no path", "400", "missing", without(":path")},
		{"no authority", "400", "missing", without(":authority")},
		{"a method that is no token", "400", "token", but(":method", "G ET")},
		{"an empty method", "400", "token", but(":method", "")},
		{"http", "400", "https", but(":scheme", "http")},
		{"an empty path", "400", "target", but(":path", "")},
		{"a path without a slash", "400", "target", but(":path", "a")},
		{"an absolute path", "400", "target", but(":path", "https://localhost/")},
		{"a path with a space", "400", "target", but(":path", "/a b")},
		{"a path with a fragment", "400", "target", but(":path", "/a#b")},
		{"a path too long", "414", "", but(":path", "/"+strings.Repeat("a", 4<<10))},
		{"* of GET", "400", "target", but(":path", "*")},
		{"an empty authority", "400", "host", but(":authority", "")},
		{"user information", "400", "host", but(":authority", "me@localhost")},
		{"a port out of range", "400", "host", but(":authority", "localhost:65536")},
		{"another Host", "400", "different", with("host", "other")},
		{"Host twice", "400", "repeated", with("host", "localhost", "host", "localhost")},
		{"an unknown pseudo-header field", "400", "unknown", with(":status", "200")},
		{"a repeated one", "400", "repeated", with(":path", "/")},
		{"a late one", "400", "behind", fieldsOf(append([]string{"te", "trailers"}, base...)...)},
		{"a protocol without CONNECT", "400", "does not go", with(":protocol", "websocket")},
		{"a name in capitals", "400", "lower case", with("X-A", "1")},
		{"an empty name", "400", "name", with("", "1")},
		{"a name with a space", "400", "name", with("x a", "1")},
		{"a line break in a value", "400", "value", with("x-a", "1\r\nx-b: 2")},
		{"NUL in a value", "400", "value", with("x-a", "1\x00")},
		{"a value that ends with a space", "400", "value", with("x-a", "1 ")},
		{"Connection", "400", "connection", with("connection", "close")},
		{"Transfer-Encoding", "400", "connection", with("transfer-encoding", "chunked")},
		{"Upgrade", "400", "connection", with("upgrade", "websocket")},
		{"TE: gzip", "400", "TE", with("te", "gzip")},
		{"a length that is no number", "400", "Content-Length", with("content-length", "+1")},
		{"two lengths", "400", "repeated", with("content-length", "0", "content-length", "0")},
		{"another expectation", "417", "", with("expect", "more")},
		{"too many fields", "431", "too many", with(slices.Repeat([]string{"x-a", "1"}, 101)...)},
		{"fields too large", "431", "", with("x-a", strings.Repeat("€", 6<<10))},
		{"many small fields that come to as much", "431", "", with(slices.Repeat([]string{"x-a", strings.Repeat("e", 150)}, 99)...)},
		{"a section larger than the limit as it is", "431", "", frame(frameHeaders, make([]byte, 17<<10))},
		{"CONNECT with a path", "400", "does not go", but(":method", "CONNECT")},
		{"CONNECT without an authority", "400", "missing", fieldsOf(":method", "CONNECT")},
		{"a switch to nothing", "400", "token",
			fieldsOf(":method", "CONNECT", ":protocol", "", ":scheme", "https", ":authority", "a", ":path", "/")},
	} {
		got := read(r.request(c.bytes, true))
		if got.err != nil || got.status != c.status || !strings.Contains(got.body, c.detail) {
			t.Errorf("%s: %s %q, %v; want %s %q", c.name, got.status, got.body, got.err, c.status, c.detail)
		}
	}
	if r.Context().Err() != nil {
		t.Error("the connection has ended")
	}
}

// A breach of the protocol itself ends the connection, with the code that the RFC names.
func TestViolationsEndTheConnection(t *testing.T) {
	control := func(frames ...[]byte) []byte { return append([]byte{streamControl}, bytes.Join(frames, nil)...) }
	settings := frame(frameSettings, nil)
	id := func(kind, n uint64) []byte { return frame(kind, quicvarint.Append(nil, n)) }
	setting := func(pairs ...uint64) []byte {
		var b []byte
		for _, p := range pairs {
			b = quicvarint.Append(b, p)
		}
		return frame(frameSettings, b)
	}
	type step = func(*raw)
	uni := func(b []byte) step { return func(r *raw) { r.uni(b) } }
	ended := func(b []byte) step { return func(r *raw) { _ = r.uni(b).Close() } }
	request := func(b ...[]byte) step { return func(r *raw) { r.request(slices.Concat(b...), true) } }
	for _, c := range []struct {
		name string
		do   step
		code http3.ErrCode
	}{
		// RFC 9114 section 6.2
		{"a control stream without SETTINGS", uni(control(id(frameGoAway, 0))), http3.ErrCodeMissingSettings},
		{"two control streams", func(r *raw) { r.uni(control(settings)); r.uni(control(settings)) }, http3.ErrCodeStreamCreationError},
		{"a control stream that ends", ended(control(settings)), http3.ErrCodeClosedCriticalStream},
		{"a control stream that is reset", func(r *raw) {
			s := r.uni(control(settings))
			_ = read(r.request(get(), true)) // by now it has arrived
			s.CancelWrite(0x100)
		}, http3.ErrCodeClosedCriticalStream},
		{"a client that pushes", uni([]byte{streamPush, 0}), http3.ErrCodeStreamCreationError},
		{"an encoder stream that ends", ended([]byte{streamEncoder}), http3.ErrCodeClosedCriticalStream},
		// section 7.2
		{"SETTINGS twice", uni(control(settings, settings)), http3.ErrCodeFrameUnexpected},
		{"DATA on the control stream", uni(control(settings, frame(frameData, nil))), http3.ErrCodeFrameUnexpected},
		{"HEADERS on the control stream", uni(control(settings, frame(frameHeaders, nil))), http3.ErrCodeFrameUnexpected},
		{"a frame of HTTP/2", uni(control(settings, frame(0x6, nil))), http3.ErrCodeFrameUnexpected},
		{"a setting of HTTP/2", uni(control(setting(0x4, 1))), http3.ErrCodeSettingsError},
		{"a setting twice", uni(control(setting(0x21, 1, 0x21, 1))), http3.ErrCodeSettingsError},
		{"a flag that is 2", uni(control(setting(settingExtendedConnect, 2))), http3.ErrCodeSettingsError},
		{"a setting without a value", uni(control(setting(0x21))), http3.ErrCodeFrameError},
		{"GOAWAY that takes back", uni(control(settings, id(frameGoAway, 1), id(frameGoAway, 2))), http3.ErrCodeIDError},
		{"MAX_PUSH_ID that shrinks", uni(control(settings, id(frameMaxPushID, 2), id(frameMaxPushID, 1))), http3.ErrCodeIDError},
		{"CANCEL_PUSH of nothing", uni(control(settings, id(frameCancelPush, 0))), http3.ErrCodeIDError},
		{"an identifier longer than its frame", uni(control(settings, frame(frameGoAway, []byte{0x40}))), http3.ErrCodeFrameError},
		{"DATA before HEADERS", request(frame(frameData, []byte("a"))), http3.ErrCodeFrameUnexpected},
		{"SETTINGS on a request", request(settings), http3.ErrCodeFrameUnexpected},
		{"SETTINGS in a body", request(post(), settings), http3.ErrCodeFrameUnexpected},
		{"PUSH_PROMISE", request(frame(framePushPromise, nil)), http3.ErrCodeFrameUnexpected},
		{"DATA behind trailers", request(post(), fieldsOf("a", "1"), frame(frameData, []byte("a"))), http3.ErrCodeFrameUnexpected},
		{"HEADERS behind trailers", request(post(), fieldsOf("a", "1"), fieldsOf("a", "1")), http3.ErrCodeFrameUnexpected},
		{"a head that ends within", request(get()[:8]), http3.ErrCodeFrameError},
		{"a body that ends within", request(post(), frame(frameData, []byte("abc"))[:3]), http3.ErrCodeFrameError},
		{"a frame's header that ends within", request(post(), []byte{0x40}), http3.ErrCodeFrameError},
		// RFC 9204
		{"a reference to the dynamic table", request(frame(frameHeaders, []byte{0, 0, 0x80})), http3.ErrCodeQPACKDecompressionFailed},
		{"a section without a prefix", request(frame(frameHeaders, nil)), http3.ErrCodeQPACKDecompressionFailed},
		{"an index beyond the static table", request(frame(frameHeaders, []byte{0, 0, 0xff, 0xff, 0x7f})),
			http3.ErrCodeQPACKDecompressionFailed},
		{"room for a dynamic table", uni([]byte{streamEncoder, 0x3f, 0x01}), errCodeEncoderStream},
		{"an insertion", uni([]byte{streamEncoder, 0xc1, 0x01, 'a'}), errCodeEncoderStream},
		{"an acknowledgment of nothing", uni([]byte{streamDecoder, 0x80}), errCodeDecoderStream},
		{"an increment by nothing", uni([]byte{streamDecoder, 0x00}), errCodeDecoderStream},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, echo)
			r := d.raw(t)
			c.do(r)
			if code := r.closed(); code != c.code {
				t.Errorf("%v, want %v", code, c.code)
			}
			d.shut(t)
			if n := d.title.Load().broken.Value(); n == 0 {
				t.Error("nobody counted it")
			}
		})
	}
}

// What an extension may do must be borne (RFC 9114 section 9).
func TestExtensionsAreIgnored(t *testing.T) {
	d := open(t, echo)
	r := d.raw(t)
	r.uni(slices.Concat([]byte{streamControl}, frame(frameSettings, []byte{0x21, 5, 0x33, 1}), frame(0x21, []byte("x")),
		frame(0xf0700, []byte{0, 'u'})))
	r.uni([]byte{streamEncoder, 0x20})
	r.uni([]byte{streamDecoder, 0x40, 0x7f, 0x80, 0x01, 0x44})
	_ = r.uni([]byte{0x21, 'x'}).Close()
	got := read(r.request(slices.Concat(frame(0x21, []byte("x")), post(), frame(0x21, nil), frame(frameData, []byte("a")),
		frame(0x5f, []byte("y")), frame(frameData, []byte("b"))), true))
	if got.err != nil || got.body != "ab" || r.Context().Err() != nil {
		t.Errorf("%+v, %v", got, r.Context().Err())
	}
}

// A body that is not what the head says ends with an error for whoever reads it, and the client learns why.
func TestBodiesAreHeldToTheirLength(t *testing.T) {
	for _, c := range []struct {
		name, length string
		frames       []byte
	}{
		{"longer", "2", frame(frameData, []byte("abc"))},
		{"shorter", "4", frame(frameData, []byte("abc"))},
		{"missing", "4", nil},
		{"longer in pieces", "3", slices.Concat(frame(frameData, []byte("abc")), frame(frameData, []byte("d")))},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, echo)
			got := read(d.raw(t).request(slices.Concat(post("content-length", c.length), c.frames), true))
			if got.reset() != http3.ErrCodeMessageError {
				t.Errorf("%+v", got)
			}
			d.await(t, "bad_request")
		})
	}
}

// Each of these would cost us more than the client; each is ended with H3_EXCESSIVE_LOAD.
func TestAbusesEndTheConnection(t *testing.T) {
	control := slices.Concat([]byte{streamControl}, frame(frameSettings, nil))
	for _, c := range []struct {
		name string
		do   func(*raw)
	}{
		{"rapid reset", func(r *raw) {
			for range 3 * resetBudget {
				s, err := r.OpenStreamSync(r.Context())
				if err != nil {
					return
				}
				_, _ = s.Write(get()) // the connection may have ended by now
				s.CancelRead(0x10c)
				s.CancelWrite(0x10c)
			}
		}},
		{"heads that are given up", func(r *raw) {
			for range 3 * resetBudget {
				s, err := r.OpenStreamSync(r.Context())
				if err != nil {
					return
				}
				_, _ = s.Write(get()[:4])
				s.CancelWrite(0x10c)
			}
		}},
		{"empty DATA frames", func(r *raw) {
			r.request(slices.Concat(post(), bytes.Repeat(frame(frameData, nil), maxIdleFrames+2)), false)
		}},
		{"unknown frames before the head", func(r *raw) { r.request(bytes.Repeat(frame(0x21, nil), maxIdleFrames+2), false) }},
		{"a large unknown frame", func(r *raw) { r.request(appendFrame(nil, 0x21, maxUnknownFrame+1), false) }},
		{"control frames", func(r *raw) { r.uni(slices.Concat(control, bytes.Repeat(frame(0x21, nil), maxControlFrames+1))) }},
		{"large SETTINGS", func(r *raw) { r.uni(append([]byte{streamControl}, appendFrame(nil, frameSettings, maxSettings+1)...)) }},
		{"canceled streams without end", func(r *raw) {
			r.uni(append([]byte{streamDecoder}, bytes.Repeat([]byte{0x40}, maxQPACKBytes+100)...))
		}},
		{"streams of unknown types", func(r *raw) {
			for range maxOddStreams + 1 {
				s, err := r.OpenUniStreamSync(r.Context())
				if err != nil {
					return
				}
				_, _ = s.Write([]byte{0x21}) // the connection may have ended by now
				_ = s.Close()
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, echo)
			r := d.raw(t)
			c.do(r)
			if code := r.closed(); code != http3.ErrCodeExcessiveLoad {
				t.Errorf("%v", code)
			}
		})
	}
}

// A stream counts until its exchange has ended, whatever its client says of it: no more exchanges run than the limit says.
func TestGivenUpStreamsCountUntilTheyHaveEnded(t *testing.T) {
	begun, release := make(chan struct{}, maxStreams+1), make(chan struct{})
	d := open(t, func(x *exchange.Exchange) error {
		begun <- struct{}{}
		<-release
		return hello(x)
	})
	r := d.raw(t)
	for range maxStreams {
		s := r.request(get(), true)
		s.CancelRead(0x10c)
		await(t, begun)
	}
	next := make(chan error, 1)
	go func() {
		_, err := r.OpenStreamSync(r.Context())
		next <- err
	}()
	for range 3 { // round trips, in which a stream would be granted
		r.uni([]byte{0x21})
	}
	select {
	case err := <-next:
		t.Fatalf("another stream was allowed: %v", err)
	default:
	}
	close(release)
	if err := await(t, next); err != nil {
		t.Error(err)
	}
}
