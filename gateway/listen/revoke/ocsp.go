package revoke

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"

	"headgate/gateway/listen/secure"
)

const (
	// queryTimeout bounds one question: a handshake waits for it.
	queryTimeout = 3 * time.Second
	// maxAnswer bounds what is read of a responder, which may send anything over http.
	maxAnswer = 64 << 10
	// skew is by how much a responder's clock may be ahead.
	skew = 5 * time.Minute
)

// ask asks the responder of a certificate, or what it said before.
func (c *Checker) ask(cert, issuer *x509.Certificate) error {
	hard := c.ocsp == "hard"
	where := responder(cert)
	if where == "" {
		c.asked.missing.Inc(0)
		if hard {
			return errors.New("the certificate names no OCSP responder, and ocsp is hard")
		}
		return nil
	}
	a := c.keeper.answers.get(cert, issuer, where, c.refresh)
	switch {
	case a.err != nil:
		c.asked.failed.Inc(0)
		if hard {
			return fmt.Errorf("whether the certificate was revoked is not known, and ocsp is hard: %w", a.err)
		}
	case a.status == ocsp.Revoked:
		c.asked.revoked.Inc(0)
		return fmt.Errorf("%w: %s says so of serial number %x", secure.ErrRevoked, where, cert.SerialNumber)
	case a.status == ocsp.Good:
		c.asked.good.Inc(0)
	default:
		c.asked.unknown.Inc(0)
		if hard {
			return fmt.Errorf("%s does not know the certificate, and ocsp is hard", where)
		}
	}
	return nil
}

// responder returns the first address over HTTP that the certificate names (RFC 5280 section 4.2.2.1).
func responder(cert *x509.Certificate) string {
	i := slices.IndexFunc(cert.OCSPServer, func(s string) bool {
		u, err := url.Parse(s)
		return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
	})
	if i < 0 {
		return ""
	}
	return cert.OCSPServer[i]
}

// query asks once (RFC 6960 appendix A.1) and returns what may be believed at that time.
func query(ctx context.Context, client *http.Client, where string, cert, issuer *x509.Certificate, now func() time.Time,
) (*ocsp.Response, error) {
	question, err := ocsp.CreateRequest(cert, issuer, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, where, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/ocsp-request")
	r.Header.Set("Accept", "application/ocsp-response")
	reply, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers with status %d", where, reply.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("%s answers with more than %d bytes", where, maxAnswer)
	}
	answer, err := ocsp.ParseResponseForCert(body, cert, issuer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return answer, believe(answer, issuer, now())
}

// believe checks what ParseResponseForCert leaves to its caller: that the one who signed may (RFC 6960 section 4.2.2.2),
// or any certificate of the authority, a revoked one as well, could call itself good; and that the answer is of today.
func believe(a *ocsp.Response, issuer *x509.Certificate, now time.Time) error {
	if c := a.Certificate; c != nil && !c.Equal(issuer) {
		if !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
			return fmt.Errorf("the answer is signed by %s, who may not sign answers", c.Subject)
		}
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return fmt.Errorf("the answer is signed by %s, whose certificate is not valid now", c.Subject)
		}
	}
	switch {
	case a.ThisUpdate.After(now.Add(skew)):
		return fmt.Errorf("the answer is of %s, which is yet to come", a.ThisUpdate.Format(time.RFC3339))
	case !a.NextUpdate.IsZero() && !now.Before(a.NextUpdate):
		return fmt.Errorf("the answer was good until %s", a.NextUpdate.Format(time.RFC3339))
	}
	return nil
}
