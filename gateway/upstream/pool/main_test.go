package pool

import (
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/config/model"
	"headgate/gateway/wire/h1"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connection returns an idle connection, and its other end.
func connection(t testing.TB, s *sock.Sweeper) (*h1.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := sock.New(near, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = far.Close() })
	return &h1.Conn{Conn: c}, far
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// group returns a group of the document's defaults.
func group(t testing.TB) *Group {
	t.Helper()
	var m model.Upstream
	m.SetDefaults()
	return NewGroup(Settings{
		Upstream: "shop", Sweeper: sock.NewSweeper(), Clock: clock.System{}, Metrics: metric.NewRegistry(), Protocol: m.Protocol,
		Proxy: m.Proxy, Connect: m.Timeouts.Connect, Pool: m.Pool, HTTP2: m.HTTP2,
	})
}
