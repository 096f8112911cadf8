package main

import (
	"reflect"

	"github.com/spf13/cobra"

	"headgate/config/model"
	"headgate/config/schema"
	"headgate/policies"
)

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of documents, for editors",
		Long: "Prints the JSON Schema (2020-12) of documents with all policies, so that editors complete and check while typing.\n" +
			"In VS Code: \"yaml.schemas\": {\"headgate.schema.json\": \"gateway.yaml\"}.",
		Example: "  headgate schema > headgate.schema.json",
		Args:    takes(0),
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := schema.JSONSchema(reflect.TypeFor[model.Document](), schemaPolicies())
			if err == nil {
				_, err = c.OutOrStdout().Write(b)
			}
			return fail(err)
		},
	}
}

func schemaPolicies() []schema.Policy {
	var list []schema.Policy
	for _, k := range policies.Catalog() {
		list = append(list, schema.Policy{Name: k.Name, Summary: k.Summary, Config: k.Config, Default: k.Default})
	}
	return list
}
