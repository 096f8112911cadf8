package chaos

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// everythingHangs is everyDoor with all that may hang behind it: ${DEAF} is a service that takes everything and never says
// anything, ${NAMES} a name server of that kind.
const everythingHangs = `
listeners:
  public: {address: "${LISTEN}"}
  secure: {address: "${SECURE}", protocols: [h1, h2, h3], tls: {certificates: [{cert: "${DIR}/tls.crt", key: "${DIR}/tls.key"}]}}
  raw: {address: "${EXTRA}", tcp: {upstream: raw}}
upstreams:
  a: {targets: ["${A}"], mirror: {upstream: deaf}, pool: {preconnect: 4}}
  grpc: "${G}"
  raw: "${T}"
  deaf:
    targets: ["${DEAF}"]
    health: {path: /health, interval: 100ms, timeout: 5m}
    timeouts: {connect: 5m, response: 1h}
    pool: {preconnect: 4}
  shaken: {targets: ["https://${DEAFHOST}"], health: {tcp: true, interval: 100ms, timeout: 5m}, timeouts: {connect: 5m}}
  found: {discover: {consul: {address: "${DEAF}", service: shop}}}
  named: {discover: {dns: {name: shop.example, port: 80, servers: ["${NAMES}"]}}}
apis:
  all: {upstream: a}
  grpc: {base_path: /chaos.Chaos, upstream: grpc}
  deaf: {base_path: /deaf, upstream: deaf}
  shaken: {base_path: /shaken, upstream: shaken}
  found: {base_path: /found, upstream: found}
  named: {base_path: /named, upstream: named}
drain: {drain_timeout: 2s}
`

// Whatever hangs, before the gateway and behind it, it has ended soon after its drain_timeout, and with 0: streams that nobody
// ends, requests that wait for services which never answer or never shake hands, uploads that stop, handshakes that stand
// still, copies, probes, connections opened ahead, and discovery, under load through every door.
func TestAStopIsHeldUpByNothing(t *testing.T) {
	t.Parallel()
	const drain, margin = 2 * time.Second, 15 * time.Second
	s := startServicesBehind(t)
	_, deaf := startFault(t, func(c *faulty) { _, _ = io.Copy(io.Discard, c.in) })
	names, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { names.Close() })
	places := append(s.places, "${DEAF}", deaf, "${DEAFHOST}", strings.TrimPrefix(deaf, "http://"), "${NAMES}", names.LocalAddr().String())
	h := startHouse(t, everythingHangs, places...)
	h.stopped = true
	for _, l := range h.talking(t) {
		l.must(t, "hello")
	}
	for _, way := range waysIn {
		h.flow(t, way, 1, 5*time.Millisecond).goes(t, 20)
	}
	crowd(t, h.secure, h.hello(t)[:20], 10)
	crowd(t, h.listen, request("POST /upload", "Content-Length: 1000000")+"the beginning", 10)
	for _, path := range []string{"/held", "/deaf", "/shaken", "/found", "/named"} {
		crowd(t, h.listen, request("GET "+path), 5)
	}
	eventually(t, "requests wait", func() (bool, string) { return s.held.Load() == 5, fmt.Sprint(s.held.Load()) })
	reloaded := make(chan struct{})
	go func() { defer close(reloaded); _, _, _ = h.ask("POST", "/reload") }() // it may find the gateway draining
	h.signal(t, syscall.SIGTERM)
	began := time.Now()
	if code := h.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > drain+margin {
		t.Errorf("the drain of %v took %v", drain, took)
	} else {
		t.Logf("the drain of %v took %v", drain, took)
	}
	<-reloaded
}
