package tcp

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"headgate/gateway/exchange"
)

func TestBytesAndTheEndOfEachDirectionArePassedOn(t *testing.T) {
	h := newHouse(t, Settings{})
	client, service := h.pair()
	h.write(service, "220 ready\r\n") // a service may speak first
	h.read(client, "220 ready\r\n")
	h.write(client, "question")
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(service); string(got) != "question" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	h.write(service, "answer") // after the other direction has ended
	_ = service.Close()
	if got, err := io.ReadAll(client); string(got) != "answer" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	x := h.recorded()
	u := x.Usage
	if u.RequestBytes != 8 || u.ReplyBytes != 17 || u.Closed != "client_closed" || u.Aborted || x.Err != nil || x.Request.Proto != "TCP" {
		t.Errorf("%+v, %v", u, x.Err)
	}
	if n := h.counted("client_closed"); n != 1 {
		t.Errorf("%d are counted", n)
	}
}

func TestLargeTransfersBothWaysAtOnceArriveWhole(t *testing.T) {
	h := newHouse(t, Settings{})
	client, service := h.pair()
	const size = 64 << 20
	var both sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{client, service}, {service, client}} {
		sent, got := sha256.New(), sha256.New()
		both.Go(func() {
			if n, err := io.Copy(way[0], io.TeeReader(io.LimitReader(rand.Reader, size), sent)); n != size || err != nil {
				t.Errorf("sent %d, %v", n, err)
			}
			_ = way[0].CloseWrite()
		})
		both.Go(func() {
			if n, err := io.Copy(got, way[1]); n != size || err != nil {
				t.Errorf("received %d, %v", n, err)
			}
		})
		defer func() {
			if string(sent.Sum(nil)) != string(got.Sum(nil)) {
				t.Error("it is not what was sent")
			}
		}()
	}
	both.Wait()
	if u := h.recorded().Usage; u.RequestBytes != size || u.ReplyBytes != size || u.Aborted {
		t.Errorf("%+v", u)
	}
}

func TestAClientThatReadsNothingHoldsTheServiceBack(t *testing.T) {
	h := newHouse(t, Settings{})
	client, service := h.pair()
	piece := make([]byte, 1<<20)
	_ = service.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	sent := 0
	for {
		n, err := service.Write(piece)
		sent += n
		if err != nil {
			break
		}
		if sent > 256<<20 {
			t.Fatal("the gateway takes whatever comes")
		}
	}
	go func() { _ = service.CloseWrite() }()
	if n, err := io.Copy(io.Discard, client); n != int64(sent) || err != nil {
		t.Errorf("%d of %d bytes arrive, %v", n, sent, err)
	}
}

func TestASideThatBreaksBreaksTheOther(t *testing.T) {
	for _, c := range []struct {
		name, code string
		broken     func(client, service *net.TCPConn) (breaks, notices *net.TCPConn)
	}{
		{"client", "client_gone", func(c, s *net.TCPConn) (*net.TCPConn, *net.TCPConn) { return c, s }},
		{"service", "upstream_closed", func(c, s *net.TCPConn) (*net.TCPConn, *net.TCPConn) { return s, c }},
	} {
		for _, half := range []bool{false, true} { // the other side has ended its direction before
			h := newHouse(t, Settings{})
			client, service := h.pair()
			h.write(client, "x")
			h.read(service, "x") // the gateway is connected too, and has noticed
			breaks, notices := c.broken(client, service)
			if half {
				_ = notices.CloseWrite()
				if _, err := breaks.Read(make([]byte, 1)); err != io.EOF {
					t.Fatal(err)
				}
			}
			_ = breaks.SetLinger(0)
			_ = breaks.Close()
			if _, err := notices.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s breaks, half %v: %v", c.name, half, err)
			}
			x := h.recorded()
			if !x.Usage.Aborted || !half && (x.Err == nil || x.Err.Code.Name != c.code) {
				t.Errorf("%s breaks, half %v: %+v, %v", c.name, half, x.Usage, x.Err)
			}
		}
	}
}

func TestLimitsEndAConnection(t *testing.T) {
	for _, c := range []struct {
		reason   string
		settings Settings
		orderly  bool
	}{
		{"idle", Settings{Idle: 300 * time.Millisecond}, true},
		{"lifetime", Settings{Lifetime: 50 * time.Millisecond}, false},
		{"limit", Settings{Bytes: 10}, false},
	} {
		h := newHouse(t, c.settings)
		client, service := h.pair()
		h.write(client, "hello")
		h.read(service, "hello")
		h.write(service, "hello")
		h.read(client, "hello")
		for _, side := range []*net.TCPConn{client, service} {
			if _, err := side.Read(make([]byte, 1)); errors.Is(err, io.EOF) != c.orderly || err == nil {
				t.Errorf("%s: %v", c.reason, err)
			}
		}
		x := h.recorded()
		bytes := x.Usage.RequestBytes + x.Usage.ReplyBytes
		if x.Usage.Closed != c.reason || x.Usage.Aborted == c.orderly || bytes != 10 || h.counted(c.reason) != 1 {
			t.Errorf("%s: %+v", c.reason, x.Usage)
		}
	}
}

func TestBandwidthIsOfEachDirection(t *testing.T) {
	const rate = 200 << 10
	h := newHouse(t, Settings{Bandwidth: rate})
	client, service := h.pair()
	began := time.Now()
	var both sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{client, service}, {service, client}} {
		both.Go(func() { _, _ = way[0].Write(make([]byte, rate/2)); _ = way[0].CloseWrite() })
		both.Go(func() {
			if n, err := io.Copy(io.Discard, way[1]); n != rate/2 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
	both.Wait()
	if d := time.Since(began); d < 400*time.Millisecond {
		t.Errorf("half a second's worth took %s", d)
	}
}

func TestAClientThatConnectsTooFastIsTurnedAwayAndOthersAreNot(t *testing.T) {
	h := newHouse(t, Settings{Rate: 2})
	for range 2 {
		h.pair()
	}
	if !h.reset() {
		t.Error("the third is let in")
	}
	if x := h.recorded(); x.Err == nil || x.Err.Code != exchange.ConnectionRate || h.counted(exchange.ConnectionRate.Name) != 1 {
		t.Errorf("%v", x.Err)
	}
	h.server.Configure("main", Settings{Rate: 2}) // a reload forgets nothing
	if !h.reset() {
		t.Error("after a reload it is let in")
	}
	h.recorded()
	h.clock.Advance(500 * time.Millisecond)
	h.pair()
	h.mu.Lock()
	h.client = "192.0.2.1:4711"
	h.mu.Unlock()
	h.pair()
}

func TestWithoutAnUpstreamTheClientIsReset(t *testing.T) {
	h := newHouse(t, Settings{})
	h.answer(func(*exchange.Exchange) error {
		return &exchange.Error{Code: exchange.UpstreamUnreachable, Source: exchange.FromUpstream}
	})
	if !h.reset() {
		t.Error("it is not reset")
	}
	if h.recorded(); h.counted(exchange.UpstreamUnreachable.Name) != 1 {
		t.Error("not counted")
	}
}

func TestByNameNothingIsDecryptedAndAnUnknownNameIsTold(t *testing.T) {
	h := newHouse(t, Settings{ByName: true, HelloTime: patience})
	h.answer(func(x *exchange.Exchange) error {
		if x.Request.Host != "a.example" {
			return &exchange.Error{Code: exchange.NameNotServed, Source: exchange.FromClient}
		}
		return nil
	})
	cert := certificate(t, "a.example")
	served := make(chan error, 1)
	go func() {
		c, err := h.service.Accept()
		if err == nil {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			_, err = io.Copy(s, s)
			_ = s.Close()
		}
		served <- err
	}()
	c := tls.Client(h.dial(), &tls.Config{ServerName: "a.example", RootCAs: pool(cert)})
	h.write(c, "secret")
	h.read(c, "secret")
	_ = c.CloseWrite()
	if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	_ = c.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if x := h.recorded(); x.Err != nil || x.Request.Host != "a.example" {
		t.Errorf("%+v", x)
	}
	for _, name := range []string{"b.example", ""} {
		c := tls.Client(h.dial(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err := c.Handshake(); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%q: %v", name, err)
		}
		_ = c.Close()
		if x := h.recorded(); x.Err.Code != exchange.NameNotServed {
			t.Errorf("%v", x.Err)
		}
	}
}

func TestByNameWhatIsNoTLSIsTurnedAway(t *testing.T) {
	for _, c := range []struct {
		name, sent string
		end        bool
		code       string
		alert      string
	}{
		{"HTTP", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, "not_tls", ""},
		{"a malformed hello", "\x16\x03\x01\x00\x04\x01\x00\x00\x00", false, "not_tls", "\x15\x03\x03\x00\x02\x02\x32"},
		{"a slow one", "\x16\x03\x01", false, "request_timeout", ""},
		{"half a one", "\x16\x03\x01", true, "client_gone", ""},
	} {
		patient := Settings{ByName: true, HelloTime: patience}
		if c.code == "request_timeout" {
			patient.HelloTime = 100 * time.Millisecond
		}
		h := newHouse(t, patient)
		client := h.dial()
		h.write(client, c.sent)
		if c.end {
			_ = client.CloseWrite()
		}
		if c.alert != "" {
			h.read(client, c.alert)
			_ = client.CloseWrite()
		}
		if n, err := client.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("%s: %d bytes, %v", c.name, n, err)
		}
		if x := h.recorded(); x.Err == nil || x.Err.Code.Name != c.code || h.counted(c.code) != 1 {
			t.Errorf("%s: %v", c.name, x.Err)
		}
	}
}

func TestByNameAConnectionThatOnlyLooksIsNotRecorded(t *testing.T) {
	h := newHouse(t, Settings{ByName: true, HelloTime: patience})
	client := h.dial()
	_ = client.CloseWrite()
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("it is open")
	}
	h.close()
	h.server.Wait(t.Context())
	if len(h.news) > 0 {
		t.Errorf("%v", h.recorded().Err)
	}
}

func TestADrainLetsConnectionsBeAndCutsThemAtItsDeadline(t *testing.T) {
	h := newHouse(t, Settings{})
	client, service := h.pair()
	h.close()
	h.server.Announce()
	h.server.Drain()
	h.write(client, "still here")
	h.read(service, "still here")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if cut := h.server.Wait(ctx); cut != 1 {
		t.Errorf("%d are cut", cut)
	}
	for _, side := range []*net.TCPConn{client, service} {
		if _, err := side.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	}
	if x := h.recorded(); x.Usage.Closed != "drained" || !x.Usage.Aborted || h.counted("drained") != 1 {
		t.Errorf("%+v", x.Usage)
	}
}

func TestADrainCutsAConnectionOfWhichOneDirectionHasEnded(t *testing.T) {
	for _, ended := range []string{"client", "service"} {
		h := newHouse(t, Settings{})
		client, service := h.pair()
		one, other := client, service
		if ended == "service" {
			one, other = service, client
		}
		_ = one.CloseWrite()
		if _, err := other.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
		h.close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if cut := h.server.Wait(ctx); cut != 1 {
			t.Errorf("%d are cut", cut)
		}
		if _, err := one.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		if x := h.recorded(); !x.Usage.Aborted {
			t.Errorf("%+v", x.Usage)
		}
	}
}

func TestADrainEndsAConnectionThatIsStillBeingOpened(t *testing.T) {
	h := newHouse(t, Settings{})
	opening := make(chan struct{})
	h.answer(func(x *exchange.Exchange) error {
		close(opening)
		<-x.Context().Done()
		return &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient}
	})
	h.dial()
	<-opening
	h.close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if cut := h.server.Wait(ctx); cut != 1 {
		t.Errorf("%d are cut", cut)
	}
	h.recorded()
}

func TestAPanicCostsItsConnectionAlone(t *testing.T) {
	h := newHouse(t, Settings{})
	h.answer(func(*exchange.Exchange) error { panic("broken") })
	if !h.reset() {
		t.Error("it is not reset")
	}
	h.answer(nil)
	h.pair()
	h.close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.server.Wait(ctx)
	if !strings.Contains(h.log.String(), "a connection panicked") {
		t.Errorf("%s", h.log.String())
	}
}
