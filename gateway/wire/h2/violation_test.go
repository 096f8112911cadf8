package h2

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

// What a client must not do, and what it gets for it. What comes after on the connection is not looked at.
func TestViolations(t *testing.T) {
	tests := []struct {
		name string
		do   func(p *client)
		want string
	}{
		{"HTTP/1.1", func(p *client) { p.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n") }, "GOAWAY PROTOCOL_ERROR"},
		{"half a preface, and something else", func(p *client) { p.write("PRI * HTTP/2.0\r\n\r\nXX") }, "GOAWAY PROTOCOL_ERROR"},
		{"no SETTINGS behind the preface", func(p *client) {
			p.write(http2.ClientPreface)
			p.must(p.framer.WritePing(false, [8]byte{}))
		}, "GOAWAY PROTOCOL_ERROR"},
		{"an acknowledgement instead of SETTINGS", func(p *client) {
			p.write(http2.ClientPreface)
			p.must(p.framer.WriteSettingsAck())
		}, "GOAWAY PROTOCOL_ERROR"},
		{"a frame larger than allowed", shaken(func(p *client) {
			p.must(p.framer.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, maxFrame+1)))
		}), "GOAWAY FRAME_SIZE_ERROR"},
		{"DATA of no stream", shaken(func(p *client) { p.data(1, true, "x") }), "GOAWAY PROTOCOL_ERROR"},
		{"DATA of stream 0", shaken(func(p *client) { p.data(0, true, "x") }), "GOAWAY PROTOCOL_ERROR"},
		{"DATA behind the end", shaken(func(p *client) {
			p.head(1, true, get(":path", "/wait"))
			p.data(1, true, "x")
		}), "RST_STREAM 1 STREAM_CLOSED"},
		{"DATA of a stream that its client gave up", shaken(func(p *client) {
			p.head(1, false, post())
			p.must(p.framer.WriteRSTStream(1, http2.ErrCodeCancel))
			p.data(1, true, "x")
		}), "RST_STREAM 1 STREAM_CLOSED"},
		{"DATA beyond the stream's window", shaken(func(p *client) {
			p.head(1, false, post(":path", "/wait"))
			for range streamWindow/maxFrame + 1 {
				p.data(1, false, strings.Repeat("x", maxFrame))
			}
		}), "RST_STREAM 1 FLOW_CONTROL_ERROR"},
		{"DATA beyond the connection's window", shaken(func(p *client) {
			for id := uint32(1); id < 12; id += 2 {
				p.head(id, false, post(":path", "/wait"))
				for range streamWindow / maxFrame {
					p.data(id, false, strings.Repeat("x", maxFrame))
				}
			}
		}), "GOAWAY FLOW_CONTROL_ERROR"},
		{"an even stream", shaken(func(p *client) { p.head(2, true, get()) }), "GOAWAY PROTOCOL_ERROR"},
		{"a stream lower than the last", shaken(func(p *client) {
			p.head(5, true, get(":path", "/wait"))
			p.head(3, true, get())
		}), "GOAWAY PROTOCOL_ERROR"},
		{"HEADERS of a stream that has ended", shaken(func(p *client) {
			p.head(1, true, get())
			p.answer(1)
			p.head(1, true, get())
		}), "GOAWAY STREAM_CLOSED"},
		{"a request that depends on itself", shaken(func(p *client) {
			p.must(p.framer.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, BlockFragment: p.section(get()...), EndStream: true, EndHeaders: true,
				Priority: http2.PriorityParam{StreamDep: 1},
			}))
		}), "RST_STREAM 1 PROTOCOL_ERROR"},
		{"a frame between HEADERS and CONTINUATION", shaken(func(p *client) {
			p.must(p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.section(get()...)}))
			p.must(p.framer.WritePing(false, [8]byte{}))
		}), "GOAWAY PROTOCOL_ERROR"},
		{"CONTINUATION alone", shaken(func(p *client) { p.must(p.framer.WriteContinuation(1, true, nil)) }), "GOAWAY PROTOCOL_ERROR"},
		{"a field section that is none", shaken(func(p *client) {
			p.must(p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff}, EndHeaders: true}))
		}), "GOAWAY COMPRESSION_ERROR"},
		{"half a field", shaken(func(p *client) {
			p.must(p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x40, 0x05, 'a'}, EndHeaders: true}))
		}), "GOAWAY COMPRESSION_ERROR"},
		{"padding larger than the frame", shaken(func(p *client) {
			p.must(p.framer.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1, []byte{200, 0x82}))
		}), "GOAWAY PROTOCOL_ERROR"},
		{"RST_STREAM of no stream", shaken(func(p *client) { p.must(p.framer.WriteRSTStream(1, 0)) }), "GOAWAY PROTOCOL_ERROR"},
		{"WINDOW_UPDATE of no stream", shaken(func(p *client) { p.must(p.framer.WriteWindowUpdate(1, 1)) }), "GOAWAY PROTOCOL_ERROR"},
		{"WINDOW_UPDATE by nothing", shaken(func(p *client) { p.must(p.framer.WriteWindowUpdate(0, 0)) }), "GOAWAY PROTOCOL_ERROR"},
		{"WINDOW_UPDATE by nothing, of a stream", shaken(func(p *client) {
			p.head(1, true, get(":path", "/wait"))
			p.must(p.framer.WriteWindowUpdate(1, 0))
		}), "RST_STREAM 1 PROTOCOL_ERROR"},
		{"a window that overflows", shaken(func(p *client) { p.must(p.framer.WriteWindowUpdate(0, maxWindow)) }), "GOAWAY FLOW_CONTROL_ERROR"},
		{"a stream's window that overflows", shaken(func(p *client) {
			p.head(1, true, get(":path", "/wait"))
			p.must(p.framer.WriteWindowUpdate(1, maxWindow))
		}), "RST_STREAM 1 FLOW_CONTROL_ERROR"},
		{"an initial window that makes one overflow", shaken(func(p *client) {
			p.head(1, true, get(":path", "/wait"))
			p.must(p.framer.WriteWindowUpdate(1, 1<<30))
			p.must(p.framer.WriteSettings(http2Window(maxWindow)))
		}), "GOAWAY FLOW_CONTROL_ERROR"},
		{"an initial window that is too large", shaken(func(p *client) {
			p.must(p.framer.WriteSettings(http2Window(1 << 31)))
		}), "GOAWAY FLOW_CONTROL_ERROR"},
		{"a frame size that is too small", shaken(func(p *client) {
			p.must(p.framer.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}))
		}), "GOAWAY PROTOCOL_ERROR"},
		{"a push", shaken(func(p *client) {
			p.must(p.framer.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true}))
		}), "GOAWAY PROTOCOL_ERROR"},
	}
	r := begin(t, patient, nil)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := dialRaw(t, r)
			test.do(p)
			if got := p.until("GOAWAY", "RST_STREAM"); got != test.want {
				t.Fatalf("%s, want %s", got, test.want)
			}
			if strings.HasPrefix(test.want, "GOAWAY") {
				if got := p.until("HEADERS"); got != "closed" {
					t.Errorf("%s behind it", got)
				}
				return
			}
			p.head(99, true, get()) // a stream's error is nobody else's
			if got := p.outcome(99); got != "200" {
				t.Errorf("the next request: %s", got)
			}
		})
	}
}

// patient echoes, and on /wait only when the exchange has been cancelled.
func patient(x *exchange.Exchange) {
	if x.Request.Path == "/wait" {
		<-x.Context().Done()
	}
	echo(x)
}

func shaken(do func(p *client)) func(p *client) {
	return func(p *client) {
		p.write(http2.ClientPreface)
		p.must(p.framer.WriteSettings())
		do(p)
	}
}

// Each attack, the limit that it meets, and the counter that tells. The attacker never reads.
func TestAbuse(t *testing.T) {
	tests := []struct {
		name, kind string
		do         func(p *client, i uint32)
		enough     int
	}{
		{"rapid reset: requests that are given up at once (CVE-2023-44487)", "rapid_reset", func(p *client, i uint32) {
			p.head(2*i+1, true, get(":path", "/wait"))
			p.must(p.framer.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		}, 1000},
		{"MadeYouReset: errors that make us reset what runs (CVE-2025-8671)", "rapid_reset", func(p *client, i uint32) {
			p.head(2*i+1, true, get(":path", "/wait"))
			p.must(p.framer.WriteWindowUpdate(2*i+1, 0))
		}, 1000},
		{"malformed requests", "rapid_reset", func(p *client, i uint32) { p.head(2*i+1, true, get("A", "b")) }, 1000},
		{"more streams than allowed", "refused_streams", func(p *client, i uint32) {
			p.head(2*i+1, false, post(":path", "/wait"))
		}, 3000},
		{"PING flood (CVE-2019-9512)", "ping_flood", func(p *client, i uint32) {
			p.must(p.framer.WritePing(false, [8]byte{byte(i)}))
		}, 1000},
		{"PING answers that nobody asked for", "ping_flood", func(p *client, i uint32) {
			p.must(p.framer.WritePing(true, [8]byte{byte(i)}))
		}, 1000},
		{"SETTINGS flood (CVE-2019-9515)", "settings_flood", func(p *client, _ uint32) { p.must(p.framer.WriteSettings()) }, 200},
		{"empty DATA (CVE-2019-9518)", "empty_frames_flood", func(p *client, i uint32) {
			if i == 0 {
				p.head(1, false, post())
			}
			p.data(1, false, "")
		}, 1000},
		{"padding alone (CVE-2019-9518)", "empty_frames_flood", func(p *client, i uint32) {
			if i == 0 {
				p.head(1, false, post())
			}
			p.must(p.framer.WriteDataPadded(1, false, nil, make([]byte, 100)))
		}, 1000},
		{"WINDOW_UPDATE flood (CVE-2019-9511)", "window_update_flood", func(p *client, _ uint32) {
			p.must(p.framer.WriteWindowUpdate(0, 1))
		}, 5000},
		{"PRIORITY flood", "priority_flood", func(p *client, i uint32) {
			p.must(p.framer.WritePriority(2*i+1, http2.PriorityParam{StreamDep: 2*i + 3}))
		}, 1000},
		{"frames of unknown types", "unknown_frames_flood", func(p *client, _ uint32) {
			p.must(p.framer.WriteRawFrame(0xbe, 0, 0, nil))
		}, 1000},
		{"CONTINUATION flood (CVE-2024-27316)", "continuation_flood", func(p *client, i uint32) {
			if i == 0 {
				p.must(p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.section(get()...)}))
			}
			p.must(p.framer.WriteContinuation(1, false, nil))
		}, 100},
		{"a head without end", "head_flood", func(p *client, i uint32) {
			if i == 0 {
				p.must(p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.section(get()...)}))
			}
			p.must(p.framer.WriteContinuation(1, false, p.section("a", strings.Repeat(string(rune('a'+i)), 5000))))
		}, 100},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := begin(t, patient, nil)
			p := dial(t, r)
			p.mute = true
			go func() {
				for i := range test.enough {
					test.do(p, uint32(i))
				}
			}()
			if got := p.until("GOAWAY"); got != "GOAWAY ENHANCE_YOUR_CALM" {
				t.Errorf("%s", got)
			}
			if p.until("HEADERS"); r.counted("headgate_h2_abuse_total", test.kind) != 1 {
				t.Errorf("%s was not counted", test.kind)
			}
		})
	}
}

// An HPACK bomb is a small section that stands for a large one: a field in the table, named again and again. It gets 431
// when its decoded size says so, long before anybody has to hold it.
func TestHPACKBomb(t *testing.T) {
	p := dial(t, begin(t, echo, nil))
	p.head(1, true, get("x-bomb", strings.Repeat("a", 3900)))
	if got := p.outcome(1); got != "200" {
		t.Fatal(got)
	}
	p.head(3, true, get(repeat(10_000, "x-bomb", strings.Repeat("a", 3900))...))
	if got := p.outcome(3); got != "431" {
		t.Errorf("%s", got)
	}
	p.head(5, true, get("x-bomb", strings.Repeat("a", 3900)))
	if got := p.outcome(5); got != "200" {
		t.Errorf("%s: decoding has lost its place", got)
	}
}

// Honest work earns its budget back: neither of these is cut off.
func TestWhatHonestClientsDoForLong(t *testing.T) {
	r := begin(t, echo, nil)
	p := dial(t, r)
	for i := range uint32(1000) {
		id := 2*i + 1
		p.must(p.framer.WritePing(false, [8]byte{}))
		p.must(p.framer.WritePriority(id, http2.PriorityParam{StreamDep: 0}))
		p.head(id, true, get())
		if got := p.outcome(id); got != "200" {
			t.Fatalf("request %d: %s", i, got)
		}
		p.must(p.framer.WriteWindowUpdate(0, 1))
		p.must(p.framer.WriteRSTStream(id, http2.ErrCodeNo)) // too late to mean anything
	}
}

func TestStreamsBeyondTheLimitAreRefusedAndMayBeTriedAgain(t *testing.T) {
	p := dial(t, begin(t, patient, nil))
	for i := range uint32(maxStreams) {
		p.head(2*i+1, true, get(":path", "/wait"))
	}
	p.head(2*maxStreams+1, true, get())
	if got := p.outcome(2*maxStreams + 1); got != "RST_STREAM REFUSED_STREAM" {
		t.Error(got)
	}
	p.must(p.framer.WriteRSTStream(1, http2.ErrCodeCancel)) // the exchange ends, and there is room
	for id := uint32(2*maxStreams + 3); ; id += 2 {
		p.head(id, true, get())
		if got := p.outcome(id); got == "200" {
			return
		} else if got != "RST_STREAM REFUSED_STREAM" {
			t.Fatal(got)
		}
	}
}

// What a client has given up counts until its exchange has ended.
func TestGivingUpMakesNoRoom(t *testing.T) {
	held := make(chan struct{})
	p := dial(t, begin(t, func(x *exchange.Exchange) {
		if x.Request.Path == "/held" {
			<-held
		}
		echo(x)
	}, nil))
	defer close(held)
	for i := range uint32(maxStreams) {
		p.head(2*i+1, true, get(":path", "/held"))
		if i < 50 {
			p.must(p.framer.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		}
	}
	p.head(2*maxStreams+1, true, get())
	if got := p.outcome(2*maxStreams + 1); got != "RST_STREAM REFUSED_STREAM" {
		t.Error(got)
	}
}

func TestSlowness(t *testing.T) {
	const short = 50 * time.Millisecond
	tests := []struct {
		name   string
		change func(l *h1.Limits)
		do     func(p *client)
		want   string
	}{
		{"no preface", func(l *h1.Limits) { l.HeadTime = short }, func(p *client) {}, "GOAWAY ENHANCE_YOUR_CALM"},
		{"half a frame", func(l *h1.Limits) { l.HeadTime = short }, shaken(func(p *client) { p.write("\x00\x00") }), "GOAWAY ENHANCE_YOUR_CALM"},
		{"half a head", func(l *h1.Limits) { l.HeadTime = short }, shaken(func(p *client) {
			p.must(p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.section(get()...)}))
		}), "GOAWAY ENHANCE_YOUR_CALM"},
		{"no request", func(l *h1.Limits) { l.IdleTime = short }, shaken(func(p *client) {}), "GOAWAY NO_ERROR"},
		{"no other request", func(l *h1.Limits) { l.IdleTime = 20 * short }, shaken(func(p *client) {
			p.head(1, true, get())
			p.answer(1)
		}), "GOAWAY NO_ERROR"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := dialRaw(t, begin(t, echo, test.change))
			p.mute = true
			test.do(p)
			if got := p.until("GOAWAY"); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
			if got := p.until("HEADERS"); got != "closed" {
				t.Error(got)
			}
		})
	}
	t.Run("half a body", func(t *testing.T) {
		p := dial(t, begin(t, echo, func(l *h1.Limits) { l.BodyTime = short }))
		p.head(1, false, post())
		p.data(1, false, "x")
		if got := p.outcome(1); got != "408" {
			t.Error(got)
		}
		p.head(3, true, get())
		if got := p.outcome(3); got != "200" {
			t.Errorf("the next request: %s", got)
		}
	})
}
