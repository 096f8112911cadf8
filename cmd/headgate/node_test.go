package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headgate/internal/clock"
)

const virtual = "listeners: {%NAME%: {address: '%ADDRESS%'}}\nadmin: {address: 'off'}\nlog: {access: {to: 'off'}}\n" +
	"drain: {delay: 0s, drain_timeout: 10s}\napis: {hello: {routes: {all: {match: /**, respond: {status: 200, body: hello}}}}}\n"

// free returns an address that nobody listens at.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func write(t *testing.T, path, name, address string) {
	t.Helper()
	doc := strings.NewReplacer("%NAME%", name, "%ADDRESS%", address).Replace(virtual)
	if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A document that came while the doors close would open one that nobody closes, and the gateway would never stop.
func TestNoDocumentGoesLiveBeforeTheStartOrAfterTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	first, second := free(t), free(t)
	write(t, path, "first", first)
	n, c, err := newNode(path, clock.System{}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Reload(); err == nil || !strings.Contains(err.Error(), "the gateway is starting") {
		t.Errorf("before the start: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	live, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		ended <- n.runDoors(ctx, func() error { err := n.first(c); live <- err; return err })
	}()
	if err := <-live; err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	ask := func(address string) string {
		r, err := client.Get("http://" + address + "/")
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return string(b)
	}
	if got := ask(first); got != "hello" {
		t.Fatalf("%s", got)
	}
	write(t, path, "second", second)
	if err := n.Reload(); err != nil || ask(second) != "hello" {
		t.Fatalf("a reload between start and end: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	write(t, path, "first", first)
	if err := n.Reload(); err == nil || !strings.Contains(err.Error(), "the gateway is draining") {
		t.Errorf("after the end: %v", err)
	}
	if got := ask(first); !strings.Contains(got, "refused") {
		t.Errorf("a door was opened: %s", got)
	}
}
