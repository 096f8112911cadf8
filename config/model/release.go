package model

import (
	"time"

	"headgate/internal/size"
)

// Split shares requests among upstreams: a release that is tried by a few first. Whoever is known by the same key gets the
// same variant, as long as the weights allow: when a weight grows, only those who must move do.
type Split struct {
	Variants map[string]Variant `yaml:"variants" required:"true" min:"1" max:"16" doc:"Upstreams by the name of the variant."`
	By       string             `yaml:"by" doc:"An expression whose value decides, such as consumer or claim.sub; without it, or where it is empty, the sticky cookie, and without that chance."`
	Header   string             `yaml:"header" doc:"Request header field that may name a variant, which is then taken. A name that is none says nothing."`
	Cookie   string             `yaml:"cookie" doc:"Cookie that may name one."`
	Allow    string             `yaml:"allow_override" doc:"An expression that must be true for header and cookie to count, such as \"staff\" in groups. Without it everybody may choose."`
}

// Variant is one of a split's upstreams.
type Variant struct {
	Upstream string  `yaml:"upstream" required:"true" doc:"Its name. What it answers when it cannot is its own fallback: no other variant is asked."`
	Weight   float64 `yaml:"weight" min:"0" max:"1000" doc:"Its share beside the others; 0: only by override."`
	Ramp     *Ramp   `yaml:"ramp" doc:"Change the weight by time. It is a matter of the clock alone: a restart changes nothing, and all nodes agree."`
}

// SetDefaults gives a variant weight 1.
func (v *Variant) SetDefaults() { v.Weight = 1 }

// Ramp changes a weight from what it is to another one, evenly.
type Ramp struct {
	To    float64       `yaml:"to" min:"0" max:"1000" doc:"The weight at the end."`
	Start time.Time     `yaml:"start" required:"true" doc:"When it begins (RFC 3339)."`
	Over  time.Duration `yaml:"over" min:"1s" max:"8760h" required:"true" doc:"How long it takes."`
}

// Mirror sends copies of requests to another upstream and throws the answers away, or compares them. A copy that would have
// to wait is left out: mirroring never makes the client wait.
type Mirror struct {
	Upstream string         `yaml:"upstream" required:"true" doc:"Who gets the copies."`
	Percent  float64        `yaml:"percent" min:"0" max:"100" doc:"Share of the requests that are copied, whatever their method: what is asked must be no harm when it is done twice. Upgrades, gRPC calls and requests for events are not copied."`
	When     string         `yaml:"when" doc:"An expression that must be true."`
	Timeout  time.Duration  `yaml:"timeout" min:"10ms" max:"5m" doc:"For a copy and its answer."`
	Limit    int            `yaml:"concurrency" min:"1" max:"10000" doc:"Requests that are copied at one time, from when they are sent to the upstream until their copy is done with; others are left out and counted."`
	Body     size.Bytes     `yaml:"max_body" max:"16MiB" doc:"Requests with a larger body are not copied, nor those that are answered before all of it has come."`
	Compare  *MirrorCompare `yaml:"compare" doc:"Compare the answers and count differences."`
}

// SetDefaults copies every request.
func (m *Mirror) SetDefaults() {
	m.Percent, m.Timeout, m.Limit, m.Body = 100, 5*time.Second, 64, 64*size.KiB
}

// MirrorCompare says what of two answers must be alike.
type MirrorCompare struct {
	Status  bool       `yaml:"status" doc:"Their status."`
	Headers []string   `yaml:"headers" doc:"The values of these header fields."`
	Body    string     `yaml:"body" oneof:"off bytes json" doc:"Their bodies: byte by byte, or as JSON values where both are (gzip is read, other encodings are not)."`
	Ignore  []string   `yaml:"ignore" doc:"For json: paths that may differ or be missing, such as meta.time or items.*.id."`
	MaxBody size.Bytes `yaml:"max_body" max:"16MiB" doc:"Answers with a larger body are not compared."`
}

// SetDefaults compares the status and the bodies as JSON.
func (c *MirrorCompare) SetDefaults() { c.Status, c.Body, c.MaxBody = true, "json", 256*size.KiB }
