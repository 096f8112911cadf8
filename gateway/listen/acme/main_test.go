package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/config/model"
	"headgate/gateway/listen/secure"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/testkit"
)

func TestMain(m *testing.M) {
	// certmagic notices within five seconds that a lock's file is gone, and ends the goroutine that kept it fresh.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))
}

// output is a log that may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// node is a gateway as far as certificates are concerned: a door in clear and one over TLS, before a keeper.
type node struct {
	t       *testing.T
	log     *output
	metrics *metric.Registry
	keeper  *Keeper
	storage string
	doorTLS net.Listener
	clear   *httptest.Server

	mu     sync.Mutex
	source *Source // of the door over TLS
}

// newNode starts a node whose keeper does everything at a test's pace.
func newNode(t *testing.T, storage string) *node {
	t.Helper()
	n := &node{t: t, log: new(output), metrics: metric.NewRegistry(), storage: storage}
	log := slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	n.keeper = NewKeeper(Options{Clock: clock.System{}, Log: log, Metrics: n.metrics})
	n.keeper.pace = pace{retries: []time.Duration{50 * time.Millisecond}, check: 50 * time.Millisecond}
	n.clear = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.URL.Path, "/.well-known/acme-challenge/")
		host, _, _ := strings.Cut(r.Host, ":")
		proof, known := n.keeper.Answer(host, token)
		if !ok || !known {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, proof) // the asker may have gone
	}))
	t.Cleanup(n.clear.Close)
	n.openTLS()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.keeper.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *node) openTLS() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	n.doorTLS = l
	config := &tls.Config{NextProtos: []string{"http/1.1", secure.ChallengeProtocol},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			n.mu.Lock()
			s := n.source
			n.mu.Unlock()
			if slices.Equal(h.SupportedProtos, []string{secure.ChallengeProtocol}) {
				return s.Challenge(h)
			}
			return s.Certificate(h)
		}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_ = tls.Server(c, config).Handshake() // the client sees what went wrong
				_ = c.Close()
			})
		}
	})
	n.t.Cleanup(func() { _ = l.Close(); serving.Wait() })
}

// settings are a document's, for the authority.
func (n *node) settings(a *testkit.ACME, domains ...string) model.ACME {
	var m model.ACME
	m.SetDefaults()
	m.Directory, m.Domains, m.Storage, m.Agreed, m.Email = a.Directory(), domains, n.storage, true, "ops@example.com"
	m.Roots = filepath.Join(n.t.TempDir(), "roots.pem")
	if err := os.WriteFile(m.Roots, a.ServerRoot(), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return m
}

// live makes the settings those of the live document.
func (n *node) live(m model.ACME) *Source {
	n.t.Helper()
	s, err := n.keeper.Compile(&m)
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.source = s
	n.mu.Unlock()
	s.Live()
	n.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return s
}

// authority starts an authority that asks this node.
func (n *node) authority() *testkit.ACME {
	n.t.Helper()
	a, err := testkit.NewACME()
	if err != nil {
		n.t.Fatal(err)
	}
	a.HTTP, a.TLS = n.clear.Listener.Addr().String(), n.doorTLS.Addr().String()
	n.t.Cleanup(a.Close)
	return a
}

// shown returns the certificate that a client is shown, and why it did not believe it.
func (n *node) shown(a *testkit.ACME, name string) (*x509.Certificate, error) {
	roots := x509.NewCertPool()
	roots.AddCert(a.Root())
	c, err := tls.Dial("tcp", n.doorTLS.Addr().String(), &tls.Config{ServerName: name, RootCAs: roots})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0], nil
}

// await waits until clients believe what they are shown for the name.
func (n *node) await(a *testkit.ACME, name string, fits func(*x509.Certificate) bool) *x509.Certificate {
	n.t.Helper()
	var last error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		c, err := n.shown(a, name)
		if last = err; err == nil && (fits == nil || fits(c)) {
			return c
		}
	}
	n.t.Fatalf("no such certificate for %s: %v\n%s", name, last, n.told())
	return nil
}

// until waits for something else.
func (n *node) until(what string, holds func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("%s did not happen\n%s", what, n.told())
		}
	}
}

func (n *node) exposes(line string) bool {
	n.t.Helper()
	var b strings.Builder
	text := metric.NewText(&b)
	n.metrics.Expose(text)
	if err := text.Close(); err != nil {
		n.t.Fatal(err)
	}
	return strings.Contains(b.String(), line+"\n")
}

// told returns what was logged for everybody.
func (n *node) told() (lines string) {
	for line := range strings.Lines(n.log.String()) {
		if !strings.Contains(line, "level=DEBUG") {
			lines += line
		}
	}
	return lines
}
