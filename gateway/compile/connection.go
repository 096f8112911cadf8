package compile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"headgate/gateway/engine"
	"headgate/internal/text"
)

// Connection says what would become of a connection to a TCP listener, and why.
type Connection struct {
	Listener  string   `json:"listener"` // with its address
	Name      string   `json:"name,omitempty"`
	Outcome   string   `json:"outcome"` // carried or refused
	Reason    string   `json:"reason"`
	Upstream  string   `json:"upstream,omitempty"`
	Targets   []string `json:"targets,omitempty"`
	Encrypted string   `json:"encrypted"`
	Client    string   `json:"client"` // how it is known who it is
	Limits    []string `json:"limits"`
}

// ExplainConnection says where a connection to the listener goes whose TLS client asks for the name; "": it asks for none.
func ExplainConnection(s *engine.Snapshot, listener, name string) (Connection, error) {
	d := s.Doors[listener]
	switch {
	case d == nil:
		return Connection{}, fmt.Errorf("there is no listener %q%s", listener, text.DidYouMean(listener, slices.Sorted(maps.Keys(s.Doors))))
	case d.TCP == nil:
		return Connection{}, fmt.Errorf("the listener %q speaks HTTP; ask headgate explain route METHOD URL", listener)
	}
	c := &d.Config
	e := Connection{
		Listener: listener + " (" + c.Address + ")", Name: strings.ToLower(strings.TrimSuffix(name, ".")), Outcome: "carried",
		Encrypted: "no: bytes are carried as they are", Client: "whoever is at the other end",
	}
	if c.Proxy != nil {
		e.Client = "whom the PROXY header of " + strings.Join(c.Proxy.From, ", ") + " names, else whoever is at the other end"
	}
	byName := len(c.TCP.BySNI) > 0
	if byName {
		e.Encrypted = "end to end: the name is read and nothing is decrypted"
	} else if c.TLS != nil {
		e.Encrypted = "up to the gateway, which decrypts"
	}
	e.limits(d)
	w := d.TCP.Find(e.Name)
	switch {
	case w == nil:
		e.Outcome, e.Reason = "refused", "no name of by_sni fits, and there is no upstream for all others: TLS alert unrecognized_name"
		return e, nil
	case len(w.Names) > 0:
		e.Reason = "the name is one of " + strings.Join(w.Names, ", ")
	case byName:
		e.Reason = "no name of by_sni fits: it goes where all others go"
	default:
		e.Reason = "everything that comes to the listener goes there"
	}
	e.Upstream = w.Info.Upstream
	for _, t := range w.Upstream.Status().Targets {
		e.Targets = append(e.Targets, t.Address)
	}
	if source := w.Upstream.Sought(); source != "" {
		e.Targets = append(e.Targets, "discovered by "+source)
	}
	return e, nil
}

func (e *Connection) limits(d *engine.Door) {
	t, l := d.Config.TCP, d.Config.Limits
	e.Limits = []string{"idle " + short(t.IdleTimeout)}
	for _, limit := range []struct {
		given bool
		text  string
	}{
		{t.MaxLifetime > 0, "lifetime " + short(t.MaxLifetime)},
		{t.Bytes > 0, t.Bytes.String() + " each connection"},
		{t.Bandwidth > 0, t.Bandwidth.String() + " per second each way"},
		{t.Rate > 0, fmt.Sprintf("%d new per second from one address", t.Rate)},
		{l.ConnectionsPerClient > 0, fmt.Sprintf("%d open from one address", l.ConnectionsPerClient)},
		{l.Connections > 0, fmt.Sprintf("%d open", l.Connections)},
	} {
		if limit.given {
			e.Limits = append(e.Limits, limit.text)
		}
	}
}

// short is a duration without zeros at its end.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
