package chaos

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// authority issues the certificates of one test.
type authority struct {
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	roots *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{roots: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "chaos authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.roots.AddCert(a.cert)
	return a
}

// pem returns the authority's own certificate.
func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// issue makes a certificate for localhost, chaos and the loopback address, which ends at the time, and its key.
func (a *authority) issue(t *testing.T, serial int64, until time.Time) (certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint("chaos ", serial)},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until, DNSNames: []string{"localhost", "chaos"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// pair is issue for servers of the tests' own.
func (a *authority) pair(t *testing.T, serial int64, until time.Time) tls.Certificate {
	t.Helper()
	c, k := a.issue(t, serial, until)
	pair, err := tls.X509KeyPair([]byte(c), []byte(k))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// swapped writes a file as careful programs do: another one is renamed over it.
func swapped(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// house is a gateway with a door of each kind: in clear (h1, h2c) at listen, encrypted (h1, h2, h3) at secure, and TCP at extra.
type house struct {
	*gateway
	*authority
	secure string
}

// newHouse prepares one: in documents ${SECURE} stands for the address of the encrypted door, and ${DIR}/tls.crt, tls.key and
// ca.crt are there.
func newHouse(t *testing.T, places ...string) *house {
	t.Helper()
	h := &house{authority: newAuthority(t), secure: freeAddress(t)}
	h.gateway = newGateway(t, append(places, "${SECURE}", h.secure)...)
	h.renew(t, 2)
	swapped(t, h.file("ca.crt"), h.pem())
	return h
}

func startHouse(t *testing.T, document string, places ...string) *house {
	t.Helper()
	h := newHouse(t, places...)
	h.start(t, document)
	return h
}

func (h *house) file(name string) string { return filepath.Join(filepath.Dir(h.document), name) }

// renew swaps the files of the certificate that clients are shown.
func (h *house) renew(t *testing.T, serial int64) {
	t.Helper()
	c, k := h.issue(t, serial, time.Now().Add(24*time.Hour))
	swapped(t, h.file("tls.key"), k)
	swapped(t, h.file("tls.crt"), c)
}

// reload makes another document live.
func (h *house) reload(t *testing.T, document string) {
	t.Helper()
	h.write(t, document)
	if status, body, err := h.ask("POST", "/reload"); status != 200 {
		t.Fatalf("reload: %d %s %v", status, body, err)
	}
}

// trust is what a client of the encrypted door believes.
func (h *house) trust(alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: h.roots, ServerName: "localhost", NextProtos: alpn}
}

// dialTLS opens an encrypted connection that is closed at the end of the test at the latest.
func (h *house) dialTLS(t *testing.T, alpn ...string) *tls.Conn {
	t.Helper()
	c := tls.Client(dial(t, h.secure), h.trust(alpn...))
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c
}

// waysIn is what clients speak: in clear, encrypted (s), and over QUIC.
var waysIn = []string{"h1", "h1s", "h2c", "h2", "h3"}

// caller is one client that speaks one version of HTTP and counts the connections that it had to open.
type caller struct {
	http.Client
	base  string
	dials atomic.Int64
	ends  atomic.Int64 // answers of HTTP/1.1 that were said to be the last ones of their connection
	mu    sync.Mutex
	quic  []*quic.Conn // all that were opened; the library forgets those on which a request has failed
}

// leave closes the client's connections.
func (c *caller) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range c.quic {
		_ = q.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") // it never fails
	}
	c.CloseIdleConnections()
}

func (h *house) caller(t *testing.T, way string) *caller {
	t.Helper()
	c := &caller{base: "https://" + h.secure}
	c.Timeout = patience
	if way == "h3" {
		own := &http3.Transport{TLSClientConfig: h.trust(), DisableCompression: true}
		own.Dial = func(ctx context.Context, address string, conf *tls.Config, q *quic.Config) (*quic.Conn, error) {
			c.dials.Add(1)
			conn, err := quic.DialAddr(ctx, address, conf, q)
			if err == nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.quic = append(c.quic, conn)
			}
			return conn, err
		}
		t.Cleanup(func() { _ = own.Close() }) // the gateway may have closed it before
		c.Transport = own
		return c
	}
	var only http.Protocols
	switch way {
	case "h1", "h1s":
		only.SetHTTP1(true)
	case "h2":
		only.SetHTTP2(true)
	case "h2c":
		only.SetUnencryptedHTTP2(true)
	}
	if way == "h1" || way == "h2c" {
		c.base = "http://" + h.listen
	}
	own := &http.Transport{TLSClientConfig: h.trust(), DisableCompression: true, Protocols: &only, MaxIdleConnsPerHost: 1}
	own.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c.dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	t.Cleanup(own.CloseIdleConnections)
	c.Transport = own
	return c
}

// post asks for an echo of the path. A POST is never sent again by the client itself once it may have been received.
func (c *caller) post(path string) (status int, body string, err error) {
	r, err := http.NewRequest(http.MethodPost, c.base+path, strings.NewReader("some content"))
	if err != nil {
		return 0, "", err
	}
	answer, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	if answer.Close {
		c.ends.Add(1)
	}
	b, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(b), err
}

// flow is requests on a few connections of one kind, one after the other on each, without a pause longer than every.
type flow struct {
	way     string
	callers []*caller
	path    string
	want    string // what the answer begins with, followed by the path
	stop    chan struct{}
	group   sync.WaitGroup
	good    atomic.Int64
	slowest atomic.Int64 // nanoseconds
	mu      sync.Mutex
	wrong   []error
}

// flow begins a load on n connections.
func (h *house) flow(t *testing.T, way string, n int, every time.Duration) *flow {
	t.Helper()
	f := &flow{way: way, path: "/" + way, want: "A /", stop: make(chan struct{})}
	for range n {
		c := h.caller(t, way)
		f.callers = append(f.callers, c)
		f.group.Go(func() { f.run(c, every) })
	}
	t.Cleanup(func() { f.end() })
	return f
}

func (f *flow) run(c *caller, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
		if f.stopped() {
			return
		}
		path := fmt.Sprintf("%s/%d", f.path, i)
		began := time.Now()
		status, body, err := c.post(path)
		f.slowest.Store(max(f.slowest.Load(), int64(time.Since(began))))
		if err != nil || status != 200 || body != f.want+path[1:] {
			f.mu.Lock()
			f.wrong = append(f.wrong, fmt.Errorf("%s: request %d: %d %q %w", f.way, i, status, body, err))
			f.mu.Unlock()
			continue
		}
		f.good.Add(1)
	}
}

// goes waits until so many more requests have been answered.
func (f *flow) goes(t *testing.T, more int64) {
	t.Helper()
	from := f.good.Load()
	eventually(t, f.way+" is answered", func() (bool, string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		now := f.good.Load() - from
		return now >= more, fmt.Sprintf("%d of %d; wrong: %v", now, more, errors.Join(f.wrong[:min(3, len(f.wrong))]...))
	})
}

func (f *flow) stopped() bool {
	select {
	case <-f.stop:
		return true
	default:
		return false
	}
}

// end stops the load, once.
func (f *flow) end() {
	if f.stopped() {
		return
	}
	close(f.stop)
	f.group.Wait()
	for _, c := range f.callers {
		c.leave()
	}
}

// flawless ends the load, of which nothing may have been lost; at most dials connections may have been opened.
func (f *flow) flawless(t *testing.T, dials int64) {
	t.Helper()
	f.end()
	var opened, said int64
	for _, c := range f.callers {
		opened += c.dials.Load()
		said += c.ends.Load()
	}
	if len(f.wrong) > 0 {
		t.Errorf("%s: %d wrong of %d, such as %v", f.way, len(f.wrong), f.good.Load(), errors.Join(f.wrong[:min(5, len(f.wrong))]...))
	}
	if strings.HasPrefix(f.way, "h1") && said == 0 {
		dials *= 2 // the library itself gives a connection up when its own goroutines are late
	}
	if opened > dials {
		t.Errorf("%s: %d connections were opened, where %d are enough: healthy ones were closed, %d of them with a word", f.way, opened,
			dials, said)
	}
	t.Logf("%s: %d requests, the slowest after %v", f.way, f.good.Load(), time.Duration(f.slowest.Load()))
}

// peakKiB returns the most memory that the process has ever held.
func (p *process) peakKiB(t *testing.T) int { t.Helper(); return p.memory(t, "VmHWM") }

// idles is what the gateway holds while nothing happens, once all of it has started.
func (g *gateway) idles(t *testing.T) (h holds) {
	t.Helper()
	const looks = 5
	same := 0
	eventually(t, "all has started", func() (bool, string) {
		now := g.holds(t)
		if same++; now != h {
			h, same = now, 0
		}
		return same >= looks, fmt.Sprintf("%+v", now)
	})
	return h
}

// rests waits until the gateway holds no more than it did. Workers of HTTP/2 that wait for streams, of which there is a
// bounded number, and idle connections to upstreams do not count.
func (h *house) rests(t *testing.T, before holds) {
	t.Helper()
	eventually(t, "what the gateway holds falls back", func() (bool, string) {
		idle, spare := 0, 0
		page := h.mustAsk(t, "/metrics")
		for _, family := range []string{"headgate_target_idle_connections", "headgate_target_h2_connections"} {
			idle += sumOf(page, family)
		}
		dump := h.goroutineDump()
		for _, group := range goroutineGroup.FindAllStringSubmatch(dump, -1) {
			waits := strings.Contains(group[2], "h2.(*workers).work") && !strings.Contains(group[2], "job.run")
			if waits || strings.Contains(group[2], "h2/client.") {
				n, _ := strconv.Atoi(group[1])
				spare += n
			}
		}
		now := h.holds(t)
		return now.goroutines-spare <= before.goroutines && now.descriptors-idle <= before.descriptors,
			fmt.Sprintf("now %+v, of them %d spare goroutines and %d idle connections to upstreams; before %+v\n%s", now, spare, idle, before, dump)
	})
}

// goroutineGroup is a number of goroutines and where they are.
var goroutineGroup = regexp.MustCompile(`(?m)^(\d+) @ .*\n((?:#.*\n)*)`)

// sumOf adds up the series of a family.
func sumOf(page, family string) (sum int) {
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, family+"{"); ok {
			var n float64
			if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &n); err == nil {
				sum += int(n)
			}
		}
	}
	return sum
}
