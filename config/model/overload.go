package model

// Concurrency bounds how many requests a service works on at one time. auto does nothing while there are no signs of overload:
// ever more requests under way while answers take ever longer, and quicker ones when it is asked less. Then it finds the limit
// out from the answers; requests beyond it wait in a short, fair queue, or get 503 upstream_busy with Retry-After.
type Concurrency struct {
	Mode     string              `yaml:"mode" oneof:"auto fixed off" doc:"auto finds the limit out; fixed: limit; off: there is none."`
	Limit    int                 `yaml:"limit" min:"0" max:"65536" doc:"With fixed: requests at one time. With auto: where it begins; 0: without a limit, until there are signs of overload."`
	Min      int                 `yaml:"min" min:"1" max:"65536" doc:"The least that auto comes down to."`
	Max      int                 `yaml:"max" min:"1" max:"65536" doc:"The most that auto goes up to."`
	Queue    int                 `yaml:"queue" min:"0" max:"65536" doc:"Requests that wait at one time. 0: none waits."`
	Plans    map[string]PlanTurn `yaml:"plans" doc:"By the consumer's label plan: who goes first. Others have priority 1 and weight 1."`
	BrownOut string              `yaml:"brown_out_header" doc:"Header field that tells the service, while requests wait, that it should do less for each, such as X-Brown-Out; its value is the share of requests that waited lately, in percent."`
}

// SetDefaults gives the limit its defaults.
func (c *Concurrency) SetDefaults() {
	*c = Concurrency{Mode: "auto", Min: 1, Max: 65536, Queue: 1024}
}

// FromScalar reads a mode written alone.
func (c *Concurrency) FromScalar(s string) error {
	c.Mode = s
	return oneOf(s, "auto", "fixed", "off")
}

// PlanTurn is when requests of a plan's consumers leave the queue.
type PlanTurn struct {
	Priority int `yaml:"priority" min:"0" max:"3" doc:"0 goes first; lower ones get a turn now and then."`
	Weight   int `yaml:"weight" min:"1" max:"100" doc:"Turns of one consumer beside another one of the same priority."`
}

// SetDefaults gives a plan the turn of those without one.
func (p *PlanTurn) SetDefaults() { p.Priority, p.Weight = 1, 1 }
