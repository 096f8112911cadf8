package upstream

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"headgate/config/model"
	"headgate/gateway/upstream/pool"
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
	how := newProbe(h, t.plan.Host, through)
	defer func() { how.close() }()
	for bad, good := 0, 0; ; {
		if now := t.pool.Load(); now != through {
			how.close()
			through, how = now, newProbe(h, t.plan.Host, now)
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

func newProbe(h *model.Health, host string, p *pool.Pool) probe {
	switch {
	case h.TCP:
		return tcpProbe{p}
	case h.GRPC != nil:
		return newGRPCProbe(h.GRPC.Service, h.Timeout, p)
	default:
		return newHTTPProbe(h.Path, host, p)
	}
}

// turn notes what the probes say; it is told before it holds.
func (t *target) turn(down bool, why string) {
	t.why.Store(&why)
	if down {
		t.upstream.env.Log.Warn("a target is unhealthy", "target", t.end.Address, "error", why)
	} else {
		t.upstream.env.Log.Info("a target is healthy again", "target", t.end.Address)
	}
	t.load.SetDown(t.upstream.env.Sweeper.Coarse(), down)
}

// tcpProbe is well when a connection opens, over TLS with its handshake.
type tcpProbe struct{ pool *pool.Pool }

func (p tcpProbe) ask(ctx context.Context) error {
	c, err := p.pool.Open(ctx, nil)
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

func newHTTPProbe(path, host string, p *pool.Pool) *httpProbe {
	scheme := "http://"
	end, version := p.Endpoint(), p.Version()
	if end.Secure {
		scheme = "https://"
	}
	var speaks http.Protocols
	speaks.SetHTTP1(version != pool.H2)
	speaks.SetHTTP2(version != pool.H1)
	speaks.SetUnencryptedHTTP2(version == pool.H2)
	transport := &http.Transport{DialContext: p.DialPlain, MaxIdleConnsPerHost: 1, DisableCompression: true, Protocols: &speaks}
	if config := p.TLS(); config != nil {
		transport.TLSClientConfig = config.Clone()
	}
	return &httpProbe{
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		transport: transport, url: scheme + end.Address + path, host: host,
	}
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
