package chaos

import (
	"crypto/tls"
	"fmt"
	"io"
	"testing"
	"time"
)

// settled is the n-th way in which the doors of everyDoor may be set. None of it is a reason to end a connection.
func settled(n int) string {
	add := func(when bool, text string) string {
		if when {
			return text
		}
		return ""
	}
	return doorsWith(
		"${PUBLIC}", fmt.Sprintf(`, limits: {header_fields: %d, idle_timeout: %ds}`, 90+n, 60+n)+add(n%2 == 1, `, protocols: [h1, h2]`),
		"${SECURE_SETTINGS}", fmt.Sprintf(`limits: {connections_per_client: %d, body_timeout: %ds}`, 1000+n, 20+n),
		"${TLS}", add(n%3 == 1, `, strict_sni: true`)+add(n%4 == 2, `, client_auth: {mode: request, ca: ["${DIR}/ca.crt"]}`)+
			add(n%5 == 3, `, hsts: {max_age: 1h}`)+add(n%2 == 0, `, handshakes: 64`),
		"${RAW}", fmt.Sprintf(`, idle_timeout: %dm`, 5+n),
	)
}

// Through every door, requests and whatever stays open outlive reloads that change the doors' own settings, the certificate
// and who is asked for one: nothing is lost, no connection is closed, and each of them is the one that was there before.
func TestReloadsLoseNothingThroughAnyDoor(t *testing.T) {
	t.Parallel()
	s := startServicesBehind(t)
	h := startHouse(t, settled(0), s.places...)
	before := h.idles(t)
	var flows []*flow
	for _, way := range waysIn {
		flows = append(flows, h.flow(t, way, 2, 3*time.Millisecond))
	}
	open := h.lastings(t)
	steps := 12
	if raceEnabled {
		steps = 6
	}
	for n := 1; n <= steps; n++ {
		if n%2 == 0 {
			h.renew(t, int64(10+n))
		}
		h.reload(t, settled(n))
		for _, l := range open {
			l.must(t, fmt.Sprintf("after reload %d", n))
		}
		for _, f := range flows {
			f.goes(t, 5)
		}
	}
	for _, l := range open {
		if err := l.end(); err != nil {
			t.Errorf("%s: %v", l.name, err)
		}
	}
	for _, f := range flows {
		f.flawless(t, 2)
	}
	h.rests(t, before)
}

// serial returns the number of the certificate that a new client is shown, and whether its session was resumed.
func (h *house) serial(t *testing.T, conf *tls.Config) (serial int64, resumed bool) {
	t.Helper()
	c := tls.Client(dial(t, h.secure), conf)
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	s := c.ConnectionState()
	if _, err := io.WriteString(c, request("GET /", "Connection: close")); err != nil { // with the answer come the tickets
		t.Fatal(err)
	}
	if r, err := newClientOn(c).reply("GET"); err != nil || r.status != 200 {
		t.Fatalf("%+v %v", r, err)
	}
	return s.PeerCertificates[0].SerialNumber.Int64(), s.DidResume
}

// A session that began under one document is resumed under the next ones, in both versions of TLS, while the certificate
// changes; a client without a session is shown the new one at once. Who is asked for a certificate begins anew.
func TestSessionsAreResumedAcrossReloadsAndNewCertificates(t *testing.T) {
	t.Parallel()
	s := startServicesBehind(t)
	h := startHouse(t, doorsWith(), s.places...)
	var confs []*tls.Config
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := h.trust("http/1.1")
		c.MinVersion, c.MaxVersion, c.ClientSessionCache = version, version, tls.NewLRUClientSessionCache(1)
		confs = append(confs, c)
		if _, resumed := h.serial(t, c); resumed {
			t.Fatal("resumed from nothing")
		}
	}
	for n := int64(10); n < 14; n++ {
		h.renew(t, n)
		h.reload(t, doorsWith("${PUBLIC}", fmt.Sprintf(`, limits: {header_fields: %d}`, n)))
		eventually(t, "the new certificate is shown", func() (bool, string) {
			got, _ := h.serial(t, h.trust("http/1.1"))
			return got == n, fmt.Sprint(got)
		})
		for _, c := range confs {
			if _, resumed := h.serial(t, c); !resumed {
				t.Errorf("reload %d: TLS %x is not resumed", n, c.MaxVersion)
			}
		}
	}
	h.reload(t, doorsWith("${TLS}", `, client_auth: {mode: request, ca: ["${DIR}/ca.crt"]}`))
	for _, c := range confs {
		if _, resumed := h.serial(t, c); resumed {
			t.Errorf("TLS %x is resumed by those who would have asked for a certificate", c.MaxVersion)
		}
	}
}

// The protocols that a door speaks may change under load: who is connected goes on as before, and who comes is offered what
// the document says now. The same goes for a door that begins to require certificates.
func TestProtocolsOfADoorMayChangeWhileItIsUsed(t *testing.T) {
	t.Parallel()
	s := startServicesBehind(t)
	h := newHouse(t, s.places...)
	const door = `
listeners:
  secure: {address: "${SECURE}", protocols: [%s], tls: {certificates: [{cert: "${DIR}/tls.crt", key: "${DIR}/tls.key"}]%s}}
upstreams: {a: "${A}"}
apis: {all: {upstream: a}}
`
	h.start(t, fmt.Sprintf(door, "h1, h2", ""))
	old := []*flow{h.flow(t, "h1s", 2, 2*time.Millisecond), h.flow(t, "h2", 2, 2*time.Millisecond)}
	for _, f := range old {
		f.goes(t, 10)
	}
	for _, want := range []struct{ speaks, offered string }{{"h1", "http/1.1"}, {"h1, h2", "h2"}, {"h2", "h2"}, {"h1, h2, h3", "h2"}} {
		h.reload(t, fmt.Sprintf(door, want.speaks, ""))
		c := h.dialTLS(t, "h2", "http/1.1")
		if got := c.ConnectionState().NegotiatedProtocol; got != want.offered {
			t.Errorf("with [%s] a client is offered %q", want.speaks, got)
		}
		c.Close()
		for _, f := range old {
			f.goes(t, 5)
		}
	}
	quic := h.flow(t, "h3", 1, time.Millisecond)
	quic.goes(t, 5)
	quic.flawless(t, 1)
	h.reload(t, fmt.Sprintf(door, "h1, h2", `, client_auth: {ca: ["${DIR}/ca.crt"]}`))
	c := tls.Client(dial(t, h.secure), h.trust("http/1.1"))
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err := io.WriteString(c, request("GET /")) // in TLS 1.3 the refusal comes behind the handshake
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if err == nil {
		t.Error("who has no certificate is let in")
	}
	for _, f := range old {
		f.goes(t, 5)
		f.flawless(t, 2)
	}
}

// A certificate that is bad when it is swapped in changes nothing for anybody; the good one that follows is used.
func TestABadCertificateFileUnderLoadLeavesTheOldOne(t *testing.T) {
	t.Parallel()
	s := startServicesBehind(t)
	h := startHouse(t, doorsWith(), s.places...)
	f := h.flow(t, "h1s", 2, 2*time.Millisecond)
	for i, bad := range []string{"", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		swapped(t, h.file("tls.crt"), bad)
		eventually(t, "the failure is counted", func() (bool, string) {
			n := h.metric(t, `headgate_certificate_changes_total{result="refused"}`)
			return n > float64(i), fmt.Sprint(n)
		})
		if got, _ := h.serial(t, h.trust("http/1.1")); got != 2 {
			t.Errorf("certificate %d is shown", got)
		}
		f.goes(t, 5)
	}
	h.renew(t, 77)
	eventually(t, "the good one is shown", func() (bool, string) {
		got, _ := h.serial(t, h.trust("http/1.1"))
		return got == 77, fmt.Sprint(got)
	})
	f.flawless(t, 2)
}
