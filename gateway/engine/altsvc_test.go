package engine

import (
	"testing"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// Clients that came by TCP and TLS hear of HTTP/3 on the same port, and nobody else does: in clear the word could be
// anybody's (RFC 7838 section 9.5), and over HTTP/3 they are there already.
func TestHTTP3IsAdvertisedOverTLSAndTCP(t *testing.T) {
	all := []string{"h1", "h2", "h3"}
	for _, c := range []struct {
		name, address string
		protocols     []string
		tls           bool
		proto, want   string
	}{
		{"over h1", "[::1]:8443", all, true, "HTTP/1.1", `h3=":8443"; ma=86400`},
		{"over h2", ":443", all, true, "HTTP/2.0", `h3=":443"; ma=86400`},
		{"over h3", ":443", all, true, "HTTP/3.0", "of the upstream"},
		{"in clear", ":443", all, false, "HTTP/1.1", "of the upstream"},
		{"without h3", ":443", all[:2], true, "HTTP/2.0", "of the upstream"},
		{"on a port that only the system knows", ":0", all, true, "HTTP/2.0", "of the upstream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			h.serve(rule{path: "/", answer: func(x *exchange.Exchange) {
				x.Answer(200, "", "")
				x.Reply.Header.Add("Alt-Svc", "of the upstream")
			}})
			h.door(model.Listener{Address: c.address, Protocols: c.protocols, TLS: &model.ListenerTLS{}})
			x, _ := h.knockAt("GET /", func(x *exchange.Exchange) {
				x.Request.Proto = c.proto
				if c.tls {
					x.Client.TLS = &exchange.TLS{}
				}
			})
			if got := x.Reply.Header.Joined("Alt-Svc"); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestADoorAboutToCloseSaysNothingOfHTTP3(t *testing.T) {
	d := NewDoor("main", model.Listener{Address: ":443", Protocols: []string{"h2", "h3"}, TLS: &model.ListenerTLS{}}, nil)
	x := &exchange.Exchange{Client: exchange.Client{TLS: &exchange.TLS{}}}
	d.WithAltSvc("").advertise(x)
	if x.Reply.Header.Has("Alt-Svc") || d.AltSvc == "" {
		t.Errorf("%+v, %q", x.Reply.Header, d.AltSvc)
	}
}
