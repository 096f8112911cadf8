package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"headgate/config/model"
)

// maxProbeBody is how much of a probe's answer is read, so that its connection can be used again.
const maxProbeBody = 64 << 10

// probe asks one target in one way, over connections of its own. A new one is made when the target's identity changes.
type probe interface {
	ask(ctx context.Context) error
	close()
}

// watch begins to ask every target at an interval whether it is well.
func (u *Upstream) watch() {
	u.changing.Lock()
	defer u.changing.Unlock()
	if u.config.Health == nil || u.watching {
		return
	}
	u.watching = true
	for _, t := range u.set.Load().targets {
		t.watch()
	}
}

// watch begins to ask the target.
func (t *target) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t.probe(ctx)
	}()
	t.unwatch = func() { cancel(); <-ended }
}

func (t *target) probe(ctx context.Context) {
	h := t.upstream.config.Health
	ticker := time.NewTicker(h.Interval)
	defer ticker.Stop()
	through := t.pool.Load()
	how := newProbe(h, through)
	defer func() { how.close() }()
	for bad, good := 0, 0; ; {
		if now := t.pool.Load(); now != through {
			how.close()
			through, how = now, newProbe(h, now)
		}
		err := once(ctx, how, h.Timeout)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			bad, good = bad+1, 0
			if bad == h.Unhealthy {
				t.turn(true, err.Error())
			}
		default:
			bad, good = 0, good+1
			if good >= h.Healthy && t.load.Down() {
				t.turn(false, "")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func once(ctx context.Context, p probe, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.ask(ctx)
}

func newProbe(h *model.Health, p *pool) probe {
	switch {
	case h.TCP:
		return tcpProbe{p}
	case h.GRPC != nil:
		return newGRPCProbe(h.GRPC.Service, h.Timeout, p)
	default:
		return newHTTPProbe(h.Path, p)
	}
}

// turn notes what the probes say; it is told before it holds.
func (t *target) turn(down bool, why string) {
	t.why.Store(&why)
	if down {
		t.upstream.env.Log.Warn("a target is unhealthy", "target", t.end.address, "error", why)
	} else {
		t.upstream.env.Log.Info("a target is healthy again", "target", t.end.address)
	}
	t.load.SetDown(t.upstream.env.Sweeper.Coarse(), down)
}

// tcpProbe is well when a connection opens, over TLS with its handshake.
type tcpProbe struct{ pool *pool }

func (p tcpProbe) ask(ctx context.Context) error {
	c, err := p.pool.open(ctx, nil, p.pool.tls)
	if err != nil {
		return err
	}
	return c.Close()
}

func (p tcpProbe) close() {}

// httpProbe asks by GET, in the version of HTTP that requests are sent in.
type httpProbe struct {
	client    *http.Client
	transport *http.Transport
	url, host string
}

func newHTTPProbe(path string, p *pool) *httpProbe {
	t := p.target
	scheme := "http://"
	if t.end.secure {
		scheme = "https://"
	}
	var speaks http.Protocols
	speaks.SetHTTP1(t.version != versionH2)
	speaks.SetHTTP2(t.version != versionH1)
	speaks.SetUnencryptedHTTP2(t.version == versionH2)
	transport := &http.Transport{DialContext: p.dialProbe, MaxIdleConnsPerHost: 1, DisableCompression: true, Protocols: &speaks}
	if p.tls != nil {
		transport.TLSClientConfig = p.tls.Clone()
	}
	return &httpProbe{
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		transport: transport, url: scheme + t.end.address + path, host: t.plan.Host,
	}
}

// dialProbe opens a connection of our own, which is no client's.
func (p *pool) dialProbe(ctx context.Context, network, address string) (net.Conn, error) {
	u := p.target.upstream
	c, err := (&net.Dialer{Timeout: u.config.Timeouts.Connect}).DialContext(ctx, network, address)
	if err != nil || !u.proxied() {
		return c, err
	}
	if _, err := c.Write(u.appendProxyHeader(nil, nil, nil)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (p *httpProbe) close() { p.transport.CloseIdleConnections() }

// ask asks once, by the host name that requests are sent with unless that is the client's; 2xx and 3xx are well.
func (p *httpProbe) ask(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return err
	}
	r.Host = cmp.Or(p.host, r.Host)
	r.Header.Set("User-Agent", "headgate-probe")
	answer, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.CopyN(io.Discard, answer.Body, maxProbeBody); err != nil && err != io.EOF {
		return err
	}
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return fmt.Errorf("GET %s answered %d", p.url, answer.StatusCode)
	}
	return nil
}
