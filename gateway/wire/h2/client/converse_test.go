package client

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"headgate/gateway/exchange"
)

// talk is a target that answers at once, reads the whole request, and only then goes on.
func talk(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).Flush()
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, "heard")
}

// A target that only listens is not silent: the time between two pieces of its answer counts from the last piece of the request.
func TestATargetThatListensIsNotSilent(t *testing.T) {
	const idle = 500 * time.Millisecond
	c, _ := connect(t, serveH2C(t, talk), terms())
	x := ask("POST", "/")
	from, to := io.Pipe()
	x.Request.Body = exchange.Body{Reader: from, Length: -1}
	call, err := do(t, c, x, &Plan{Scheme: "http", Response: patience, Idle: idle})
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for began := time.Now(); time.Since(began) < 4*idle; time.Sleep(idle / 10) {
			_, _ = io.WriteString(to, "more")
		}
		_ = to.Close() // it never fails
	}()
	if got, err := body(x); got != "heard" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	_ = from.Close()
	<-ended

	silent := ask("POST", "/")
	from, to = io.Pipe()
	silent.Wire.(*informs).cut = func() { _ = to.CloseWithError(io.ErrUnexpectedEOF) }
	silent.Request.Body = exchange.Body{Reader: from, Length: -1}
	second, err := do(t, c, silent, &Plan{Scheme: "http", Response: patience, Idle: idle})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := body(silent); code(t, err) != exchange.UpstreamTimeout.Name {
		t.Errorf("where nobody says anything: %v", err)
	}
}

// A request's body that cannot be read ends the reply with the reason of that, which is neither the target's doing nor the
// client's going away.
func TestAReplyEndsWithTheReasonOfItsRequest(t *testing.T) {
	c, _ := connect(t, serveH2C(t, talk), terms())
	x := ask("POST", "/")
	slow := &exchange.Error{Code: exchange.RequestTimeout, Source: exchange.FromClient}
	from, to := io.Pipe()
	x.Request.Body = exchange.Body{Reader: from, Length: -1}
	call, err := do(t, c, x, plan)
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	_ = to.CloseWithError(slow) // it never fails
	if _, err := body(x); !errors.Is(err, slow) {
		t.Errorf("%v", err)
	}
}

// Messages may be as far apart as both sides of a stream may be silent; what is no message is the listener's to hurry.
func TestWhoseBodyNeedNotHurry(t *testing.T) {
	c, _ := connect(t, serveH2C(t, echo), terms())
	for media, leisure := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "Application/gRPC-web": true, "application/connect+json": true,
		"application/json": false, "application/connect": false, "application/proto": false, "": false,
	} {
		x := ask("POST", "/")
		x.Request.Header.Set("Content-Type", media)
		x.Request.Body = slowly("one", "two")
		call, err := do(t, c, x, &Plan{Scheme: "http", Response: patience, Idle: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := body(x); got != "onetwo" || err != nil {
			t.Errorf("%q %v", got, err)
		}
		if got := x.Wire.(*informs).idle; (got == time.Hour) != leisure || (got == 0) == leisure {
			t.Errorf("a body of the type %q may be silent for %v", media, got)
		}
		call.Close()
	}
}

// The time that a target has for its answer begins with the end of the request: a client that takes its time costs it nothing.
func TestTheTimeOfATargetIsNotThatOfTheClient(t *testing.T) {
	t.Parallel()
	const most = time.Second
	c, _ := connect(t, serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/silent" {
			<-r.Context().Done()
		}
		_, _ = w.Write(b)
	}), terms())
	for path, want := range map[string]string{"/": "", "/silent": exchange.UpstreamTimeout.Name} {
		x := ask("POST", path)
		from, to := io.Pipe()
		x.Request.Body = exchange.Body{Reader: from, Length: -1}
		x.Wire.(*informs).cut = func() { _ = from.Close() } // it never fails
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for range 2 {
				time.Sleep(most * 3 / 2) // slowness is what is tested
				_, _ = io.WriteString(to, "x")
			}
			_ = to.Close() // nor does this
		}()
		call, err := do(t, c, x, &Plan{Scheme: "http", Response: most, Idle: most})
		if want == "" {
			if err != nil {
				t.Fatal(err)
			}
			if got, err := body(x); got != "xx" || err != nil {
				t.Errorf("%q %v", got, err)
			}
		} else if got := code(t, err); got != want {
			t.Error(got)
		}
		call.Close()
		<-ended
	}
}

// A client that waits to be asked for its request's body waits for the target, which has its time for that; one that was asked has
// its own.
func TestATargetThatAsksForNoBodyIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	const most = time.Second
	c, _ := connect(t, serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			<-r.Context().Done()
		}
		echo(w, r) // which asks for it
	}), terms())
	for path, want := range map[string]string{"/": "", "/silent": exchange.UpstreamTimeout.Name} {
		x := ask("POST", path)
		x.Request.Expect = true
		from, to := io.Pipe()
		x.Request.Body = exchange.Body{Reader: from, Length: -1}
		w := x.Wire.(*informs)
		w.cut = func() { _ = from.Close() } // it never fails
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if path == "/silent" {
				return
			}
			until(t, "the body is asked for", func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return len(w.got) == 1 && w.got[0] == 100
			})
			time.Sleep(2 * most) // slowness is what is tested
			_, _ = io.WriteString(to, "x")
			_ = to.Close() // nor does this
		}()
		call, err := do(t, c, x, &Plan{Scheme: "http", Response: most, Idle: most})
		if want == "" {
			if err != nil {
				t.Fatal(err)
			}
			if got, err := body(x); got != "x" || err != nil {
				t.Errorf("%q %v", got, err)
			}
		} else if got := code(t, err); got != want {
			t.Error(got)
		}
		call.Close()
		<-ended
	}
}
