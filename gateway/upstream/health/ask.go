package health

import (
	"cmp"
	"context"
	"net/http"

	"headgate/gateway/upstream/pool"
)

// maxKept is how many targets a group may have whose probes keep their connections: kept ones take memory, and are two
// goroutines each.
const maxKept = 512

// newAsker returns how a target is asked through a pool; host is that of requests, "": the address.
func (g *Group) newAsker(to *pool.Pool, host string) asker {
	switch h := g.probe; {
	case h.TCP:
		return tcp{to}
	case h.GRPC != nil:
		return newGRPC(h.GRPC.Service, h.Timeout, to)
	default:
		return newWeb(h.Path, host, g.expect, to, len(*g.members.Load()) <= maxKept)
	}
}

// tcp is well when a connection opens, over TLS with its handshake.
type tcp struct{ to *pool.Pool }

func (t tcp) ask(ctx context.Context) error {
	c, err := t.to.Open(ctx, nil)
	if err != nil {
		return err
	}
	return c.Close()
}

func (t tcp) close() {}

// web asks by GET, in the version of HTTP that requests are sent in.
type web struct {
	client    *http.Client
	transport *http.Transport
	expect    *expectation
	url, host string
}

func newWeb(path, host string, expect *expectation, to *pool.Pool, keep bool) *web {
	var speaks http.Protocols
	speaks.SetHTTP1(to.Version() != pool.H2)
	speaks.SetHTTP2(to.Version() != pool.H1)
	speaks.SetUnencryptedHTTP2(to.Version() == pool.H2)
	transport := &http.Transport{
		DialContext: to.DialPlain, MaxIdleConnsPerHost: 1, DisableCompression: true, Protocols: &speaks, DisableKeepAlives: !keep,
	}
	scheme := "http://"
	if config := to.TLS(); config != nil {
		scheme, transport.TLSClientConfig = "https://", config.Clone()
	}
	return &web{
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		transport: transport, expect: expect, url: scheme + to.Endpoint().Address + path, host: host,
	}
}

func (w *web) close() { w.transport.CloseIdleConnections() }

// ask asks once, by the host name that requests are sent with unless that is the client's.
func (w *web) ask(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, nil)
	if err != nil {
		return err
	}
	r.Host = cmp.Or(w.host, r.Host)
	r.Header.Set("User-Agent", "headgate-probe")
	answer, err := w.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return w.expect.meets(answer, w.url)
}
