//go:build linux

package network

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"headgate/internal/testkit/lab"
)

const discovered = `
listeners: {public: {address: ":8000"}}
upstreams:
  a:
    discover: {dns: {name: shop.test, port: 8080, servers: ["${DNS}"], min_ttl: 1s, max_ttl: 1s}}
    timeouts: {connect: 500ms, response: 1s}
apis: {all: {upstream: a}}
`

// zone is a name server on a machine of its own, over UDP, that knows the addresses of one name.
type zone struct {
	*lab.Machine
	addresses atomic.Pointer[[][4]byte]
}

func startZone(t *testing.T, w *world, targets ...*target) *zone {
	t.Helper()
	z := &zone{Machine: w.Machine(t, "names")}
	z.know(targets...)
	p, err := z.ListenPacket("udp", z.At(53))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 1500); ; {
			n, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			if answer := z.answer(b[:n]); answer != nil {
				_, _ = p.WriteTo(answer, from)
			}
		}
	}()
	t.Cleanup(func() { p.Close(); <-ended })
	return z
}

// know replaces the addresses.
func (z *zone) know(targets ...*target) {
	var list [][4]byte
	for _, s := range targets {
		list = append(list, s.Addr.As4())
	}
	z.addresses.Store(&list)
}

func (z *zone) answer(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	for _, a := range *z.addresses.Load() {
		if q.Type == dnsmessage.TypeA {
			head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: a}})
		}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// uses waits until the gateway has exactly these targets.
func (w *world) uses(t *testing.T, targets ...*target) {
	t.Helper()
	eventually(t, "the targets", func() (bool, string) {
		all := w.sees(t)
		found := 0
		for _, s := range all {
			for _, want := range targets {
				if strings.HasPrefix(s.Address, want.Addr.String()+":") {
					found++
				}
			}
		}
		return found == len(targets) && len(all) == found, fmt.Sprintf("%+v", all)
	})
}

// The name server disappears from the network: the targets that it named last stay, it is said, and no request notices. When it
// is back, what has changed meanwhile is learnt.
func TestANameServerBehindAPartition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	z := startZone(t, w, w.targets[0], w.targets[1])
	w.run(t, strings.ReplaceAll(discovered, "${DNS}", z.At(53)))
	w.uses(t, w.targets[0], w.targets[1])
	l := w.begin(t, 4, request("GET /"))
	l.flows(t, 50)
	w.Cut(w.machine, z.Machine)
	eventually(t, "it is said", func() (bool, string) {
		page := w.mustPage(t, "/status")
		return strings.Contains(page, `"last_good"`), page
	})
	z.know(w.targets[1], w.targets[2])
	l.flows(t, 50)
	w.uses(t, w.targets[0], w.targets[1])
	w.Heal(w.machine, z.Machine)
	w.uses(t, w.targets[1], w.targets[2])
	eventually(t, "who is new answers", func() (bool, string) { return l.by(w.targets[2]) > 10, l.String() })
	l.end()
	if wrong, n := l.failures(); n > 0 {
		t.Errorf("%d failed: %v", n, wrong)
	}
	t.Log(l)
}
