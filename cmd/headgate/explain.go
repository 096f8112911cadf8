package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"headgate/config/source"
	"headgate/gateway/compile"
)

// defaultDocument is what explain looks at when no document is named.
const defaultDocument = "headgate.yaml"

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "explain", Short: "Say what a document does, and why", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(explainRouteCommand(), explainConnectionCommand(), explainUpstreamCommand())
	return c
}

func explainRouteCommand() *cobra.Command {
	var file string
	var headers []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "route METHOD URL",
		Short: "Say which route a request takes, which policies in which order, and which upstream",
		Example: "  headgate explain route GET http://localhost:8080/shop/orders --file examples/shop.yaml\n" +
			"  headgate explain route POST /shop/orders -f gateway.yaml -H 'X-Tenant: a'",
		Args: takes(2),
		RunE: func(c *cobra.Command, args []string) error {
			e, err := explainRoute(file, args[0], args[1], headers)
			if err != nil {
				return err
			}
			return tell(c.OutOrStdout(), e, printExplanation, asJSON)
		},
	}
	c.Flags().StringVarP(&file, "file", "f", defaultDocument, "the document: a file or a folder")
	c.Flags().StringArrayVarP(&headers, "header", "H", nil, "a header field of the request, as 'Name: value'")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// tell prints an explanation: for programs as JSON, for people as print does.
func tell[E any](w io.Writer, e E, print func(io.Writer, E) error, asJSON bool) error {
	if !asJSON {
		return fail(print(w, e))
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return fail(enc.Encode(e))
}

func explainRoute(file, method, url string, headers []string) (compile.Explanation, error) {
	var none compile.Explanation
	var fields [][2]string
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return none, fmt.Errorf("--header %q: write 'Name: value'", h)
		}
		fields = append(fields, [2]string{name, strings.TrimSpace(value)})
	}
	s, err := source.Open(file)
	if err != nil {
		return none, fail(err)
	}
	p := newBench()
	good, err := p.load(s)
	if err != nil {
		return none, fail(err)
	}
	defer p.discard(good.snapshot)
	return compile.Explain(good.snapshot, method, url, fields...)
}

// printExplanation prints what a person wants to know, from top to bottom as a request meets it.
func printExplanation(w io.Writer, e compile.Explanation) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, value)
		}
	}
	row("request", e.Request)
	row("outcome", strings.ReplaceAll(e.Outcome, "_", " "))
	row("because", e.Reason)
	row("route", e.Written)
	row("match", e.Match)
	row("allowed", e.Allow)
	for _, p := range e.Params {
		row("captured", p.Name+" = "+p.Value)
	}
	for _, o := range e.Others {
		row("not taken", fmt.Sprintf("%s (%s): %s", o.Written, o.Match, o.Why))
	}
	for i, p := range e.Policies {
		row(fmt.Sprintf("policy %d", i+1), policyLine(p))
	}
	row("upstream", e.Upstream)
	for _, line := range e.Release {
		row("release", line)
	}
	row("targets", strings.Join(e.Targets, ", "))
	row("asked for", e.Path)
	row("answer", e.Answer)
	return t.Flush()
}

func policyLine(p compile.PolicyStep) string {
	notes := []string{p.Why}
	if p.When != "" {
		notes = append(notes, "when "+p.When)
	}
	if p.Shadow {
		notes = append(notes, "shadow")
	}
	if p.MayWait {
		notes = append(notes, "may wait")
	}
	return fmt.Sprintf("%s  [%s: %s]  %s; on error: %s", p.Name, p.Stage, strings.Join(p.Does, ", "), strings.Join(notes, "; "), p.OnError)
}
