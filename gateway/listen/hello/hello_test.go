package hello

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorded returns what a client of crypto/tls sends first.
func recorded(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	go func() { _ = tls.Client(far, config).Handshake(); _ = far.Close() }()
	return first(t, near)
}

// first reads one record.
func first(t testing.TB, r io.Reader) []byte {
	t.Helper()
	b := make([]byte, recordHead, MaxHello)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	b = b[:recordHead+int(binary.BigEndian.Uint16(b[3:]))]
	if _, err := io.ReadFull(r, b[recordHead:]); err != nil {
		t.Fatal(err)
	}
	return b
}

// fragmented cuts the message of one record into records of at most n bytes.
func fragmented(b []byte, n int) []byte {
	var cut []byte
	for piece := range slices.Chunk(b[recordHead:], n) {
		cut = binary.BigEndian.AppendUint16(append(cut, recordHandshake, 3, 1), uint16(len(piece)))
		cut = append(cut, piece...)
	}
	return cut
}

func TestTheNameThatAGoClientAsksForIsRead(t *testing.T) {
	for _, c := range []struct {
		config *tls.Config
		want   Hello
	}{
		{&tls.Config{ServerName: "a.example"}, Hello{ServerName: "a.example", Version: tls.VersionTLS13}},
		{&tls.Config{ServerName: "A.Example.", MaxVersion: tls.VersionTLS12}, Hello{ServerName: "a.example", Version: tls.VersionTLS12}},
		{&tls.Config{ServerName: "a.example", NextProtos: []string{"h2", "http/1.1"}},
			Hello{ServerName: "a.example", ALPN: []string{"h2", "http/1.1"}, Version: tls.VersionTLS13}},
		{&tls.Config{InsecureSkipVerify: true}, Hello{Version: tls.VersionTLS13}},
		{&tls.Config{ServerName: "192.0.2.1"}, Hello{Version: tls.VersionTLS13}}, // RFC 6066: no addresses
	} {
		b := recorded(t, c.config)
		for _, cut := range [][]byte{b, fragmented(b, 1), fragmented(b, 3), fragmented(b, 100), append(bytes.Clone(b), "more"...)} {
			got, err := Parse(cut)
			same := got.ServerName == c.want.ServerName && slices.Equal(got.ALPN, c.want.ALPN) && got.Version == c.want.Version
			if err != nil || !same || got.ECH {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		}
		for i := range b {
			if _, err := Parse(b[:i]); !errors.Is(err, ErrShort) {
				t.Fatalf("of its first %d bytes: %v", i, err)
			}
		}
	}
}

func TestTheNameThatOpenSSLAsksForIsRead(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		client := exec.CommandContext(ctx, program, "s_client", version, "-connect", l.Addr().String(),
			"-servername", "b.example", "-alpn", "h2,foo")
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		h, err := Parse(first(t, c))
		if err != nil || h.ServerName != "b.example" || !slices.Equal(h.ALPN, []string{"h2", "foo"}) {
			t.Errorf("%s: %+v, %v", version, h, err)
		}
		_, _ = c.Close(), l.Close()
		cancel()
		_ = client.Wait() // it was killed
	}
}

// message makes a record with a ClientHello of these extensions.
func message(extensions ...string) []byte {
	all := strings.Join(extensions, "")
	body := "\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00" + string(vector(2, all))
	return append(binary.BigEndian.AppendUint16([]byte{22, 3, 1}, uint16(len(body)+4)), "\x01"+string(vector(3, body))...)
}

// vector puts a length of so many bytes in front.
func vector(bytes int, s string) []byte {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(s)))
	return append(bytes8(n, bytes), s...)
}

func bytes8(n [8]byte, bytes int) []byte { return slices.Clone(n[8-bytes:]) }

func extension(kind uint16, body string) string {
	return string(binary.BigEndian.AppendUint16(nil, kind)) + string(vector(2, body))
}

func serverName(name string) string {
	return extension(extensionServerName, string(vector(2, "\x00"+string(vector(2, name)))))
}

func TestWhatIsUnknownInAHelloIsPassedOver(t *testing.T) {
	grease := extension(0x0a0a, "") + extension(0x1a1a, "\x00")
	versions := extension(extensionVersions, "\x06\x7a\x7a\x03\x04\x03\x03")
	h, err := Parse(message(grease, serverName("public.example"), extension(extensionECH, "\x00anything"), versions, grease))
	if err != nil || h.ServerName != "public.example" || !h.ECH || h.Version != tls.VersionTLS13 {
		t.Errorf("%+v, %v", h, err)
	}
	if h, err := Parse(message()); err != nil || h.ServerName != "" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestWhatIsNoHelloIsTold(t *testing.T) {
	long := bytes.Repeat([]byte{1}, MaxHello)
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"a request", []byte("GET / HTTP/1.1\r\n"), ErrNotTLS},
		{"its first byte", []byte("G"), ErrNotTLS},
		{"SSL 2", []byte("\x80\x2e\x01"), ErrNotTLS},
		{"an alert", []byte("\x15\x03\x01\x00\x02\x02\x28"), ErrNotTLS},
		{"another version", []byte("\x16\x02"), ErrNotTLS},
		{"a ServerHello", []byte("\x16\x03\x03\x00\x10\x02"), ErrNotTLS},
		{"an empty record", []byte("\x16\x03\x01\x00\x00"), ErrMalformed},
		{"a record too long", []byte("\x16\x03\x01\x40\x01"), ErrMalformed},
		{"another record inside", append(fragmented(message(), 10)[:15], "\x17\x03\x03\x00\x01x"...), ErrNotTLS},
		{"a hello too long", []byte("\x16\x03\x01\x00\x04\x01\x01\x00\x00"), ErrTooLong},
		{"records too many", fragmented(append([]byte{22, 3, 1, 0, 0, 1, 0, 0x3f, 0}, long...), 1), ErrTooLong},
		{"an empty hello", []byte("\x16\x03\x01\x00\x04\x01\x00\x00\x00"), ErrMalformed},
		{"an extension cut short", message("\x00\x00\x00\x05a"), ErrMalformed},
		{"a name twice", message(serverName("a.example"), serverName("a.example")), ErrMalformed},
		{"an empty name", message(serverName("")), ErrMalformed},
		{"an empty list of names", message(extension(0, "\x00\x00")), ErrMalformed},
		{"a NUL in a name", message(serverName("a.example\x00.evil")), ErrMalformed},
		{"a line end in a name", message(serverName("a\nb")), ErrMalformed},
		{"a dot alone", message(serverName(".")), ErrMalformed},
		{"a name too long", message(serverName(strings.Repeat("a", 300))), ErrMalformed},
		{"an empty protocol", message(extension(extensionALPN, "\x00\x01\x00")), ErrMalformed},
		{"half a version", message(extension(extensionVersions, "\x01\x03")), ErrMalformed},
	} {
		if h, err := Parse(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v; want %v", c.name, h, err, c.want)
		}
	}
}

// pair returns both sides of a connection.
func pair(t *testing.T, s *sock.Sweeper) (near net.Conn, far *sock.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if far, err = sock.New(nc, s, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

func TestPeekLeavesTheConnectionAsItCame(t *testing.T) {
	near, far := pair(t, sock.NewSweeper())
	sent := append(recorded(t, &tls.Config{ServerName: "a.example"}), "early data"...)
	go func() {
		for _, b := range sent {
			_, _ = near.Write([]byte{b})
		}
		_ = near.Close()
	}()
	h, err := Peek(far, 10*time.Second)
	if err != nil || h.ServerName != "a.example" {
		t.Errorf("%+v, %v", h, err)
	}
	if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d are left, %v", len(got), len(sent), err)
	}
}

func TestPeekWaitsNoLongerThanItMay(t *testing.T) {
	s := sock.NewSweeper()
	ctx, cancel := context.WithCancel(context.Background())
	swept := make(chan error, 1)
	go func() { swept <- s.Run(ctx) }()
	defer func() { cancel(); <-swept }()
	near, far := pair(t, s)
	_, _ = near.Write([]byte("\x16\x03\x01"))
	if _, err := Peek(far, 20*time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
	near, far = pair(t, s)
	_, _ = near.Write([]byte("\x16\x03\x01"))
	_ = near.Close()
	if _, err := Peek(far, 10*time.Second); !errors.Is(err, ErrShort) {
		t.Error(err)
	}
}

// FuzzParse holds the parser against itself, byte by byte, and against crypto/tls: what both read has the same
// name.
func FuzzParse(f *testing.F) {
	f.Add(recorded(f, &tls.Config{ServerName: "a.example", NextProtos: []string{"h2"}}))
	f.Add(message(serverName("a.example"), extension(extensionVersions, "\x02\x03\x04")))
	f.Add(fragmented(message(serverName("b.example")), 7))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Parse(b)
		if errors.Is(err, ErrShort) && len(b) >= MaxHello {
			t.Fatal("it waits for more than it may hold")
		}
		if err != nil && !errors.Is(err, ErrShort) { // final: more does not help
			if _, again := Parse(append(bytes.Clone(b), "more"...)); again == nil || errors.Is(again, ErrShort) {
				t.Fatalf("%v, and with more behind it %v", err, again)
			}
		}
		near := &once{Reader: bytes.NewReader(b)}
		var name string
		_ = tls.Server(near, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			name = i.ServerName
			if errors.Is(err, ErrShort) { // otherwise we may be stricter
				t.Fatalf("%v; crypto/tls reads it", err)
			}
			return nil, io.EOF
		}}).Handshake()
		if err == nil && name != "" && !strings.EqualFold(strings.TrimSuffix(name, "."), h.ServerName) {
			t.Fatalf("%q; crypto/tls: %q", h.ServerName, name)
		}
	})
}

// once is a connection that reads what there is.
type once struct {
	net.Conn
	*bytes.Reader
}

func (o *once) Read(p []byte) (int, error)       { return o.Reader.Read(p) }
func (o *once) Write(p []byte) (int, error)      { return len(p), nil }
func (o *once) Close() error                     { return nil }
func (o *once) SetDeadline(time.Time) error      { return nil }
func (o *once) SetWriteDeadline(time.Time) error { return nil }
