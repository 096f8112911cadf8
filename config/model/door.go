package model

import (
	"time"

	"headgate/internal/size"
)

// ListenerTLS is how a listener is encrypted.
type ListenerTLS struct {
	Certificates []Certificate `yaml:"certificates" doc:"Chosen by the name that the client asks for: exact, wildcard of one label, else the first; of several for one name, the one that the client can use."`
	ACME         *ACME         `yaml:"acme" doc:"Certificates from an authority, got and renewed by themselves."`
	Internal     []string      `yaml:"internal" doc:"Names and addresses that get certificates of this node's own authority, for laptops and tests; headgate ca prints its root."`
	Profile      string        `yaml:"profile" oneof:"modern intermediate" doc:"modern: TLS 1.3 alone; intermediate: 1.2 with forward secrecy (ECDHE) and AEAD, too."`
	StrictSNI    bool          `yaml:"strict_sni" doc:"Refuse a handshake for a name that no certificate is for, or without a name, with the alert unrecognized_name, instead of using the first. With or without it, a request for another host than that of the handshake, which the certificate that was shown is not for, is answered with 421; not one from a trusted proxy."`
	ClientAuth   *ClientAuth   `yaml:"client_auth" doc:"Certificates of clients."`
	HSTS         *HSTS         `yaml:"hsts" doc:"Tell browsers to use https only (RFC 6797)."`
	Tickets      Tickets       `yaml:"tickets" doc:"Resumption of sessions."`
	Timeout      time.Duration `yaml:"handshake_timeout" min:"100ms" max:"5m" doc:"For a handshake, from the moment that the connection is accepted."`
	Handshakes   int           `yaml:"handshakes" min:"0" max:"65536" doc:"Handshakes that are worked on at one time; more wait, and are dropped at the timeout. Those that wait for their client do not count. 0: no limit."`
	EarlyData    bool          `yaml:"early_data" doc:"Take 0-RTT requests over HTTP/3, of safe methods only; they may be replayed (RFC 8470)."`
}

// SetDefaults gives the encryption of a listener its defaults.
func (t *ListenerTLS) SetDefaults() {
	*t = ListenerTLS{
		Profile: "intermediate", Timeout: 10 * time.Second, Handshakes: 512,
		Tickets: Tickets{Rotation: 12 * time.Hour},
	}
}

// Certificate is a certificate with its chain, and its key, in files that are watched.
type Certificate struct {
	Cert string `yaml:"cert" required:"true" doc:"PEM file: the certificate, then its intermediates. A relative path begins in the folder of this file of the document. A change is noticed and used at once; if it is bad, the old certificate stays."`
	Key  string `yaml:"key" required:"true" doc:"PEM file of the private key: PKCS #8, PKCS #1 or SEC 1."`
}

// ACME gets certificates by RFC 8555.
type ACME struct {
	Domains    []string `yaml:"domains" required:"true" doc:"Names to get certificates for."`
	Email      string   `yaml:"email" doc:"Where the authority writes when something is wrong."`
	Directory  string   `yaml:"directory" doc:"The authority's directory URL."`
	Roots      string   `yaml:"roots" doc:"PEM file of the roots by which the directory itself is verified; without it the system's."`
	Storage    string   `yaml:"storage" doc:"Folder in which keys and certificates are kept."`
	Challenges []string `yaml:"challenges" oneof:"http-01 tls-alpn-01" doc:"Ways to prove control. Without any: both."`
	Agreed     bool     `yaml:"agree_to_terms" doc:"You have read the authority's terms of service and agree."`
}

// SetDefaults names Let's Encrypt and a folder beside the gateway.
func (a *ACME) SetDefaults() {
	*a = ACME{Directory: "https://acme-v02.api.letsencrypt.org/directory", Storage: "acme"}
}

// ClientAuth says which clients' certificates are asked for and believed.
type ClientAuth struct {
	Mode    string        `yaml:"mode" oneof:"request require" doc:"request: verified when there is one; require: no handshake without."`
	CA      []string      `yaml:"ca" required:"true" doc:"PEM files of the authorities that are believed."`
	CRL     []string      `yaml:"crl" doc:"Files with revocation lists, PEM or DER, watched."`
	OCSP    string        `yaml:"ocsp" oneof:"off soft hard" doc:"Ask the certificate's responder; soft lets pass when it does not answer, hard does not."`
	CRLFail string        `yaml:"crl_fail" oneof:"soft hard" doc:"When an authority has no list, or an outdated one: soft lets pass, hard does not."`
	Refresh time.Duration `yaml:"refresh" min:"1s" max:"168h" doc:"The longest that an OCSP answer is believed; renewed in the background before."`
}

// SetDefaults gives client authentication its defaults.
func (a *ClientAuth) SetDefaults() {
	*a = ClientAuth{Mode: "require", OCSP: "off", CRLFail: "soft", Refresh: time.Hour}
}

// HSTS is the Strict-Transport-Security field of every reply.
type HSTS struct {
	MaxAge     time.Duration `yaml:"max_age" min:"0s" max:"17520h" doc:"How long browsers remember it."`
	Subdomains bool          `yaml:"include_subdomains" doc:"For every name below, too."`
	Preload    bool          `yaml:"preload" doc:"Consent to the browsers' built-in lists."`
}

// SetDefaults lets browsers remember for a year.
func (h *HSTS) SetDefaults() { h.MaxAge = 365 * 24 * time.Hour }

// Tickets are the keys by which clients resume sessions. They are shared by all listeners and survive reloads.
type Tickets struct {
	Off      bool          `yaml:"off" doc:"No resumption."`
	Rotation time.Duration `yaml:"rotation" min:"1m" max:"168h" doc:"How often a new key is made; the last two before it are still read. The keys are shared: of several listeners, the shortest counts."`
}

// HTTPSRedirect sends requests in clear to https.
type HTTPSRedirect struct {
	Port   int `yaml:"port" min:"1" max:"65535" doc:"Of the https listener."`
	Status int `yaml:"status" oneof:"301 302 307 308" doc:"Of the redirect."`
}

// SetDefaults redirects for good, keeping the method.
func (r *HTTPSRedirect) SetDefaults() { r.Port, r.Status = 443, 308 }

// ProxyHeader is the PROXY protocol of a load balancer in front.
type ProxyHeader struct {
	From     []string      `yaml:"from" required:"true" doc:"Addresses or CIDR ranges that may, and must, send the header; others are taken as they are."`
	Optional bool          `yaml:"optional" doc:"Those may also leave it out."`
	Timeout  time.Duration `yaml:"timeout" min:"10ms" max:"1m" doc:"For the header."`
}

// SetDefaults gives the header its time.
func (p *ProxyHeader) SetDefaults() { p.Timeout = 5 * time.Second }

// TCP carries connections to an upstream as they are. With tls beside it the gateway decrypts; with by_sni it only reads
// the name that a TLS client asks for.
type TCP struct {
	Upstream    string        `yaml:"upstream" doc:"Where connections go; with by_sni those of all other names. Without it these are refused."`
	BySNI       []SNIRoute    `yaml:"by_sni" doc:"TLS passed through undecrypted, by name."`
	IdleTimeout time.Duration `yaml:"idle_timeout" min:"1s" max:"168h" doc:"Without a byte either way."`
	MaxLifetime time.Duration `yaml:"max_lifetime" min:"0s" doc:"The longest that a connection lives. 0: no limit."`
	Rate        int           `yaml:"connections_per_second" min:"0" doc:"New connections of one client address per second; more are closed. 0: no limit."`
	Bytes       size.Bytes    `yaml:"bytes_per_connection" doc:"Both ways together; the connection is closed at it. 0: no limit."`
	Bandwidth   size.Bytes    `yaml:"bytes_per_second" doc:"Of one connection, each way. 0: no limit."`
}

// SetDefaults gives idle connections ten minutes.
func (t *TCP) SetDefaults() { t.IdleTimeout = 10 * time.Minute }

// SNIRoute is where TLS for some names goes.
type SNIRoute struct {
	Names    []string `yaml:"names" required:"true" doc:"Exact, or *.example.com."`
	Upstream string   `yaml:"upstream" required:"true" doc:"Where it goes."`
}

// UpstreamTLS is how targets over TLS are spoken to.
type UpstreamTLS struct {
	CA          []string     `yaml:"ca" doc:"PEM files of the authorities that are believed. Without any: the system's."`
	ServerName  string       `yaml:"server_name" doc:"Name asked for and verified, instead of the target's host."`
	Certificate *Certificate `yaml:"certificate" doc:"The gateway's own, for services that ask for one."`
	Pins        []string     `yaml:"pins" pattern:"^sha256/[A-Za-z0-9+/]{43}=$" doc:"sha256/BASE64 of public keys (SPKI), one of which must be in the verified chain."`
	Insecure    bool         `yaml:"insecure_skip_verify" doc:"Believe any certificate. Reported at every start and in /status."`
}

// Upgrades say what a route does with connections that are switched to another protocol.
type Upgrades struct {
	Protocols   []string      `yaml:"protocols" doc:"Which may be switched to. Without any: websocket."`
	Off         bool          `yaml:"off" doc:"None: the request is answered as if no switch was asked for."`
	IdleTimeout time.Duration `yaml:"idle_timeout" min:"1s" max:"168h" doc:"Without a byte either way."`
	MaxLifetime time.Duration `yaml:"max_lifetime" min:"0s" doc:"The longest that a connection lives. 0: no limit."`
	Connections int           `yaml:"connections" min:"0" doc:"Open at one time on a route: 503 above it. 0: no limit."`
	PerConsumer int           `yaml:"connections_per_consumer" min:"0" doc:"Open at one time of one consumer on a route: 429 above it. 0: no limit."`
}

// SetDefaults lets idle connections stand for an hour.
func (u *Upgrades) SetDefaults() { u.IdleTimeout = time.Hour }

// GRPC says what is done for gRPC clients of an API.
type GRPC struct {
	Web         string        `yaml:"web" oneof:"translate pass" doc:"gRPC-Web: translate to gRPC, or pass it on to an upstream that speaks it."`
	MaxDeadline time.Duration `yaml:"max_deadline" min:"0s" doc:"The longest grpc-timeout that is granted, and what a call without one gets. 0: no limit."`
}

// SetDefaults translates gRPC-Web.
func (g *GRPC) SetDefaults() { g.Web = "translate" }
