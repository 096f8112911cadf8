package upstream

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// nginx runs a real one with a configuration that has a %s for its address, until the end of the test.
func nginx(t *testing.T, server string) string {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	folder := t.TempDir()
	conf := filepath.Join(folder, "nginx.conf")
	write(t, conf, fmt.Appendf(nil, "daemon off; master_process off; pid %s/pid; error_log %s/error.log;\n"+
		"events {}\nhttp { access_log off; client_body_temp_path %s/b; proxy_temp_path %s/p; fastcgi_temp_path %s/f;\n"+
		"uwsgi_temp_path %s/u; scgi_temp_path %s/s;\nserver { listen %s http2; %s } }\n",
		folder, folder, folder, folder, folder, folder, folder, address, server))
	c := exec.CommandContext(t.Context(), path, "-p", folder, "-c", conf)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Signal(syscall.SIGTERM); _ = c.Wait() })
	until(t, "nginx answers", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return address
}

// nginx says GOAWAY after so many requests on a connection, in the middle of those that are on their way.
func TestNginxReplacesItsConnectionsAndNoRequestIsLost(t *testing.T) {
	address := nginx(t, `keepalive_requests 20; http2_max_concurrent_streams 5; location / { return 200 "hello"; }`)
	e := env(io.Discard)
	sweep(t, e.Sweeper)
	u := build(t, e, config(func(m *model.Upstream) { overH2C(m); m.Timeouts.Connect = 10 * time.Second }, address))
	var calls sync.WaitGroup
	for range 16 {
		calls.Go(func() {
			for n := range 100 {
				x := ask([]string{"GET", "POST"}[n%2])
				if n%2 == 1 {
					x.Request.Body = exchange.Text("a body")
				}
				call, err := u.Send(x)
				if err != nil {
					t.Errorf("%v after %d attempts", err, x.Usage.Attempts)
					continue
				}
				if got, err := io.ReadAll(x.Reply.Body.Reader); string(got) != "hello" || err != nil || x.Reply.Status != 200 {
					t.Errorf("%d %q, %v", x.Reply.Status, got, err)
				}
				call.Close()
			}
		})
	}
	calls.Wait()
	if s := u.Status().Targets[0]; s.Failures != 0 {
		t.Errorf("%+v", s)
	}
}
