package h3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"headgate/gateway/exchange"
)

// After Announce a connection is asked for no more, and what comes all the same is answered.
func TestAnnounceAsksForNoMore(t *testing.T) {
	d := open(t, hello)
	used, unused := d.raw(t), d.raw(t)
	usedIDs, unusedIDs := used.goAways(), unused.goAways()
	_ = read(used.request(get(), true))
	d.Announce()
	if id := await(t, usedIDs); id != farthest {
		t.Errorf("GOAWAY %d", id)
	}
	for _, r := range []*raw{used, unused} { // the second has not asked anything yet and may, once
		if got := read(r.request(get(), true)); got.body != "hello" {
			t.Errorf("%+v", got)
		}
	}
	if id := await(t, unusedIDs); id != farthest {
		t.Errorf("GOAWAY %d", id)
	}
}

// A drain answers what is carried and what was on its way, rejects what comes later so that it can safely be repeated, and
// then ends the connection.
func TestDrainLosesNothing(t *testing.T) {
	for drains(t) { // where the machine stood still, nothing is proven
		t.Log("once more: what was on its way came too late")
	}
}

// drains reports whether the moment in which requests are on their way had passed before one was sent.
func drains(t *testing.T) (late bool) {
	release := make(chan struct{})
	begun := make(chan struct{}, 10)
	d := open(t, func(x *exchange.Exchange) error {
		begun <- struct{}{}
		if x.Request.Method == "POST" {
			<-release
		}
		return hello(x)
	})
	r := d.raw(t)
	ids := r.goAways()
	carried := r.request(post("content-length", "0"), true)
	await(t, begun)
	if err := d.Server.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	d.Drain()
	if id := await(t, ids); id != farthest {
		t.Errorf("GOAWAY %d", id)
	}
	onItsWay := read(r.request(get(), true))
	late = time.Since(began) >= lastCall
	if onItsWay.body != "hello" && !late {
		t.Errorf("on its way: %+v", onItsWay)
	}
	if id := await(t, ids); id != 8 && !late {
		t.Errorf("GOAWAY %d", id)
	}
	if got := read(r.request(get(), true)); got.reset() != http3.ErrCodeRequestRejected {
		t.Errorf("too late: %+v", got)
	}
	close(release)
	if got := read(carried); got.body != "hello" {
		t.Errorf("carried: %+v", got)
	}
	if code := r.closed(); code != http3.ErrCodeNoError {
		t.Errorf("%v", code)
	}
	if cut := d.Wait(context.Background()); cut != 0 {
		t.Errorf("%d were cut off", cut)
	}
	return late
}

func TestWaitCutsOffWhatDoesNotEnd(t *testing.T) {
	d := open(t, func(x *exchange.Exchange) error {
		<-x.Context().Done()
		return io.ErrClosedPipe
	})
	r := d.raw(t)
	s := r.request(get(), true)
	if err := d.Server.Close(); err != nil {
		t.Fatal(err)
	}
	d.Drain()
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	if cut := d.Wait(ctx); cut != 1 {
		t.Errorf("%d were cut off", cut)
	}
	d.await(t, io.ErrClosedPipe.Error())
	if got := read(s); got.err == nil {
		t.Errorf("%+v", got)
	}
	if code := r.closed(); code != http3.ErrCodeInternalError {
		t.Errorf("%v", code)
	}
}

func TestAClosedServerLetsNobodyIn(t *testing.T) {
	d := open(t, hello)
	r := d.raw(t)
	if err := d.Server.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := quic.DialAddr(ctx, d.Bound(), d.tls(), nil); err == nil {
		t.Error("somebody got in")
	}
	if got := read(r.request(get(), true)); got.body != "hello" {
		t.Errorf("who was inside: %+v", got)
	}
}

// Names, limits and certificates change under load, and nobody notices.
func TestConfigureUnderLoadLosesNothing(t *testing.T) {
	d := open(t, hello)
	var stop atomic.Bool
	var all sync.WaitGroup
	var carried atomic.Int64
	for range 4 {
		c := d.client(t)
		all.Go(func() {
			for !stop.Load() {
				rsp, err := c.Get(d.url("/"))
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(rsp.Body)
				_ = rsp.Body.Close()
				if string(b) != "hello" || err != nil {
					t.Errorf("%q, %v", b, err)
				}
				if carried.Add(1)%100 == 0 { // a connection of its own, with the certificate of now
					c.Transport.(*http3.Transport).CloseIdleConnections()
				}
			}
		})
	}
	settings := d.settings
	for i := range 200 {
		settings.Name = fmt.Sprint("name", i%3)
		settings.Limits.Head = 8<<10 + i
		settings.TLS = &tls.Config{Certificates: d.settings.TLS.Certificates}
		d.Configure(settings)
		before := carried.Load()
		eventually(t, func() bool { return carried.Load() > before+2 || t.Failed() })
	}
	stop.Store(true)
	all.Wait()
}

// resumable returns what a client needs to ask before the handshake is over, once it has been here.
func (d *door) resumable(t *testing.T) *tls.Config {
	t.Helper()
	got := make(chan struct{}, 10)
	conf := d.tls()
	conf.ClientSessionCache = &sessions{ClientSessionCache: tls.NewLRUClientSessionCache(10), got: got}
	q, err := quic.DialAddr(t.Context(), d.Bound(), conf, unhurried())
	if err != nil {
		t.Fatal(err)
	}
	_ = read((&raw{q, t}).request(get(), true))
	await(t, got)
	_ = q.CloseWithError(0x100, "")
	return conf
}

// sessions tells when a ticket has come.
type sessions struct {
	tls.ClientSessionCache
	got chan struct{}
}

// Put implements tls.ClientSessionCache.
func (s *sessions) Put(key string, cs *tls.ClientSessionState) {
	s.ClientSessionCache.Put(key, cs)
	if cs != nil {
		s.got <- struct{}{}
	}
}

// deaf is a client's socket that hears nothing until it may: as long as it hears nothing, no handshake is complete.
type deaf struct {
	net.PacketConn
	may <-chan struct{}
}

// ReadFrom implements net.PacketConn.
func (s *deaf) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.PacketConn.ReadFrom(b)
	<-s.may
	return n, from, err
}

// early opens a connection whose client may ask at once, and whose handshake cannot be complete before it is told to listen.
func (d *door) early(t *testing.T, conf *tls.Config) (r *raw, listen func()) {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	may := make(chan struct{})
	listen = sync.OnceFunc(func() { close(may) })
	transport := &quic.Transport{Conn: &deaf{socket, may}}
	t.Cleanup(func() {
		listen()
		if err := errors.Join(transport.Close(), socket.Close()); err != nil {
			t.Error(err)
		}
	})
	to, err := net.ResolveUDPAddr("udp", d.Bound())
	if err != nil {
		t.Fatal(err)
	}
	q, err := transport.DialEarly(t.Context(), to, conf, unhurried())
	if err != nil {
		t.Fatal(err)
	}
	return &raw{q, t}, listen
}

// bare is the HEADERS frame of a request that has a method and nothing more.
func bare(method string) []byte {
	return frame(frameHeaders, block(":method", method, ":scheme", "https", ":authority", "localhost", ":path", "/"))
}

// Early data may be a replay: only safe methods are carried before the handshake is complete, and say so; others wait
// (RFC 8470 section 3).
func TestEarlyDataIsForSafeMethods(t *testing.T) {
	seen := make(chan string, 10)
	d := open(t, func(x *exchange.Exchange) error {
		seen <- fmt.Sprint(x.Request.Method, " early ", x.Client.TLS.Early, ", told ", x.Request.Header.Get("Early-Data"))
		if x.Client.TLS.ServerName != "localhost" || x.Client.TLS.Version != "TLS 1.3" {
			t.Errorf("%+v", x.Client.TLS)
		}
		return hello(x)
	}, limited(func(l *Limits) { l.EarlyData = true }))
	conf := d.resumable(t)
	await(t, seen)
	for _, c := range []struct{ first, firstSeen, second, secondSeen string }{
		{"GET", "GET early true, told 1", "", ""},
		{"HEAD", "HEAD early true, told 1", "", ""},
		{"POST", "POST early false, told ", "OPTIONS", "OPTIONS early true, told 1"},
		{"DELETE", "DELETE early false, told ", "OPTIONS", "OPTIONS early true, told 1"},
	} {
		r, listen := d.early(t, conf)
		asked := []*quic.Stream{r.request(bare(c.first), true)}
		if c.second != "" { // it overtakes the first, which waits
			asked = append(asked, r.request(bare(c.second), true))
			if s := await(t, seen); s != c.secondSeen {
				t.Errorf("%q, want %q", s, c.secondSeen)
			}
			listen()
		}
		if s := await(t, seen); s != c.firstSeen {
			t.Errorf("%q, want %q", s, c.firstSeen)
		}
		listen()
		for _, s := range asked {
			if got := read(s); got.err != nil || got.status != "200" {
				t.Errorf("%s: %+v", c.first, got)
			}
		}
		if !r.ConnectionState().Used0RTT {
			t.Errorf("%s did not come early", c.first)
		}
		_ = r.CloseWithError(0x100, "")
	}
}

func TestEarlyDataIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(d *door)
	}{
		{"when it is off", func(d *door) { d.settings.Limits.EarlyData = false }},
		{"when the settings have changed", func(d *door) { d.settings.Limits.Head = 1 << 10 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, hello, limited(func(l *Limits) { l.EarlyData = true }))
			conf := d.resumable(t)
			c.change(d)
			d.Configure(d.settings)
			q, err := quic.DialAddrEarly(t.Context(), d.Bound(), conf, unhurried())
			if err != nil {
				t.Fatal(err)
			}
			if <-q.HandshakeComplete(); q.ConnectionState().Used0RTT {
				t.Error("it was taken")
			}
			_ = q.CloseWithError(0x100, "")
		})
	}
}

// side is an upstream's side of a switched connection that says back what it hears.
type side struct {
	io.Reader
	io.Writer
	closed chan struct{}
	once   sync.Once
}

// CloseWrite implements exchange.Stream.
func (s *side) CloseWrite() error {
	s.Interrupt()
	return nil
}

// Interrupt implements exchange.Stream.
func (s *side) Interrupt() {
	s.once.Do(func() {
		close(s.closed)
		_ = s.Writer.(*io.PipeWriter).Close() // it cannot fail
	})
}

// copying is a tunnel in its simplest form.
type copying struct{}

// Carry implements exchange.Tunnel.
func (copying) Carry(x *exchange.Exchange, client exchange.Stream) error {
	var down sync.WaitGroup
	down.Go(func() {
		_, _ = io.Copy(client, x.Reply.Switched)
		_ = client.CloseWrite() // the client has gone otherwise
	})
	_, err := io.Copy(x.Reply.Switched, client)
	_ = x.Reply.Switched.CloseWrite()
	down.Wait()
	return err
}

// Extended CONNECT becomes the handshake that routes and policies know, and its stream carries bytes (RFC 9220).
func TestASwitchedConnection(t *testing.T) {
	d := open(t, func(x *exchange.Exchange) error {
		if x.Request.Method != "GET" || x.Request.Upgrade != "websocket" || x.Request.Path != "/chat" || !x.Request.Body.None() ||
			x.Request.Header.Get("Sec-WebSocket-Version") != "13" {
			t.Errorf("%+v", x.Request)
		}
		r, w := io.Pipe()
		x.Reply.Status, x.Reply.Tunnel = 101, copying{}
		x.Reply.Header.Add("Sec-WebSocket-Accept", "of HTTP/1.1")
		x.Reply.Header.Add("Sec-WebSocket-Protocol", "chat")
		x.Reply.Header.Add("Connection", "Upgrade")
		x.Reply.Header.Add("Upgrade", "websocket")
		x.Reply.Switched = &side{Reader: r, Writer: w, closed: make(chan struct{})}
		return x.Wire.Reply(x)
	}, limited(func(l *Limits) { l.Body, l.BodyTime = 4, short }))
	head := frame(frameHeaders, block(":method", "CONNECT", ":protocol", "WebSocket", ":scheme", "https", ":authority", "localhost",
		":path", "/chat", "sec-websocket-version", "13"))
	s := d.raw(t).request(head, false)
	in := &reader{from: s, buf: make([]byte, 4096)}
	kind, n, err := in.frame()
	if kind != frameHeaders || err != nil {
		t.Fatal(kind, err)
	}
	p, err := in.payload(int(n))
	if got := decode(p); err != nil || !slices.Equal(got, []string{":status=200", "sec-websocket-protocol=chat"}) {
		t.Fatalf("%q, %v", got, err)
	}
	for _, said := range []string{"hello", "and more than a body may have"} {
		<-time.After(short) // longer than a body may be silent
		if _, err := s.Write(frame(frameData, []byte(said))); err != nil {
			t.Fatal(err)
		}
		kind, n, err := in.frame()
		if kind != frameData || err != nil {
			t.Fatal(kind, err)
		}
		if p, err := in.payload(int(n)); string(p) != said || err != nil {
			t.Errorf("%q, %v", p, err)
		}
	}
	_ = s.Close()
	if _, _, err := in.frame(); err != io.EOF {
		t.Errorf("it ends with %v", err)
	}
}
