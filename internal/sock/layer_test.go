package sock

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// encrypted returns a connection under a TLS layer and the client at its other end, after the handshake.
func encrypted(t *testing.T, s *Sweeper, version uint16) (*Conn, *tls.Conn) {
	t.Helper()
	c, far := pair(t, s, nil)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"door"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	client := tls.Client(far, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	server := tls.Server(c.Below(), &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, DynamicRecordSizingDisabled: true,
	})
	if err := errors.Join(server.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	c.Over(server)
	return c, client
}

func TestALayerIsReadAndWrittenThrough(t *testing.T) {
	c, client := encrypted(t, NewSweeper(), tls.VersionTLS13)
	send(t, client, "question")
	expect(t, c, "question")
	send(t, c, "answer")
	expect(t, client, "answer")
	if !c.Encrypted() {
		t.Error("it does not say so")
	}
}

func TestEachHandsOverWhatArrivesThroughALayer(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c, client := encrypted(t, NewSweeper(), version)
		k := collect(c)
		done := k.run()
		for _, s := range []string{"one", strings.Repeat("2", 600), strings.Repeat("3", SmallBuffer), "four", "leave"} {
			send(t, client, s)
			got := ""
			for len(got) < len(s) {
				got += <-k.seen
			}
			if got != s {
				t.Fatalf("got %q, want %q", got, s)
			}
		}
		if err := result(t, done); err != nil {
			t.Error(err)
		}
	}
}

func TestEachTakesMoreThanOneRecordThroughALayer(t *testing.T) {
	c, client := encrypted(t, NewSweeper(), tls.VersionTLS13)
	want := strings.Repeat("0123456789abcdef", 6*LargeBuffer/16) + "leave"
	go func() { _, _ = io.WriteString(client, want) }()
	k := collect(c)
	k.seen = make(chan string, len(want))
	if err := result(t, k.run()); err != nil {
		t.Fatal(err)
	}
	close(k.seen)
	var got strings.Builder
	for s := range k.seen {
		got.WriteString(s)
	}
	if got.String() != want {
		t.Errorf("%d bytes came of %d", got.Len(), len(want))
	}
}

func TestEachWaitsOnTrustWhileALayerIsIdleAndHearsOfTheEnd(t *testing.T) {
	s := NewSweeper()
	c, client := encrypted(t, s, tls.VersionTLS13)
	k := collect(c)
	done := k.run()
	send(t, client, "x")
	<-k.seen
	k.untilItTrusts(t, client) // for which the buffer has been given back
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the end is noticed", func() bool { s.sweep(s.clock(), true); return len(done) == 1 })
	if err := result(t, done); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

func TestAskThroughALayer(t *testing.T) {
	c, client := encrypted(t, NewSweeper(), tls.VersionTLS13)
	for _, size := range []int{1, 1000, 100_000} {
		question := bytes.Repeat([]byte("q"), size)
		go func() {
			if _, err := io.ReadFull(client, make([]byte, size)); err == nil {
				_, _ = io.WriteString(client, "answer")
			}
		}()
		in := Reader{Conn: c}
		if err := in.Ask(question); err != nil || string(in.Buffered()) != "answer" {
			t.Fatalf("%q, %v", in.Buffered(), err)
		}
		in.Release()
		if !c.Quiet() {
			t.Error("not quiet after the answer")
		}
	}
	send(t, client, "x")
	until(t, "the stray byte is seen", func() bool { return !c.Quiet() })
}

func TestAConnectionWhoseLayerHasEndedIsNotQuiet(t *testing.T) {
	c, client := encrypted(t, NewSweeper(), tls.VersionTLS13)
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	until(t, "the end is seen", func() bool { return !c.Quiet() })
}

func TestCloseTellsThePeerThroughTheLayerThatItIsMeant(t *testing.T) {
	c, client := encrypted(t, NewSweeper(), tls.VersionTLS13)
	raw := client.NetConn()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(raw)
	if err != nil || !bytes.HasSuffix(b[:min(len(b), 1)], []byte{23}) { // an encrypted alert looks like data
		t.Errorf("% x, %v", b, err)
	}
}

func TestCloseDoesNotWaitForAWriterThatIsStuckInTheLayer(t *testing.T) {
	c, _ := encrypted(t, NewSweeper(), tls.VersionTLS13)
	stuck := make(chan error, 1)
	go func() {
		for {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				stuck <- err
				return
			}
		}
	}()
	until(t, "the writer writes", func() bool { return !c.layer.writing.TryLock() || unlock(c) })
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	if err := result(t, closed); err != nil {
		t.Error(err)
	}
	if err := result(t, stuck); !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
		t.Logf("the writer: %v", err)
	}
}

func unlock(c *Conn) bool {
	c.layer.writing.Unlock()
	return false
}

func TestADeadlineEndsAReadThroughALayerAndTheAnswerCanStillBeWritten(t *testing.T) {
	c, client := encrypted(t, NewSweeper(), tls.VersionTLS13)
	done := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	expireNow(c, PhaseRead)
	if err := result(t, done); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	send(t, c, "too late")
	expect(t, client, "too late")
}

func TestAnInterruptedReadThroughALayerSaysSo(t *testing.T) {
	c, _ := encrypted(t, NewSweeper(), tls.VersionTLS13)
	done := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	c.Interrupt()
	if err := result(t, done); !errors.Is(err, ErrInterrupted) {
		t.Errorf("%v", err)
	}
}

func TestWhatWasUnreadComesFirst(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	c.Unread([]byte("two "))
	c.Unread([]byte("one "))
	if c.Quiet() {
		t.Error("quiet with something to read")
	}
	send(t, far, "three")
	expect(t, c, "one two three")
	c.Unread([]byte("again leave"))
	k := collect(c)
	if err := result(t, k.run()); err != nil || <-k.seen != "again leave" {
		t.Error(err)
	}
	c.Unread([]byte("spliced"))
	near, to := pair(t, NewSweeper(), nil)
	if n, _, err := Splice(near, c, 100, patience, patience); n != 7 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	expect(t, to, "spliced")
}
