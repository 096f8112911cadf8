package record

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"headgate/gateway/exchange"
)

// connection is an exchange of a TCP listener, by the name that a TLS client asked for.
func connection() *exchange.Exchange {
	x := &exchange.Exchange{Start: began, Route: &exchange.Route{Name: "db", Upstream: "postgres"}}
	x.Client = exchange.Client{Peer: netip.MustParseAddrPort("192.0.2.7:4711"), IP: netip.MustParseAddr("192.0.2.7"), Addr: "192.0.2.7"}
	x.Request.Proto, x.Request.Scheme, x.Request.Host = "TCP", "tcp", "db.example"
	return x
}

func carried(x *exchange.Exchange) {
	x.Reply.Status, x.Reply.Source = 200, exchange.FromUpstream
	x.Usage = exchange.Usage{RequestBytes: 17, ReplyBytes: 230, Target: "10.0.0.4:5432", Attempts: 1, Closed: "client_closed"}
}

func TestAConnectionOfATCPListenerHasSpansWithoutHTTP(t *testing.T) {
	c := newCollector(t)
	g := tracing(t, c, 1)
	x := connection()
	g.Begin(x)
	carried(x)
	g.End(x, nil)
	g.finish()
	spans := c.got()
	if len(spans) != 2 || spans[0].Name != "connect" || spans[1].Name != "TCP db" {
		t.Fatalf("%v", spans)
	}
	want := map[string]any{
		"server.address": "db.example", "client.address": "192.0.2.7", "network.peer.address": "192.0.2.7", "network.transport": "tcp",
		"headgate.request_id": x.ID, "headgate.source": "upstream", "headgate.route": "db", "headgate.closed": "client_closed",
		"headgate.bytes_in": int64(17), "headgate.bytes_out": int64(230),
	}
	if diff := cmp.Diff(want, attributes(spans[1])); diff != "" {
		t.Error(diff)
	}
	for name := range attributes(spans[0]) {
		if strings.HasPrefix(name, "http.") {
			t.Errorf("the span of connecting has %s", name)
		}
	}
}

func TestAConnectionOfATCPListenerHasALine(t *testing.T) {
	g := newRig(t)
	path := filepath.Join(t.TempDir(), "access.log")
	s := logTo(path)
	s.Access.Fields = strings.Fields("client method host path status source bytes_in bytes_out route target proto closed")
	for _, format := range []string{"json", "text"} {
		s.Access.Format = format
		g.configure(t, s)
		x := connection()
		g.Begin(x)
		carried(x)
		g.End(x, nil)
	}
	g.run()
	g.finish()
	got, err := os.ReadFile(path)
	want := `{"client":"192.0.2.7","host":"db.example","status":200,"source":"upstream","bytes_in":17,"bytes_out":230,` +
		`"route":"db","target":"10.0.0.4:5432","proto":"TCP","closed":"client_closed"}` + "\n" +
		"192.0.2.7 - host=db.example - 200 source=upstream bytes_in=17 bytes_out=230 " +
		"route=db target=10.0.0.4:5432 proto=TCP closed=client_closed\n"
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}
