package expr

import (
	"headgate/gateway/exchange"
	"headgate/internal/expr"
)

// tlsVariables are about the encryption of the client's connection to this gateway. In clear, and behind a proxy that ends
// TLS, they are empty.
func tlsVariables() []variable {
	return []variable{
		{
			Variable: expr.Variable{Name: "client.secure", Type: expr.Bool,
				Doc: "Whether the client's connection is encrypted; behind a trusted proxy, whether that says so."},
			boolean: func(x *exchange.Exchange) bool { return x.Client.Secure || x.Client.TLS != nil },
		},
		text("client.tls.version", `Version of TLS, such as TLS 1.3; "" in clear.`, ofTLS(func(t *exchange.TLS) string { return t.Version })),
		text("client.tls.cipher", "Cipher suite, by its IANA name.", ofTLS(func(t *exchange.TLS) string { return t.Cipher })),
		text("client.tls.server_name", "Name that the client asked for in the handshake (SNI), in lower case.",
			ofTLS(func(t *exchange.TLS) string { return t.ServerName })),
		text("client.tls.alpn", "Protocol that was agreed on in the handshake: h2, http/1.1 or h3.",
			ofTLS(func(t *exchange.TLS) string { return t.ALPN })),
		{
			Variable: expr.Variable{Name: "client.tls.resumed", Type: expr.Bool, Doc: "Whether the session was resumed from a ticket."},
			boolean:  func(x *exchange.Exchange) bool { return x.Client.TLS != nil && x.Client.TLS.Resumed },
		},
		{
			Variable: expr.Variable{Name: "client.tls.early", Type: expr.Bool,
				Doc: "Whether the request came as 0-RTT data and may be a replay (RFC 8470)."},
			boolean: func(x *exchange.Exchange) bool { return x.Client.TLS != nil && x.Client.TLS.Early },
		},
		text("client.cert.subject", `Distinguished name of the client's verified certificate (RFC 2253); "" when it has none.`,
			ofCert(func(c *exchange.Certificate) string { return c.Subject })),
		text("client.cert.issuer", "Distinguished name of who issued it.", ofCert(func(c *exchange.Certificate) string { return c.Issuer })),
		text("client.cert.serial", "Its serial number, hexadecimal in lower case.",
			ofCert(func(c *exchange.Certificate) string { return c.Serial })),
		text("client.cert.thumbprint", "Its SHA-256, base64url without padding: x5t#S256 (RFC 8705 section 3.1).",
			ofCert(func(c *exchange.Certificate) string { return c.Thumbprint })),
		certList("client.cert.dns", "Its DNS names.", func(c *exchange.Certificate) []string { return c.DNS }),
		certList("client.cert.emails", "Its mail addresses.", func(c *exchange.Certificate) []string { return c.Emails }),
		certList("client.cert.uris", "Its URIs, such as spiffe://example.com/orders.", func(c *exchange.Certificate) []string { return c.URIs }),
		certList("client.cert.ips", "Its IP addresses.", func(c *exchange.Certificate) []string { return c.IPs }),
	}
}

func ofTLS(get func(*exchange.TLS) string) exchanged[string] {
	return func(x *exchange.Exchange) string {
		if x.Client.TLS == nil {
			return ""
		}
		return get(x.Client.TLS)
	}
}

func ofCert(get func(*exchange.Certificate) string) exchanged[string] {
	return ofTLS(func(t *exchange.TLS) string {
		if t.Certificate == nil {
			return ""
		}
		return get(t.Certificate)
	})
}

func certList(name, doc string, get func(*exchange.Certificate) []string) variable {
	return variable{Variable: expr.Variable{Name: name, Type: expr.List, Doc: doc}, list: func(x *exchange.Exchange) []string {
		if x.Client.TLS == nil || x.Client.TLS.Certificate == nil {
			return nil
		}
		return get(x.Client.TLS.Certificate)
	}}
}
