package matrix

import (
	"crypto/tls"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"
)

// patience bounds every wait for something that happens at once on a healthy machine.
const patience = 30 * time.Second

// origin is what every upstream answers, whatever it speaks.
type origin struct {
	next chan struct{} // lets /stream send its next piece
	gone chan error    // what /hang saw
}

func newOrigin() *origin { return &origin{make(chan struct{}), make(chan error, 1)} }

func (o *origin) handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/empty", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Proto", r.Proto) })
	m.HandleFunc("/small", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		w.Header().Set("X-Method", r.Method)
		fmt.Fprintf(w, "%s %s %v", r.URL.RequestURI(), body, err)
	})
	m.HandleFunc("/stream", o.stream)
	m.HandleFunc("/trailers", trailers)
	m.HandleFunc("/down", down)
	m.HandleFunc("/up", up)
	m.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "not you", http.StatusForbidden) })
	m.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) {
		o.next <- struct{}{}
		select {
		case <-r.Context().Done():
			o.gone <- nil
		case <-time.After(patience):
			o.gone <- fmt.Errorf("nobody told the upstream that the client has gone")
		}
	})
	m.HandleFunc("/die", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("late") {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, "the beginning of ")
			_ = http.NewResponseController(w).Flush()
		}
		panic(http.ErrAbortHandler)
	})
	return m
}

// stream sends a piece whenever the test lets it.
func (o *origin) stream(w http.ResponseWriter, _ *http.Request) {
	for i := range 3 {
		fmt.Fprintf(w, "piece %d\n", i)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-o.next:
		case <-time.After(patience):
			return
		}
	}
}

// trailers sends the request's trailer back in the reply's.
func trailers(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Sum, X-Echo")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
	w.Header().Set("X-Sum", strconv.Itoa(len(body)))
	w.Header().Set("X-Echo", r.Trailer.Get("X-Check"))
}

// pattern is an endless body in which no two neighbouring kilobytes are equal.
type pattern struct{ at int64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(p.at>>10) ^ byte(p.at*7)
		p.at++
	}
	return len(b), nil
}

func sumOf(r io.Reader) (string, error) {
	h := crc32.NewIEEE()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 64<<10))
	return fmt.Sprintf("%d %08x", n, h.Sum32()), err
}

func down(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.URL.Query().Has("length") {
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	}
	_, _ = io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(&pattern{}, n), make([]byte, 64<<10))
}

func up(w http.ResponseWriter, r *http.Request) {
	sum, err := sumOf(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	fmt.Fprint(w, sum)
}

// ways out: what the upstream speaks.
var waysOut = []string{"h1", "h1s", "h2", "h2c"}

// serve starts an upstream that speaks one version and returns its URL for the document.
func (o *origin) serve(t *testing.T, way string, pair tls.Certificate) string {
	t.Helper()
	s := httptest.NewUnstartedServer(o.handler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	t.Cleanup(s.Close)
	switch way {
	case "h1":
		s.Start()
		return s.URL
	case "h1s":
		s.StartTLS()
		return s.URL
	case "h2":
		s.EnableHTTP2 = true
		s.StartTLS()
		return s.URL
	}
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	s.Config.Protocols = &only
	s.Start()
	return "h2c" + s.URL[len("http"):]
}
