package model

import (
	"time"

	"headgate/internal/secret"
)

// Discover says who knows the targets of an upstream. One source is given. Targets are added at once; they are removed only
// by an answer that names others.
type Discover struct {
	DNS    *DiscoverDNS    `yaml:"dns" doc:"Addresses (A and AAAA) or services (SRV) of a name, asked again when they expire."`
	File   string          `yaml:"file" doc:"A JSON or YAML file with a list of host:port, or of {address, host, weight, zone, draining}; read again when it changes."`
	Consul *DiscoverConsul `yaml:"consul" doc:"Healthy instances of a service in Consul's catalogue, told as they change."`

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
	SRV     bool          `yaml:"srv" doc:"Ask for services (RFC 2782): of these the ones of the lowest priority are used, by their weights."`
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
	Token      secret.String `yaml:"token" doc:"Of the ACL, by reference, such as ${env:CONSUL_TOKEN}."`
}

// SetDefaults asks the agent of this machine.
func (c *DiscoverConsul) SetDefaults() { c.Address = "http://127.0.0.1:8500" }
