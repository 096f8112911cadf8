package h1

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/sock"
)

// handlerFunc carries exchanges.
type handlerFunc func(x *exchange.Exchange)

// Serve implements exchange.Handler.
func (f handlerFunc) Serve(x *exchange.Exchange) { f(x) }

// Refuse implements exchange.Handler.
func (f handlerFunc) Refuse(x *exchange.Exchange) {
	x.Problem(x.Err.Code, x.Err.Detail)
	_ = x.Wire.Reply(x) // the client may have gone
}

// An upstream that breaks while the request is being sent makes the call give the body up, at whose end it may already be.
// The connection, whose client was told nothing else, then carries the next request.
func TestABodyThatIsGivenUpWhenItHasBeenReadDoesNotEndTheConnection(t *testing.T) {
	s := &Server{Sweeper: sock.NewSweeper(), Clock: clock.System{}, Log: slog.New(slog.DiscardHandler)}
	s.Limits.Store(&Limits{
		Head: 8 << 10, Fields: 100, Target: 4 << 10, HeadTime: time.Minute, IdleTime: time.Minute, BodyTime: time.Minute,
	})
	s.Handler = handlerFunc(func(x *exchange.Exchange) {
		if x.Request.Body.Reader != nil {
			if _, err := io.ReadAll(x.Request.Body.Reader); err != nil {
				t.Error(err)
			}
		}
		x.Wire.Interrupt()
		x.Answer(502, "text/plain", "no")
		if err := x.Wire.Reply(x); err != nil {
			t.Error(err)
		}
	})
	ctx, stop := context.WithCancel(t.Context())
	var runs sync.WaitGroup
	runs.Go(func() { _ = s.Sweeper.Run(ctx) })
	t.Cleanup(func() { stop(); runs.Wait() })
	for _, body := range []string{"Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "\r\n"} {
		w := newWires(t).open(t)
		ended := make(chan struct{})
		s.Serve(w.in.Conn, exchange.Client{}, func() { close(ended) })
		answers := bufio.NewReader(w.peer)
		_ = w.peer.SetDeadline(time.Now().Add(30 * time.Second))
		for n := range 3 {
			if _, err := io.WriteString(w.peer, "POST / HTTP/1.1\r\nHost: a\r\n"+body); err != nil {
				t.Fatal(err)
			}
			r, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatalf("request %d with %q: %v", n, body, err)
			}
			if got, err := io.ReadAll(r.Body); string(got) != "no" || err != nil || r.Close {
				t.Errorf("request %d with %q: %q, %v, closes %v", n, body, got, err, r.Close)
			}
			_ = r.Body.Close()
		}
		_ = w.peer.Close()
		<-ended
	}
	s.Drain()
	s.Wait(t.Context())
}
