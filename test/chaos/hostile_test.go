package chaos

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
)

// attack is what one hostile client does while good ones are being served.
type attack struct {
	name    string
	do      func(t *testing.T, h *house)
	counted string  // the series that must show it
	least   float64 // at least so many times
}

// fewer is how many of something a test does, which is less with the race detector.
func fewer(n int) int {
	if raceEnabled {
		return n / 5
	}
	return n
}

const (
	// hostilePeak is what the gateway may take at its most, in KiB, under any attack, itself and its good clients included. The
	// race detector needs its own.
	hostilePeak = 128 << 10
	// shortTime is what the doors under attack give to heads, bodies and handshakes.
	shortTime = 3 * time.Second
)

// Whatever one client does, the others are answered without a fault and on the connections that they have; the gateway
// takes a bounded memory, counts what was done, and holds nothing of it afterwards.
func TestOneHostileClientCostsTheOthersNothing(t *testing.T) {
	t.Parallel()
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			s := startServicesBehind(t)
			h := startHouse(t, doorsWith("${TLS}", fmt.Sprintf(", handshake_timeout: %v", shortTime),
				"${SECURE_SETTINGS}", fmt.Sprintf("limits: {body_timeout: %v, header_timeout: %v}", shortTime, shortTime),
				// All come from one address here, among whom the limiter shares nothing out.
				`a: "${A}"`, `a: {targets: ["${A}"], concurrency: "off"}`), s.places...)
			before := h.idles(t)
			good := []*flow{h.flow(t, "h1", 1, 5*time.Millisecond), h.flow(t, "h2", 1, 5*time.Millisecond)}
			for _, f := range good {
				f.goes(t, 10)
			}
			a.do(t, h)
			for _, f := range good {
				f.goes(t, 10)
				f.flawless(t, 1)
			}
			if n := h.metric(t, a.counted); a.counted != "" && n < a.least {
				t.Errorf("%s is %v, want %v or more", a.counted, n, a.least)
			}
			h.rests(t, before)
			peak := h.peakKiB(t)
			t.Logf("the gateway's memory at its peak: %d MiB", peak>>10)
			if peak > hostilePeak && !raceEnabled {
				t.Errorf("more than %d MiB", hostilePeak>>10)
			}
		})
	}
}

func abused(kind string) string { return fmt.Sprintf("headgate_h2_abuse_total{kind=%q}", kind) }

func failedHandshakes(cause string) string {
	return fmt.Sprintf("headgate_tls_handshake_errors_total{listener=\"secure\",cause=%q}", cause)
}

func attacks() []attack {
	return []attack{
		{"rapid reset", flood(func(p *peer, f *http2.Framer, n uint32) error {
			return errors.Join(p.head(f, 2*n+1, true, ":path", "/held"), f.WriteRSTStream(2*n+1, http2.ErrCodeCancel))
		}), abused("rapid_reset"), floods},
		{"CONTINUATION without end", flood(func(p *peer, f *http2.Framer, n uint32) error {
			if n == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.section(":method", "GET"), EndStream: true})
			}
			return f.WriteContinuation(1, false, p.section("x", fmt.Sprint(n)))
		}), abused("continuation_flood"), floods},
		{"SETTINGS without end", flood(func(_ *peer, f *http2.Framer, n uint32) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: n})
		}), abused("settings_flood"), floods},
		{"PING without end", flood(func(_ *peer, f *http2.Framer, n uint32) error {
			return f.WritePing(false, [8]byte{byte(n)})
		}), abused("ping_flood"), floods},
		{"WINDOW_UPDATE without end", flood(func(_ *peer, f *http2.Framer, n uint32) error {
			return f.WriteWindowUpdate(0, 1)
		}), abused("window_update_flood"), floods},
		{"empty DATA without end", flood(func(p *peer, f *http2.Framer, n uint32) error {
			if n == 0 {
				return p.head(f, 1, false, ":method", "POST", ":path", "/upload")
			}
			return f.WriteData(1, false, nil)
		}), abused("empty_frames_flood"), floods},
		{"a bomb of HPACK", bomb, `headgate_requests_total{api="",route="",status="4xx"}`, 0},
		{"windows of zero", zeroWindows, abused("slow_reader"), float64(fewer(heldStreams))},
		{"uploads that stop", stoppedUploads, "", 0},
		{"half-open handshakes", halfHandshakes, failedHandshakes("timeout"), float64(fewer(1000))},
		{"one byte of a handshake", oneByte, failedHandshakes("timeout"), float64(fewer(5000))},
		{"hellos in pieces and hellos too large", strangeHellos, "", 0},
		{"renegotiation", renegotiation, "", 0},
		{"the wrong door", wrongDoor, failedHandshakes("plain_http"), 20},
		{"resets over h3", resetsOverH3, `headgate_h3_violations_total{listener="secure"}`, 3},
		{"a WebSocket of endless fragments", fragments, "", 0},
		{"a WebSocket that reads nothing", deafSockets, "", 0},
	}
}

// floods is how many connections a flood has, one after the other.
const floods = 5

// flood sends what next writes, n counting from 0, until the gateway has had enough, which it must.
func flood(next func(p *peer, f *http2.Framer, n uint32) error) func(*testing.T, *house) {
	return func(t *testing.T, h *house) {
		const most, batch = 20_000, 20
		for range floods {
			p := newPeer(t, h.dialTLS(t, "h2"))
			var err error
			n := uint32(0)
			for err == nil && n < most {
				err = p.try(func(f *http2.Framer) error {
					for range batch {
						if err := next(p, f, n); err != nil {
							return err
						}
						n++
					}
					return nil
				})
			}
			p.closed(t)
			if len(p.goAways) == 0 || p.goAways[0].code != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("it ends with %+v, %v", p.goAways, p.ended)
			}
		}
	}
}

// bomb sends heads of few bytes that stand for many: one large field, and thousands of references to it.
func bomb(t *testing.T, h *house) {
	for range 2 {
		p := newPeer(t, h.dialTLS(t, "h2"))
		for n := range uint32(4) {
			fields := []string{":path", "/"}
			for range 3000 {
				fields = append(fields, "x-bomb", grown(3900))
			}
			if p.try(func(f *http2.Framer) error { return p.head(f, 2*n+1, true, fields...) }) != nil {
				break
			}
			s := p.stream(2*n + 1)
			if ended := !p.wait(func() bool { return s.status != "" || s.reset != "" }); ended {
				break
			}
			if s.status != "431" {
				t.Fatalf("it is answered with %s", s)
			}
		}
		p.Close()
	}
}

// heldStreams is how many replies are held up at one time.
const heldStreams = 1000

// zeroWindows asks for large replies and takes nothing of them, on as many streams as it gets.
func zeroWindows(t *testing.T, h *house) {
	var peers []*peer
	const each = 100
	for range fewer(heldStreams) / each {
		p := newPeer(t, h.dialTLS(t, "h2"), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		peers = append(peers, p)
		p.send(t, func(f *http2.Framer) (err error) {
			for n := range uint32(each) {
				err = errors.Join(err, p.head(f, 2*n+1, true, ":path", "/download?size=262144"))
			}
			return err
		})
	}
	for _, p := range peers {
		for n := range uint32(each) {
			s := p.stream(2*n + 1)
			p.await(t, "the end of a reply that is not taken", func() bool { return s.reset != "" })
			if s.status != "200" || len(s.body) > 0 || s.reset != "CANCEL" {
				t.Fatalf("stream %d: %s", s.id, s)
			}
		}
		p.Close()
	}
}

// stoppedUploads begins uploads on many streams and says a byte of each.
func stoppedUploads(t *testing.T, h *house) {
	var peers []*peer
	const each = 100
	for range fewer(1000) / each {
		p := newPeer(t, h.dialTLS(t, "h2"))
		peers = append(peers, p)
		p.send(t, func(f *http2.Framer) (err error) {
			for n := range uint32(each) {
				err = errors.Join(err, p.head(f, 2*n+1, false, ":method", "POST", ":path", "/upload", "content-length", "1000000"),
					f.WriteData(2*n+1, false, []byte{1}))
			}
			return err
		})
	}
	for _, p := range peers {
		for n := range uint32(each) {
			s := p.stream(2*n + 1)
			p.await(t, "the answer to an upload that stands still", func() bool { return s.status != "" })
			if s.status != "408" {
				t.Fatalf("stream %d: %s", s.id, s)
			}
		}
		p.Close()
	}
}

// hello is what a client of the encrypted door begins with.
func (h *house) hello(t *testing.T) string {
	t.Helper()
	var c helloOnly
	_ = tls.Client(&c, h.trust("h2", "http/1.1")).Handshake() // it gets no answer
	if len(c.sent) == 0 {
		t.Fatal("no ClientHello")
	}
	return string(c.sent)
}

// helloOnly is a connection from which nothing comes.
type helloOnly struct {
	net.Conn
	sent []byte
}

func (c *helloOnly) Write(b []byte) (int, error)      { c.sent = append(c.sent, b...); return len(b), nil }
func (c *helloOnly) Read([]byte) (int, error)         { return 0, io.EOF }
func (c *helloOnly) SetReadDeadline(time.Time) error  { return nil }
func (c *helloOnly) SetWriteDeadline(time.Time) error { return nil }
func (c *helloOnly) Close() error                     { return nil }

func halfHandshakes(t *testing.T, h *house) { standStill(t, h, h.hello(t), fewer(1000)) }

func oneByte(t *testing.T, h *house) { standStill(t, h, "\x16", fewer(5000)) }

// standStill opens n connections that say something and then nothing. Meanwhile others get their handshake.
func standStill(t *testing.T, h *house, text string, n int) {
	t.Helper()
	conns := crowd(t, h.secure, text, n)
	for range 5 {
		began := time.Now()
		h.dialTLS(t, "h2").Close()
		t.Logf("a handshake beside %d that stand still: %v", n, time.Since(began))
	}
	for _, c := range conns {
		ends(t, c)
	}
}

// ends waits until the gateway ends a connection.
func ends(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var late net.Error
	if _, err := io.Copy(io.Discard, c); errors.As(err, &late) && late.Timeout() {
		t.Fatal("a connection stays open")
	}
	c.Close()
}

// record makes a record of a handshake.
func record(payload string) string {
	return string(binary.BigEndian.AppendUint16([]byte{22, 3, 1}, uint16(len(payload)))) + payload
}

// strangeHellos sends a hello byte by byte, hellos that are larger than any may be, and some that never end.
func strangeHellos(t *testing.T, h *house) {
	var pieces strings.Builder
	for _, b := range []byte(h.hello(t)[5:]) {
		pieces.WriteString(record(string(b)))
	}
	c := dial(t, h.secure)
	if _, err := io.WriteString(c, pieces.String()); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(c, first); err != nil || first[0] != 22 && first[0] != 21 {
		t.Errorf("a hello in pieces is answered with %x, %v", first, err)
	}
	c.Close()
	const part = 1 << 14
	for _, claimed := range []string{"\x01\xff\xff\xff", "\x01\x01\x00\x00", "\x01\x00\xff\x00"} {
		text := record(claimed + grown(part-4))
		for range 3 {
			text += record(grown(part - 300))
		}
		for _, c := range crowd(t, h.secure, text, fewer(200)) {
			ends(t, c)
		}
	}
	for _, text := range []string{record(""), "\x16\x03\x01\xff\xff" + grown(100), "\x80\x80\x01\x03\x01" + grown(100), "\x00"} {
		for _, c := range crowd(t, h.secure, strings.Repeat(text, 40), 20) {
			ends(t, c)
		}
	}
}

// renegotiation asks for it, which TLS 1.3 does not have and the gateway does not do.
func renegotiation(t *testing.T, h *house) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl asks for renegotiation, and is not installed")
	}
	for range 5 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		c := exec.CommandContext(ctx, path, "s_client", "-connect", h.secure, "-tls1_2", "-servername", "localhost")
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var said output
		c.Stdout, c.Stderr = &said, &said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the handshake", func() (bool, string) { return strings.Contains(said.String(), "Verify return code"), said.String() })
		_, _ = io.WriteString(in, "R\n")
		err = c.Wait()
		if text := said.String(); err == nil || !strings.Contains(text, "RENEGOTIATING") || !strings.Contains(text, "alert") {
			t.Errorf("%v\n%s", err, text)
		}
		cancel()
	}
}

// wrongDoor speaks HTTP to the encrypted door, and TLS to the one in clear and to the one that carries TCP.
func wrongDoor(t *testing.T, h *house) {
	for range 20 {
		c := newClientOn(dial(t, h.secure))
		if text, err := c.exchange(request("GET /")); err != nil || text.status != 400 || !strings.Contains(text.body, `"code"`) {
			t.Errorf("HTTP at the encrypted door: %+v, %v", text, err)
		}
		c.Close()
		clear := dial(t, h.listen)
		if _, err := io.WriteString(clear, h.hello(t)); err != nil {
			t.Fatal(err)
		}
		ends(t, clear)
		preface := dial(t, h.secure)
		if _, err := io.WriteString(preface, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		ends(t, preface)
	}
}

// resetsOverH3 gives requests up as fast as it can begin them, until it is thrown out.
func resetsOverH3(t *testing.T, h *house) {
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		conn, err := quic.DialAddr(ctx, h.secure, h.trust(http3.NextProtoH3), nil)
		if err != nil {
			t.Fatal(err)
		}
		client := (&http3.Transport{}).NewClientConn(conn)
		r, err := http.NewRequest(http.MethodGet, "https://localhost/held", nil)
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; conn.Context().Err() == nil; n++ {
			if n > 5000 {
				t.Error("nobody minds")
				break
			}
			s, err := client.OpenRequestStream(ctx)
			if err != nil {
				break
			}
			_ = s.SendRequestHeader(r) // its end is noticed by the connection's
			s.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
			s.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		}
		select {
		case <-conn.Context().Done():
		case <-ctx.Done():
		}
		if err := context.Cause(conn.Context()); err == nil || !strings.Contains(err.Error(), "too many requests are given up") {
			t.Errorf("it ends with %v", err)
		}
		_ = conn.CloseWithError(0x100, "")
		cancel()
	}
}

// fragments sends a message that never ends, and frames whose length no memory holds.
func fragments(t *testing.T, h *house) {
	long := "\x82\xff\x3f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00" // 2^62 - 1 bytes follow
	most := "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00" // a length that must not be
	pieces := string(frame(firstText, "x")) + strings.Repeat(string(frame(moreText, "")), 200_000) +
		strings.Repeat(string(frame(moreText, grown(100))), 2000)
	var group sync.WaitGroup
	for _, text := range []string{long + grown(1<<20), most + grown(1<<20), pieces} {
		for _, open := range []func() *webSocket{
			func() *webSocket { return h.webSocket(t, dial(t, h.listen)) },
			func() *webSocket { return h.webSocket(t, h.dialTLS(t, "http/1.1")) },
		} {
			w := open()
			group.Go(func() { _, _ = io.WriteString(w, text) }) // the service may have had enough
			if _, err := io.Copy(io.Discard, w.in); err != nil {
				t.Logf("it ends with %v", err)
			}
			_ = w.close()
			group.Wait()
		}
	}
}

// deafSockets send without reading what comes back, until nothing can be sent any more, and then go away.
func deafSockets(t *testing.T, h *house) {
	text := frame(wholeText, grown(16<<10))
	for range 8 {
		c := dial(t, h.listen)
		w := h.webSocket(t, c)
		for {
			if err := c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(text); err != nil {
				break
			}
		}
		reset(newClientOn(c))
	}
}
