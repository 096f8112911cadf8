package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask sends one request to a service of a fresh shop and returns status and body.
func ask(t *testing.T, h http.Handler, method, target, body string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

func TestServicesAnswer(t *testing.T) {
	long := strings.Repeat(" ", maxOrder+1)
	for _, c := range []struct {
		service, method, target, body string
		status                        int
		want                          string
	}{
		{"orders", "GET", "/orders", "", 200, `"total":12`},
		{"orders", "GET", "/orders?customer=c-1", "", 200, `"total":2`},
		{"orders", "GET", "/orders?limit=2&offset=11", "", 200, `"id":"o-12"`},
		{"orders", "GET", "/orders?limit=-1&offset=99", "", 200, `"items":[]`},
		{"orders", "GET", "/orders/o-1", "", 200, `"customer":"c-1"`},
		{"orders", "GET", "/orders/o-99", "", 404, `there is no \"o-99\" here`},
		{"orders", "DELETE", "/orders", "", 404, "has no DELETE /orders"},
		{"orders", "POST", "/orders", `{"customer":"c-1","lines":[{"product":"p-1","quantity":2}]}`, 201, `"total_cents":500`},
		{"orders", "POST", "/orders", `{"customer":"c-9","lines":[{"product":"p-99","quantity":0}]}`, 422, "quantity is 1 to 100, not 0"},
		{"orders", "POST", "/orders", `{"customer":"c-1","lines":[]}`, 422, "this one has 0"},
		{"orders", "POST", "/orders", `{"customer":"c-1"} {}`, 400, "something follows"},
		{"orders", "POST", "/orders", `{"colour":"red"}`, 400, `unknown field \"colour\"`},
		{"orders", "POST", "/orders", long, 413, "at most 65536 bytes"},
		{"customers", "GET", "/customers/c-2", "", 200, `"Grace"`},
		{"products", "GET", "/products/p-1", "", 200, `"Kettle"`},
		{"products", "GET", "/healthz", "", 200, `"products"`},
		{"products", "GET", "/products?fail=503", "", 503, "asked to"},
		{"products", "GET", "/products?fail=200", "", 200, `"total":10`},
		{"products", "POST", "/echo?a=b", "hello", 200, `"target":"/echo?a=b"`},
	} {
		resp, body := ask(t, onRequest(newShop().handler(c.service)), c.method, c.target, c.body)
		if resp.StatusCode != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %s\nwant %d with %s", c.method, c.target, resp.StatusCode, body, c.status, c.want)
		}
	}
}

func TestEveryStartHasTheSameShop(t *testing.T) {
	a, err := json.Marshal(newShop().all())
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := json.Marshal(newShop().all()); string(a) != string(b) {
		t.Errorf("two shops differ:\n%s\n%s", a, b)
	}
}

func TestPlacedOrdersAreKeptUpToALimit(t *testing.T) {
	s := newShop()
	for range maxPlaced + 5 {
		s.add(order{Customer: "c-1", Lines: []line{{"p-1", 1}}})
	}
	all := s.all()
	if len(all) != s.seeded+maxPlaced || all[0].ID != "o-1" || all[s.seeded].ID != "o-18" {
		t.Errorf("kept %d orders, the first placed one is %s", len(all), all[s.seeded].ID)
	}
}

func TestRateFailsThatShare(t *testing.T) {
	h := onRequest(newShop().handler("orders"))
	failed := 0
	for range 100 {
		if resp, _ := ask(t, h, "GET", "/orders?fail=500&rate=0.25", ""); resp.StatusCode == 500 {
			failed++
		}
	}
	if failed != 25 {
		t.Errorf("%d of 100 failed, want 25", failed)
	}
}

func TestBigHasTheLengthAskedFor(t *testing.T) {
	resp, body := ask(t, newShop().handler("orders"), "GET", "/big?size=100001", "")
	if len(body) != 100001 || resp.Header.Get("Content-Length") != "100001" {
		t.Errorf("%d bytes, Content-Length %s", len(body), resp.Header.Get("Content-Length"))
	}
}

// freeAddresses gives every service a free port.
func freeAddresses(t *testing.T) map[string]string {
	t.Helper()
	addresses := map[string]string{}
	for _, s := range Services() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses[s.Name] = l.Addr().String()
		defer l.Close()
	}
	return addresses
}

// eventually retries until the service answers.
func eventually(t *testing.T, url string) *http.Response {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(5 * time.Second); ; {
		resp, err := client.Get(url)
		if err == nil {
			return resp
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestRunServesStreamsAndStops(t *testing.T) {
	addresses := freeAddresses(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, addresses, slog.New(slog.DiscardHandler)) }()

	resp := eventually(t, "http://"+addresses["customers"]+"/events?count=3&every=1ms")
	text, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(string(text), "id: 3\ndata: {\"tick\":3}\n\n") {
		t.Errorf("events: %q %v", text, err)
	}
	resp.Body.Close()

	// A stream that has begun is finished although the services stop meanwhile.
	resp = eventually(t, "http://"+addresses["products"]+"/stream?count=20&every=10ms")
	first, err := bufio.NewReaderSize(resp.Body, 16).ReadString('\n')
	if err != nil || first != "piece 1\n" {
		t.Errorf("stream begins with %q %v", first, err)
	}
	stop()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(string(rest), "piece 20\n") {
		t.Errorf("stream: %q %v", rest, err)
	}
	resp.Body.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRunNamesAnAddressThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addresses := freeAddresses(t)
	addresses["products"] = l.Addr().String()
	err = Run(t.Context(), addresses, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "the demo's products cannot listen on "+l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}
