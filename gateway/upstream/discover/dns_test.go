package discover

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"headgate/config/model"
)

// zone is a name server on this machine, over UDP and TCP.
type zone struct {
	address string
	mu      sync.Mutex
	records []dnsmessage.Resource
	rcode   dnsmessage.RCode
	cut     bool // what goes over UDP
	stray   bool // first a datagram that answers another question
	asked   []string
	overTCP int
}

func serveZone(t *testing.T, records ...dnsmessage.Resource) *zone {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Skip("the port of the TCP listener is taken for UDP")
	}
	z := &zone{address: l.Addr().String(), records: records}
	var runs sync.WaitGroup
	runs.Go(func() {
		for b := make([]byte, 4096); ; {
			n, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			if z.strays() {
				_, _ = p.WriteTo(z.answer(t, b[:n], true, 1), from)
			}
			_, _ = p.WriteTo(z.answer(t, b[:n], true, 0), from)
		}
	})
	runs.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var length [2]byte
			if _, err := io.ReadFull(c, length[:]); err == nil {
				b := make([]byte, binary.BigEndian.Uint16(length[:]))
				_, _ = io.ReadFull(c, b)
				reply := z.answer(t, b, false, 0)
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
			}
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); _ = p.Close(); runs.Wait() })
	return z
}

// set changes how the server behaves.
func (z *zone) set(change func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	change()
}

func (z *zone) strays() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.stray
}

// seen returns what was asked, and how often over TCP.
func (z *zone) seen() (asked []string, overTCP int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.asked), z.overTCP
}

func (z *zone) answer(t *testing.T, packet []byte, udp bool, off uint16) []byte {
	z.mu.Lock()
	defer z.mu.Unlock()
	var m dnsmessage.Message
	if err := m.Unpack(packet); err != nil {
		t.Error(err)
		return nil
	}
	q := m.Questions[0]
	name := strings.ToLower(q.Name.String())
	z.asked = append(z.asked, q.Type.String()+" "+name)
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID + off, Response: true, RCode: z.rcode}, Questions: m.Questions}
	if !udp {
		z.overTCP++
	}
	if udp && z.cut {
		reply.Truncated = true
	} else if z.rcode == 0 {
		known := false
		for _, r := range z.records {
			alias := r.Header.Type == dnsmessage.TypeCNAME
			if strings.ToLower(r.Header.Name.String()) == name {
				known = true
			}
			if r.Header.Type == q.Type || alias {
				reply.Answers = append(reply.Answers, r)
			} else if q.Type == dnsmessage.TypeSRV {
				reply.Additionals = append(reply.Additionals, r)
			}
		}
		if !known {
			reply.RCode, reply.Answers, reply.Additionals = dnsmessage.RCodeNameError, nil, nil
		}
	}
	out, err := reply.Pack()
	if err != nil {
		t.Error(err)
	}
	return out
}

func has(name string, ttl uint32, kind dnsmessage.Type, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{
		Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET, TTL: ttl}, Body: body}
}

func a(name string, ttl uint32, ip string) dnsmessage.Resource {
	if x := netip.MustParseAddr(ip); x.Is6() {
		return has(name, ttl, dnsmessage.TypeAAAA, &dnsmessage.AAAAResource{AAAA: x.As16()})
	}
	return has(name, ttl, dnsmessage.TypeA, &dnsmessage.AResource{A: netip.MustParseAddr(ip).As4()})
}

func srv(name string, ttl uint32, priority, weight, port uint16, host string) dnsmessage.Resource {
	return has(name, ttl, dnsmessage.TypeSRV,
		&dnsmessage.SRVResource{Priority: priority, Weight: weight, Port: port, Target: dnsmessage.MustNewName(host)})
}

func TestNamesBecomeTargets(t *testing.T) {
	alias := has("shop.example.", 20, dnsmessage.TypeCNAME, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("Real.example.")})
	tests := []struct {
		name    string
		asks    model.DiscoverDNS
		records []dnsmessage.Resource
		want    []Target
		ttl     int
		problem string
	}{
		{"both kinds of addresses", model.DiscoverDNS{Name: "shop.example", Port: 80},
			[]dnsmessage.Resource{a("shop.example.", 30, "10.0.0.1"), a("shop.example.", 20, "10.0.0.2"), a("shop.example.", 60, "2001:db8::1")},
			[]Target{{Address: "10.0.0.1:80", Host: "shop.example", Weight: 1}, {Address: "10.0.0.2:80", Host: "shop.example", Weight: 1},
				{Address: "[2001:db8::1]:80", Host: "shop.example", Weight: 1}}, 20, ""},
		{"an alias, whose own time counts too", model.DiscoverDNS{Name: "shop.example.", Port: 81},
			[]dnsmessage.Resource{alias, a("REAL.example.", 30, "10.0.0.1"), a("other.example.", 30, "10.0.0.9")},
			[]Target{{Address: "10.0.0.1:81", Host: "shop.example", Weight: 1}}, 20, ""},
		{"services, with their addresses", model.DiscoverDNS{Name: "_http._tcp.shop.example", SRV: true},
			[]dnsmessage.Resource{srv("_http._tcp.shop.example.", 60, 10, 0, 8080, "a.example."),
				srv("_http._tcp.shop.example.", 60, 20, 50000, 8081, "b.example."),
				a("a.example.", 50, "10.0.0.1"), a("b.example.", 40, "10.0.0.2"), srv("_http._tcp.shop.example.", 60, 20, 1, 8081, ".")},
			[]Target{{Address: "10.0.0.1:8080", Host: "a.example", Weight: 1, Priority: 10},
				{Address: "10.0.0.2:8081", Host: "b.example", Weight: 1000, Priority: 20}}, 40, ""},
		{"no such name", model.DiscoverDNS{Name: "nobody.example", Port: 80}, nil, nil, 0, "nobody.example: no such name"},
		{"a service whose host has no address", model.DiscoverDNS{Name: "_x._tcp.shop.example", SRV: true},
			[]dnsmessage.Resource{srv("_x._tcp.shop.example.", 60, 1, 1, 80, "gone.example.")}, nil, 0, "gone.example"},
		{"not a name", model.DiscoverDNS{Name: strings.Repeat("a", 64) + ".example", Port: 80}, nil, nil, 0, "not a name"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			z := serveZone(t, test.records...)
			d := newDNS(test.asks, system{servers: []string{z.address}}, nil)
			list, ttl, err := d.ask(t.Context())
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(list, test.want) || ttl != time.Duration(test.ttl)*time.Second {
				t.Errorf("%v, %v, %v", list, ttl, err)
			}
		})
	}
}

func TestAnswersThatDoNotFitComeOverTCP(t *testing.T) {
	z := serveZone(t, a("shop.example.", 30, "10.0.0.1"))
	z.set(func() { z.cut = true })
	got, err := query(t.Context(), []string{z.address}, "shop.example.", dnsmessage.TypeA)
	if _, n := z.seen(); err != nil || len(got.records) != 1 || n != 1 {
		t.Errorf("%v, %v, %d over TCP", got, err, n)
	}
}

func TestAnswersToOtherQuestionsAreNotBelieved(t *testing.T) {
	z := serveZone(t, a("shop.example.", 30, "10.0.0.1"))
	z.set(func() { z.stray = true })
	if got, err := query(t.Context(), []string{z.address}, "shop.example.", dnsmessage.TypeA); err != nil || len(got.records) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAServerThatFailsIsFollowedByTheNext(t *testing.T) {
	bad, good := serveZone(t), serveZone(t, a("shop.example.", 30, "10.0.0.1"))
	bad.set(func() { bad.rcode = dnsmessage.RCodeServerFailure })
	both := []string{bad.address, good.address}
	if got, err := query(t.Context(), both, "shop.example.", dnsmessage.TypeA); err != nil || len(got.records) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	_, err := query(t.Context(), []string{bad.address}, "shop.example.", dnsmessage.TypeA)
	if asked, _ := bad.seen(); err == nil || !strings.Contains(err.Error(), "ServerFailure") || len(asked) != 1+queryRounds {
		t.Errorf("%v after %v", err, asked)
	}
}

func TestTheSearchListIsFollowed(t *testing.T) {
	z := serveZone(t, a("shop.prod.example.", 30, "10.0.0.1"))
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("# ours\nsearch dev.example prod.example\noptions ndots:1 edns0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := system{file, []string{z.address}}
	if _, err := s.lookup(t.Context(), "shop", dnsmessage.TypeA); err != nil {
		t.Error(err)
	}
	if _, err := s.lookup(t.Context(), "shop.", dnsmessage.TypeA); !errors.Is(err, errNoName) {
		t.Error(err)
	}
	want := []string{"TypeA shop.dev.example.", "TypeA shop.prod.example.", "TypeA shop."}
	if asked, _ := z.seen(); !slices.Equal(asked, want) {
		t.Errorf("%v, want %v", asked, want)
	}
}

func TestResolvConf(t *testing.T) {
	c := parseConf([]byte("nameserver 10.0.0.2\nnameserver fe80::1\n; no\nsearch a.example b.example.\noptions ndots:5\n"))
	if !reflect.DeepEqual(c, conf{[]string{"10.0.0.2:53", "[fe80::1]:53"}, []string{"a.example", "b.example."}, 5}) {
		t.Errorf("%+v", c)
	}
	for name, want := range map[string]string{
		"x": "x.a.example. x.b.example. x.", "x.y": "x.y.a.example. x.y.b.example. x.y.", "x.": "x.",
		"a.b.c.d.e.f": "a.b.c.d.e.f. a.b.c.d.e.f.a.example. a.b.c.d.e.f.b.example.",
	} {
		if got := strings.Join(c.candidates(name), " "); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	if c := (system{file: filepath.Join(t.TempDir(), "none")}).conf(); c.servers[0] != "127.0.0.1:53" || c.dots != 1 {
		t.Errorf("%+v", c)
	}
}

// played is a resolver that answers by the clock.
type played func(kind dnsmessage.Type) (answer, error)

func (p played) lookup(_ context.Context, _ string, kind dnsmessage.Type) (answer, error) {
	return p(kind)
}

func TestNamesAreAskedAgainWhenTheyExpire(t *testing.T) {
	tests := []struct {
		name   string
		ttl    time.Duration
		err    error
		random float64
		want   []time.Duration // after the one before
	}{
		{"as long as it lives", 30 * time.Second, nil, 0, []time.Duration{30 * time.Second, 30 * time.Second}},
		{"a little earlier", 30 * time.Second, nil, 1, []time.Duration{27 * time.Second}},
		{"not too often", 0, nil, 0, []time.Duration{5 * time.Second}},
		{"not too seldom", 24 * time.Hour, nil, 0, []time.Duration{5 * time.Minute}},
		{"with growing pauses after failures", 0, errors.New("down"), 1, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var m model.DiscoverDNS
				m.SetDefaults()
				m.Name, m.Port = "shop.example", 80
				d := newDNS(m, played(func(kind dnsmessage.Type) (answer, error) {
					if test.err == nil && kind == dnsmessage.TypeAAAA {
						return answer{}, errNoName
					}
					return answer{records: []record{{ip: netip.MustParseAddr("10.0.0.1")}}, ttl: test.ttl}, test.err
				}), func() float64 { return test.random })
				ctx, stop := context.WithCancel(t.Context())
				var at []time.Time
				go d.Watch(ctx, func([]Target, error) {
					if at = append(at, time.Now()); len(at) > len(test.want) {
						stop()
					}
				})
				<-ctx.Done()
				synctest.Wait()
				for i, want := range test.want {
					if got := at[i+1].Sub(at[i]); got != want {
						t.Errorf("after %v, want %v", got, want)
					}
				}
			})
		})
	}
}

func TestAKindOfAddressesThatFailsIsNotGivenUp(t *testing.T) {
	failing := false
	d := newDNS(model.DiscoverDNS{Name: "x", Port: 80}, played(func(kind dnsmessage.Type) (answer, error) {
		if failing && kind == dnsmessage.TypeAAAA {
			return answer{}, errors.New("refused")
		}
		ip := map[dnsmessage.Type]string{dnsmessage.TypeA: "10.0.0.1", dnsmessage.TypeAAAA: "::1"}[kind]
		return answer{records: []record{{ip: netip.MustParseAddr(ip)}}}, nil
	}), nil)
	if list, _, err := d.ask(t.Context()); len(list) != 2 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	failing = true
	if list, _, err := d.ask(t.Context()); err == nil {
		t.Errorf("%v: half of the truth", list)
	}
	d.had = map[dnsmessage.Type]bool{}
	if list, _, err := d.ask(t.Context()); len(list) != 1 || err != nil {
		t.Errorf("%v, %v: a network without IPv6 is one all the same", list, err)
	}
}

func FuzzUnpack(f *testing.F) {
	q, err := newQuestion("shop.example.", dnsmessage.TypeA)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(q.packet)
	f.Fuzz(func(_ *testing.T, packet []byte) {
		if m, err := q.unpack(packet); err == nil {
			_, _ = q.read(m)
		}
	})
}
