package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"headgate/config/source"
	"headgate/gateway/engine"
	"headgate/gateway/release"
	"headgate/gateway/upstream"
	"headgate/gateway/upstream/gate"
	"headgate/gateway/upstream/health"
	"headgate/internal/text"
)

const (
	// adminPatience is how long a gateway may take to say how its upstreams are.
	adminPatience = 5 * time.Second
	// maxStatus bounds what is read of that: somebody else may listen there.
	maxStatus = 256 << 20
	// maxLately is how many changes of targets are printed, of all that are kept.
	maxLately = 10
	// dateAndTime is how moments are printed.
	dateAndTime = "2006-01-02 15:04:05"
)

func explainUpstreamCommand() *cobra.Command {
	var file, admin string
	var asJSON bool
	c := &cobra.Command{
		Use:   "upstream NAME",
		Short: "Say how the targets or variants of an upstream are, and why",
		Long: "Asks the running gateway, at the admin listener that the document names, how the targets of an upstream are, and why\n" +
			"they get requests or get none; of a split, what weight each variant has now; of a mirror, what became of the copies.\n" +
			"Without a running gateway it says what the document alone tells.",
		Example: "  headgate explain upstream shop --file gateway.yaml\n  headgate explain upstream shop --admin 127.0.0.1:9080 --json",
		Args:    takes(1),
		RunE: func(c *cobra.Command, args []string) error {
			e, err := explainUpstream(c.Context(), file, admin, c.Flags().Changed("file"), args[0])
			if err != nil {
				return err
			}
			return tell(c.OutOrStdout(), e, printUpstream, asJSON)
		},
	}
	c.Flags().StringVarP(&file, "file", "f", defaultDocument, "the document: a file or a folder")
	c.Flags().StringVar(&admin, "admin", "", "the running gateway's admin listener; without it, the document's")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// upstreamExplanation is how an upstream is, and who says so.
type upstreamExplanation struct {
	ToldBy   string          `json:"told_by"`
	Upstream json.RawMessage `json:"upstream,omitempty"` // all that the gateway tells, which may be newer than this program
	Release  json.RawMessage `json:"release,omitempty"`  // what is asked in its place
	status   *upstream.Status
	release  *release.Status
}

// explainUpstream asks the running gateway or, when there is none, looks at the document alone, which may be missing where
// the gateway is named.
func explainUpstream(ctx context.Context, file, admin string, named bool, name string) (*upstreamExplanation, error) {
	if admin != "" && !named {
		return askGateway(ctx, admin, name)
	}
	s, err := source.Open(file)
	if err != nil {
		return nil, fail(err)
	}
	p := newBench()
	good, err := p.load(s)
	if err != nil {
		return nil, fail(err)
	}
	defer p.discard(good.snapshot)
	silent := "it has no admin listener"
	if admin = cmp.Or(admin, good.document.Admin.Address); admin != "off" {
		e, err := askGateway(ctx, admin, name)
		if err == nil || !errors.As(err, new(*unansweredError)) {
			return e, err
		}
		silent = "no gateway answers at " + admin
	}
	names := good.loaded.Objects("upstreams")
	if !slices.Contains(names, name) {
		return nil, unknownUpstream("the document", name, names)
	}
	all, err := documentAlone(good.snapshot)
	if err != nil {
		return nil, err
	}
	if e, _, err := all.find("the document alone: "+silent, name); e != nil || err != nil {
		return e, err
	}
	return nil, fmt.Errorf("no route, listener or other upstream leads to upstream %q: a gateway would not ask it", name)
}

func unknownUpstream(where, name string, names []string) error {
	hint := text.DidYouMean(name, names)
	if hint == "" && len(names) > 0 && len(names) <= maxLately {
		hint = "; it has " + strings.Join(names, ", ")
	}
	return fmt.Errorf("%s has no upstream %q%s", where, name, hint)
}

// told is what /status says of upstreams.
type told struct {
	Upstreams []json.RawMessage `json:"upstreams"`
	Releases  []json.RawMessage `json:"releases"`
}

// documentAlone is what a gateway would tell that has just begun.
func documentAlone(s *engine.Snapshot) (all told, err error) {
	var errs []error
	raw := func(v any) json.RawMessage {
		b, err := json.Marshal(v)
		errs = append(errs, err)
		return b
	}
	for _, u := range s.Upstreams() {
		all.Upstreams = append(all.Upstreams, raw(u.Status()))
	}
	for _, f := range s.Fronts {
		all.Releases = append(all.Releases, raw(f.Status(s.Compiled)))
	}
	return all, errors.Join(errs...)
}

// find returns what is told of an upstream, and the names of all; nil: nothing is told of it.
func (t *told) find(by, name string) (e *upstreamExplanation, names []string, err error) {
	found := upstreamExplanation{ToldBy: by}
	for _, raw := range t.Upstreams {
		s := new(upstream.Status)
		if err := json.Unmarshal(raw, s); err != nil {
			return nil, nil, fmt.Errorf("%s tells what this program does not understand: %w", by, err)
		}
		if s.Name == name {
			found.Upstream, found.status = raw, s
		}
		names = append(names, s.Name)
	}
	for _, raw := range t.Releases {
		s := new(release.Status)
		if err := json.Unmarshal(raw, s); err != nil {
			return nil, nil, fmt.Errorf("%s tells what this program does not understand: %w", by, err)
		}
		if s.Name == name {
			found.Release, found.release = raw, s
		}
		names = append(names, s.Name)
	}
	if found.status == nil && found.release == nil {
		slices.Sort(names)
		return nil, slices.Compact(names), nil
	}
	return &found, nil, nil
}

// unansweredError is a gateway that is not there.
type unansweredError struct {
	address string
	err     error
}

// Error says who did not answer.
func (e *unansweredError) Error() string {
	return fmt.Sprintf("no gateway answers at %s: %v", e.address, e.err)
}

// Unwrap returns why.
func (e *unansweredError) Unwrap() error { return e.err }

// askGateway asks the admin listener of a running gateway.
func askGateway(ctx context.Context, admin, name string) (*upstreamExplanation, error) {
	if strings.HasPrefix(admin, ":") {
		admin = "127.0.0.1" + admin
	}
	ctx, cancel := context.WithTimeout(ctx, adminPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/status", nil)
	if err != nil {
		return nil, fmt.Errorf("--admin %q: write host:port", admin)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, fail(&unansweredError{admin, err})
	}
	defer answer.Body.Close()
	var all told
	err = json.NewDecoder(io.LimitReader(answer.Body, maxStatus)).Decode(&all)
	if err != nil || answer.StatusCode != http.StatusOK {
		return nil, fail(fmt.Errorf("who answers at %s is no admin listener of a gateway: GET /status gives %s", admin, answer.Status))
	}
	e, names, err := all.find("the gateway at "+admin, name)
	if e != nil || err != nil {
		return e, err
	}
	return nil, unknownUpstream("the gateway at "+admin, name, names)
}

// printUpstream prints what a person wants to know: the rules, the targets, and what has happened to them lately.
func printUpstream(w io.Writer, e *upstreamExplanation) error {
	s := e.status
	if s == nil {
		return printRelease(w, e)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, value)
		}
	}
	row("upstream", s.Name)
	row("told by", e.ToldBy)
	row("balance", s.Balance)
	row("probes", s.Health.Probes)
	row("ejected", s.Health.Ejection)
	row("all out", s.Health.AllOut)
	row("discovery", discoveryLine(s))
	row("retries", retriesLine(s))
	row("hedge", hedgeLine(s.Hedge))
	row("limit", concurrencyLine(s.Concurrency))
	row("breaker", breakerLine(s.Breaker))
	if e.release != nil {
		releaseRows(row, e.release)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "target\tstate\tweight\tpriority\tzone\tin flight\tidle\tprotocol\tlatency\tfailing\tcost")
	for i := range s.Targets {
		a := &s.Targets[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%d\t%d\t%s\t%s\t%.0f %%\t%s\n", a.Address, a.State, weightOf(a), a.Priority, cmp.Or(a.Zone, "-"),
			a.InFlight, a.Idle+a.H2Conns, a.Protocol, milliseconds(a.LatencyMS), 100*a.Failing, milliseconds(a.CostMS))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return printReasons(w, s)
}

// weightOf tells a slow start.
func weightOf(a *upstream.TargetStatus) string {
	if a.Weight > 0 && a.Started > 0 && a.Started < 1 {
		return fmt.Sprintf("%d (%.0f %%)", a.Weight, 100*a.Started)
	}
	return fmt.Sprint(a.Weight)
}

func milliseconds(ms float64) string {
	if ms < 0.01 { // what nobody has measured
		return "-"
	}
	return health.Span(ms * float64(time.Millisecond)).String()
}

// printReasons prints why targets get no requests, and what has happened.
func printReasons(w io.Writer, s *upstream.Status) error {
	type event struct {
		health.Change
		address string
	}
	var lately []event
	first := "\n"
	for i := range s.Targets {
		a := &s.Targets[i]
		if a.Why != "" {
			fmt.Fprintf(w, "%s%s: %s\n", first, a.Address, a.Why)
			first = ""
		}
		for _, c := range a.History {
			lately = append(lately, event{c, a.Address})
		}
	}
	slices.SortStableFunc(lately, func(a, b event) int { return b.At.Compare(a.At) })
	for i, c := range lately[:min(len(lately), maxLately)] {
		if i == 0 {
			fmt.Fprintln(w, "\nlately, the newest first")
		}
		long := ""
		if c.For != "" {
			long = " for " + c.For
		}
		fmt.Fprintf(w, "%s  %s %s%s: %s\n", c.At.Format(dateAndTime), c.address, c.State, long, c.Why)
	}
	return nil
}

// discoveryLine says what is known by discovery, how old that is, and how many only stay a while longer.
func discoveryLine(s *upstream.Status) string {
	d := s.Discovery
	if d == nil {
		return ""
	}
	line := d.State + ", from " + d.Source
	if d.Answered != nil {
		line += "; answered " + d.Answered.Format(dateAndTime)
	}
	draining := 0
	for i := range s.Targets {
		if s.Targets[i].Weight == 0 {
			draining++
		}
	}
	if draining > 0 {
		line += fmt.Sprintf("; %d drain", draining)
	}
	if n := d.Held + d.Damped; n > 0 {
		line += fmt.Sprintf("; %d are kept that it names no more", n)
	}
	if d.Error != "" {
		line += "; " + d.Error
	}
	return line
}

func concurrencyLine(c *gate.Concurrency) string {
	if c == nil {
		return ""
	}
	line := fmt.Sprintf("at most %d (%s): %d under way, %d waiting", c.Limit, c.Mode, c.InFlight, c.Waiting)
	if !c.Limited {
		line = fmt.Sprintf("none now (%s): %d under way", c.Mode, c.InFlight)
	}
	if c.Why != "" {
		line += "; " + c.Why
	}
	return line
}

func breakerLine(b *gate.Breaker) string {
	if b == nil {
		return ""
	}
	line := fmt.Sprintf("%s; %d of %d requests failed", b.State, b.Failed, b.Requests)
	if b.Next != nil {
		line += "; asked again " + b.Next.Format(dateAndTime)
	}
	return line
}
