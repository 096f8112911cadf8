package discover

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"headgate/config/model"
)

const (
	// apiPatience is how long a server may take to begin an answer, and for one that is no stream in all.
	apiPatience = 15 * time.Second
	// maxAnswer bounds an answer that is no stream: MaxTargets of them have less.
	maxAnswer = 32 << 20
	// maxRefusal bounds what is read of an answer that is an error, and maxReason what is told of it.
	maxRefusal, maxReason = 64 << 10, 300
	// maxCredential bounds a file with a token, a certificate or a key.
	maxCredential = 1 << 20
	// maxAliveProbes is how often a peer that is silent is asked whether it is there, every aliveEvery.
	aliveEvery, maxAliveProbes = 15 * time.Second, 3
)

// api is a server of JSON over HTTP: a Docker engine, or Kubernetes' API server. HTTP/1.1 it is, because a stream takes a
// connection of its own and everything else is seldom.
type api struct {
	who    string // in errors
	base   string // scheme and host
	client *http.Client
	token  func() (string, error) // asked for each request; nil: there is none
	hint   map[int]string         // what to do about a status
}

// dialer opens connections.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// trust is what files say of TLS. They are read for each connection, so that renewed ones are used, and one that is not
// there yet keeps nobody from starting.
type trust struct{ ca, name, cert, key string }

// trustIn returns what the document says; m may be nil.
func trustIn(m *model.DiscoverTLS) (t trust) {
	if m == nil {
		return t
	}
	t.ca, t.name = m.CA, m.ServerName
	if c := m.Certificate; c != nil {
		t.cert, t.key = c.Cert, c.Key
	}
	return t
}

// newAPI returns a client that dials by dial, which is told the address that stands in base.
func newAPI(who, base string, dial dialer, t trust) *api {
	if dial == nil {
		dial = (&net.Dialer{Timeout: apiPatience, KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: aliveEvery, Interval: aliveEvery, Count: maxAliveProbes,
		}}).DialContext
	}
	return &api{who: who, base: base, client: &http.Client{
		Transport: &http.Transport{
			DialContext:           dial,
			DialTLSContext:        t.over(dial),
			ResponseHeaderTimeout: apiPatience,
			MaxIdleConnsPerHost:   1,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is the server's alone
	}}
}

// over adds TLS to dial.
func (t trust) over(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		terms, err := t.terms(address)
		if err != nil {
			return nil, err
		}
		raw, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := tls.Client(raw, terms)
		ctx, cancel := context.WithTimeout(ctx, apiPatience)
		defer cancel()
		if err := c.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		return c, nil
	}
}

func (t trust) terms(address string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	terms := &tls.Config{ServerName: cmp.Or(t.name, host), MinVersion: tls.VersionTLS12}
	if t.ca != "" {
		text, err := readCredential(t.ca)
		if err != nil {
			return nil, err
		}
		terms.RootCAs = x509.NewCertPool()
		if !terms.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate; name a PEM file of the authorities", t.ca)
		}
	}
	if t.cert != "" {
		chain, err := readCredential(t.cert)
		key, keyErr := readCredential(t.key)
		if err := errors.Join(err, keyErr); err != nil {
			return nil, err
		}
		own, err := tls.X509KeyPair(chain, key)
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", t.cert, t.key, err)
		}
		terms.Certificates = []tls.Certificate{own}
	}
	return terms, nil
}

func readCredential(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxCredential+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(content) > maxCredential {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxCredential)
	}
	return content, nil
}

// refusal is an answer that is an error.
type refusal struct {
	who, message, hint string
	status             int
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("%s answers %d", r.who, r.status)
	if r.message != "" {
		text += ": " + r.message
	}
	if r.hint != "" {
		text += " (" + r.hint + ")"
	}
	return text
}

// get asks once, and once more if the token was refused and there is another one by now. The answer's status is 200.
func (a *api) get(ctx context.Context, path string, q url.Values) (*http.Response, error) {
	token, err := a.credential()
	if err != nil {
		return nil, err
	}
	reply, err := a.send(ctx, path, q, token)
	var no *refusal
	if a.token == nil || !errors.As(err, &no) || no.status != http.StatusUnauthorized {
		return reply, err
	}
	next, readErr := a.credential()
	if readErr != nil || next == token {
		return nil, err
	}
	return a.send(ctx, path, q, next)
}

func (a *api) credential() (string, error) {
	if a.token == nil {
		return "", nil
	}
	return a.token()
}

func (a *api) send(ctx context.Context, path string, q url.Values, token string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path+"?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "headgate")
	r.Header.Set("Accept", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	reply, err := a.client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) { // the URL, which it tells, is long and says nothing new
			err = u.Err
		}
		return nil, fmt.Errorf("%s: %w", a.who, err)
	}
	if reply.StatusCode == http.StatusOK {
		return reply, nil
	}
	defer reply.Body.Close()
	var said struct{ Message string }
	if json.NewDecoder(io.LimitReader(reply.Body, maxRefusal)).Decode(&said) != nil {
		said.Message = "" // then the status says it alone
	}
	return nil, &refusal{a.who, cut(said.Message), a.hint[reply.StatusCode], reply.StatusCode}
}

// cut makes one short line of what somebody else has written.
func cut(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "..."
	}
	return s
}

// read asks and reads the answer as a whole.
func (a *api) read(ctx context.Context, path string, q url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, apiPatience)
	defer cancel()
	reply, err := a.get(ctx, path, q)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	body := &io.LimitedReader{R: reply.Body, N: maxAnswer}
	err = json.NewDecoder(body).Decode(into)
	switch {
	case err != nil && body.N <= 0:
		return fmt.Errorf("the answer of %s has more than %d bytes", a.who, maxAnswer)
	case err != nil:
		return fmt.Errorf("the answer of %s is not what was asked for: %w", a.who, err)
	}
	return nil
}
