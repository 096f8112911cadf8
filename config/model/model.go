// Package model is the document: the structs of the YAML and nothing else. Tags carry what the decoder checks, the
// schema says and the reference prints: yaml (name), doc (one sentence), required, min, max, oneof, pattern, literal (of secrets).
package model

import (
	"time"

	"headgate/internal/secret"
	"headgate/internal/size"
)

// Document is everything a user writes, in one file or in a folder of them.
type Document struct {
	Listeners map[string]Listener `yaml:"listeners" doc:"Doors through which requests come in. Without one: public, on :8080."`
	Upstreams map[string]Upstream `yaml:"upstreams" doc:"Services that APIs stand in front of."`
	APIs      map[string]API      `yaml:"apis" doc:"APIs by name."`
	Consumers map[string]Consumer `yaml:"consumers" doc:"Known callers by name."`
	Policies  []Policy            `yaml:"policies" doc:"Policies of every request, before those of its API."`
	Admin     Admin               `yaml:"admin" doc:"The local listener for operators."`
	Log       Log                 `yaml:"log" doc:"The gateway's own log and the access log."`
	Tracing   Tracing             `yaml:"tracing" doc:"Traces over OTLP."`
	Drain     Drain               `yaml:"drain" doc:"How the gateway stops."`
	Limits    Limits              `yaml:"limits" doc:"Bounds on what the whole gateway may cost."`
}

// Listener is one door.
type Listener struct {
	Address   string         `yaml:"address" required:"true" doc:"host:port; an empty host listens on every address."`
	Trusted   []string       `yaml:"trusted_proxies" doc:"Addresses or CIDR ranges of proxies whose Forwarded, X-Forwarded-* and X-Request-Id are believed."`
	Forwarded string         `yaml:"forwarded" oneof:"x-forwarded rfc7239 both none" doc:"Which headers tell the upstream about the client."`
	AllowPath []string       `yaml:"allow_in_path" oneof:"encoded-slash empty-segment" doc:"What a path may contain although two programs could read it differently; dot segments never."`
	Limits    ListenerLimits `yaml:"limits" doc:"Bounds on what one client may cost."`
	Protocols []string       `yaml:"protocols" oneof:"h1 h2 h3" doc:"Versions of HTTP that are spoken. Without any: h1 and h2, the latter over TLS by ALPN and in clear by prior knowledge. h3 needs tls, and the same port over UDP."`
	TLS       *ListenerTLS   `yaml:"tls" doc:"Encryption; without it the door is in clear."`
	Redirect  *HTTPSRedirect `yaml:"redirect_to_https" doc:"Send every request to the same address over https; what ACME asks is answered."`
	Proxy     *ProxyHeader   `yaml:"proxy_protocol" doc:"A load balancer in front tells the client's address by the PROXY protocol, version 1 or 2."`
	TCP       *TCP           `yaml:"tcp" doc:"Carry bytes instead of HTTP."`
}

// ListenerLimits bound what one client may cost. Each names the abuse that it stops in the reference.
type ListenerLimits struct {
	Head                  size.Bytes    `yaml:"head" min:"1KiB" max:"1MiB" doc:"Request line and header section together: 431 above it."`
	HeaderFields          int           `yaml:"header_fields" min:"1" max:"10000" doc:"Number of header fields: 431 above it."`
	Target                size.Bytes    `yaml:"target" min:"64" max:"1MiB" doc:"Request target: 414 above it."`
	Body                  size.Bytes    `yaml:"body" doc:"Request body: 413 above it. 0: no limit."`
	HeaderTimeout         time.Duration `yaml:"header_timeout" min:"100ms" max:"10m" doc:"From a request's first byte to the end of its head: 408 after it (slowloris)."`
	IdleTimeout           time.Duration `yaml:"idle_timeout" min:"100ms" max:"24h" doc:"Between two requests of one connection."`
	BodyTimeout           time.Duration `yaml:"body_timeout" min:"100ms" max:"1h" doc:"Without a byte of a request body whose answer has not begun, or without the client taking a byte of its answer. The body of a gRPC call has timeouts.idle of its upstream instead, if that is asked over HTTP/2."`
	MinBodyRate           size.Bytes    `yaml:"min_body_rate" doc:"Bytes per second that a request body must bring on average, after the first eight seconds (slow body), until its answer begins; that of a gRPC call may be slower. 0: any."`
	RequestsPerConnection int           `yaml:"requests_per_connection" min:"0" doc:"Requests until a connection is closed. 0: no limit."`
	Connections           int           `yaml:"connections" min:"0" doc:"Open connections of this listener; beyond it accepting waits. 0: no limit."`
	ConnectionsPerClient  int           `yaml:"connections_per_client" min:"0" doc:"Open connections of one client address (of IPv6, one /64); more are refused with 503. 0: no limit."`
}

// SetDefaults gives a listener its defaults.
func (l *Listener) SetDefaults() {
	l.Forwarded = "x-forwarded"
	l.Limits.SetDefaults()
}

// SetDefaults gives the limits their defaults.
func (l *ListenerLimits) SetDefaults() {
	*l = ListenerLimits{
		Head: 32 * size.KiB, HeaderFields: 100, Target: 8 * size.KiB, Body: 0,
		HeaderTimeout: 8 * time.Second, IdleTimeout: 75 * time.Second, BodyTimeout: 30 * time.Second,
		MinBodyRate: 240, RequestsPerConnection: 0, Connections: 65536, ConnectionsPerClient: 0,
	}
}

// API is one product: routes under one path, in front of one upstream.
type API struct {
	Version       string           `yaml:"version" doc:"Shown in logs, metrics and traces."`
	Hosts         []string         `yaml:"hosts" doc:"Host names that it answers to: exact, or *.example.com. Without any: every host."`
	BasePath      string           `yaml:"base_path" pattern:"^/" doc:"What its routes' paths begin with."`
	Upstream      string           `yaml:"upstream" doc:"The upstream of every route that does not name its own."`
	StripBasePath bool             `yaml:"strip_base_path" doc:"Leave the base path out of what the upstream is asked."`
	Policies      []Policy         `yaml:"policies" doc:"Policies of every route."`
	Routes        map[string]Route `yaml:"routes" doc:"Routes by name. Without any: everything under the base path."`
	Upgrade       Upgrades         `yaml:"upgrade" doc:"WebSocket and other protocols that a connection is switched to."`
	GRPC          GRPC             `yaml:"grpc" doc:"What is done for gRPC clients."`
}

// SetDefaults gives an API the base path "/".
func (a *API) SetDefaults() {
	a.BasePath = "/"
	a.Upgrade.SetDefaults()
	a.GRPC.SetDefaults()
}

// Route is what one kind of request leads to: an upstream, a redirect or a fixed answer.
type Route struct {
	Match    Match     `yaml:"match" required:"true" doc:"Which requests: METHOD[,METHOD] /path, or {methods, path, headers, query}."`
	Upstream string    `yaml:"upstream" doc:"Instead of the API's."`
	Rewrite  *Rewrite  `yaml:"rewrite" doc:"What the upstream is asked instead of the path that came."`
	Redirect *Redirect `yaml:"redirect" doc:"Send the client elsewhere."`
	Respond  *Respond  `yaml:"respond" doc:"Answer without an upstream."`
	Policies []Policy  `yaml:"policies" doc:"Policies of this route, after those of its API."`
}

// Match is the condition of a route. In Path, {name} captures one segment, {name...} at the end captures the rest,
// * matches one segment, ** at the end matches the rest, and ~ at the start makes it a regular expression (RE2,
// anchored, over the path below the base path).
type Match struct {
	Methods []string          `yaml:"methods" doc:"Any of these; without any: every method."`
	Path    string            `yaml:"path" doc:"Below the API's base path: literal, {name}, {name...}, *, ** or ~regular expression."`
	Headers map[string]string `yaml:"headers" doc:"Header fields that must be there with this value; * for any, ~ for a regular expression."`
	Query   map[string]string `yaml:"query" doc:"Query parameters that must be there with this value; * for any, ~ for a regular expression."`
}

// Rewrite changes the path that the upstream is asked. One of its fields is given.
type Rewrite struct {
	StripPrefix string `yaml:"strip_prefix" pattern:"^/" doc:"Taken from the beginning of the path."`
	Path        string `yaml:"path" pattern:"^/" doc:"A template for the whole path, such as /v2/orders/{path.id}."`
}

// Redirect sends the client to another address.
type Redirect struct {
	To     string `yaml:"to" required:"true" doc:"A template for the Location, such as https://new.example.com{request.path}."`
	Status int    `yaml:"status" oneof:"301 302 303 307 308" doc:"Its status."`
}

// SetDefaults gives a redirect status 302.
func (r *Redirect) SetDefaults() { r.Status = 302 }

// Respond is a fixed answer.
type Respond struct {
	Status  int               `yaml:"status" min:"200" max:"599" doc:"Its status."`
	Headers map[string]string `yaml:"headers" doc:"Its header fields."`
	Body    string            `yaml:"body" doc:"Its body: a template, where {expression} is replaced and {{ stands for a brace."`
}

// SetDefaults gives a fixed answer status 200.
func (r *Respond) SetDefaults() { r.Status = 200 }

// Consumer is a known caller and what it proves itself with.
type Consumer struct {
	Groups       []string          `yaml:"groups" doc:"What it belongs to; the acl policy asks for these."`
	Labels       map[string]string `yaml:"labels" doc:"Free text by name, for logs and expressions."`
	Keys         []secret.String   `yaml:"keys" literal:"sha256:" doc:"API keys: sha256:HEX of the key, or the key by reference, such as ${env:MOBILE_KEY}."`
	Basic        []Basic           `yaml:"basic" doc:"User names and passwords for basic-auth."`
	Certificates []string          `yaml:"certificates" doc:"What its certificates are known by, for mtls: thumbprint:SHA256, subject:DN (RFC 2253), dns:NAME, uri:URI or email:ADDRESS."`
	Subjects     []string          `yaml:"subjects" doc:"Token subjects (the jwt policy's consumer claim) that are this consumer."`
}

// Basic is one user name and password.
type Basic struct {
	Username string        `yaml:"username" required:"true" doc:"Without a colon."`
	Password secret.String `yaml:"password" required:"true" literal:"bcrypt:" doc:"bcrypt:HASH, or the password by reference, such as ${env:PASSWORD}."`
}

// Admin is the operators' listener.
type Admin struct {
	Address string `yaml:"address" doc:"host:port, or off."`
	Pprof   bool   `yaml:"pprof" doc:"Serve Go's profiles under /debug/pprof/."`
}

// SetDefaults puts the admin listener on the loopback address.
func (a *Admin) SetDefaults() { a.Address = "127.0.0.1:9080" }

// Log says what is logged and where.
type Log struct {
	Level  string    `yaml:"level" oneof:"debug info warn error" doc:"Of the gateway's own log, on standard error."`
	Format string    `yaml:"format" oneof:"json text" doc:"Of the gateway's own log."`
	Access AccessLog `yaml:"access" doc:"One line for each exchange."`
}

// SetDefaults gives the log its defaults.
func (l *Log) SetDefaults() {
	*l = Log{Level: "info", Format: "text"}
	l.Access.SetDefaults()
}

// AccessLog is one line for each exchange.
type AccessLog struct {
	To     string        `yaml:"to" doc:"stdout, stderr, off, or a file's path."`
	Format string        `yaml:"format" oneof:"json text" doc:"JSON, or a readable line."`
	Fields []string      `yaml:"fields" doc:"Which fields, in order; without any: the default ones. header.NAME, reply_header.NAME and {expression} are fields too."`
	Mask   []string      `yaml:"mask" doc:"Header fields and query parameters whose values are replaced by <secret>, besides those that always are."`
	Buffer size.Bytes    `yaml:"buffer" min:"64KiB" max:"1GiB" doc:"Lines waiting to be written; beyond it lines are dropped, counted and reported."`
	Flush  time.Duration `yaml:"flush" min:"10ms" max:"1m" doc:"The longest that a line waits."`
}

// SetDefaults gives the access log its defaults.
func (l *AccessLog) SetDefaults() {
	*l = AccessLog{To: "stdout", Format: "json", Buffer: 4 * size.MiB, Flush: 500 * time.Millisecond}
}

// Tracing sends spans to a collector.
type Tracing struct {
	Endpoint string                   `yaml:"endpoint" doc:"OTLP over HTTP, such as http://127.0.0.1:4318; without one nothing is sent, and trace context is passed on."`
	Headers  map[string]secret.String `yaml:"headers" literal:"never" doc:"Sent with every export; each value by reference, such as Bearer ${env:OTLP_TOKEN}."`
	Ratio    float64                  `yaml:"ratio" min:"0" max:"1" doc:"Share of the traces begun here that are kept; errors always are."`
	Parent   string                   `yaml:"parent" oneof:"trusted always never" doc:"Whose sampled flag is followed: of trusted proxies, of every caller, or of none; otherwise ratio decides."`
	Service  string                   `yaml:"service" doc:"service.name of the spans."`
}

// SetDefaults keeps a hundredth of the traces, and believes trusted proxies.
func (t *Tracing) SetDefaults() { t.Ratio, t.Parent, t.Service = 0.01, "trusted", "headgate" }

// Drain says how the gateway stops.
type Drain struct {
	Delay   time.Duration `yaml:"delay" min:"0s" max:"5m" doc:"Between readiness going false and the doors closing, so that load balancers notice."`
	Timeout time.Duration `yaml:"drain_timeout" min:"0s" max:"1h" doc:"How long what runs may finish."`
}

// SetDefaults gives the drain its defaults.
func (d *Drain) SetDefaults() { d.Timeout = 30 * time.Second }
