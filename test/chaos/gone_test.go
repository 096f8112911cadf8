package chaos

import (
	"fmt"
	"io"
	"testing"
	"time"
)

// goneWithin is how soon an upstream's call is given up at most when its client has gone: the gateway looks every second,
// and must see the same request twice; the rest is for a loaded machine.
const goneWithin = 20 * time.Second

// A client that goes away while its answer is awaited takes its upstream call with it, whatever way it goes.
func TestClientThatVanishesCancelsTheCall(t *testing.T) {
	t.Parallel()
	for name, vanish := range map[string]func(*client){
		"close": func(c *client) { c.Close() },
		"reset": func(c *client) { reset(c) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, a := startOrigin(t, "A")
			g := startGateway(t, drainable, "${A}", a)
			before := g.idles(t)
			crowd := held(t, g, o, 20)
			began := time.Now()
			for _, c := range crowd {
				vanish(c)
			}
			eventually(t, "the origin sees that all have gone", func() (bool, string) { return o.gone.Load() == 20, fmt.Sprint(o.gone.Load()) })
			if took := time.Since(began); took > goneWithin {
				t.Errorf("the calls are cancelled only after %v", took)
			} else {
				t.Logf("cancelled after %v", took)
			}
			g.settles(t, before)
		})
	}
}

// reset closes a client's connection so that the gateway gets an RST.
func reset(c *client) {
	if tcp, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0) // without it this is a close, and the test weaker
	}
	c.Close()
}

// A client that has gone in the middle of its upload lets the upstream know that the body is not whole.
func TestClientThatVanishesInItsUploadEndsTheCall(t *testing.T) {
	t.Parallel()
	for _, framing := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked"} {
		ended := make(chan string, 1)
		_, url := startFault(t, func(c *faulty) {
			b, err := io.ReadAll(c)
			ended <- fmt.Sprintf("%q %v", b[max(0, len(b)-5):], err)
		})
		g := startGateway(t, drainable, "${A}", url)
		c := connect(t, g.listen)
		if _, err := io.WriteString(c, request("POST /", framing)+"5\r\nhello\r\n"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the upstream is asked", func() (bool, string) { return g.status(t).Upstreams[0].Targets[0].InFlight == 1, "" })
		c.Close()
		select {
		case got := <-ended:
			if got == `"0\r\n\r\n" <nil>` {
				t.Errorf("%s: the upstream got the end of a body that has none", framing)
			}
		case <-time.After(patience):
			t.Errorf("%s: the upstream never learns that the client has gone", framing)
		}
	}
}

// A client that has said everything may close its sending side, and is answered all the same if the answer comes soon.
func TestClientThatHalfClosesIsAnswered(t *testing.T) {
	t.Parallel()
	_, a := startOrigin(t, "A")
	g := startGateway(t, drainable, "${A}", a)
	for n := range 50 {
		c := dial(t, g.listen)
		path := fmt.Sprintf("/half/%d", n)
		if _, err := io.WriteString(c, request("GET "+path)); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if r, err := newClientOn(c).reply("GET"); err != nil || r.body != "A "+path {
			t.Fatalf("%d: %+v %v", n, r, err)
		}
	}
}

// A client that breaks off its download ends the upstream's, in both framings: nothing is drained for nobody.
func TestClientThatResetsItsDownloadEndsIt(t *testing.T) {
	t.Parallel()
	for _, framing := range []string{"Content-Length: 1000000000000", "Transfer-Encoding: chunked"} {
		f, url := startFault(t, func(c *faulty) {
			if _, ok := c.request(); !ok {
				return
			}
			c.say("HTTP/1.1 200 OK\r\n" + framing + "\r\n\r\n")
			piece := make([]byte, 64<<10)
			for i := range piece {
				piece[i] = 'x'
			}
			for {
				if framing[0] == 'T' {
					c.say("10000\r\n")
				}
				if _, err := c.Write(piece); err != nil {
					c.of.closed.Add(1)
					return
				}
				if framing[0] == 'T' {
					c.say("\r\n")
				}
			}
		})
		g := startGateway(t, drainable, "${A}", url)
		before := g.idles(t)
		for range 4 {
			c := connect(t, g.listen)
			if _, err := io.WriteString(c, request("GET /")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
				t.Fatal(err)
			}
			reset(c)
		}
		eventually(t, framing+": the upstream's connections are closed", func() (bool, string) {
			return f.closed.Load() == 4, fmt.Sprint(f.closed.Load())
		})
		g.settles(t, before)
	}
}
