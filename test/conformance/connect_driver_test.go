package conformance

import (
	be "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"headgate/internal/testkit"
)

// What tells this program that it is run by the suite as the server under test.
const (
	driverReference = "HEADGATE_CONNECT_REFERENCE" // the suite's own server
	driverGateway   = "HEADGATE_CONNECT_GATEWAY"   // the gateway's binary
	driverWeb       = "HEADGATE_CONNECT_WEB"       // grpc.web of the document
)

// TestConnectDriver is no test: the suite runs it as a server. It reads from standard input what the server shall speak,
// starts the reference server in clear and the gateway in front of it, tells on standard output where the gateway is, and
// goes on until it is ended.
func TestConnectDriver(t *testing.T) {
	reference := os.Getenv(driverReference)
	if reference == "" {
		t.Skipf("%s runs it", "TestConnectConformance")
	}
	asked, err := readMessage(os.Stdin)
	if err != nil {
		t.Fatal(err)
	}
	want := readServerRequest(asked)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	server, port := startReference(t, reference, want)
	defer end(server)
	address, err := testkit.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	testkit.Start(t, os.Getenv(driverGateway), driverDocument(t, want, address, port))
	if err := writeMessage(os.Stdout, serverResponse(address, want)); err != nil {
		t.Fatal(err)
	}
	<-ended
}

// serverRequest is a ServerCompatRequest of the suite.
type serverRequest struct {
	version, limit               uint64
	tls                          bool
	clients, certificate, secret []byte
}

func readServerRequest(b []byte) (r serverRequest) {
	each(b, func(n protowire.Number, v uint64, content []byte) {
		switch n {
		case 2:
			r.version = v
		case 4:
			r.tls = v != 0
		case 5:
			r.clients = content
		case 6:
			r.limit = v
		case 7:
			each(content, func(n protowire.Number, _ uint64, content []byte) {
				if n == 1 {
					r.certificate = content
				} else if n == 2 {
					r.secret = content
				}
			})
		}
	})
	return r
}

// each calls f for every number and every bytes of a message.
func each(b []byte, f func(protowire.Number, uint64, []byte)) {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return
		}
		b = b[size:]
		var v uint64
		var content []byte
		switch kind {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			content, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(n, kind, b)
		}
		if size < 0 {
			return
		}
		b = b[size:]
		f(n, v, content)
	}
}

// startReference starts the suite's server for HTTP/2 in clear, which every protocol can be asked over.
func startReference(t *testing.T, path string, want serverRequest) (*exec.Cmd, uint64) {
	t.Helper()
	const gRPC, http2 = 2, 2
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), gRPC) // the least; the reference speaks all
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), http2)
	b = protowire.AppendVarint(protowire.AppendTag(b, 6, protowire.VarintType), want.limit)
	server := exec.Command(path, "-bind", "127.0.0.1", "-port", "0")
	server.Stderr = os.Stderr
	in, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(server.Start(), writeMessage(in, b)); err != nil {
		t.Fatal(err)
	}
	answer, err := readMessage(out)
	if err != nil {
		end(server)
		t.Fatal(err)
	}
	var port uint64
	each(answer, func(n protowire.Number, v uint64, _ []byte) {
		if n == 2 {
			port = v
		}
	})
	return server, port
}

func end(c *exec.Cmd) {
	_ = c.Process.Kill() // it has nothing more to say
	_ = c.Wait()         // what it was killed by
}

// driverDocument puts the gateway in front of the reference server.
func driverDocument(t *testing.T, want serverRequest, address string, port uint64) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "listeners:\n  public:\n    address: %q\n", address)
	const http3 = 3
	if want.version == http3 {
		b.WriteString("    protocols: [h1, h2, h3]\n")
	}
	if want.tls {
		dir := t.TempDir()
		files := map[string][]byte{"cert.pem": want.certificate, "key.pem": want.secret, "clients.pem": want.clients}
		for name, content := range files {
			testkit.WriteFile(t, filepath.Join(dir, name), string(content))
		}
		fmt.Fprintf(&b, "    tls:\n      certificates: [{cert: %q, key: %q}]\n", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		if len(want.clients) > 0 {
			fmt.Fprintf(&b, "      client_auth: {ca: [%q]}\n", filepath.Join(dir, "clients.pem"))
		}
	}
	fmt.Fprintf(&b, "upstreams: {reference: %q}\n", "h2c://127.0.0.1:"+strconv.FormatUint(port, 10))
	fmt.Fprintf(&b, "apis: {all: {upstream: reference, grpc: {web: %s}}}\n", os.Getenv(driverWeb))
	return b.String()
}

// serverResponse is a ServerCompatResponse of the suite.
func serverResponse(address string, want serverRequest) []byte {
	host, port, _ := net.SplitHostPort(address) // it comes from testkit
	n, _ := strconv.ParseUint(port, 10, 16)
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), host)
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), n)
	if want.tls {
		b = protowire.AppendBytes(protowire.AppendTag(b, 3, protowire.BytesType), want.certificate)
	}
	return b
}

// readMessage reads a message of the suite's, which stands behind its length in four bytes.
func readMessage(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, min(be.BigEndian.Uint32(size[:]), 1<<20))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeMessage(w io.Writer, b []byte) error {
	_, err := w.Write(append(be.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}
