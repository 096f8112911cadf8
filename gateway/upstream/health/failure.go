package health

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"headgate/gateway/exchange"
)

// Failure is what was wrong with a request, as far as its target is to blame.
type Failure uint8

// The failures. The first ones are of connections that did not open.
const (
	Refused Failure = iota
	ConnectTimeout
	NoConnection
	Handshake
	Untrusted
	Unresolved
	Closed
	Late
	Broken
	Status502
	Status503
	Status504
	failures // how many there are
)

// words say how requests failed, behind "failed with".
var words = [failures]string{
	"connection refused", "connect timeout", "no connection", "a failed TLS handshake", "a certificate that is not believed",
	"a name that is not resolved",
	"no answer", "an answer too late", "a broken answer", "status 502", "status 503", "status 504",
}

// String says how a request failed.
func (f Failure) String() string { return words[f] }

// connecting reports whether no connection was made.
func (f Failure) connecting() bool { return f <= Unresolved }

// shaken is an error of a handshake with a target, whatever broke it.
type shaken interface{ HandshakeCause() string }

// FailureOf says what an error shows about the target, and false when it shows nothing: the client went away, or this
// machine is short of something.
func FailureOf(err error) (Failure, bool) {
	var e *exchange.Error
	if !errors.As(err, &e) || e.Source != exchange.FromUpstream {
		return 0, false
	}
	switch e.Code {
	case exchange.UpstreamUnreachable:
		return unconnected(e.Cause), true
	case exchange.UpstreamUnresolved:
		return Unresolved, true
	case exchange.UpstreamUntrusted:
		return Untrusted, true
	case exchange.UpstreamTimeout:
		return Late, true
	case exchange.UpstreamInvalid:
		return Broken, true
	}
	return Closed, true
}

// FailureOfStatus says what an answer's status shows about the target, and false when that is no failure: what stands for a
// service that cannot answer.
func FailureOfStatus(status int) (Failure, bool) {
	if status < 502 || status > 504 {
		return 0, false
	}
	return Status502 + Failure(status-502), true
}

func unconnected(err error) Failure {
	var s shaken
	switch {
	case errors.As(err, &s):
		return Handshake
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return ConnectTimeout
	}
	return NoConnection
}

// tally says how a row of failures was made up, the most frequent first.
func tally(list []Failure) string {
	var count [failures]int
	for _, f := range list {
		count[f]++
	}
	var parts []string
	for range failures {
		most := 0
		for f, n := range count {
			if n > count[most] {
				most = f
			}
		}
		if count[most] == 0 {
			break
		}
		if count[most] == len(list) {
			return " with " + words[most]
		}
		parts = append(parts, strconv.Itoa(count[most])+" with "+words[most])
		count[most] = 0
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

// The causes of failed probes, as they stand in metrics.
const (
	probeConnect = "connect"
	probeTimeout = "timeout"
	probeTLS     = "tls"
	probeClosed  = "closed"
	probeStatus  = "status"
	probeBody    = "body"
	probeJSON    = "json"
	probeGRPC    = "grpc"
)

// unwell is an answer to a probe that says that the target is not well.
type unwell struct{ cause, text string }

// Error says what was answered.
func (e *unwell) Error() string { return e.text }

// probeCause names why a probe failed.
func probeCause(err error) string {
	var (
		u      *unwell
		s      shaken
		header tls.RecordHeaderError
		alert  tls.AlertError
		verify *tls.CertificateVerificationError
		call   *os.SyscallError
	)
	switch {
	case errors.As(err, &u):
		return u.cause
	case errors.As(err, &s), errors.As(err, &header), errors.As(err, &alert), errors.As(err, &verify):
		return probeTLS
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return probeTimeout
	case errors.As(err, &call) && call.Syscall == "connect":
		return probeConnect
	}
	return probeClosed
}
