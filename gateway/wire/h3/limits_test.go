package h3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"headgate/gateway/exchange"
)

// short is a time limit that is meant to pass in a test.
const short = 100 * time.Millisecond

func limited(change func(*Limits)) func(*Settings) {
	return func(s *Settings) { change(&s.Limits) }
}

func TestASlowHeadIsAnswered408(t *testing.T) {
	d := open(t, echo, limited(func(l *Limits) { l.HeadTime = short }))
	r := d.raw(t)
	for _, begin := range [][]byte{{frameHeaders}, get()[:5], frame(0x21, []byte("x"))} {
		got := read(r.request(begin, false))
		if got.err != nil || got.status != "408" {
			t.Errorf("% x: %+v", begin, got)
		}
	}
	if got := read(r.request(get(), true)); got.status != "200" {
		t.Errorf("the connection: %+v", got)
	}
}

func TestASlowBodyIsGivenUp(t *testing.T) {
	d := open(t, func(x *exchange.Exchange) error {
		_, err := io.ReadAll(x.Request.Body.Reader)
		var known *exchange.Error
		if !errors.As(err, &known) {
			return err
		}
		x.Problem(known.Code, known.Detail)
		return x.Wire.Reply(x)
	}, limited(func(l *Limits) { l.BodyTime = short }))
	got := read(d.raw(t).request(slices.Concat(post(), frame(frameData, []byte("abc"))), false))
	if got.err != nil || got.status != "408" {
		t.Errorf("%+v", got)
	}
}

// What is said to be made of messages may be silent for as long as is said and no longer, whatever the listener allows.
func TestMessagesNeedNotHurry(t *testing.T) {
	t.Parallel()
	const long = 10 * time.Second
	for _, test := range []struct {
		name   string
		idle   time.Duration // without a byte
		status string
	}{{"for as long as is said", long, "200"}, {"and no longer", 3 * short, "408"}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := open(t, func(x *exchange.Exchange) error {
				x.Wire.(exchange.Patient).Unhurried(test.idle)
				b, err := io.ReadAll(x.Request.Body.Reader)
				var known *exchange.Error
				switch {
				case errors.As(err, &known):
					x.Problem(known.Code, known.Detail)
				case err != nil:
					return err
				default:
					x.Answer(200, "text/plain", string(b))
				}
				return x.Wire.Reply(x)
			}, limited(func(l *Limits) { l.BodyTime, l.MinBodyRate = short, 1<<20 }))
			s := d.raw(t).request(slices.Concat(post(), frame(frameData, []byte("one"))), false)
			if test.status == "200" {
				time.Sleep(5 * short) // silence is what is tested
				if _, err := s.Write(frame(frameData, []byte("two"))); err != nil {
					t.Fatal(err)
				}
				_ = s.Close() // it never fails
			}
			if got := read(s); got.err != nil || got.status != test.status || test.status == "200" && got.body != "onetwo" {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestABodyThatIsTooLarge(t *testing.T) {
	d := open(t, func(x *exchange.Exchange) error {
		_, err := io.ReadAll(x.Request.Body.Reader)
		var known *exchange.Error
		if !errors.As(err, &known) {
			return err
		}
		x.Problem(known.Code, known.Detail)
		return x.Wire.Reply(x)
	}, limited(func(l *Limits) { l.Body = 10 }))
	r := d.raw(t)
	for name, request := range map[string][]byte{
		"announced": post("content-length", "11"),
		"not":       slices.Concat(post(), frame(frameData, make([]byte, 6)), frame(frameData, make([]byte, 5))),
	} {
		if got := read(r.request(request, false)); got.err != nil || got.status != "413" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A client that takes none of its reply is given up, and the exchange with it; memory is bounded by the windows meanwhile.
func TestASlowReaderIsGivenUp(t *testing.T) {
	var sent int
	d := open(t, func(x *exchange.Exchange) error {
		body := readerFunc(func(p []byte) (int, error) {
			sent += len(p)
			return len(p), nil
		})
		x.Reply.Status, x.Reply.Body = 200, exchange.Body{Reader: body, Length: -1}
		err := x.Wire.Reply(x)
		if sent > 2<<20 {
			t.Errorf("%d bytes were taken from the upstream for a client that takes none", sent)
		}
		return err
	}, limited(func(l *Limits) { l.BodyTime = short }))
	r := d.rawConfig(t, &quic.Config{
		HandshakeIdleTimeout: patience, InitialStreamReceiveWindow: 64 << 10, MaxStreamReceiveWindow: 64 << 10,
	})
	s := r.request(get(), true)
	d.await(t, "client_gone: deadline exceeded")
	if got := read(s); got.reset() != http3.ErrCodeInternalError {
		t.Errorf("%v", got.err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestAnIdleConnectionIsClosed(t *testing.T) {
	for _, asks := range []bool{false, true} {
		doors := make(chan *door, 1)
		d := open(t, func(x *exchange.Exchange) error {
			d := <-doors
			s := d.settings
			s.Limits.IdleTime = short // from now on, so that nobody is too slow to ask
			d.Configure(s)
			return hello(x)
		}, limited(func(l *Limits) {
			if !asks {
				l.IdleTime = short
			}
		}))
		doors <- d
		r := d.raw(t)
		ids := r.goAways()
		want := uint64(0)
		if asks {
			_ = read(r.request(get(), true))
			want = 4
		}
		if id := await(t, ids); id != want {
			t.Errorf("GOAWAY %d, want %d", id, want)
		}
		if code := r.closed(); code != http3.ErrCodeNoError {
			t.Errorf("%v", code)
		}
	}
}

func TestAConnectionEndsAfterItsLastRequest(t *testing.T) {
	d := open(t, hello, limited(func(l *Limits) { l.Requests = 2 }))
	r := d.raw(t)
	ids := r.goAways()
	for range 2 {
		if got := read(r.request(get(), true)); got.body != "hello" {
			t.Fatalf("%+v", got)
		}
	}
	if id := await(t, ids); id != 8 {
		t.Errorf("GOAWAY %d", id)
	}
	if got := read(r.request(get(), true)); got.reset() != http3.ErrCodeRequestRejected {
		t.Errorf("a request behind it: %+v", got)
	}
	if code := r.closed(); code != http3.ErrCodeNoError {
		t.Errorf("%v", code)
	}
}

// dial returns how a handshake ends.
func (d *door) dial(t *testing.T) (*quic.Conn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return quic.DialAddr(ctx, d.Bound(), d.tls(), unhurried())
}

func TestConnectionsAreCounted(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Limits)
	}{
		{"of the listener", func(l *Limits) { l.Connections = 2 }},
		{"of one client", func(l *Limits) { l.PerClient = 2 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, hello, limited(c.change))
			var open []*quic.Conn
			for range 2 {
				q, err := d.dial(t)
				if err != nil {
					t.Fatal(err)
				}
				open = append(open, q)
			}
			var refused *quic.TransportError
			if _, err := d.dial(t); !errors.As(err, &refused) || refused.ErrorCode != quic.ConnectionRefused {
				t.Errorf("the third: %v", err)
			}
			if n := d.OpenConnections(); n != 2 {
				t.Errorf("%d are open", n)
			}
			title := d.title.Load()
			if title.accepted.Value() != 2 || title.refused.Value() == 0 { // each datagram of a long ClientHello is refused
				t.Errorf("accepted %d, refused %d", title.accepted.Value(), title.refused.Value())
			}
			_ = open[0].CloseWithError(0x100, "")
			for {
				q, err := d.dial(t) // as soon as the server has noticed
				if err == nil {
					_ = q.CloseWithError(0x100, "")
					break
				}
				if !errors.As(err, &refused) {
					t.Fatal(err)
				}
			}
			_ = open[1].CloseWithError(0x100, "")
		})
	}
}

// onePlace is a place that all doors share.
type onePlace struct{ taken bool }

func (p *onePlace) Enter() bool {
	was := p.taken
	p.taken = true
	return !was
}

func (p *onePlace) Leave() { p.taken = false }

func TestConnectionsTakePlacesThatAllDoorsShare(t *testing.T) {
	place := new(onePlace)
	s := &Server{Env: Env{Rooms: place}, clients: map[netip.Addr]int{}}
	s.settings.Store(&compiled{})
	first, second := &visit{server: s}, &visit{server: s}
	first.shook.Store(true)
	if !s.enter(first) || s.enter(second) || s.OpenConnections() != 1 {
		t.Fatalf("%d are inside", s.OpenConnections())
	}
	first.leave()
	if place.taken || !s.enter(second) {
		t.Error("the place was not given back")
	}
}

func TestIPv6ClientsAreCountedByNetwork(t *testing.T) {
	for _, c := range [][2]string{
		{"192.0.2.1", "192.0.2.1"}, {"::ffff:192.0.2.1", "192.0.2.1"},
		{"2001:db8::1", "2001:db8::"}, {"2001:db8::ffff:0:1", "2001:db8::"}, {"2001:db8:0:1::1", "2001:db8:0:1::"},
	} {
		a := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c[0]), 1))
		if got := network(peerOf(a).Addr()); got.String() != c[1] {
			t.Errorf("%s is counted as %s, want %s", c[0], got, c[1])
		}
	}
}

// silent opens handshakes that never go on, from one address, as an attacker who forges addresses would.
func silent(t *testing.T, d *door, n int) {
	t.Helper()
	for range n {
		ctx, cancel := context.WithCancel(t.Context())
		held := &holding{PacketConn: listenUDP(t)}
		tr := &quic.Transport{Conn: held}
		addr, err := net.ResolveUDPAddr("udp", d.Bound())
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = tr.Dial(ctx, addr, d.tls(), nil) // it never hears of the server
		}()
		t.Cleanup(func() {
			cancel()
			<-done
			_ = tr.Close()
			_ = held.Close()
		})
	}
}

// holding is a socket on which nothing arrives.
type holding struct{ net.PacketConn }

// ReadFrom implements net.PacketConn.
func (h *holding) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		if _, _, err := h.PacketConn.ReadFrom(p); err != nil {
			return 0, nil, err
		}
	}
}

func listenUDP(t *testing.T) net.PacketConn {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// When many shake hands, a client must show that it receives what is sent to its address, so that forged addresses fill
// only a part of the room and others get in (RFC 9000 section 8.1.2).
func TestUnderLoadAddressesAreValidated(t *testing.T) {
	d := open(t, hello, limited(func(l *Limits) { l.Handshakes = 8 }))
	silent(t, d, 20)
	eventually(t, func() bool { return d.unsure(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}) })
	if got := read(d.raw(t).request(get(), true)); got.body != "hello" {
		t.Errorf("an honest client: %+v", got)
	}
	d.Server.mu.Lock()
	shaking := d.shaking
	d.Server.mu.Unlock()
	if shaking > 8/retryShare+1 {
		t.Errorf("%d forged handshakes are held", shaking)
	}
}

func TestAHandshakeThatDoesNotEndIsGivenUp(t *testing.T) {
	d := open(t, hello, limited(func(l *Limits) { l.HandshakeTime = 2 * short }))
	silent(t, d, 1)
	failed := d.title.Load().failed
	eventually(t, func() bool { return failed.Value() == 1 && d.OpenConnections() == 0 })
}

func TestTheServerSaysWhatItTakes(t *testing.T) {
	d := open(t, hello)
	r := d.raw(t)
	s, err := r.AcceptUniStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	in := &reader{from: s, buf: make([]byte, 64)}
	if kind, err := in.varint(); kind != streamControl || err != nil {
		t.Fatal(kind, err)
	}
	kind, n, err := in.frame()
	if kind != frameSettings || err != nil {
		t.Fatal(kind, err)
	}
	p, err := in.payload(int(n))
	want := appendSetting(appendSetting(nil, 0x6, 16<<10), 0x8, 1)
	if err != nil || !bytes.Equal(p, want) {
		t.Errorf("% x, want % x", p, want)
	}
}

func TestAPortInUseIsSaid(t *testing.T) {
	taken := listenUDP(t)
	defer taken.Close()
	_, err := Open(taken.LocalAddr().String(), Env{}, Settings{Name: "public"})
	if err == nil || !strings.Contains(err.Error(), "listeners.public: "+taken.LocalAddr().String()+" over UDP is in use") {
		t.Error(err)
	}
}

// Ending the listener waits for the goroutine that takes packets, which counts clients: who ends it must not hold what that needs.
func TestClosingNeedsNothingThatCountingHolds(t *testing.T) {
	d := open(t, hello)
	d.raw(t)
	d.Server.mu.Lock()
	defer d.Server.mu.Unlock()
	closed := make(chan error, 1)
	go func() { closed <- d.Server.Close() }()
	if err := await(t, closed); err != nil {
		t.Error(err)
	}
}
