package h3

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
	"go.uber.org/goleak"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/size"
	"headgate/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

// handler answers what the test says, and notes how exchanges ended.
type handler struct {
	serve func(x *exchange.Exchange) error
	mu    sync.Mutex
	notes []string
	told  chan string
}

func (h *handler) note(s string) {
	h.mu.Lock()
	h.notes = append(h.notes, s)
	h.mu.Unlock()
	select {
	case h.told <- s:
	default:
	}
}

// Serve implements Handler.
func (h *handler) Serve(x *exchange.Exchange) {
	if err := h.serve(x); err != nil {
		h.note(err.Error())
	}
}

// Refuse implements Handler.
func (h *handler) Refuse(x *exchange.Exchange) {
	x.Problem(x.Err.Code, x.Err.Detail)
	h.note("refused " + x.Err.Code.Name)
	_ = x.Wire.Reply(x) // the client may have gone
}

// echo answers with the request's body and trailers, and says in fields what the request was.
func echo(x *exchange.Exchange) error {
	r := &x.Reply
	r.Status = 200
	r.Header.Add("X-Method", x.Request.Method)
	r.Header.Add("X-Target", x.Request.Scheme+"://"+x.Request.Host+x.Request.Path+"?"+x.Request.Query)
	for name, value := range x.Request.Header.All() {
		r.Header.Add("X-Got", name+"="+value)
	}
	if x.Request.Expect {
		if err := x.Wire.Inform(x, 100, new(exchange.Header)); err != nil {
			return err
		}
	}
	r.Body = x.Request.Body
	if r.Body.Reader == nil {
		return x.Wire.Reply(x)
	}
	r.Body.Reader = &thenTrailers{r.Body.Reader, x}
	return x.Wire.Reply(x)
}

// thenTrailers copies the request's trailer section to the reply's when the body has ended.
type thenTrailers struct {
	io.Reader
	x *exchange.Exchange
}

// Read implements io.Reader.
func (t *thenTrailers) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if err == io.EOF {
		t.x.Reply.Trailer.CopyFrom(&t.x.Request.Trailer)
	}
	return n, err
}

func hello(x *exchange.Exchange) error {
	x.Answer(200, "text/plain", "hello")
	return x.Wire.Reply(x)
}

// door is a server under test.
type door struct {
	*Server
	*handler
	settings Settings
	metrics  *metric.Registry
	roots    *x509.CertPool
	ran      chan error
	once     sync.Once
}

var certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"localhost", "a.example"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
})

func limits() Limits {
	return Limits{
		Limits: h1.Limits{
			Head: 16 << 10, Fields: 100, Target: 4 << 10, HeadTime: patience, IdleTime: time.Minute, BodyTime: patience, MinBodyRate: 240,
		},
		Handshakes: 64, HandshakeTime: 2 * patience,
	}
}

// open starts a server whose limits may be changed first.
func open(t testing.TB, serve func(*exchange.Exchange) error, change ...func(*Settings)) *door {
	t.Helper()
	pair, roots := certificate()
	d := &door{
		handler: &handler{serve: serve, told: make(chan string, 1000)}, metrics: metric.NewRegistry(), roots: roots, ran: make(chan error, 1),
		settings: Settings{Name: "test", Limits: limits(), TLS: &tls.Config{Certificates: []tls.Certificate{pair}}},
	}
	for _, f := range change {
		f(&d.settings)
	}
	sweeper := sock.NewSweeper()
	s, err := Open("127.0.0.1:0", Env{
		Handler: d.handler, Sweeper: sweeper, Clock: clock.System{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: d.metrics,
	}, d.settings)
	if err != nil {
		t.Fatal(err)
	}
	d.Server = s
	ctx, cancel := context.WithCancel(context.Background())
	var background sync.WaitGroup
	background.Go(func() { _ = sweeper.Run(ctx) })
	background.Go(func() { d.ran <- s.Run(ctx) })
	t.Cleanup(func() {
		d.shut(t)
		cancel()
		background.Wait()
	})
	return d
}

// shut ends the server as a door of the gateway ends, without waiting for clients.
func (d *door) shut(t testing.TB) {
	d.once.Do(func() {
		if err := d.Server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-d.ran; err != nil {
			t.Error(err)
		}
		d.Drain()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		d.Wait(ctx)
	})
}

func (d *door) tls() *tls.Config {
	return &tls.Config{RootCAs: d.roots, ServerName: "localhost", NextProtos: []string{"h3"}}
}

// client returns an HTTP client over HTTP/3.
func (d *door) client(t testing.TB) *http.Client {
	tr := &http3.Transport{TLSClientConfig: d.tls(), QUICConfig: unhurried(), DisableCompression: true}
	t.Cleanup(func() { _ = tr.Close() })
	return &http.Client{Transport: tr, Timeout: patience}
}

func (d *door) url(path string) string { return "https://" + d.Bound() + path }

// await waits for a note.
func (d *door) await(t testing.TB, want string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case got := <-d.told:
			if got == want {
				return
			}
			t.Logf("noted %q", got)
		case <-timeout:
			t.Fatalf("nobody noted %q", want)
		}
	}
}

// raw is a client that says what the test wants on streams of its own.
type raw struct {
	*quic.Conn
	t testing.TB
}

// unhurried is a configuration with which clients on a loaded machine do not give up.
func unhurried() *quic.Config {
	return &quic.Config{HandshakeIdleTimeout: patience, MaxIdleTimeout: patience}
}

func (d *door) raw(t testing.TB) *raw { return d.rawConfig(t, unhurried()) }

func (d *door) rawConfig(t testing.TB, c *quic.Config) *raw {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	q, err := quic.DialAddr(ctx, d.Bound(), d.tls(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.CloseWithError(0x100, "") })
	return &raw{q, t}
}

// uni opens a unidirectional stream with the bytes.
func (r *raw) uni(b []byte) *quic.SendStream {
	r.t.Helper()
	s, err := r.OpenUniStream()
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := s.Write(b); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// request opens a stream with the bytes, and ends it if told so.
func (r *raw) request(b []byte, end bool) *quic.Stream {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	s, err := r.OpenStreamSync(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	_, _ = s.Write(b) // the server may have answered before it has read everything
	if end {
		_ = s.Close()
	}
	_ = s.SetReadDeadline(time.Now().Add(patience))
	return s
}

// closed waits for the server to close the connection and returns the code.
func (r *raw) closed() http3.ErrCode {
	r.t.Helper()
	select {
	case <-r.Context().Done():
	case <-time.After(patience):
		r.t.Fatal("the connection stays open")
	}
	var app *quic.ApplicationError
	if err := context.Cause(r.Context()); !errors.As(err, &app) {
		r.t.Fatalf("the connection ended with %v", err)
	}
	return http3.ErrCode(app.ErrorCode)
}

// frame is a frame of a type with a payload.
func frame(kind uint64, payload []byte) []byte {
	return append(appendFrame(nil, kind, uint64(len(payload))), payload...)
}

// block encodes fields, given as name, value, name, value.
func block(pairs ...string) []byte {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		_ = e.WriteField(qpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b.Bytes()
}

// get is the HEADERS frame of a GET, with more fields.
func get(more ...string) []byte {
	head := []string{":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "/"}
	return frame(frameHeaders, block(append(head, more...)...))
}

// post is the HEADERS frame of a POST, with more fields.
func post(more ...string) []byte {
	head := []string{":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", "/"}
	return frame(frameHeaders, block(append(head, more...)...))
}

// response is what came on a request's stream.
type response struct {
	status  string
	fields  []string // name=value, in order
	body    string
	trailer []string
	err     error // how the stream ended; nil: well
}

// read reads a response. Informational ones are noted as fields.
func read(s *quic.Stream) (r response) {
	in := &reader{from: s, buf: make([]byte, sock.LargeBuffer)}
	for {
		kind, n, err := in.frame()
		if err == io.EOF {
			return r
		}
		if err == nil && n > uint64(16*size.MiB) {
			err = fmt.Errorf("a frame of %d bytes", n)
		}
		var p []byte
		if err == nil {
			p, err = in.payload(int(n))
		}
		if err != nil {
			r.err = err
			return r
		}
		switch kind {
		case frameHeaders:
			fields := decode(p)
			if r.status == "" || r.status[0] == '1' {
				r.status = fields[0][len(":status="):]
				r.fields = append(r.fields, fields[1:]...)
			} else {
				r.trailer = fields
			}
		case frameData:
			r.body += string(p)
		default:
			r.err = fmt.Errorf("a frame of type %d", kind)
			return r
		}
	}
}

func decode(p []byte) (fields []string) {
	next := new(qpack.Decoder).Decode(p)
	for {
		f, err := next()
		if err != nil {
			return fields
		}
		fields = append(fields, f.Name+"="+f.Value)
	}
}

// reset returns the code with which the server has reset its side of a stream.
func (r response) reset() http3.ErrCode {
	var e *quic.StreamError
	if errors.As(r.err, &e) && e.Remote {
		return http3.ErrCode(e.ErrorCode)
	}
	return 0
}

// stopped waits until the server asks for no more of a request, and returns the code.
func stopped(t *testing.T, s *quic.Stream) http3.ErrCode {
	t.Helper()
	select {
	case <-s.Context().Done():
	case <-time.After(patience):
		t.Fatal("the stream goes on")
	}
	var e *quic.StreamError
	if err := context.Cause(s.Context()); !errors.As(err, &e) {
		t.Fatalf("the stream ended with %v", err)
	}
	return http3.ErrCode(e.ErrorCode)
}

// goAways reads the server's control stream and yields the identifiers of GOAWAY frames.
func (r *raw) goAways() <-chan uint64 {
	ids := make(chan uint64, 10)
	go func() {
		defer close(ids)
		s, err := r.AcceptUniStream(r.Context())
		if err != nil {
			return
		}
		in := &reader{from: s, buf: make([]byte, sock.LargeBuffer)}
		if kind, err := in.varint(); err != nil || kind != streamControl {
			return
		}
		for {
			kind, n, err := in.frame()
			if err != nil {
				return
			}
			p, err := in.payload(int(n))
			if err != nil {
				return
			}
			if kind == frameGoAway {
				id, _, _ := quicvarint.Parse(p)
				ids <- id
			}
		}
	}()
	return ids
}

func await[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("it does not come")
	}
	return v
}

// eventually looks again and again until something holds.
func eventually(t testing.TB, holds func() bool) {
	t.Helper()
	timeout, tick := time.After(patience), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal("it never holds")
		}
	}
}
