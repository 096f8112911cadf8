package demo

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// maxSlow keeps a request from being held for ever.
	maxSlow = time.Minute
	// maxPieces bounds a stream.
	maxPieces = 10_000
	// maxBig bounds a big body.
	maxBig = 256 << 20
	// maxEcho bounds what is read back.
	maxEcho = 1 << 20
)

// onRequest adds what every path does when asked: ?slow=500ms waits first; ?fail=503 answers with that status, for the
// share ?rate=0.25 of such requests: every fourth, not any fourth, so that what is seen can be foretold.
func onRequest(next http.Handler) http.Handler {
	var asked atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if slow, err := time.ParseDuration(query.Get("slow")); err == nil && !pause(r, min(slow, maxSlow)) {
			return
		}
		if status, err := strconv.Atoi(query.Get("fail")); err == nil && status >= 400 && status <= 599 {
			rate, err := strconv.ParseFloat(query.Get("rate"), 64)
			if err != nil || rate >= 1 {
				rate = 1
			}
			if n := float64(asked.Add(1)); rate > 0 && math.Floor(n*rate) > math.Floor((n-1)*rate) {
				problem(w, status, "fails because it was asked to")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// pause waits, and reports whether the client is still there.
func pause(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// probes adds the paths that every service has.
func probes(mux *http.ServeMux, service string) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]string{"service": service, "state": "ok"})
	})
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		pieces(w, r, "piece %d\n")
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		pieces(w, r, "id: %[1]d\ndata: {\"tick\":%[1]d}\n\n")
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { echo(w, r, service) })
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, r *http.Request) { live(w, r, service) })
	mux.HandleFunc("GET /big", big)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem(w, http.StatusNotFound, fmt.Sprintf("the %s service has no %s %s; see /%[1]s, /echo, /stream, /events, /live and /big",
			service, r.Method, r.URL.Path))
	})
}

// pieces writes ?count= pieces (5), one every ?every= (100ms), each sent as soon as it is there.
func pieces(w http.ResponseWriter, r *http.Request, form string) {
	every, err := time.ParseDuration(r.URL.Query().Get("every"))
	if err != nil {
		every = 100 * time.Millisecond
	}
	flush := http.NewResponseController(w)
	for i := range number(r, "count", 5, maxPieces) {
		if i > 0 && !pause(r, min(every, maxSlow)) {
			return
		}
		if _, err := fmt.Fprintf(w, form, i+1); err != nil || flush.Flush() != nil {
			return
		}
	}
}

// echo tells what arrived.
func echo(w http.ResponseWriter, r *http.Request, service string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEcho))
	if err != nil {
		problem(w, http.StatusBadRequest, "the body could not be read: "+err.Error())
		return
	}
	reply(w, http.StatusOK, map[string]any{
		"service": service, "method": r.Method, "target": r.RequestURI, "host": r.Host, "proto": r.Proto,
		"header": r.Header, "body": string(body), "trailer": r.Trailer,
	})
}

// big writes ?size= bytes (1 MiB) of numbered lines.
func big(w http.ResponseWriter, r *http.Request) {
	size := number(r, "size", 1<<20, maxBig)
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", strconv.Itoa(size))
	piece := []byte(strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+\n", 512))
	for size > 0 {
		n, err := io.Copy(w, bytes.NewReader(piece[:min(size, len(piece))]))
		if size -= int(n); err != nil {
			return
		}
	}
}
