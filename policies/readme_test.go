package policies

import (
	"flag"
	"os"
	"strings"
	"testing"

	"headgate/config/schema"
	"headgate/gateway/policy/policytest"
)

// TestOptionTablesAreFresh compares the table of options in each README with the policy's tags; with -update it writes
// the table (make docs).
func TestOptionTablesAreFresh(t *testing.T) {
	for _, kind := range Catalog() {
		path := policytest.ReadReadme(t, kind.Name).Path
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		before, rest, begins := strings.Cut(string(data), policytest.OptionsBegin)
		_, after, ends := strings.Cut(rest, policytest.OptionsEnd)
		if !begins || !ends {
			t.Errorf("%s has no place for its table of options", path)
			continue
		}
		fresh := before + policytest.OptionsBegin + "\n\n" + schema.Markdown(schema.Table(kind.Config, kind.Default)) + "\n" +
			policytest.OptionsEnd + after
		if fresh == string(data) {
			continue
		}
		if !*update {
			t.Errorf("the table of options in policies/%s is not what the tags say; run make docs and commit it", path)
		} else if err := os.WriteFile(path, []byte(fresh), 0o644); err != nil {
			t.Error(err)
		}
	}
}

var update = flag.Bool("update", false, "write the generated parts of the READMEs")
