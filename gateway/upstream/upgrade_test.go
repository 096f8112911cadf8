package upstream

import (
	"bufio"
	"io"
	"net/http"
	"testing"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// A target that chooses HTTP/2 and does not take extended CONNECT is asked to switch over HTTP/1.1, on a connection of its
// own, while everything else goes on over HTTP/2.
func TestAnUpgradeGoesOverHTTP1WhereHTTP2CannotCarryIt(t *testing.T) {
	ca := newAuthority(t)
	address := serveTLS(t, serverTLS(t, ca), true, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "echo" {
			hello(w, r)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(c, rw)
	})
	for _, first := range []bool{false, true} { // whether it is known what the target speaks
		e := env(io.Discard)
		u := build(t, e, config(overTLS(model.UpstreamTLS{CA: []string{ca.file}}), address))
		if first {
			if status, code := send(t, u, ask("GET")); status != 200 {
				t.Fatal(code)
			}
		}
		x := ask("GET")
		x.Request.Upgrade = "echo"
		call, err := u.Send(x)
		if err != nil {
			t.Fatal(err)
		}
		if x.Reply.Status != 101 || x.Reply.Switched == nil {
			t.Fatalf("%+v", x.Reply)
		}
		if _, err := io.WriteString(x.Reply.Switched, "over and out\n"); err != nil {
			t.Error(err)
		}
		if got, err := bufio.NewReader(x.Reply.Switched).ReadString('\n'); got != "over and out\n" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		call.Close()
		x = ask("GET")
		if status, code := send(t, u, x); status != 200 {
			t.Fatal(code)
		}
		if s := u.Status().Targets[0]; s.Protocol != "h2" || s.H2Conns != 1 || s.Idle != 0 {
			t.Errorf("%+v", s)
		}
	}
}

func TestAnUpgradeThatTheTargetCannotMakeIsAClearError(t *testing.T) {
	u := build(t, env(io.Discard), config(overH2C, serveH2C(t, 0, hello)))
	x := ask("GET")
	x.Request.Upgrade = "websocket"
	_, err := u.Send(x)
	e, ok := err.(*exchange.Error)
	if !ok || e.Code != exchange.UpstreamNoUpgrade || x.Usage.Attempts != 1 || u.Status().Targets[0].Failures != 0 {
		t.Errorf("%v, %+v", err, u.Status().Targets[0])
	}
}
