package record

import "headgate/gateway/exchange"

var noTLS = exchange.TLS{}

// overTLS returns what the client's encryption is like, or nothing of all that in clear.
func overTLS(x *exchange.Exchange) *exchange.TLS {
	if x.Client.TLS == nil {
		return &noTLS
	}
	return x.Client.TLS
}

// clientCertificate is the subject of the client's certificate.
func clientCertificate(l *line) string {
	if c := overTLS(l.x).Certificate; c != nil {
		return c.Subject
	}
	return ""
}
