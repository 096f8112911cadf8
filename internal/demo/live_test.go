package demo

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

func TestLiveGreetsAndSendsBack(t *testing.T) {
	mux := http.NewServeMux()
	probes(mux, "orders")
	s := httptest.NewServer(mux)
	defer s.Close()
	c, _, err := websocket.Dial(t.Context(), s.URL+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	_, greeting, err := c.Read(t.Context())
	if err != nil || string(greeting) != "hello from orders" {
		t.Fatalf("%q, %v", greeting, err)
	}
	for _, size := range []int{0, 125, 126, 1000, 32 << 10} {
		message := strings.Repeat("x", size)
		if err := c.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(t.Context()); err != nil || string(got) != message {
			t.Fatalf("%d bytes came back of %d: %v", len(got), size, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
}

func TestLiveIsAWebSocketOnly(t *testing.T) {
	resp, _ := ask(t, newShop().handler("orders"), "GET", "/live", "")
	if resp.StatusCode != http.StatusUpgradeRequired || resp.Header.Get("Upgrade") != "websocket" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
}
