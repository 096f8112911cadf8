package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"

	rfc8555 "github.com/mholt/acmez/v3/acme"
)

// advice says what an operator can do about a failed attempt.
func advice(err error, name string) string {
	var p rfc8555.Problem
	var unknown x509.UnknownAuthorityError
	var network net.Error
	switch {
	case errors.As(err, &p):
		return adviceOnProblem(&p, name)
	case errors.As(err, &unknown):
		return "the directory's own certificate is not trusted here; write its root's PEM file in roots"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return "give the gateway a storage that it can read and write"
	case errors.Is(err, context.DeadlineExceeded):
		return "the authority took too long; see whether it has trouble"
	case errors.As(err, &network):
		return "see whether the directory can be reached from this machine"
	}
	return "log level debug shows every step"
}

func adviceOnProblem(p *rfc8555.Problem, name string) string {
	switch p.Type {
	case rfc8555.ProblemTypeDNS:
		return fmt.Sprintf("let the DNS records of %s lead to this gateway", name)
	case rfc8555.ProblemTypeConnection, rfc8555.ProblemTypeUnauthorized, rfc8555.ProblemTypeIncorrectResponse, rfc8555.ProblemTypeTLS:
		return fmt.Sprintf("the authority must reach a listener of this gateway at %s: one in clear on port 80 for http-01, this one on port "+
			"443 for tls-alpn-01", name)
	case rfc8555.ProblemTypeRateLimited:
		return "the authority has had too many requests; wait, and use its directory for tests while trying things out"
	case rfc8555.ProblemTypeCAA:
		return fmt.Sprintf("a CAA record of %s does not allow this authority; change it, or the directory", name)
	case rfc8555.ProblemTypeRejectedIdentifier, rfc8555.ProblemTypeUnsupportedIdentifier:
		return fmt.Sprintf("the authority does not issue for %s; use another, or certificates from files", name)
	case rfc8555.ProblemTypeInvalidContact, rfc8555.ProblemTypeUnsupportedContact:
		return "write another email"
	case rfc8555.ProblemTypeExternalAccountRequired:
		return "the authority wants an account of its own (external account binding), which is not offered here; use another directory"
	case rfc8555.ProblemTypeUserActionRequired:
		return "the authority has new terms; visit the address in the error"
	}
	return "log level debug shows every step"
}
