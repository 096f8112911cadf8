package local

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// node is a node in one state.
type node struct{ ready, reload error }

func (n node) Ready() error  { return n.ready }
func (n node) Status() any   { return map[string]string{"version": "1"} }
func (n node) Reload() error { return n.reload }

func ask(h http.Handler, method, path string) (status int, body string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

func TestTheRootListsEveryAddressAndEachOfThemAnswers(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("# metrics\n")) })
	for _, pprof := range []bool{false, true} {
		h := Handler(node{}, Options{Metrics: metrics, Pprof: pprof})
		status, list := ask(h, "GET", "/")
		if status != http.StatusOK || strings.Contains(list, "pprof") != pprof {
			t.Errorf("pprof %v: %d\n%s", pprof, status, list)
		}
		found := 0
		for line := range strings.Lines(list) {
			if f := strings.Fields(line); len(f) > 2 && strings.HasPrefix(f[1], "/") {
				found++
				if status, body := ask(h, f[0], f[1]); status != http.StatusOK {
					t.Errorf("%s %s is listed and answers %d %s", f[0], f[1], status, body)
				}
			}
		}
		if found < 5 {
			t.Errorf("lists %d addresses:\n%s", found, list)
		}
		if status, _ := ask(h, "GET", "/nothing"); status != http.StatusNotFound {
			t.Errorf("an unknown address answers %d", status)
		}
	}
}

func TestReasonsAreTold(t *testing.T) {
	h := Handler(node{ready: errors.New("draining"), reload: errors.New("gate.yaml:1:1: nothing")}, Options{Metrics: http.NotFoundHandler()})
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/readyz", http.StatusServiceUnavailable, "draining\n"},
		{"POST", "/reload", http.StatusUnprocessableEntity, "gate.yaml:1:1: nothing\n"},
		{"GET", "/reload", http.StatusMethodNotAllowed, ""},
		{"GET", "/healthz", http.StatusOK, "ok\n"},
	} {
		if status, body := ask(h, c.method, c.path); status != c.status || c.body != "" && body != c.body {
			t.Errorf("%s %s: %d %q, want %d %q", c.method, c.path, status, body, c.status, c.body)
		}
	}
}
