package conformance

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"headgate/internal/testkit"
)

// h3 is what stands in a document below tls for a door that speaks HTTP/3; more of tls may stand before.
const h3 = "\n    protocols: [h1, h2, h3]"

// quic is a gateway with a door over UDP, too, in front of an origin that echoes bodies.
type quic struct {
	*secured
	apis string // of the document
}

func newQUIC(t *testing.T, settings string) *quic {
	t.Helper()
	origin := httptest.NewServer(http.HandlerFunc(echo))
	t.Cleanup(origin.Close)
	s := &quic{newSecured(t), "upstreams: {o: " + origin.URL + "}\napis: {all: {upstream: o}}\n"}
	s.issue("a", nil, nil, "a.example", "localhost")
	s.Gateway = testkit.Start(t, must(binary())(t), s.document(settings))
	return s
}

// document is that of a door with TLS and the settings, in front of the origin.
func (s *quic) document(settings string) string {
	door, _, _ := strings.Cut(s.secured.document(settings, "a"), "apis:")
	return door + s.apis
}

// load makes another document the live one and returns what is said about it.
func (s *quic) load(settings string) (status int, said string) {
	s.t.Helper()
	s.Write("headgate.yaml", s.document(settings)+"\nadmin: {address: "+s.Admin()+"}\nlog: {access: {to: \"off\"}}\n")
	rsp, err := http.Post("http://"+s.Admin()+"/reload", "", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rsp.Body.Close()
	b, err := io.ReadAll(rsp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return rsp.StatusCode, string(b)
}

func (s *quic) mustLoad(settings string) {
	s.t.Helper()
	if status, said := s.load(settings); status >= 300 {
		s.t.Fatalf("%d %s", status, said)
	}
}

// h3Client returns a client over HTTP/3 that believes the gateway's authority.
func (s *quic) h3Client() (*http.Client, *http3.Transport) {
	c := s.client("a.example")
	c.NextProtos = nil
	tr := &http3.Transport{TLSClientConfig: c, DisableCompression: true}
	s.t.Cleanup(func() { _ = tr.Close() })
	return &http.Client{Transport: tr, Timeout: patience}, tr
}

// echoed asks for an echo and says whether it came back whole.
func (s *quic) echoed(c *http.Client, content string) error {
	req, err := s.post(strings.NewReader(content))
	if err != nil {
		return err
	}
	rsp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer rsp.Body.Close()
	got, err := io.ReadAll(rsp.Body)
	if err == nil && (rsp.StatusCode != 200 || string(got) != content) {
		err = &unexpected{rsp.Status, len(got)}
	}
	return err
}

// post is a request to the gateway for a host that its certificate is for.
func (s *quic) post(body io.Reader) (*http.Request, error) {
	req, err := http.NewRequest(http.MethodPost, "https://"+s.address+"/", body)
	if err == nil {
		req.Host = "a.example"
	}
	return req, err
}

type unexpected struct {
	status string
	length int
}

// Error implements error.
func (u *unexpected) Error() string {
	return fmt.Sprintf("%s, and %d bytes of another body", u.status, u.length)
}

// visitH3 keeps n clients asking, which change their connections now and then, and returns what counts and ends them.
func (s *quic) visitH3(n int) (asked *atomic.Int64, end func()) {
	asked = new(atomic.Int64)
	var stop atomic.Bool
	var all sync.WaitGroup
	for range n {
		c, tr := s.h3Client()
		all.Go(func() {
			for i := 1; !stop.Load(); i++ {
				if err := s.echoed(c, strings.Repeat("x", i%5000)); err != nil {
					s.t.Errorf("request %d: %v", i, err)
					return
				}
				if asked.Add(1); i%50 == 0 {
					tr.CloseIdleConnections()
				}
			}
		})
	}
	return asked, func() { stop.Store(true); all.Wait() }
}

func TestReloadsAndNewCertificatesUnderHTTP3LoadLoseNothing(t *testing.T) {
	s := newQUIC(t, h3)
	asked, end := s.visitH3(4)
	for _, settings := range []string{"handshakes: 100", "profile: modern", "early_data: true", ""} {
		s.issue("a", nil, nil, "a.example", "localhost")
		s.mustLoad(settings + h3)
		before := asked.Load()
		until(t, "they are answered", func() bool { return asked.Load() > before+40 || t.Failed() })
	}
	end()
}

// Over TCP clients hear of HTTP/3, and of its end. What is carried when it ends is answered.
func TestHTTP3ComesAndGoesWithTheDocument(t *testing.T) {
	s := newQUIC(t, h3)
	said := func() string {
		c := must(s.dial(s.client("a.example")))(t)
		defer c.Close()
		rsp, _, err := ask(c, "a.example")
		if err != nil {
			t.Fatal(err)
		}
		return rsp.Header.Get("Alt-Svc")
	}
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		t.Fatal(err)
	}
	if got := said(); got != `h3=":`+port+`"; ma=86400` {
		t.Errorf("with h3: %q", got)
	}
	c, _ := s.h3Client()
	if err := s.echoed(c, "hello"); err != nil {
		t.Error(err)
	}
	slow, feed := io.Pipe()
	req, err := s.post(slow)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		rsp, err := c.Do(req)
		if err == nil {
			var got []byte
			got, err = io.ReadAll(rsp.Body)
			_ = rsp.Body.Close()
			if err == nil && string(got) != "onetwo" {
				err = &unexpected{rsp.Status, len(got)}
			}
		}
		answered <- err
	}()
	must(feed.Write([]byte("one")))(t)
	s.mustLoad("")
	until(t, "clients are told to forget it", func() bool { return said() == "clear" })
	s.mustLoad("") // as the file's watcher does
	if got := said(); got != "clear" {
		t.Errorf("after another reload: %q", got)
	}
	must(feed.Write([]byte("two")))(t)
	_ = feed.Close()
	if err := <-answered; err != nil {
		t.Errorf("what was carried: %v", err)
	}
	socket := must(net.ListenPacket("udp", eventuallyFree(t, s.address)))(t)
	if status, said := s.load(h3); status < 400 || !strings.Contains(said, "over UDP is in use") {
		t.Errorf("a port in use: %d %s", status, said)
	}
	_ = socket.Close()
	s.mustLoad(h3)
	c, _ = s.h3Client()
	if err := s.echoed(c, "hello again"); err != nil {
		t.Error(err)
	}
}

// eventuallyFree waits until the UDP port of an address is free, and returns the address.
func eventuallyFree(t *testing.T, address string) string {
	t.Helper()
	until(t, "the port is free", func() bool {
		c, err := net.ListenPacket("udp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return address
}

// gtlsclient is the client of ngtcp2, nghttp3 and GnuTLS: nothing in it is known to quic-go.
const gtlsclient = "gtlsclient"

// TestNgtcp2 has another implementation ask, over good lines and bad ones. It needs that implementation:
//
//	apt-get install ngtcp2-client
func TestNgtcp2(t *testing.T) {
	if _, err := exec.LookPath(gtlsclient); err != nil {
		t.Skipf("%s is not installed; it comes with ngtcp2-client", gtlsclient)
	}
	s := newQUIC(t, "early_data: true"+h3)
	upload := filepath.Join(t.TempDir(), "upload")
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if err := os.WriteFile(upload, content, 0o600); err != nil {
		t.Fatal(err)
	}
	session := filepath.Join(t.TempDir(), "session")
	tickets := []string{"--session-file=" + session, "--tp-file=" + session + ".tp", "--token-file=" + session + ".token"}
	for _, c := range []struct {
		name    string
		options []string
		want    int // replies
		body    bool
	}{
		{"a request", nil, 1, false},
		{"many on one connection", []string{"-n", "250"}, 250, false},
		{"a large body both ways", []string{"-m", "POST", "-d", upload}, 1, true},
		{"a lossy line", []string{"-m", "POST", "-d", upload, "--tx-loss=0.05", "--rx-loss=0.05"}, 1, true},
		{"a client that moves", []string{"--change-local-addr=5ms", "--delay-stream=50ms"}, 1, false},
		{"a client whose address is changed on the way", []string{"--change-local-addr=5ms", "--nat-rebinding", "--delay-stream=50ms"}, 1, false},
		{"new keys", []string{"--key-update=5ms", "--delay-stream=50ms"}, 1, false},
		{"a first visit", tickets, 1, false},
		{"and early data at the next", tickets, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			folder := t.TempDir()
			host, port, err := net.SplitHostPort(s.address)
			if err != nil {
				t.Fatal(err)
			}
			args := append([]string{"--exit-on-all-streams-close", "--no-quic-dump", "--no-http-dump", "--timeout=10s", "--download=" + folder},
				c.options...)
			out, err := exec.CommandContext(t.Context(), gtlsclient, append(args, host, port, "https://localhost/file")...).CombinedOutput()
			if n := strings.Count(string(out), "[:status: 200]"); err != nil || n != c.want {
				t.Fatalf("%d replies, %v\n%s", n, err, out)
			}
			if !c.body {
				return
			}
			if got, err := os.ReadFile(filepath.Join(folder, "file")); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes came back, %v", len(got), err)
			}
		})
	}
}
