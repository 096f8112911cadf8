// Package local is what operators ask of one node on its own listener: is it alive, ready, what does it serve, read the
// document again. It is not meant for anybody else's network.
package local

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"time"
)

// Node is what the handlers ask.
type Node interface {
	// Ready says nil, or why the node should get no new requests.
	Ready() error
	// Status describes every object, as JSON.
	Status() any
	// Reload reads the document again; the error says everything that is wrong with it.
	Reload() error
}

// Options choose what is served.
type Options struct {
	Metrics http.Handler
	Pprof   bool
	Advance func(time.Duration) // nil, or moves the clock; for behaviour tests
}

// index is what the root answers: every address that operators have.
const index = `headgate, the operators' listener

GET  /healthz  200 while the process lives
GET  /readyz   200, or 503 with the reason
GET  /status   what is served, as JSON
GET  /metrics  Prometheus metrics
POST /reload   read the document again
`

// indexPprof follows index where profiles are served.
const indexPprof = "GET  /debug/pprof/  Go's profiles\n"

// Handler serves a list of its addresses, /healthz, /readyz, /status, /metrics and POST /reload.
func Handler(n Node, o Options) http.Handler {
	m := http.NewServeMux()
	addresses := index
	if o.Pprof {
		addresses += indexPprof
	}
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, addresses) })
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") })
	m.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := n.Ready(); err != nil {
			text(w, http.StatusServiceUnavailable, err.Error()+"\n")
			return
		}
		text(w, http.StatusOK, "ready\n")
	})
	m.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(n.Status()) // the operator has gone
	})
	m.HandleFunc("POST /reload", func(w http.ResponseWriter, _ *http.Request) {
		if err := n.Reload(); err != nil {
			text(w, http.StatusUnprocessableEntity, err.Error()+"\n")
			return
		}
		text(w, http.StatusOK, "reloaded\n")
	})
	m.Handle("GET /metrics", o.Metrics)
	if o.Pprof {
		m.HandleFunc("/debug/pprof/", pprof.Index)
		m.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		m.HandleFunc("/debug/pprof/profile", pprof.Profile)
		m.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		m.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	if o.Advance != nil {
		m.HandleFunc("POST /test/advance", func(w http.ResponseWriter, r *http.Request) {
			d, err := time.ParseDuration(r.URL.Query().Get("d"))
			if err != nil || d < 0 {
				text(w, http.StatusBadRequest, "d must be a duration such as 1m\n")
				return
			}
			o.Advance(d)
			text(w, http.StatusOK, "advanced\n")
		})
	}
	return http.NewCrossOriginProtection().Handler(m) // a page in an operator's browser must not reload the gateway
}

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(s)) // the operator has gone
}
