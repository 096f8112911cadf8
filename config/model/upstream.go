package model

import (
	"fmt"
	"slices"
	"time"

	"headgate/internal/secret"
	"headgate/internal/text"
)

// Upstream is a service: one or more targets that answer alike; or, with split, several upstreams of which one answers.
type Upstream struct {
	Targets  []Target  `yaml:"targets" min:"1" doc:"Where the service answers: URLs, or {url, weight, priority, zone}. Or discover says who knows."`
	Discover *Discover `yaml:"discover" doc:"Who knows the targets, instead of a list."`
	Balance  Balance   `yaml:"balance" doc:"How a target is chosen: an algorithm's name, or {algorithm, key, ...}."`
	Sticky   *Sticky   `yaml:"sticky" doc:"Ask the target again that a client was answered by before, by a cookie."`

	Host     string       `yaml:"host" doc:"Host header sent to the service: pass (the client's), target (the target's own), or a fixed name."`
	Protocol string       `yaml:"protocol" oneof:"auto h1 h2" doc:"Version of HTTP: auto is h2 where a target over TLS offers it and h1 elsewhere; h2 in clear is by prior knowledge."`
	TLS      *UpstreamTLS `yaml:"tls" doc:"For https targets: whom to believe, and who we are."`
	Proxy    string       `yaml:"proxy_protocol" oneof:"off v1 v2" doc:"Tell the target the client's address; such connections are not shared between clients."`
	Timeouts Timeouts     `yaml:"timeouts" doc:"How long to wait for the service."`
	Pool     Pool         `yaml:"pool" doc:"Connections that are kept for reuse."`
	HTTP2    HTTP2Out     `yaml:"h2" doc:"Connections over HTTP/2."`

	Health   *Health  `yaml:"health" doc:"Probes of the targets."`
	Ejection Ejection `yaml:"ejection" doc:"When a failing target is left out for a while."`

	Retry       Retry       `yaml:"retry" doc:"When another target is asked, because the first one has failed."`
	Hedge       *Hedge      `yaml:"hedge" doc:"Ask a second target before the first one has answered, when that takes longer than nearly all do."`
	Breaker     *Breaker    `yaml:"breaker" doc:"When nobody is asked for a while, because too much fails."`
	Fallback    *Fallback   `yaml:"fallback" doc:"What is answered, or who is asked, when this upstream cannot answer."`
	Concurrency Concurrency `yaml:"concurrency" doc:"How many requests the service works on at one time: auto, off, or {limit, max, queue, ...}."`

	Split  *Split  `yaml:"split" doc:"Share requests among other upstreams, instead of targets: releases."`
	Mirror *Mirror `yaml:"mirror" doc:"Send copies of requests to another upstream; the client notices nothing of it."`
}

// SetDefaults gives an upstream its defaults.
func (u *Upstream) SetDefaults() {
	u.Host, u.Protocol, u.Proxy = "pass", "auto", "off"
	u.Timeouts = Timeouts{Connect: 2 * time.Second, Response: 30 * time.Second, Idle: 60 * time.Second}
	u.HTTP2 = HTTP2Out{Streams: 100, Connections: 16, Ping: 30 * time.Second, PingTimeout: 10 * time.Second}
	u.Balance.SetDefaults()
	u.Pool.SetDefaults()
	u.Ejection.SetDefaults()
	u.Retry.SetDefaults()
	u.Concurrency.SetDefaults()
}

// FromScalar reads an upstream of one target written as its URL alone.
func (u *Upstream) FromScalar(s string) error {
	var t Target
	if err := t.FromScalar(s); err != nil {
		return err
	}
	u.Targets = []Target{t}
	return nil
}

// Target is one address of a service.
type Target struct {
	URL      string `yaml:"url" required:"true" doc:"http://, https://, h2c:// (HTTP/2 in clear) or tcp://, then host[:port], without a path."`
	Weight   int    `yaml:"weight" min:"0" max:"1000" doc:"Its share beside the others; 0 takes no new requests."`
	Priority int    `yaml:"priority" min:"0" max:"100" doc:"0 is asked first; greater ones as far as those before cannot carry the requests."`
	Zone     string `yaml:"zone" doc:"Where it is, for balance.zone."`
}

// SetDefaults gives a target weight 1.
func (t *Target) SetDefaults() { t.Weight = 1 }

// FromScalar reads a target written as its URL alone.
func (t *Target) FromScalar(s string) error {
	t.URL, t.Weight = s, 1
	return nil
}

// Timeouts bound each step of asking a service.
type Timeouts struct {
	Connect  time.Duration `yaml:"connect" min:"10ms" max:"5m" doc:"To open a connection: 502 after it."`
	Response time.Duration `yaml:"response" min:"10ms" max:"24h" doc:"From the end of the request to the head of the answer: 504 after it."`
	Idle     time.Duration `yaml:"idle" min:"10ms" max:"24h" doc:"Between two pieces of the answer's body, while none of the request's is sent, either; the answer is aborted after it. Of a gRPC call over HTTP/2 also between two pieces of the request before the answer: 408 after it."`
	Total    time.Duration `yaml:"total" min:"0s" max:"24h" doc:"For the whole exchange with all its attempts, from the request's head to the end of the answer: 504 after it, or an answer that has begun is cut. A connection that is switched, such as a WebSocket, has it for the handshake. 0: no limit of its own."`
	Header   string        `yaml:"deadline_header" doc:"Header field that tells the service how many milliseconds are left of total, such as X-Request-Timeout-Ms; gRPC services are told by grpc-timeout."`
}

// Balance says how a target is chosen.
type Balance struct {
	Algorithm  string        `yaml:"algorithm" oneof:"least-latency round-robin least-requests random consistent-hash" doc:"All respect weights. least-latency: the better of two, by latency, failures and requests under way."`
	Key        string        `yaml:"key" doc:"For consistent-hash: an expression; requests of the same value go to the same target while it is there, such as client.ip or header.x-tenant."`
	Bound      int           `yaml:"bound_percent" min:"100" max:"1000" doc:"For consistent-hash: the most requests of a target over the average of all, but always four; beyond it the next target on the ring is asked."`
	Panic      int           `yaml:"panic_percent" min:"0" max:"100" doc:"When fewer targets than this share are well, their health is not believed and all are asked."`
	Zone       string        `yaml:"zone" doc:"This gateway's zone: targets in it are preferred. Without it, that of the environment (HEADGATE_ZONE); off: none is preferred."`
	LocalFloor int           `yaml:"local_floor_percent" min:"1" max:"100" doc:"Share of the own zone's targets that must be well for all requests to stay in it; with fewer, others are asked in proportion."`
	SlowStart  time.Duration `yaml:"slow_start" min:"0s" max:"1h" doc:"How long a new target, or one that comes back, takes to its full share. 0: at once."`
}

// SetDefaults gives the balancing its defaults.
func (b *Balance) SetDefaults() {
	*b = Balance{Algorithm: "least-latency", Bound: 125, Panic: 30, LocalFloor: 70, SlowStart: 10 * time.Second}
}

// FromScalar reads an algorithm written alone.
func (b *Balance) FromScalar(s string) error {
	err := oneOf(s, "least-latency", "round-robin", "least-requests", "random", "consistent-hash")
	if err == nil {
		b.Algorithm = s
	}
	return err
}

// oneOf checks a word that stands for a whole section.
func oneOf(s string, words ...string) error {
	if slices.Contains(words, s) {
		return nil
	}
	return fmt.Errorf("%q is not allowed; write %s%s", s, text.List(words), text.DidYouMean(s, words))
}

// Sticky is a signed cookie that pins a client to a target and, with split, to a variant.
type Sticky struct {
	Cookie   string          `yaml:"cookie" pattern:"^[!#$%&'*+.^_|~0-9A-Za-z-]+$" doc:"Its name. Two upstreams cannot have the same."`
	MaxAge   time.Duration   `yaml:"max_age" min:"0s" max:"9600h" doc:"How long the client keeps it, from when it was set. 0: until it is closed."`
	SameSite string          `yaml:"same_site" oneof:"strict lax none" doc:"Which requests from other sites carry it. Browsers keep none only over TLS."`
	Key      secret.String   `yaml:"key" doc:"Signs it, by reference, such as ${env:STICKY_KEY}: of 32 characters or more, the same on every node. Without it, a key of this node's own, which is made once and kept in HEADGATE_STATE."`
	Keys     []secret.String `yaml:"keys" min:"1" max:"4" doc:"Instead of key, while one takes the place of another: the first one signs, all are believed, and a cookie of another one is replaced by one of the first."`
}

// SetDefaults gives the cookie its defaults.
func (s *Sticky) SetDefaults() { s.Cookie, s.SameSite = "headgate", "lax" }

// Pool says which connections to the service are kept.
type Pool struct {
	IdlePerTarget int           `yaml:"idle_per_target" min:"0" max:"65536" doc:"Idle connections kept for each target, over either version of HTTP."`
	IdleTotal     int           `yaml:"idle_total" min:"0" max:"1048576" doc:"Idle connections kept for all targets together."`
	IdleTimeout   time.Duration `yaml:"idle_timeout" min:"100ms" max:"1h" doc:"How long one is kept; below the service's own keep-alive time. Where a target says that it keeps them for less, less."`
	MaxAge        time.Duration `yaml:"max_age" min:"0s" max:"168h" doc:"A connection is not used again after it, give or take a tenth. 0: no limit."`
	MaxRequests   int           `yaml:"max_requests_per_connection" min:"0" doc:"Requests after which a connection is not used again. 0: no limit."`
	Connections   int           `yaml:"connections_per_target" min:"0" max:"1048576" doc:"Open connections to one target; when all are busy, another target is asked. 0: no limit."`
	Requests      int           `yaml:"requests_per_target" min:"0" max:"1048576" doc:"Requests at one time to one target; beyond it another one is asked. 0: no limit."`
	Preconnect    int           `yaml:"preconnect" min:"0" max:"64" doc:"Idle connections that are opened ahead to each target that is being asked, so that few requests wait for one."`
	KeepAlive     time.Duration `yaml:"tcp_keepalive" min:"0s" max:"2h" doc:"Silence after which the other side is asked for a sign of life, by TCP; three without an answer, each a third of it apart, end the connection. 0: never."`
}

// SetDefaults gives the pool its defaults.
func (p *Pool) SetDefaults() {
	*p = Pool{IdlePerTarget: 1024, IdleTotal: 16384, IdleTimeout: 55 * time.Second, MaxAge: time.Hour, KeepAlive: 10 * time.Second}
}

// HTTP2Out says how requests share connections over HTTP/2.
type HTTP2Out struct {
	Streams     int           `yaml:"streams_per_connection" min:"1" max:"10000" doc:"Requests at one time on a connection, if the target allows as many; more open another one."`
	Connections int           `yaml:"connections_per_target" min:"1" max:"1024" doc:"Connections to one target; beyond it requests wait for a stream, up to the connect timeout."`
	Ping        time.Duration `yaml:"ping" min:"0s" max:"1h" doc:"How long a connection with open requests may be silent before it is asked for a sign of life. 0: never."`
	PingTimeout time.Duration `yaml:"ping_timeout" min:"100ms" max:"5m" doc:"For that sign of life; without it the connection is given up."`
}
