package conformance

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"headgate/internal/testkit"
)

// tcpHouse is a folder with the gateway, and what is in front of it and behind it.
type tcpHouse struct {
	*testing.T
	dir  string
	user *syscall.SysProcAttr // that programs run as; nil: ours
}

// unprivileged is a user who is not root, which PostgreSQL refuses to run for, and gives it the folder.
func unprivileged(t *testing.T, folder string) *syscall.SysProcAttr {
	if os.Getuid() != 0 {
		return nil
	}
	const nobody = 65534
	if err := os.Chown(folder, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(filepath.Dir(folder)), 0o755); err != nil {
		t.Fatal(err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// needs skips the test where a program is missing.
func needs(t *testing.T, programs ...string) tcpHouse {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
	return tcpHouse{T: t, dir: t.TempDir()}
}

func (h tcpHouse) address() string {
	h.Helper()
	a, err := testkit.FreeAddress()
	if err != nil {
		h.Fatal(err)
	}
	return a
}

func (h tcpHouse) file(name, format string, a ...any) string {
	h.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, fmt.Appendf(nil, format, a...), 0o600); err != nil {
		h.Fatal(err)
	}
	return path
}

// start runs a program to the end of the test and waits until it listens.
func (h tcpHouse) start(address, program string, args ...string) {
	h.Helper()
	c := exec.Command(program, args...)
	c.Dir, c.SysProcAttr = h.dir, h.user
	var out strings.Builder
	c.Stdout, c.Stderr, c.WaitDelay = &out, &out, time.Second // for what its children hold open
	if err := c.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		_ = c.Process.Kill() // it has no more to say
		_ = c.Wait()         // what it was killed by
		if h.Failed() {
			h.Logf("%s: %s", program, out.String())
		}
	})
	h.await(program+" listens", func() bool {
		nc, err := net.Dial("tcp", address)
		if err == nil {
			_ = nc.Close()
		}
		return err == nil
	})
}

func (h tcpHouse) await(what string, holds func() bool) {
	h.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			h.Fatalf("waited in vain: %s", what)
		}
	}
}

// gateway runs the gateway with a document whose first listener is at the address.
func (h tcpHouse) gateway(address, format string, a ...any) {
	h.Helper()
	path, err := binary()
	if err != nil {
		h.Fatal(err)
	}
	admin := h.address()
	h.file("gateway.yaml", fmt.Sprintf(format, a...)+"admin: {address: %q}\n"+
		"log: {access: {to: access.log, flush: 10ms, format: text, fields: [client, host, status, route, upstream, closed]}}\n", admin)
	h.start(admin, path, "run", filepath.Join(h.dir, "gateway.yaml"))
	awaitReady(h.T, "http://"+admin+"/readyz")
}

// logged waits until a line of the access log contains the text.
func (h tcpHouse) logged(text string) {
	h.Helper()
	h.await("the log says "+text, func() bool {
		b, err := os.ReadFile(filepath.Join(h.dir, "access.log"))
		return err == nil && strings.Contains(string(b), text)
	})
}

// run runs a program to its end and returns what it prints.
func (h tcpHouse) run(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Dir, c.SysProcAttr = h.dir, h.user
	out, err := c.CombinedOutput()
	return string(out), err
}

// nginx serves a text over TLS with a certificate of its own for the name.
func (h tcpHouse) nginx(address, name string) {
	h.Helper()
	if out, err := h.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN="+name, "-addext", "subjectAltName=DNS:"+name, "-keyout", name+".key", "-out", name+".pem"); err != nil {
		h.Fatal(out, err)
	}
	conf := h.file(name+".conf", `daemon off; master_process off; pid %[1]s.pid; error_log stderr; events {}
http { access_log off; server { listen %[2]s ssl http2; ssl_certificate %[1]s.pem; ssl_certificate_key %[1]s.key;
  location / { return 200 "this is $ssl_server_name over $server_protocol\n"; } } }`, name, address)
	h.start(address, "nginx", "-p", h.dir, "-c", conf)
}

func TestPassthroughLeavesCertificatesToNGINXAndCurlVerifiesThem(t *testing.T) {
	h := needs(t, "nginx", "openssl", "curl")
	door, a, b := h.address(), h.address(), h.address()
	h.nginx(a, "a.example")
	h.nginx(b, "b.example")
	h.gateway(door, "listeners: {pass: {address: %q, tcp: {by_sni: [{names: [a.example], upstream: a}, "+
		"{names: [\"*.b.example\", b.example], upstream: b}]}}}\n"+
		"upstreams: {a: \"tcp://%s\", b: \"tcp://%s\"}\n", door, a, b)
	_, port, _ := net.SplitHostPort(door)
	curl := func(name, ca string, more ...string) (string, error) {
		return h.run("curl", append(more, "-sS", "--cacert", ca+".pem", "--resolve", name+":"+port+":127.0.0.1", "https://"+name+":"+port+"/")...)
	}
	for _, c := range []struct{ name, version, want string }{
		{"a.example", "--http1.1", "this is a.example over HTTP/1.1\n"}, {"a.example", "--http2", "this is a.example over HTTP/2.0\n"},
		{"b.example", "--http2", "this is b.example over HTTP/2.0\n"},
		{"b.example", "--http2 --tls-max 1.2", "this is b.example over HTTP/2.0\n"},
	} {
		if got, err := curl(c.name, c.name, strings.Fields(c.version)...); got != c.want || err != nil {
			t.Errorf("%s %s: %q, %v", c.name, c.version, got, err)
		}
	}
	if got, err := curl("a.example", "b.example"); err == nil || !strings.Contains(got, "certificate") {
		t.Errorf("with another authority: %q, %v", got, err)
	}
	if got, err := curl("c.example", "a.example"); err == nil || !strings.Contains(got, "unrecognized name") {
		t.Errorf("a name that nobody has: %q, %v", got, err)
	}
	h.logged("127.0.0.1 host=a.example 200 route=pass upstream=a")
	h.logged("127.0.0.1 host=c.example 421 route=pass")
}

func TestCurlAndHAProxyNameTheClient(t *testing.T) {
	h := needs(t, "curl", "haproxy")
	door, v1, v2 := h.address(), h.address(), h.address()
	h.gateway(door, "listeners: {public: {address: %q, proxy_protocol: {from: [127.0.0.1]}}}\n"+
		"apis: {all: {routes: {all: {match: GET /, respond: {body: \"{client.ip}\"}}}}}\n", door)
	for _, ip := range []string{"192.0.2.7", "2001:db8::7"} { // --haproxy-clientip came with curl 8.2
		if out, err := h.run("curl", "-sS", "--haproxy-clientip", ip, "http://"+door+"/"); err == nil && out != ip {
			t.Errorf("curl: %q", out)
		}
	}
	if out, err := h.run("curl", "-sS", "--haproxy-protocol", "http://"+door+"/"); out != "127.0.0.1" || err != nil {
		t.Errorf("curl: %q, %v", out, err)
	}
	conf := h.file("haproxy.cfg", "defaults\n mode tcp\n timeout client 10s\n timeout connect 10s\n timeout server 10s\n"+
		"listen one\n bind %s\n server gate %s send-proxy\nlisten two\n bind %s\n"+
		" server gate %[2]s send-proxy-v2 proxy-v2-options crc32c,unique-id\n"+
		" unique-id-format %%ci\n", v1, door, v2)
	h.start(v1, "haproxy", "-db", "-f", conf)
	for _, address := range []string{v1, v2} {
		out, err := h.run("curl", "-sS", "--interface", "127.0.0.9", "http://"+address+"/")
		if out != "127.0.0.9" || err != nil {
			t.Errorf("behind HAProxy the client is %q, %v", out, err)
		}
	}
	if out, err := h.run("curl", "-sS", "http://"+door+"/"); err == nil {
		t.Errorf("without a header: %q", out)
	}
}

func TestPostgreSQLAnswersThroughATCPListener(t *testing.T) {
	h := needs(t, "initdb", "postgres", "psql")
	door, db := h.address(), h.address()
	data := filepath.Join(h.dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	h.user = unprivileged(t, data)
	if out, err := h.run("initdb", "-D", data, "-U", "test", "-A", "trust"); err != nil {
		t.Fatal(out, err)
	}
	_, port, _ := net.SplitHostPort(db)
	h.start(db, "postgres", "-D", data, "-h", "127.0.0.1", "-p", port, "-k", "")
	h.user = nil
	h.gateway(door, "listeners: {db: {address: %q, tcp: {upstream: db}}}\n"+
		"upstreams: {db: {targets: [\"tcp://%s\"], health: {tcp: true}}}\n", door, db)
	_, port, _ = net.SplitHostPort(door)
	ask := func(query string) (string, error) {
		return h.run("psql", "-h", "127.0.0.1", "-p", port, "-U", "test", "-d", "postgres", "-Atc", query)
	}
	const query = "select count(*), sum(n), max(length(t)) from (select n, repeat('x', 1000) t from generate_series(1, 100000) n) s"
	if out, err := ask(query); out != "100000|5000050000|1000\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	out, err := ask("select repeat('x', 1000) from generate_series(1, 20000)")
	if len(out) != 20000*1001 || err != nil {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	h.logged("127.0.0.1 200 route=db upstream=db")
}
