//go:build linux

package network

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"headgate/internal/testkit/lab"
)

// Where a service listens.
const (
	servicePort = 8080 // HTTP/1.1, and HTTP/2 by prior knowledge
	echoPort    = 7000 // TCP: sends back what comes
)

// serve is the process of a service. It answers with its name, which is its argument, and the path.
func serve() int {
	s := &service{name: os.Args[1]}
	raw, err := net.Listen("tcp", fmt.Sprintf(":%d", echoPort))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go echo(raw)
	h := &http.Server{Addr: fmt.Sprintf(":%d", servicePort), Handler: s, Protocols: new(http.Protocols)}
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetUnencryptedHTTP2(true)
	fmt.Fprintln(os.Stderr, h.ListenAndServe())
	return 1
}

func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // until the other side ends
		}()
	}
}

// service answers /slow?for=D after D, /download?size=N with N bytes, /upload with how much it got, /count with how many
// requests there were besides those for the count, /chat as a WebSocket that echoes, and everything else at once.
type service struct {
	name  string
	count atomic.Int64
}

// ServeHTTP implements http.Handler.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-From", s.name)
	if r.URL.Path == "/count" {
		fmt.Fprint(w, s.count.Load())
		return
	}
	s.count.Add(1)
	switch r.URL.Path {
	case "/slow":
		d, _ := time.ParseDuration(r.URL.Query().Get("for"))
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
	case "/download":
		size, _ := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		_, _ = io.CopyN(w, zeros{}, size) // the client may go away
		return
	case "/upload":
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
		return
	case "/chat":
		chat(w, r)
		return
	}
	fmt.Fprint(w, s.name, " ", r.URL.Path)
}

func chat(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, b, err := c.Read(context.Background())
		if err != nil || c.Write(context.Background(), kind, b) != nil {
			return
		}
	}
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// target is a machine with the process of a service.
type target struct {
	*lab.Machine
	process *lab.Process
}

// run starts the service, again after it was killed, and waits until it listens.
func (s *target) run(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", s.Name)
	cmd.Env = append(os.Environ(), role+"=service")
	s.process = s.Start(t, cmd)
	eventually(t, s.Name+" listens", func() (bool, string) {
		c, err := s.Dial(t.Context(), "tcp", s.At(servicePort))
		if err != nil {
			return false, fmt.Sprint(err, s.process.Log())
		}
		return c.Close() == nil, ""
	})
}

// signal stops the process (SIGSTOP) or lets it go on (SIGCONT).
func (s *target) signal(t *testing.T, what syscall.Signal) {
	t.Helper()
	if err := s.process.Process.Signal(what); err != nil {
		t.Fatal(err)
	}
}

// asked returns how many requests the service has got, asked from its own machine, whatever the network does.
func (s *target) asked(t *testing.T) (n int) {
	t.Helper()
	o := ask(s.Machine, s.At(servicePort), request("GET /count"))
	if o.err != nil {
		t.Fatal(o.err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(o.body))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
