package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/policies"
)

func TestTheSchemaIsOneAndFitsTheDocuments(t *testing.T) {
	out, errs, status := headgate(t, "schema")
	if status != 0 || errs != "" {
		t.Fatalf("exit %d, %s", status, errs)
	}
	s, err := jsonschema.UnmarshalJSON(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("headgate.schema.json", s); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("headgate.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		document string
		fits     bool
	}{
		{"upstreams: {orders: 'http://127.0.0.1:9101'}\napis: {orders: {upstream: orders}}", true},
		{"upstreams: {orders: 'http://127.0.0.1:9101'}\napis: {orders: {upstraem: orders}}", false},
		{"policies: [rate-limit: {limit: 600, per: 1m}]", true},
		{"policies: [rate-limit: {limit: many}]", false},
	} {
		var v any
		if err := yaml.Unmarshal([]byte(test.document), &v); err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); (err == nil) != test.fits {
			t.Errorf("%s\nfits: %v", test.document, err)
		}
	}
}

func TestEveryPolicyIsListedAndHasAReference(t *testing.T) {
	list, _, status := headgate(t, "policies")
	if status != 0 {
		t.Fatalf("exit %d", status)
	}
	for _, k := range policies.Catalog() {
		if !strings.Contains(list, "\n"+k.Name+" ") || !strings.Contains(list, k.Summary) {
			t.Errorf("the list lacks %s:\n%s", k.Name, list)
		}
		one, errs, status := headgate(t, "policies", k.Name)
		if status != 0 || !strings.HasPrefix(one, k.Name+": "+k.Summary+"\nStage: "+k.Stage.String()+"\n") {
			t.Errorf("exit %d, %s\n%s", status, errs, one)
		}
		for _, code := range k.Codes {
			if !strings.Contains(one, "\n"+code.Name+" ") {
				t.Errorf("the reference of %s lacks the problem %s", k.Name, code.Name)
			}
		}
	}
}

func TestProblemsAsJSONSayTheSameAsThoseForPeople(t *testing.T) {
	out, errs, status := headgate(t, "check", "--json", "mistakes.yaml")
	var problems decode.Problems
	if err := json.Unmarshal([]byte(out), &problems); err != nil || status != 2 {
		t.Fatalf("%v, exit %d, %s\n%s", err, status, errs, out)
	}
	_, people, _ := headgate(t, "check", "mistakes.yaml")
	if got := problems.Error(); strings.TrimSpace(people) != strings.TrimSpace(got) || len(problems) != 5 {
		t.Errorf("%d problems as JSON:\n%s\nfor people:\n%s", len(problems), got, people)
	}
}

func TestTheExplanationAsJSON(t *testing.T) {
	out, errs, status := headgate(t, "explain", "route", "GET", "/shop/orders/7", "-f", "shop.yaml", "--json")
	var e struct {
		Upstream string
		Params   []struct{ Name, Value string }
		Policies []struct{ Name, Stage string }
	}
	if err := json.Unmarshal([]byte(out), &e); err != nil || status != 0 {
		t.Fatalf("%v, exit %d, %s\n%s", err, status, errs, out)
	}
	if e.Upstream != "orders" || len(e.Params) != 1 || e.Params[0].Value != "7" || len(e.Policies) != 2 {
		t.Errorf("%s", out)
	}
}

func TestTheVersionNamesTheMachineItWasBuiltFor(t *testing.T) {
	out, _, status := headgate(t, "version")
	if f := strings.Fields(out); status != 0 || len(f) != 4 || f[0] != "headgate" || !strings.Contains(f[3], "/") {
		t.Errorf("exit %d, %q", status, out)
	}
}

// Where a shell is installed, it reads the script that is made for it.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		out, errs, status := headgate(t, "completion", shell)
		if status != 0 || errs != "" || !strings.Contains(out, "headgate") {
			t.Errorf("%s: exit %d, %s", shell, status, errs)
		}
		path, err := exec.LookPath(shell)
		if err != nil || shell == "powershell" {
			continue
		}
		c := exec.CommandContext(t.Context(), path, "-n")
		c.Stdin = strings.NewReader(out)
		if b, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s does not read it: %v\n%s", shell, err, b)
		}
	}
}

func TestTheShellCompletesVerbsAndPolicies(t *testing.T) {
	for _, test := range []struct{ words, want string }{
		{"ch", "check"}, {"explain ", "route"}, {"policies rate", "rate-limit"},
	} {
		out, _, status := headgate(t, append([]string{"__complete"}, strings.Split(test.words, " ")...)...)
		if status != 0 || !strings.Contains("\n"+out, "\n"+test.want) {
			t.Errorf("%q: exit %d\n%s", test.words, status, out)
		}
	}
}

func TestEveryVerbHasHelpWithAnExample(t *testing.T) {
	for _, verb := range []string{"run", "check", "schema", "explain route", "explain upstream", "policies", "demo", "ca"} {
		out, _, status := headgate(t, append(strings.Fields(verb), "--help")...)
		if status != 0 || !strings.Contains(out, "Examples:\n  headgate "+verb) {
			t.Errorf("%s: exit %d\n%s", verb, status, out)
		}
	}
}
