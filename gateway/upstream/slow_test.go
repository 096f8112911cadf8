package upstream

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// reads is a service that answers a request with a chunked body when it has read it to its end, after what it says at first.
func reads(first string) script {
	return func(o *origin, c net.Conn) {
		if !o.hear(c) {
			return
		}
		_, _ = io.WriteString(c, first)
		var got []byte
		for b := make([]byte, 1); len(got) < 5 || string(got[len(got)-5:]) != "0\r\n\r\n"; {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			got = append(got, b...)
		}
		_, _ = io.WriteString(c, ok)
	}
}

// stalls is a service that reads a request's head, and nothing more, and never answers.
func stalls(o *origin, c net.Conn) {
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	if o.hear(c) {
		time.Sleep(5 * time.Second) // the other side ends it before
	}
}

// ignores is a service that reads all and answers nothing.
func ignores(o *origin, c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// How long the client takes for its request's body is for the listener to limit, and is not held against the target: its time for
// an answer begins with the end of the request, and its time to take a piece with that piece. What it has to do itself, it has
// to do in time.
func TestTheTimeOfATargetIsNotThatOfTheClient(t *testing.T) {
	t.Parallel()
	const most = time.Second
	for _, test := range []struct {
		name    string
		service script
		pause   time.Duration // before each piece, and before the end
		piece   string
		expect  bool
		code    string
	}{
		{"the client takes its time", reads(""), most * 3 / 2, "piece", false, ""},
		{"the client takes its time once it has been asked to go on", reads("HTTP/1.1 100 Continue\r\n\r\n"), most * 3 / 2, "piece", true, ""},
		{"nobody asks it to go on", ignores, time.Minute, "piece", true, "upstream_timeout"},
		{"the target takes nothing", stalls, 0, strings.Repeat("x", 16<<20), false, "upstream_timeout"},
		{"the target does not answer", ignores, 0, "piece", false, "upstream_timeout"},
		{"the target does not answer a slow client", ignores, most * 3 / 2, "piece", false, "upstream_timeout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := serve(t, test.service)
			e := env(io.Discard)
			sweep(t, e.Sweeper)
			u := build(t, e, config(func(m *model.Upstream) { m.Timeouts.Response, m.Timeouts.Idle = most, most }, o.address()))
			x := ask("POST")
			from, to := io.Pipe()
			x.Wire = pipeWire{from: from}
			x.Request.Expect = test.expect
			x.Request.Body = exchange.Body{Reader: from, Length: -1}
			ended := make(chan struct{})
			var client sync.WaitGroup
			client.Go(func() {
				for _, piece := range []string{test.piece, test.piece, ""} {
					select {
					case <-ended:
					case <-time.After(test.pause): // slowness is what is tested
					}
					_, _ = io.WriteString(to, piece)
				}
				_ = to.Close() // it never fails
			})
			status, code := send(t, u, x)
			if code != test.code || test.code == "" && status != 200 {
				t.Error(status, code)
			}
			close(ended)
			_ = from.Close() // nor does this
			client.Wait()
		})
	}
}

// pipeWire is a client whose request's body comes from a pipe.
type pipeWire struct {
	noWire
	from *io.PipeReader
}

func (w pipeWire) Interrupt() { _ = w.from.Close() } // it never fails

// Neither does a client that takes its time make a target look slow, which would have it left alone or ejected. A target that takes
// its own time does.
func TestAClientThatTakesItsTimeMakesNoTargetLookSlow(t *testing.T) {
	t.Parallel()
	const long = time.Second
	slow := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/slow" {
			time.Sleep(long) // slowness is what is tested
		}
	}
	for name, change := range map[string]func(*model.Upstream){"h1": nil, "h2c": overH2C} {
		start := func() string {
			if change != nil {
				return serveH2C(t, 100, slow)
			}
			s := httptest.NewServer(http.HandlerFunc(slow))
			t.Cleanup(s.Close)
			return strings.TrimPrefix(s.URL, "http://")
		}
		for _, path := range []string{"/", "/slow"} {
			t.Run(name+path, func(t *testing.T) {
				t.Parallel()
				u := build(t, env(io.Discard), config(change, start(), start()))
				x := ask("POST")
				x.Request.Path = path
				from, to := io.Pipe()
				x.Request.Body = exchange.Body{Reader: from, Length: -1}
				var client sync.WaitGroup
				client.Go(func() {
					for range 2 {
						_, _ = io.WriteString(to, "piece")
						time.Sleep(long) // as here
					}
					_ = to.Close() // it never fails
				})
				if status, code := send(t, u, x); status != 200 {
					t.Fatal(status, code)
				}
				client.Wait()
				latency := 0.0
				for _, one := range u.Status().Targets {
					latency = max(latency, one.LatencyMS)
				}
				own := 0.0
				if path == "/slow" {
					own = float64(long.Milliseconds())
				}
				if latency < own || latency > own+float64(long.Milliseconds())*3/2 {
					t.Errorf("it is taken to answer in %.0f ms, of which it took %.0f", latency, own)
				}
			})
		}
	}
}
