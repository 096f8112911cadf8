package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"headgate/bench/peers"
	"headgate/bench/proc"
)

// Kinds of upstream besides the one for HTTP/1.1.
const (
	grpcOrigin = "grpc"
	echoOrigin = "echo"
)

// doorTasks are the cases of encryption, HTTP/2, gRPC and WebSocket.
func doorTasks() []task {
	h2load := func(id, title string, streams int, arguments ...string) task {
		return task{id: id, title: title, connections: 64, encrypted: true, requests: plainRequests,
			drive: func(b *bench, t task, g *peers.Gateway) (sample, error) { return b.h2load(t, g, streams, arguments) }}
	}
	grpc := h2load("G1", "gRPC unary, 64 connections x 10 streams, in clear", 10, "-H", "content-type: application/grpc", "-H", "te: trailers")
	grpc.encrypted, grpc.origin, grpc.shape = false, grpcOrigin, func(s *peers.Settings) error { s.GRPC = true; return nil }
	switched := func(s *peers.Settings) error { s.WebSocket = true; return nil }
	return []task{
		h2load("S3/h1", "TLS 1.3, HTTP/1.1, 64 connections", 1, "--h1"),
		h2load("S3/h2", "TLS 1.3, HTTP/2, 64 connections x 10 streams", 10),
		{id: "S3/full", title: "full TLS 1.3 handshakes, P-256, one request each", encrypted: true, requests: plainRequests,
			drive: func(b *bench, t task, g *peers.Gateway) (sample, error) { return b.handshakes(g, false) }},
		{id: "S3/resumed", title: "resumed TLS 1.3 handshakes, one request each", encrypted: true, requests: plainRequests,
			drive: func(b *bench, t task, g *peers.Gateway) (sample, error) { return b.handshakes(g, true) }},
		grpc,
		{id: "W1", title: "WebSocket echo of 100 bytes, 64 connections", connections: 64, origin: echoOrigin, shape: switched,
			requests: plainRequests, drive: (*bench).echo},
		{id: "M1/tls", title: "memory of idle connections: TLS, HTTP/1.1", encrypted: true, requests: plainRequests,
			special: idleCase(idleTLS, 1), columns: idleColumns[:]},
		{id: "M1/h2", title: "memory of idle connections: TLS, HTTP/2", encrypted: true, requests: plainRequests,
			special: idleCase(idleH2, 1), columns: idleColumns[:]},
		{id: "M1/websocket", title: "memory of idle connections: WebSocket", origin: echoOrigin, shape: switched, requests: plainRequests,
			special: idleCase(idleWebSocket, 2), columns: idleColumns[:]},
	}
}

// certificate returns the files of a certificate for this run: ECDSA P-256, as S3 says.
func (b *bench) certificate() (*peers.TLS, error) {
	if b.tls != nil {
		return b.tls, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"shop.example.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	in := func(name string) string { return filepath.Join(b.work, name) }
	files := &peers.TLS{Cert: in("cert.pem"), Key: in("key.pem"), Both: in("both.pem")}
	err = errors.Join(os.WriteFile(files.Cert, cert, 0o600), os.WriteFile(files.Key, private, 0o600),
		os.WriteFile(files.Both, append(cert, private...), 0o600))
	if err == nil {
		b.tls = files
	}
	return files, err
}

// h2load measures with the load generator of nghttp2, which shares the core of the upstream. A short run tells how many
// requests the measured one needs.
func (b *bench) h2load(t task, g *peers.Gateway, streams int, arguments []string) (sample, error) {
	if _, err := exec.LookPath("h2load"); err != nil {
		return nil, fmt.Errorf("%w: %w (apt-get install nghttp2-client)", errCannot, err)
	}
	fixed := []string{"-c", strconv.Itoa(t.connections), "-m", strconv.Itoa(streams), "--tls13-ciphers=TLS_AES_128_GCM_SHA256"}
	fixed = append(fixed, arguments...)
	for line := range strings.SplitSeq(string(request("GET", "/", "")), "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok && !strings.EqualFold(name, "host") {
			fixed = append(fixed, "-H", strings.ToLower(name)+": "+value)
		}
	}
	fixed = append(fixed, "-H", ":authority: shop.example.com")
	if g.Settings.GRPC {
		message := filepath.Join(g.Settings.Dir, "message")
		if err := os.WriteFile(message, append([]byte{0, 0, 0, 0, 100}, make([]byte, 100)...), 0o600); err != nil {
			return nil, err
		}
		fixed = append(fixed, "-d", message)
	}
	run := func(n int) (h2loadRun, error) {
		scheme := "http"
		if g.Settings.TLS != nil {
			scheme = "https"
		}
		arguments := append(append([]string(nil), fixed...), "-n", strconv.Itoa(n), scheme+"://"+g.Settings.Listen+"/api/orders/42?expand=items")
		out, err := exec.CommandContext(b.ctx, "h2load", arguments...).CombinedOutput()
		if err != nil {
			return h2loadRun{}, fmt.Errorf("h2load: %w\n%s", err, out)
		}
		want := "h2"
		if slices.Contains(arguments, "--h1") {
			want = "http/1.1"
		}
		if g.Settings.TLS != nil && !strings.Contains(string(out), "Application protocol: "+want) {
			return h2loadRun{}, fmt.Errorf("the gateway did not agree on %s:\n%s", want, out)
		}
		return parseH2load(string(out), n)
	}
	const first = 6400
	warm, err := run(first)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, g.Output())
	}
	n := max(int(warm.perSecond*b.duration.Seconds()), first)
	return b.account(g, func() (float64, sample, error) {
		r, err := run(n)
		return float64(n), sample{perSecond: r.perSecond, meanMicros: r.mean}, err
	})
}

// account runs a load between two looks at the gateway's accounts. It returns how much work was done.
func (b *bench) account(g *peers.Gateway, run func() (float64, sample, error)) (sample, error) {
	pids, err := g.Processes()
	if err != nil {
		return nil, err
	}
	mallocs := mallocsOf(g)
	asking := mallocsOf(g) - mallocs
	before, err := proc.Used(pids)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	n, s, err := run()
	if err != nil {
		return s, fmt.Errorf("%w\n%s", err, g.Output())
	}
	took := time.Since(start)
	after, err := proc.Used(pids)
	if err != nil {
		return nil, err
	}
	mallocs = mallocsOf(g) - mallocs - 2*asking
	rss, err := proc.RSS(pids)
	if err != nil {
		return nil, err
	}
	used := after.Since(before)
	user, system := used.Split()
	s[cpuMicros], s[userMicros], s[systemMicros] = micros(used.Run)/n, micros(user)/n, micros(system)/n
	s[allocations], s[rssMiB], s[failures] = mallocs/n, float64(rss)/(1<<20), 0
	s[busyPercent] = 100 * used.Run.Seconds() / took.Seconds()
	return s, nil
}

// h2loadRun is what h2load says about a run.
type h2loadRun struct{ perSecond, mean float64 }

var (
	h2loadRate   = regexp.MustCompile(`finished in [^,]+, ([0-9.]+) req/s`)
	h2loadDone   = regexp.MustCompile(`requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed`)
	h2loadStatus = regexp.MustCompile(`status codes: (\d+) 2xx`)
	h2loadTime   = regexp.MustCompile(`(?m)^time for request:\s+\S+\s+\S+\s+([0-9.]+)(us|ms|s)`)
)

// parseH2load reads the report of a run of n requests, all of which must have been answered with 2xx.
func parseH2load(out string, n int) (r h2loadRun, err error) {
	rate, done, status, took := h2loadRate.FindStringSubmatch(out), h2loadDone.FindStringSubmatch(out),
		h2loadStatus.FindStringSubmatch(out), h2loadTime.FindStringSubmatch(out)
	if rate == nil || done == nil || status == nil || took == nil {
		return r, fmt.Errorf("h2load says something else than expected:\n%s", out)
	}
	if all := strconv.Itoa(n); done[3] != all || status[1] != all {
		return r, fmt.Errorf("of %d requests %s succeeded, and %s were answered with 2xx", n, done[3], status[1])
	}
	if r.perSecond, err = strconv.ParseFloat(rate[1], 64); err != nil {
		return r, err
	}
	r.mean, err = strconv.ParseFloat(took[1], 64)
	r.mean *= map[string]float64{"us": 1, "ms": 1e3, "s": 1e6}[took[2]]
	return r, err
}
