package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"headgate/config/source"
	"headgate/gateway/compile"
)

func explainConnectionCommand() *cobra.Command {
	var file, name string
	var asJSON bool
	c := &cobra.Command{
		Use:   "connection LISTENER",
		Short: "Say where a connection to a listener with tcp goes, within which limits",
		Example: "  headgate explain connection postgres --file gateway.yaml\n" +
			"  headgate explain connection passthrough --name db.example.com -f gateway.yaml",
		Args: takes(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := source.Open(file)
			if err != nil {
				return fail(err)
			}
			p := newBench()
			good, err := p.load(s)
			if err != nil {
				return fail(err)
			}
			defer p.discard(good.snapshot)
			e, err := compile.ExplainConnection(good.snapshot, args[0], name)
			if err != nil {
				return err
			}
			return tell(c.OutOrStdout(), e, printConnection, asJSON)
		},
	}
	c.Flags().StringVarP(&file, "file", "f", defaultDocument, "the document: a file or a folder")
	c.Flags().StringVarP(&name, "name", "n", "", "the name that a TLS client asks for")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// printConnection prints what a person wants to know, from top to bottom as a connection meets it.
func printConnection(w io.Writer, e compile.Connection) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"listener", e.Listener}, {"name", e.Name}, {"outcome", e.Outcome}, {"because", e.Reason}, {"upstream", e.Upstream},
		{"targets", strings.Join(e.Targets, ", ")}, {"encrypted", e.Encrypted}, {"client", e.Client}, {"limits", strings.Join(e.Limits, ", ")},
	} {
		if row[1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", row[0], row[1])
		}
	}
	return t.Flush()
}
