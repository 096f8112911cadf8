package upstream

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxProbeBody is how much of a probe's answer is read, so that its connection can be used again.
const maxProbeBody = 64 << 10

// probes asks every target at an interval whether it is well.
type probes struct {
	upstream *Upstream
	mu       sync.Mutex
	cancel   context.CancelFunc
	client   *http.Client
	running  sync.WaitGroup
}

func (p *probes) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.client = &http.Client{
		Timeout: p.upstream.config.Health.Timeout,
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: p.upstream.config.Timeouts.Connect}).DialContext,
			MaxIdleConnsPerHost: 1, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for _, t := range p.upstream.targets {
		p.running.Go(func() { p.watch(ctx, t) })
	}
}

func (p *probes) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
		p.running.Wait()
		p.client.CloseIdleConnections()
		p.cancel = nil
	}
}

func (p *probes) watch(ctx context.Context, t *target) {
	h := p.upstream.config.Health
	ticker := time.NewTicker(h.Interval)
	defer ticker.Stop()
	for bad, good := 0, 0; ; {
		err := p.probe(ctx, "http://"+t.address+h.Path, t.plan.Host)
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
			if good >= h.Healthy && t.down.Load() {
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

func (t *target) turn(down bool, why string) {
	t.why.Store(&why)
	t.down.Store(down)
	if down {
		t.upstream.env.Log.Warn("a target is unhealthy", "upstream", t.upstream.Name, "target", t.address, "error", why)
		return
	}
	t.upstream.env.Log.Info("a target is healthy again", "upstream", t.upstream.Name, "target", t.address)
}

// probe asks once, by the host name that requests are sent with unless that is the client's; 2xx and 3xx are well.
func (p *probes) probe(ctx context.Context, url, host string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Host = cmp.Or(host, r.Host)
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
		return fmt.Errorf("GET %s answered %d", url, answer.StatusCode)
	}
	return nil
}
