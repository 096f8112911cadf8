package policytest

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// Request returns an exchange for a request line ("GET /orders?page=2") and header lines ("X-Api-Key: k1"), from
// 192.0.2.1 over HTTPS to shop.example.com.
func Request(line string, header ...string) *exchange.Exchange {
	method, target, _ := strings.Cut(line, " ")
	path, query, hasQuery := strings.Cut(target, "?")
	x := &exchange.Exchange{
		ID: "01931f4e-0000-7000-8000-000000000001", Start: Start,
		Client: exchange.Client{
			Peer: netip.MustParseAddrPort("192.0.2.1:40000"), IP: netip.MustParseAddr("192.0.2.1"), Secure: true,
		},
		Request: exchange.Request{
			Method: method, Path: path, Query: query, HasQuery: hasQuery, Host: "shop.example.com", Scheme: "https", Proto: "HTTP/1.1",
		},
		Route:  &exchange.Route{API: "shop", Version: "v1", Name: "orders", Upstream: "orders"},
		Cancel: new(exchange.Canceler),
	}
	Fill(&x.Request.Header, header...)
	return x
}

// WithCertificate makes the request one over TLS, of a client with that verified certificate; nil: it showed none.
func WithCertificate(x *exchange.Exchange, c *exchange.Certificate) *exchange.Exchange {
	x.Client.Secure, x.Request.Scheme = true, "https"
	x.Client.TLS = &exchange.TLS{Version: "TLS 1.3", ALPN: "http/1.1", Certificate: c}
	return x
}

// WithBody gives a request its body.
func WithBody(x *exchange.Exchange, contentType, body string) *exchange.Exchange {
	x.Request.Header.Set("Content-Type", contentType)
	x.Request.Header.Set("Content-Length", fmt.Sprint(len(body)))
	x.Request.Body = exchange.Text(body)
	return x
}

// Upstream fills the reply of an exchange, given the body that it was sent.
type Upstream func(x *exchange.Exchange, body []byte)

// Reply is an upstream that always answers the same.
func Reply(status int, contentType, body string, header ...string) Upstream {
	return func(x *exchange.Exchange, _ []byte) {
		x.Answer(status, contentType, body)
		x.Reply.Source = exchange.FromUpstream
		if body != "" {
			x.Reply.Header.Add("Content-Length", fmt.Sprint(len(body)))
		}
		Fill(&x.Reply.Header, header...)
	}
}

// Outcome is what became of an exchange.
type Outcome struct {
	Asked    bool   // the upstream was asked
	Sent     string // the body that it got
	Status   int
	Code     string // of the gateway's own problem
	Header   *exchange.Header
	Body     string // what the client got
	BodyErr  error  // why the client's body broke off
	Exchange *exchange.Exchange
}

// Run carries one exchange through the policy as the engine does: request, upstream unless a policy answers, response,
// bodies, done.
func (p *Policy) Run(x *exchange.Exchange, upstream Upstream) Outcome {
	x.MakeSlots(p.slots)
	if x.Start.Equal(Start) {
		x.Start = p.world.Clock.Now()
	}
	defer p.Chain.Done(x)
	return carry(p.Chain, x, upstream)
}

func carry(chain *policy.Chain, x *exchange.Exchange, upstream Upstream) Outcome {
	out := Outcome{Exchange: x, Header: &x.Reply.Header}
	if err := buffer(chain, x); err != nil {
		x.Problem(exchange.BodyTooLarge, "")
		x.Err = &exchange.Error{Code: exchange.BodyTooLarge, Source: exchange.FromClient}
	} else if chain.Request(x) {
		out.Asked = true
		sent, err := drain(chain.RequestBody(x, x.Request.Body.Reader))
		out.Sent = string(sent)
		if err == nil {
			upstream(x, sent)
		} else {
			x.Problem(exchange.BadRequest, "")
			x.Err = &exchange.Error{Code: exchange.BadRequest, Source: exchange.FromClient, Cause: err}
		}
	}
	chain.Response(x)
	body, err := drain(chain.ResponseBody(x, x.Reply.Body.Reader))
	out.Status, out.Body, out.BodyErr = x.Reply.Status, string(body), err
	if x.Err != nil {
		out.Code = x.Err.Code.Name
	}
	return out
}

// buffer reads the request's body into memory where the chain asks for it.
func buffer(chain *policy.Chain, x *exchange.Exchange) error {
	limit := int64(chain.BufferLimit())
	if limit == 0 || x.Request.Body.None() {
		return nil
	}
	held, err := io.ReadAll(io.LimitReader(x.Request.Body.Reader, limit+1))
	if err == nil && int64(len(held)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	x.Request.Body = exchange.Body{Reader: bytes.NewReader(held), Length: int64(len(held))}
	return err
}

func drain(r io.Reader) ([]byte, error) {
	if r == nil {
		return nil, nil
	}
	return io.ReadAll(r)
}
