package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"headgate/config/schema"
	"headgate/gateway/policy"
	"headgate/internal/text"
	"headgate/policies"
)

func policiesCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "policies [NAME]",
		Short:   "List the policies, or print the reference of one",
		Example: "  headgate policies\n  headgate policies rate-limit",
		Args:    cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return policyNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fail(listPolicies(c.OutOrStdout()))
			}
			for _, k := range policies.Catalog() {
				if k.Name == args[0] {
					return fail(describePolicy(c.OutOrStdout(), k))
				}
			}
			hint := cmp.Or(text.DidYouMean(args[0], policyNames()), "; headgate policies lists them")
			return fmt.Errorf("there is no policy %q%s", args[0], hint)
		},
	}
}

func policyNames() (names []string) {
	for _, k := range policies.Catalog() {
		names = append(names, k.Name)
	}
	return names
}

func listPolicies(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POLICY\tSTAGE\tWHAT IT DOES")
	for _, k := range policies.Catalog() {
		fmt.Fprintf(t, "%s\t%s\t%s\n", k.Name, k.Stage, k.Summary)
	}
	return t.Flush()
}

func describePolicy(w io.Writer, k policy.Kind) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s: %s\nStage: %s\n\nOPTION\tTYPE\tDEFAULT\tALLOWED\tWHAT IT MEANS\n", k.Name, k.Summary, k.Stage)
	for _, r := range schema.Table(k.Config, k.Default) {
		name := r.Name
		if r.Required {
			name += " (required)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", name, r.Type, r.Default, r.Allowed, r.Doc)
	}
	if len(k.Codes) > 0 {
		fmt.Fprint(t, "\nPROBLEM\tSTATUS\tWHAT THE CALLER READS\n")
		for _, code := range k.Codes {
			fmt.Fprintf(t, "%s\t%d\t%s\n", code.Name, code.Status, code.Title)
		}
	}
	return t.Flush()
}
