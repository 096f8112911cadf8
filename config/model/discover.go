package model

import (
	"time"

	"headgate/internal/secret"
)

// Discover says who knows the targets of an upstream. One source is given. Targets are added at once; they are removed only
// by an answer that names others.
type Discover struct {
	DNS    *DiscoverDNS    `yaml:"dns" doc:"Addresses (A and AAAA) or services (SRV) of a name, asked again when they expire."`
	File   string          `yaml:"file" doc:"A JSON or YAML file with a list of host:port, or of {address, host, weight, priority, zone, draining}; read again when it changes."`
	Consul *DiscoverConsul `yaml:"consul" doc:"Healthy instances of a service in Consul's catalogue, told as they change."`
	Docker *DiscoverDocker `yaml:"docker" doc:"Running containers with a label, told by a Docker engine as they come and go."`
	Kube   *DiscoverKube   `yaml:"kubernetes" doc:"Endpoints of a service in Kubernetes, told by its API server as they change."`

	Scheme     string        `yaml:"scheme" oneof:"http https h2c tcp tls" doc:"How the targets are spoken to, as in a target's URL."`
	MaxRemoval int           `yaml:"max_removal_percent" min:"0" max:"100" doc:"Share of more than two targets that may go at once; when more would, they are held."`
	Hold       time.Duration `yaml:"hold" min:"0s" max:"24h" doc:"How long they are held, and reported, unless they come back."`
}

// SetDefaults holds when more than half of the targets would go.
func (d *Discover) SetDefaults() {
	*d = Discover{Scheme: "http", MaxRemoval: 50, Hold: 5 * time.Minute}
}

// DiscoverDNS is a name in the domain name system.
type DiscoverDNS struct {
	Name    string        `yaml:"name" required:"true" doc:"Such as shop.example, or with srv _http._tcp.shop.example."`
	Port    int           `yaml:"port" min:"1" max:"65535" doc:"Of every address; services bring their own."`
	SRV     bool          `yaml:"srv" doc:"Ask for services (RFC 2782): host, port, weight and priority of each."`
	Servers []string      `yaml:"servers" doc:"Name servers, as host:port. Without any: those of /etc/resolv.conf."`
	MinTTL  time.Duration `yaml:"min_ttl" min:"1s" max:"1h" doc:"The earliest that is asked again, however soon the answer expires."`
	MaxTTL  time.Duration `yaml:"max_ttl" min:"1s" max:"24h" doc:"The latest."`
}

// SetDefaults asks again when an answer expires, between five seconds and five minutes after it.
func (d *DiscoverDNS) SetDefaults() { d.MinTTL, d.MaxTTL = 5*time.Second, 5*time.Minute }

// DiscoverConsul is a service in Consul.
type DiscoverConsul struct {
	Address    string        `yaml:"address" pattern:"^https?://" doc:"Of the agent: http://host:port or https://host:port."`
	Service    string        `yaml:"service" required:"true" doc:"Its name."`
	Tag        string        `yaml:"tag" doc:"Only instances with it."`
	Datacenter string        `yaml:"datacenter" doc:"Instead of the agent's own."`
	Token      secret.String `yaml:"token" literal:"never" doc:"Of the ACL, by reference, such as ${env:CONSUL_TOKEN}."`
	TLS        *DiscoverTLS  `yaml:"tls" doc:"For an agent over https: whom to believe, and who we are."`
}

// SetDefaults asks the agent of this machine.
func (c *DiscoverConsul) SetDefaults() { c.Address = "http://127.0.0.1:8500" }

// DiscoverDocker is the containers of a Docker engine, or of another one that speaks its API.
type DiscoverDocker struct {
	Address   string       `yaml:"address" pattern:"^(unix:///|tcp://|https?://)" doc:"Of the engine: unix:///PATH, tcp://host:port, http://host:port or https://host:port."`
	TLS       *DiscoverTLS `yaml:"tls" doc:"For an engine over TLS, tcp:// included: whom to believe, and who we are."`
	Labels    []string     `yaml:"labels" doc:"Which containers: KEY or KEY=VALUE, all of them. Without any: headgate.upstream=NAME, the upstream's name."`
	Prefix    string       `yaml:"label_prefix" pattern:"^[A-Za-z0-9._/-]+$" doc:"What the labels begin with that say more of a container: PREFIX.port, .network, .host, .weight, .priority, .zone."`
	Network   string       `yaml:"network" doc:"The network through which containers are asked, if they are in several."`
	Port      int          `yaml:"port" min:"1" max:"65535" doc:"Of the containers that have no label with theirs. Without either: the only TCP port that a container exposes."`
	Published bool         `yaml:"published" doc:"Ask the engine's machine at the port that it publishes, instead of the container itself: for engines whose networks cannot be reached."`
}

// SetDefaults asks the engine of this machine.
func (d *DiscoverDocker) SetDefaults() {
	*d = DiscoverDocker{Address: "unix:///var/run/docker.sock", Prefix: "headgate"}
}

// DiscoverKube is a service in Kubernetes, as its EndpointSlices describe it (discovery.k8s.io/v1).
type DiscoverKube struct {
	Service   string `yaml:"service" required:"true" pattern:"^[a-z0-9][a-z0-9-]*$" doc:"Its name."`
	Namespace string `yaml:"namespace" pattern:"^[a-z0-9][a-z0-9-]*$" doc:"Without one: the gateway's own."`
	Port      string `yaml:"port" pattern:"^[a-z0-9][a-z0-9-]*$" doc:"Name of the service's port, or its number in the pods. Without one: the only TCP port."`
	ForZone   string `yaml:"for_zone" doc:"The gateway's zone: only endpoints with a hint for it are used, if all have hints and some has one for it."`

	Address   string        `yaml:"address" pattern:"^https?://" doc:"Of the API server. Without one: what the cluster tells its pods."`
	CA        string        `yaml:"ca" doc:"PEM file of the authorities that the server's certificate is verified by; read for each connection."`
	Token     secret.String `yaml:"token" literal:"never" doc:"Of the account, by reference, such as ${env:KUBE_TOKEN}; instead of token_file."`
	TokenFile string        `yaml:"token_file" doc:"A file with the token; read for each request, because tokens are replaced."`
}

// DiscoverTLS is how a source is asked over TLS. The files are read for each connection, so that renewed ones are used.
type DiscoverTLS struct {
	CA          string       `yaml:"ca" doc:"PEM file of the authorities that are believed. Without one: the system's."`
	ServerName  string       `yaml:"server_name" doc:"Name asked for and verified, instead of the address's host."`
	Certificate *Certificate `yaml:"certificate" doc:"The gateway's own, for those that ask for one."`
}
