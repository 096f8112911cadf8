package model

import "time"

// Health is an active probe: GET path, healthy on 2xx or 3xx; or gRPC's health checking protocol; or a connection alone.
type Health struct {
	Path      string        `yaml:"path" doc:"Asked of every target by GET; 2xx and 3xx are well."`
	Expect    *HealthExpect `yaml:"expect" doc:"What the answer to path must be, instead."`
	GRPC      *HealthGRPC   `yaml:"grpc" doc:"Ask by gRPC's health checking protocol instead."`
	TCP       bool          `yaml:"tcp" doc:"A connection that opens (over TLS, with its handshake) is well."`
	Interval  time.Duration `yaml:"interval" min:"100ms" max:"1h" doc:"Between two probes of a target that is well, give or take a tenth."`
	Sick      time.Duration `yaml:"unhealthy_interval" min:"0s" max:"1h" doc:"Between two probes of a target that is not, or of which one has just failed. 0: interval."`
	Timeout   time.Duration `yaml:"timeout" min:"10ms" max:"5m" doc:"For one probe."`
	Unhealthy int           `yaml:"unhealthy_after" min:"1" max:"100" doc:"Failed probes in a row that take a target out."`
	Healthy   int           `yaml:"healthy_after" min:"1" max:"100" doc:"Successful probes in a row that bring it back."`
}

// SetDefaults gives a probe its defaults.
func (h *Health) SetDefaults() {
	*h = Health{Interval: 5 * time.Second, Sick: 2 * time.Second, Timeout: 2 * time.Second, Unhealthy: 3, Healthy: 2}
}

// HealthExpect is what a probe's answer must be, all of it.
type HealthExpect struct {
	Status []int  `yaml:"status" min:"1" doc:"One of these, between 100 and 599. Without any: 200 to 399."`
	Body   string `yaml:"body" doc:"A regular expression (RE2) that its first 64 KiB match."`
	JSON   string `yaml:"json" doc:"An expression over the body read as JSON, which must be true, such as json.status == \"UP\"."`
}

// HealthGRPC is a probe by grpc.health.v1.Health/Check, whose answer must be SERVING.
type HealthGRPC struct {
	Service string `yaml:"service" doc:"Asked for by name; without it the server as a whole."`
}

// Ejection is passive health: what requests themselves show about a target.
type Ejection struct {
	Failures  int           `yaml:"consecutive_failures" min:"0" max:"1000" doc:"Failures in a row (no answer, a broken one, 502, 503, 504) that eject a target. 0: never."`
	Connects  int           `yaml:"consecutive_connect_failures" min:"0" max:"1000" doc:"Connections in a row that could not be opened that eject a target. 0: never."`
	Share     int           `yaml:"failure_percent" min:"0" max:"100" doc:"Share of failures among the requests since the first failure of the last ten seconds, of which there must be 20, that ejects a target. 0: never."`
	Latency   float64       `yaml:"latency_factor" min:"0" max:"1000" doc:"Times the median latency of the other targets that eject one, when the medians of two rows of 20 requests show it; below 20 ms nobody is slow. 0: never."`
	For       time.Duration `yaml:"for" min:"100ms" max:"1h" doc:"How long it is left out the first time; doubled each time in a row, up to ten times as long. A time is forgiven when the target has been well for as long as it lasted."`
	MaxShare  int           `yaml:"max_percent" min:"0" max:"100" doc:"Share of the targets that take requests which may be ejected at one time."`
	OnAllDown string        `yaml:"when_all_are_out" oneof:"ask-all fail" doc:"When no target is well: ask them all the same, or answer 503 no_target (or the fallback)."`
}

// SetDefaults gives ejection its defaults.
func (e *Ejection) SetDefaults() {
	*e = Ejection{Failures: 5, Connects: 3, Share: 50, Latency: 10, For: 10 * time.Second, MaxShare: 50, OnAllDown: "ask-all"}
}
