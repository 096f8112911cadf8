package engine

import (
	"errors"
	"net"
	"testing"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// streamTo makes a snapshot whose only door leads to the address by the name a.example, and says when it has been closed.
func (h *house) streamTo(address string) (s *Snapshot, closed chan struct{}) {
	h.t.Helper()
	closed = make(chan struct{})
	s = NewSnapshot()
	s.NotFound = &Route{Info: &exchange.Route{Name: "(none)"}}
	way := &Way{Info: &exchange.Route{Name: "db", Upstream: "shop"}, Names: []string{"a.example"}, Upstream: h.upstream("tcp://" + address)}
	nobody := &Way{Info: &exchange.Route{Name: "db"}}
	way.Meter, nobody.Meter = h.engine.Record.Route(way.Info), h.engine.Record.Route(nobody.Info)
	door := NewDoor("db", model.Listener{Address: ":1"}, nil)
	door.TCP = &TCP{Ways: []*Way{way}, Nobody: nobody}
	if err := door.TCP.Names.Add("a.example", way); err != nil {
		h.t.Fatal(err)
	}
	s.Doors["db"] = door
	s.OnClose = append(s.OnClose, func() error { close(closed); return nil }, way.Upstream.Close)
	h.engine.Swap(s)
	h.entrance.Door.Store(door)
	return s, closed
}

// connection opens a connection for a name.
func (h *house) connection(name string) (*exchange.Exchange, *sock.Conn, func(), error) {
	x, _ := request("GET /")
	x.Request = exchange.Request{Host: name, Proto: "TCP", Scheme: "tcp"}
	c, end, err := h.entrance.Connect(x)
	return x, c, end, err
}

func TestAnOpenConnectionHoldsNoSnapshot(t *testing.T) {
	h := newHouse(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, closed := h.streamTo(l.Addr().String())
	x, c, end, err := h.connection("a.example")
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	h.streamTo(l.Addr().String())
	<-closed // although the connection is open; its upstream is closed with it
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	got := make([]byte, 5)
	if _, err := far.Read(got); string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	_ = c.Close()
	end()
	if x.Reply.Status != 200 || x.Route.Name != "db" || x.ID == "" || x.Client.IP.String() != "203.0.113.9" {
		t.Errorf("%+v", x)
	}
}

func TestAConnectionThatLeadsNowhereIsRecordedWithoutAnUpstream(t *testing.T) {
	h := newHouse(t)
	h.streamTo("127.0.0.1:1")
	x, _, _, err := h.connection("b.example")
	var e *exchange.Error
	if !errors.As(err, &e) || e.Code != exchange.NameNotServed || x.Route.Name != "db" || x.Route.Upstream != "" || !x.Usage.Aborted {
		t.Errorf("%v, %+v, %+v", err, x.Route, x.Usage)
	}
	x, _, _, err = h.connection("a.example")
	if !errors.As(err, &e) || e.Code != exchange.UpstreamUnreachable || x.Route.Upstream != "shop" || x.Usage.Attempts != 1 {
		t.Errorf("%v, %+v, %+v", err, x.Route, x.Usage)
	}
}

func TestADoorThatTheSnapshotNoLongerHasLeadsNowhere(t *testing.T) {
	h := newHouse(t)
	s, _ := h.streamTo("127.0.0.1:1")
	renamed := *s.Doors["db"]
	renamed.Name = "database"
	if s.tcp(&renamed) != s.Doors["db"].TCP {
		t.Error("a door that got another name is not found by its address")
	}
	h.entrance.Door.Store(NewDoor("db", model.Listener{Address: ":2"}, nil))
	x, _, _, err := h.connection("a.example")
	if x.Err == nil || x.Err.Code != exchange.NameNotServed || err == nil {
		t.Errorf("%v", err)
	}
	x, _ = request("GET /")
	x.Err = &exchange.Error{Code: exchange.NotTLS, Source: exchange.FromClient}
	h.entrance.RefuseConnection(x)
	if x.ID == "" || x.Route.Name != "(none)" {
		t.Errorf("%+v", x)
	}
}
