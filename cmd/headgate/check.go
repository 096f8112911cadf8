package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/config/source"
	"headgate/gateway/compile"
)

func checkCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "check FILE|DIR",
		Short: "Check a document and list everything that is wrong with it",
		Long: "Reads and compiles a document as run would, without opening a door or asking anybody, and prints every problem as\n" +
			"file:line:col: path: what was found and what is allowed [code]. Exits with 2 when there is one.\n" +
			"A line that begins with note: is about what is allowed and probably not meant.",
		Example: "  headgate check gateway.yaml\n  headgate check --json conf.d/",
		Args:    takes(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := source.Open(args[0])
			if err != nil {
				return fail(err)
			}
			p := newBench()
			good, err := p.load(s)
			var problems decode.Problems
			if asJSON && errors.As(err, &problems) {
				return printProblems(c.OutOrStdout(), problems)
			}
			if err != nil {
				return fail(err)
			}
			remarks := append(notes(good.loaded), certificateNotes(good, p.clock.Now())...)
			p.discard(good.snapshot)
			if asJSON {
				_, err = fmt.Fprintln(c.OutOrStdout(), "[]")
				return fail(err)
			}
			for _, note := range remarks {
				fmt.Fprintln(c.OutOrStdout(), "note:", note)
			}
			d := good.document
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is good: %s, %s, %s, %s\n", args[0], listeners(d),
				count(len(d.APIs), "API"), count(len(d.Upstreams), "upstream"), count(len(d.Consumers), "consumer"))
			return fail(err)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the problems as JSON")
	return c
}

// listeners counts those of a document, which has one without saying so.
func listeners(d *model.Document) string {
	if len(d.Listeners) == 0 {
		return "the default listener on " + compile.DefaultAddress
	}
	text := count(len(d.Listeners), "listener")
	if n := tcpListeners(d); n > 0 {
		text += fmt.Sprintf(" (%d of TCP)", n)
	}
	return text
}

// tcpListeners counts the listeners that speak no HTTP.
func tcpListeners(d *model.Document) (n int) {
	for _, l := range d.Listeners {
		if l.TCP != nil {
			n++
		}
	}
	return n
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// printProblems prints the problems as JSON and returns how many there are.
func printProblems(w io.Writer, problems decode.Problems) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(problems); err != nil {
		return fail(err)
	}
	return errors.New(count(len(problems), "problem"))
}
