package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"headgate/bench/origin"
	"headgate/bench/peers"
	"headgate/bench/proc"
)

const (
	// idleConnections is how many connections the memory of one is reckoned from, if so many files may be open.
	idleConnections = 10_000
	// otherFiles is how many files a gateway opens besides connections, and some more.
	otherFiles = 512
)

// idleColumns are the figures of the cases about memory.
var idleColumns = [...]metric{rssMiB, idleCount, rssAllIdle, perIdleKiB}

// opener opens a connection, uses it once and leaves it idle. use uses it once more.
type opener func(g *peers.Gateway, first bool, c net.Conn) (net.Conn, error)

// idleCase measures what an idle connection of a kind costs the gateway, which has so many sockets for each.
func idleCase(open opener, sockets int) func(*bench, task, peers.Kind) (sample, error) {
	return func(b *bench, t task, kind peers.Kind) (s sample, err error) {
		g, requests, err := b.start(t, kind)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, g.Stop(), os.RemoveAll(g.Settings.Dir)) }()
		if _, err := g.Ready(b.ctx, requests[0]); err != nil {
			return nil, err
		}
		pids, err := g.Processes()
		if err != nil {
			return nil, err
		}
		n := min(idleConnections, (g.Settings.Files-otherFiles)/sockets)
		s = sample{idleCount: float64(n)}
		var idle []net.Conn
		defer func() {
			for _, c := range idle {
				_ = c.Close()
			}
		}()
		for _, step := range []struct {
			connections int
			metric      metric
		}{{0, rssMiB}, {n, rssAllIdle}} {
			for len(idle) < step.connections {
				c, err := open(g, true, nil)
				if err != nil {
					return s, fmt.Errorf("idle connection %d: %w\n%s", len(idle)+1, err, g.Output())
				}
				idle = append(idle, c)
			}
			if err := wait(b.ctx, settle); err != nil {
				return s, err
			}
			rss, err := proc.RSS(pids)
			if err != nil {
				return s, err
			}
			s[step.metric] = float64(rss) / (1 << 20)
		}
		s[perIdleKiB] = (s[rssAllIdle] - s[rssMiB]) * 1024 / float64(n)
		for _, c := range []net.Conn{idle[0], idle[len(idle)-1]} {
			if _, err := open(g, false, c); err != nil {
				return s, fmt.Errorf("a connection that was idle is no longer served: %w", err)
			}
		}
		return s, nil
	}
}

// dial opens a connection with a deadline for what is asked of it.
func dial(g *peers.Gateway) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", g.Settings.Listen, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(5 * time.Minute))
}

func encrypt(c net.Conn, protocol string, sessions tls.ClientSessionCache) (*tls.Conn, error) {
	t := tls.Client(c, &tls.Config{
		ServerName: "shop.example.com", InsecureSkipVerify: true, NextProtos: []string{protocol}, ClientSessionCache: sessions,
		MinVersion: tls.VersionTLS13,
		// The same work for everybody: OpenSSL of these peers knows no post-quantum key exchange.
		CurvePreferences: []tls.CurveID{tls.X25519},
	}) // the certificate was made for this run
	return t, t.Handshake()
}

func idleTLS(g *peers.Gateway, first bool, c net.Conn) (net.Conn, error) {
	if first {
		raw, err := dial(g)
		if err != nil {
			return nil, err
		}
		if c, err = encrypt(raw, "http/1.1", nil); err != nil {
			return nil, err
		}
	}
	return c, ask(c, request("GET", "/", ""))
}

func idleH2(g *peers.Gateway, first bool, c net.Conn) (net.Conn, error) {
	if first {
		raw, err := dial(g)
		if err != nil {
			return nil, err
		}
		t, err := encrypt(raw, "h2", nil)
		if err != nil {
			return nil, err
		}
		if _, err := io.WriteString(t, http2.ClientPreface); err != nil {
			return nil, err
		}
		if err := http2.NewFramer(t, nil).WriteSettings(); err != nil {
			return nil, err
		}
		return t, askH2(t, 1)
	}
	return c, askH2(c, 3)
}

// askH2 makes one request and reads until its reply has ended.
func askH2(c net.Conn, stream uint32) error {
	f := http2.NewFramer(c, c)
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	e.SetMaxDynamicTableSizeLimit(0)
	for _, p := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "shop.example.com"}, {":path", "/"}} {
		if err := e.WriteField(hpack.HeaderField{Name: p[0], Value: p[1]}); err != nil {
			return err
		}
	}
	head := http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}
	if err := f.WriteHeaders(head); err != nil {
		return err
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				if err := f.WriteSettingsAck(); err != nil {
					return err
				}
			}
		case *http2.GoAwayFrame, *http2.RSTStreamFrame:
			return fmt.Errorf("the gateway sent %v", frame)
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return nil
			}
		}
	}
}

func idleWebSocket(g *peers.Gateway, first bool, c net.Conn) (net.Conn, error) {
	if first {
		var err error
		if c, err = dial(g); err != nil {
			return nil, err
		}
		if err := handshake(c); err != nil {
			return nil, err
		}
	}
	return c, echoOnce(c, make([]byte, 256))
}

const webSocketKey = "dGhlIHNhbXBsZSBub25jZQ=="

// handshake switches a connection to WebSocket.
func handshake(c net.Conn) error {
	ask := request("GET", "/chat", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: "+webSocketKey+"\r\n")
	if _, err := c.Write(ask); err != nil {
		return err
	}
	in := bufio.NewReaderSize(c, 4<<10)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	if answer.StatusCode != 101 || answer.Header.Get("Sec-WebSocket-Accept") != origin.Accept(webSocketKey) || in.Buffered() > 0 {
		return fmt.Errorf("the handshake is answered with %s %v", answer.Status, answer.Header)
	}
	return nil
}

// message is a text of 100 bytes in a frame as a client sends it, masked with zeros.
var message = append([]byte{0x81, 0x80 | 100, 0, 0, 0, 0}, bytes.Repeat([]byte("m"), 100)...)

// echoed is how it comes back.
var echoed = append([]byte{0x81, 100}, message[6:]...)

func echoOnce(c net.Conn, buf []byte) error {
	if _, err := c.Write(message); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, buf[:len(echoed)]); err != nil {
		return err
	}
	if !bytes.Equal(buf[:len(echoed)], echoed) {
		return fmt.Errorf("%q came back", buf[:len(echoed)])
	}
	return nil
}

// echo measures messages that are sent back, one at a time on each connection.
func (b *bench) echo(t task, g *peers.Gateway) (sample, error) {
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range t.connections {
		c, err := dial(g)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
		if err := handshake(c); err != nil {
			return nil, err
		}
	}
	run := func(d time.Duration) (float64, sample, error) {
		return b.crowd(len(conns), d, func() func(i int) error {
			buf := make([]byte, 256)
			return func(i int) error { return echoOnce(conns[i], buf) }
		})
	}
	if _, _, err := run(b.duration / 4); err != nil {
		return nil, err
	}
	return b.account(g, func() (float64, sample, error) { return run(b.duration) })
}

// handshakers is how many clients make handshakes at one time.
const handshakers = 8

// handshakes measures connections that carry one request each.
func (b *bench) handshakes(g *peers.Gateway, resumed bool) (sample, error) {
	ask := request("GET", "/", "Connection: close\r\n")
	run := func(d time.Duration) (float64, sample, error) {
		return b.crowd(handshakers, d, func() func(int) error {
			var sessions tls.ClientSessionCache
			if resumed {
				sessions = tls.NewLRUClientSessionCache(1)
			}
			first := true
			return func(int) error {
				err := oneHandshake(g, ask, sessions, resumed && !first)
				first = false
				return err
			}
		})
	}
	if _, _, err := run(b.duration / 4); err != nil {
		return nil, err
	}
	return b.account(g, func() (float64, sample, error) { return run(b.duration) })
}

func oneHandshake(g *peers.Gateway, request []byte, sessions tls.ClientSessionCache, resumed bool) error {
	raw, err := dial(g)
	if err != nil {
		return err
	}
	defer raw.Close()
	c, err := encrypt(raw, "http/1.1", sessions)
	if err != nil {
		return err
	}
	if got := c.ConnectionState().DidResume; got != resumed {
		return fmt.Errorf("resumed: %v, wanted: %v", got, resumed)
	}
	return ask(c, request)
}

// crowd lets n clients work for a while and counts what they did.
func (b *bench) crowd(n int, d time.Duration, worker func() func(i int) error) (float64, sample, error) {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var clients sync.WaitGroup
	start := time.Now()
	for i := range n {
		clients.Go(func() {
			work := worker()
			for time.Since(start) < d && b.ctx.Err() == nil && failed.Load() == nil {
				if err := work(i); err != nil {
					failed.Store(&err)
					return
				}
				done.Add(1)
			}
		})
	}
	clients.Wait()
	if err := failed.Load(); err != nil {
		return 0, nil, *err
	}
	count := float64(done.Load())
	return count, sample{perSecond: count / time.Since(start).Seconds()}, b.ctx.Err()
}
