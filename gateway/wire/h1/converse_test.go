package h1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/sock"
)

// door serves connections whose requests a function carries.
func door(t *testing.T, serve func(x *exchange.Exchange), change func(*Limits)) *Server {
	t.Helper()
	s := &Server{Sweeper: sock.NewSweeper(), Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Handler: handlerFunc(serve)}
	l := &Limits{Head: 8 << 10, Fields: 100, Target: 4 << 10, HeadTime: time.Minute, IdleTime: time.Minute, BodyTime: time.Minute}
	change(l)
	s.Limits.Store(l)
	ctx, stop := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	runs.Go(func() { _ = s.Sweeper.Run(ctx) })
	t.Cleanup(func() {
		s.Drain()
		ended, done := context.WithTimeout(context.Background(), 30*time.Second)
		defer done()
		s.Wait(ended)
		stop()
		runs.Wait()
	})
	return s
}

// client opens a connection to the door.
func (s *Server) client(t *testing.T) *wire {
	t.Helper()
	all := newWires(t)
	all.sweeper = s.Sweeper
	w := all.open(t)
	_ = w.peer.SetDeadline(time.Now().Add(30 * time.Second))
	s.Serve(w.in.Conn, exchange.Client{}, func() {})
	t.Cleanup(func() { _ = w.peer.Close() })
	return w
}

// heard answers with the request's body, or says what was wrong with it.
func heard(x *exchange.Exchange) {
	b, err := io.ReadAll(x.Request.Body.Reader)
	var e *Error
	if errors.As(err, &e) {
		x.Problem(e.Code, e.Reason)
	} else {
		x.Answer(200, "text/plain", string(b))
	}
	_ = x.Wire.Reply(x) // the client may be gone
}

// What is said to be made of messages may be silent for as long as is said and no longer, whatever the listener allows.
func TestMessagesNeedNotHurry(t *testing.T) {
	t.Parallel()
	const most, long = 200 * time.Millisecond, 30 * time.Second
	for _, test := range []struct {
		name   string
		idle   time.Duration // without a byte
		status int
	}{{"for as long as is said", long, 200}, {"and no longer", 3 * most, 408}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := door(t, func(x *exchange.Exchange) {
				x.Wire.(exchange.Patient).Unhurried(test.idle)
				heard(x)
			}, func(l *Limits) { l.BodyTime, l.MinBodyRate = most, 1<<20 }).client(t)
			_, _ = io.WriteString(w.peer, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
			if test.status == 200 {
				time.Sleep(5 * most) // silence is what is tested
				_, _ = io.WriteString(w.peer, "3\r\ntwo\r\n0\r\n\r\n")
			}
			r, err := http.ReadResponse(bufio.NewReader(w.peer), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if got, err := io.ReadAll(r.Body); r.StatusCode != test.status || err != nil || r.StatusCode == 200 && string(got) != "onetwo" {
				t.Errorf("%d %q %v", r.StatusCode, got, err)
			}
		})
	}
}

// The least rate does not hold for them, either.
func TestMessagesMayTrickle(t *testing.T) {
	t.Parallel()
	w := door(t, func(x *exchange.Exchange) {
		x.Wire.(exchange.Patient).Unhurried(30 * time.Second)
		heard(x)
	}, func(l *Limits) { l.BodyTime, l.MinBodyRate = time.Minute, 1<<20 }).client(t)
	_, _ = io.WriteString(w.peer, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	sent := ""
	for began := time.Now(); time.Since(began) < rateGrace+2*time.Second; time.Sleep(time.Second) {
		_, _ = io.WriteString(w.peer, "1\r\nx\r\n")
		sent += "x"
	}
	_, _ = io.WriteString(w.peer, "0\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(w.peer), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got, err := io.ReadAll(r.Body); r.StatusCode != 200 || err != nil || string(got) != sent {
		t.Errorf("%d %q %v", r.StatusCode, got, err)
	}
}

// talker answers at once, with a body of a length, and goes on when the request's body has come to its end. A goroutine of its
// own reads that, as one towards a target would.
func talker(length int64) func(x *exchange.Exchange) {
	return func(x *exchange.Exchange) {
		x.Answer(200, "", "")
		x.Request.Streaming = true
		from, to := io.Pipe()
		var pump sync.WaitGroup
		pump.Go(func() {
			got, err := io.ReadAll(x.Request.Body.Reader)
			if err == nil {
				_, err = to.Write(got)
			}
			_ = to.CloseWithError(err) // it never fails
		})
		x.Reply.Body = exchange.Body{Reader: from, Length: length}
		time.Sleep(50 * time.Millisecond) // so that it waits for the body, under the listener's limit
		_ = x.Wire.Reply(x)               // the test sees what comes of it
		_ = from.Close()                  // nor does this
		pump.Wait()
	}
}

// Once the reply has begun, the request's body may be silent: also where the reply's head is still to be written, because it goes
// together with the first piece of a body of known length.
func TestAConversationMayBeSilent(t *testing.T) {
	t.Parallel()
	const most = time.Second
	for name, length := range map[string]int64{"a reply of unknown length": -1, "a reply of known length": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := door(t, talker(length), func(l *Limits) { l.BodyTime = most }).client(t)
			_, _ = io.WriteString(w.peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\non")
			time.Sleep(3 * most) // silence is what is tested
			_, _ = io.WriteString(w.peer, "e")
			r, err := http.ReadResponse(bufio.NewReader(w.peer), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if got, err := io.ReadAll(r.Body); string(got) != "one" || err != nil {
				t.Errorf("%q %v", got, err)
			}
		})
	}
}

// through answers as a target does, asked over a connection of its own.
func through(t *testing.T, s **Server, address string, plan *Plan) func(x *exchange.Exchange) {
	return func(x *exchange.Exchange) {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		sc, err := sock.New(nc, (*s).Sweeper, nil)
		if err != nil {
			t.Error(err)
			return
		}
		c := NewCall(plan)
		defer c.Close()
		if err := c.Do(x, &Conn{Conn: sc}, nobody{}, c.Prepare(x)); err != nil {
			var e *exchange.Error
			errors.As(err, &e)
			x.Problem(e.Code, e.Detail)
		}
		_ = x.Wire.Reply(x) // the test sees what comes of it
	}
}

// nobody owns connections that are used once.
type nobody struct{}

func (nobody) Free(c *Conn, _ bool) { _ = c.Conn.Close() } // nothing is owed to it

// service serves one connection after another.
func service(t *testing.T, serve func(c net.Conn, in *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var runs sync.WaitGroup
	runs.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			runs.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				in := bufio.NewReader(c)
				for line := "x"; strings.TrimSpace(line) != ""; {
					if line, err = in.ReadString('\n'); err != nil {
						return
					}
				}
				serve(c, in)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); runs.Wait() })
	return l.Addr().String()
}

const openEndedHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

// A large body of known length, which the kernel carries, is one side of a conversation as any other is.
func TestALargeBodyMayBeOneSideOfAConversation(t *testing.T) {
	t.Parallel()
	const most, length = time.Second, 4 * relayFrom
	start := func(t *testing.T, serve func(c net.Conn, in *bufio.Reader)) *wire {
		var s *Server
		plan := &Plan{Limits: testLimits(), Host: "a", Response: time.Minute, Idle: 4 * most}
		s = door(t, through(t, &s, service(t, serve), plan), func(l *Limits) { l.BodyTime = most })
		w := s.client(t)
		_, _ = fmt.Fprintf(w.peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", length)
		return w
	}
	t.Run("it may be silent", func(t *testing.T) {
		t.Parallel()
		w := start(t, func(c net.Conn, in *bufio.Reader) { // it says nothing more before it has heard all
			_, _ = io.WriteString(c, openEndedHead)
			_, err := io.ReadFull(in, make([]byte, length))
			_, _ = fmt.Fprintf(c, "5\r\n%5v\r\n0\r\n\r\n", err)
		})
		in := bufio.NewReader(w.peer)
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		for _, n := range []int{1, 1, length - 2} {
			_, _ = w.peer.Write(make([]byte, n))
			time.Sleep(2 * most) // silence is what is tested
		}
		if got, err := io.ReadAll(r.Body); string(got) != "<nil>" || err != nil {
			t.Errorf("%q %v", got, err)
		}
	})
	t.Run("a target that hangs when it has got it all is given up", func(t *testing.T) {
		t.Parallel()
		w := start(t, func(c net.Conn, in *bufio.Reader) {
			_, _ = io.WriteString(c, openEndedHead)
			_, _ = io.Copy(io.Discard, in) // until it is given up
		})
		r, err := http.ReadResponse(bufio.NewReader(w.peer), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		_, _ = w.peer.Write(make([]byte, length))
		began := time.Now()
		if _, err := io.ReadAll(r.Body); err == nil || time.Since(began) > 20*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
	t.Run("a client that sends now and then and does not read is given up", func(t *testing.T) {
		t.Parallel()
		w := start(t, func(c net.Conn, in *bufio.Reader) {
			_, _ = io.WriteString(c, openEndedHead)
			var both sync.WaitGroup
			both.Go(func() { _, _ = io.Copy(io.Discard, in); _ = c.Close() }) // until it is given up
			for err := error(nil); err == nil; {
				_, err = fmt.Fprintf(c, "%x\r\n%s\r\n", 1<<10, make([]byte, 1<<10))
			}
			both.Wait()
		})
		began := time.Now()
		for err := error(nil); err == nil && time.Since(began) < 20*time.Second; time.Sleep(most / 3) {
			_, err = io.WriteString(w.peer, "x")
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Error("it is not")
		}
	})
}
