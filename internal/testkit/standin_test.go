package testkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets this test binary be run as a small gateway: what is proven here is the runner, so that a script that
// should fail does fail, and the gateway it fails on must not be ours.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Getenv("TESTKIT_STANDIN") != "" {
		if err := standIn(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

var address = regexp.MustCompile(`(listen|admin|upstream): "?\{?(?:address: ")?([^"\s}]+)`)

// standIn does what "headgate check FILE" and "headgate run FILE" do, as far as the runner can see.
func standIn(verb, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if verb == "check" {
		return fmt.Errorf("%s:1:1: %d bytes", file, len(text))
	}
	at := map[string]string{}
	for _, m := range address.FindAllStringSubmatch(string(text), -1) {
		at[m[1]] = m[2]
	}
	to, err := url.Parse(at["upstream"])
	if err != nil {
		return err
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	front := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/twice" {
			twice(w)
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "all is well") })
	mux.HandleFunc("/test/advance", func(_ http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(os.Stderr, "advanced by", r.FormValue("d"), os.Args[3])
	})
	mux.HandleFunc("/reload", func(w http.ResponseWriter, _ *http.Request) {
		text, err := os.ReadFile(file)
		if err != nil || regexp.MustCompile(`(?m)^wrong`).Match(text) {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	})
	back := &http.Server{Handler: mux}
	frontDoor, err := net.Listen("tcp", at["listen"])
	if err != nil {
		return err
	}
	backDoor, err := net.Listen("tcp", at["admin"])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		back.Close()
		front.Close()
	}()
	failed := make(chan error, 2)
	go func() { failed <- front.Serve(frontDoor) }()
	go func() { failed <- back.Serve(backDoor) }()
	for range 2 {
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
	}
	return nil
}

// twice answers a request with two answers, which arrive together.
func twice(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer c.Close()
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
	if _, err := io.WriteString(c, answer+answer); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
