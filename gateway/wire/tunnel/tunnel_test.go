package tunnel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"headgate/gateway/exchange"
)

var kinds = map[string]kind{"sockets": asSockets, "streams": asStreams}

func TestBytesPassBothWaysAndEndsArePassedOn(t *testing.T) {
	for name, as := range kinds {
		t.Run(name, func(t *testing.T) {
			e := open(t, as, Options{})
			for range 3 {
				send(t, e.client, "ping")
				expect(t, e.upstream, "ping")
				send(t, e.upstream, "pong!")
				expect(t, e.client, "pong!")
			}
			_ = e.client.CloseWrite()
			expectEnd(t, e.upstream)
			send(t, e.upstream, "still here")
			expect(t, e.client, "still here")
			_ = e.upstream.CloseWrite()
			expectEnd(t, e.client)
			if r := e.ended(t); r != (Result{Sent: 12, Received: 25, Ended: ClientClosed}) {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestWhoEndsFirstIsTheReason(t *testing.T) {
	e := open(t, asSockets, Options{})
	_ = e.upstream.CloseWrite()
	expectEnd(t, e.client)
	_ = e.client.CloseWrite()
	if r := e.ended(t); r.Ended != UpstreamClosed || r.Err != nil {
		t.Errorf("got %+v", r)
	}
}

// TestTheEndIsPassedOnWithTheLastBytes closes right behind what is sent, which a reader that trusts a short read would learn
// a second later: of other protocols always, of a WebSocket behind a close frame.
func TestTheEndIsPassedOnWithTheLastBytes(t *testing.T) {
	const rounds = 20
	began := time.Now()
	for range rounds {
		for last, o := range map[string]Options{"bye": {}, "\x88\x02\x03\xe8": {WebSocket: true}} {
			e := open(t, asSockets, o)
			for range 2 {
				send(t, e.upstream, "\x81\x01x")
				expect(t, e.client, "\x81\x01x")
			}
			send(t, e.upstream, last)
			_ = e.upstream.CloseWrite()
			expect(t, e.client, last)
			expectEnd(t, e.client)
			_ = e.client.CloseWrite()
			e.ended(t)
		}
	}
	if took := time.Since(began); took > rounds*time.Second*3/4 {
		t.Errorf("%d ends took %v", 2*rounds, took)
	}
}

func TestABrokenSideEndsBothDirections(t *testing.T) {
	for name, as := range kinds {
		t.Run(name, func(t *testing.T) {
			e := open(t, as, Options{})
			send(t, e.client, "x")
			expect(t, e.upstream, "x")
			_ = e.client.SetLinger(0)
			_ = e.client.Close()
			if r := e.ended(t); r.Ended != ClientFailed || r.Err == nil {
				t.Errorf("got %+v", r)
			}
			expectEnd(t, e.upstream)
		})
	}
}

// TestLargeTransfersArriveWhole covers the reads of every size, and the kernel's relaying, both ways at once.
func TestLargeTransfersArriveWhole(t *testing.T) {
	const size = 20 << 20
	for name, as := range kinds {
		for _, o := range []Options{{}, {WebSocket: true}, {Bytes: 3 * size}} {
			t.Run(name, func(t *testing.T) {
				e := open(t, as, o)
				var all sync.WaitGroup
				for seed, way := range [][2]*net.TCPConn{{e.client, e.upstream}, {e.upstream, e.client}} {
					content := make([]byte, size)
					_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(content)
					if o.WebSocket { // one frame of a megabyte after another
						content = content[:0]
						for range size >> 20 {
							content = append(append(content, 0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 0), make([]byte, 1<<20)...)
						}
					}
					all.Go(func() {
						_, _ = way[0].Write(content)
						_ = way[0].CloseWrite()
					})
					all.Go(func() {
						got, err := io.ReadAll(way[1])
						if err != nil || sha256.Sum256(got) != sha256.Sum256(content) {
							t.Errorf("%d bytes arrived of %d, or others: %v", len(got), len(content), err)
						}
					})
				}
				all.Wait()
				if r := e.ended(t); r.Sent < size || r.Received < size || r.Err != nil {
					t.Errorf("got %+v", r)
				}
			})
		}
	}
}

func TestAnIdleTunnelEnds(t *testing.T) {
	for name, as := range kinds {
		t.Run(name, func(t *testing.T) {
			e := open(t, as, Options{Idle: 500 * time.Millisecond})
			send(t, e.client, "x")
			expect(t, e.upstream, "x")
			if r := e.ended(t); r.Ended != Idle || r.Err != nil {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestABusyTunnelIsNotIdle(t *testing.T) {
	const idle = time.Second
	e := open(t, asSockets, Options{Idle: idle})
	for deadline := time.Now().Add(5 * idle / 2); time.Now().Before(deadline); {
		last := time.Now()
		send(t, e.client, "x")
		expect(t, e.upstream, "x")
		select {
		case r := <-e.result:
			if silent := time.Since(last); silent >= idle {
				t.Skipf("the machine stood still for %v, and the tunnel was idle", silent)
			}
			t.Fatalf("ended with %+v", r)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func TestLifetimeEndsABusyTunnel(t *testing.T) {
	e := open(t, asSockets, Options{Lifetime: 200 * time.Millisecond})
	go func() { _, _ = io.Copy(io.Discard, e.upstream) }()
	go func() {
		for err := error(nil); err == nil; {
			_, err = e.client.Write([]byte("more"))
		}
	}()
	if r := e.ended(t); r.Ended != Lifetime || r.Sent == 0 {
		t.Errorf("got %+v", r)
	}
}

func TestHalfATunnelEndsInTime(t *testing.T) {
	e := open(t, asSockets, Options{HalfClosed: 100 * time.Millisecond})
	_ = e.upstream.CloseWrite()
	if r := e.ended(t); r.Ended != UpstreamClosed || r.Err != nil {
		t.Errorf("got %+v", r)
	}
}

func TestBytesAreLimitedToTheLast(t *testing.T) {
	for name, as := range kinds {
		t.Run(name, func(t *testing.T) {
			e := open(t, as, Options{Bytes: 10})
			send(t, e.client, "1234")
			expect(t, e.upstream, "1234")
			send(t, e.upstream, "567890ab")
			expect(t, e.client, "567890")
			if r := e.ended(t); r.Ended != Limit || r.Sent+r.Received != 10 {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestBandwidthIsLimited(t *testing.T) {
	const bandwidth, size = 200_000, 60_000
	e := open(t, asSockets, Options{Bandwidth: bandwidth})
	began := time.Now()
	go func() { _, _ = e.client.Write(make([]byte, size)) }()
	if _, err := io.ReadFull(e.upstream, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	// The last piece is not waited for before it arrives.
	if took, least := time.Since(began), time.Second*(size-bandwidth/piecesPerSecond)/bandwidth; took < least {
		t.Errorf("%d bytes took %v; at %d bytes per second at least %v", size, took, bandwidth, least)
	}
}

func TestASlowReaderHoldsUpItsSenderAndCostsNoMemory(t *testing.T) {
	e := open(t, asSockets, Options{})
	_ = e.client.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	var sent int64
	for err := error(nil); err == nil; {
		var n int
		n, err = e.client.Write(make([]byte, 64<<10))
		sent += int64(n)
	}
	_ = e.client.CloseWrite()
	got, err := io.Copy(io.Discard, e.upstream)
	if err != nil || got != sent {
		t.Errorf("%d bytes arrived of %d: %v", got, sent, err)
	}
}

// TestFarewell ends WebSockets with a close frame to both sides, once their frames have ended.
func TestFarewell(t *testing.T) {
	r := registry()
	e := open(t, asSockets, Options{Registry: r, WebSocket: true})
	send(t, e.upstream, "\x81\x05hello")
	expect(t, e.client, "\x81\x05hello")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	gone := make(chan struct{})
	go func() { defer close(gone); r.Farewell(ctx) }()
	expect(t, e.client, "\x88\x02\x03\xe9")
	got := make([]byte, 8)
	if _, err := io.ReadFull(e.upstream, got); err != nil {
		t.Fatal(err)
	}
	var f frames
	if f.pass(got); !f.closed || f.status != goingAway || got[1]&maskBit == 0 {
		t.Errorf("the upstream got % x: status %d", got, f.status)
	}
	send(t, e.client, "\x81\x81\x00\x00\x00\x00x\x88\x82\x00\x00\x00\x00\x03\xe9") // a message that was on its way, and the answer
	send(t, e.upstream, "\x88\x02\x03\xe9")
	expectEnd(t, e.client)
	expectEnd(t, e.upstream)
	<-gone
	if res := e.ended(t); res.Ended != Drained || res.Err != nil || r.Len() != 0 {
		t.Errorf("got %+v, %d open", res, r.Len())
	}
}

func TestFarewellInsideAFrameClosesAlone(t *testing.T) {
	for name, o := range map[string]Options{"websocket": {WebSocket: true}, "other": {}} {
		t.Run(name, func(t *testing.T) {
			r := registry()
			o.Registry = r
			e := open(t, asSockets, o)
			send(t, e.upstream, "\x81\x05hel")
			expect(t, e.client, "\x81\x05hel")
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r.Farewell(ctx)
			expectEnd(t, e.client)
			if res := e.ended(t); res.Ended != Drained {
				t.Errorf("got %+v", res)
			}
		})
	}
}

func TestFarewellCutsOffWhoDoesNotAnswer(t *testing.T) {
	r := registry()
	e := open(t, asSockets, Options{Registry: r, WebSocket: true})
	send(t, e.client, "\x81\x81\x00\x00\x00\x00x")
	expect(t, e.upstream, "\x81\x81\x00\x00\x00\x00x")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r.Farewell(ctx)
	if res := e.ended(t); res.Ended != Drained || r.Len() != 0 {
		t.Errorf("got %+v", res)
	}
}

func TestACancelCutsTheTunnelOff(t *testing.T) {
	var x exchange.Exchange
	x.Cancel = new(exchange.Canceler)
	s := sweeper(t)
	near, far := pair(t, s)
	up, upFar := pair(t, s)
	r := registry()
	x.Reply.Switched, x.Request.Upgrade = up, WebSocket
	x.Reply.Tunnel = &Plan{Registry: r, Group: r.Group("a", "r")}
	done := make(chan error, 1)
	go func() { done <- Carry(&x, near) }()
	send(t, far, "x")
	expect(t, upFar, "x")
	x.Cancel.Cancel()
	if err := <-done; err != nil || x.Usage.Closed != "cut" || x.Usage.RequestBytes != 1 {
		t.Errorf("got %v, %+v", err, x.Usage)
	}
}

// TestFramesAreFollowed feeds the same frames cut at every place.
func TestFramesAreFollowed(t *testing.T) {
	stream := bytes.Join([][]byte{
		{0x81, 0}, {0x01, 3, 'a', 'b', 'c'}, {0x89, 0x80, 1, 2, 3, 4},
		append([]byte{0x82, 126, 0, 200}, make([]byte, 200)...),
		append([]byte{0xc2, 255, 0, 0, 0, 0, 0, 0, 0, 7, 9, 9, 9, 9}, make([]byte, 7)...),
		closeFrame(1000, true), closeFrame(1001, false),
	}, nil)
	for cut := range stream {
		var f frames
		f.pass(stream[:cut])
		f.pass(stream[cut:])
		if !f.between() || !f.closed || f.status != 1000 {
			t.Fatalf("cut at %d: %+v", cut, f)
		}
	}
}

func TestWhatIsNoFrameIsPassedOnAndNotFollowed(t *testing.T) {
	for _, p := range []string{"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff0000", "\x88\x7e\x00\x01\x00\x00"} {
		var f frames
		f.pass([]byte(p))
		if !f.lost || f.between() {
			t.Errorf("% x: %+v", p, f)
		}
	}
}
