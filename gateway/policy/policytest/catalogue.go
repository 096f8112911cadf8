package policytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/config/schema"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

var (
	kindName = regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)*$`)
	codeName = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
)

// Catalogue proves what holds for all kinds together: names are unique and one word of the document, codes mean one
// thing, and the examples of every README use only what there is.
func Catalogue(t *testing.T, kinds []policy.Kind) {
	byName := map[string]policy.Kind{}
	codes := map[string]exchange.Code{}
	for _, code := range exchange.Codes() {
		codes[code.Name] = code
	}
	for _, k := range kinds {
		if !kindName.MatchString(k.Name) {
			t.Errorf("kind %q is not a name in lower case with dashes", k.Name)
		}
		if _, twice := byName[k.Name]; twice {
			t.Errorf("two kinds are called %s", k.Name)
		}
		byName[k.Name] = k
		for _, code := range k.Codes {
			if known, taken := codes[code.Name]; taken && known != code {
				t.Errorf("%s: the code %s means something else already: %d %s", k.Name, code.Name, known.Status, known.Title)
			}
			codes[code.Name] = code
			if !codeName.MatchString(code.Name) || code.Status < 400 || code.Status > 599 || code.Title == "" {
				t.Errorf("%s: %+v is no code with a name in lower_snake_case, a status of an error and a sentence", k.Name, code)
			}
		}
	}
	document := documentSchema(t, kinds)
	for _, k := range kinds {
		t.Run(k.Name, func(t *testing.T) {
			readme := ReadReadme(t, k.Name)
			for _, e := range readme.Examples {
				place := fmt.Sprintf("%s, example at line %d", readme.Path, e.Line)
				if err := document.Validate(asJSON(t, e.resolve(t))); err != nil {
					t.Errorf("%s: the schema refuses what the decoder takes: %v", place, err)
				}
				for _, p := range Policies(e.Decode(t, readme.Path)) {
					buildExample(t, place, byName, p)
				}
			}
		})
	}
}

func buildExample(t *testing.T, place string, kinds map[string]policy.Kind, p model.Policy) {
	kind, ok := kinds[p.Kind]
	if !ok {
		t.Errorf("%s: there is no policy %s", place, p.Kind)
		return
	}
	built, problems := New(t).build(kind, p.Options)
	if len(problems) > 0 {
		t.Errorf("%s: %s:\n%v", place, p.Kind, problems)
		return
	}
	built.Close()
}

// documentSchema compiles the JSON Schema of documents with these kinds, which checks it against its metaschema too.
func documentSchema(t *testing.T, kinds []policy.Kind) *jsonschema.Schema {
	t.Helper()
	var list []schema.Policy
	for _, k := range kinds {
		list = append(list, schema.Policy{Name: k.Name, Summary: k.Summary, Config: k.Config, Default: k.Default})
	}
	text, err := schema.JSONSchema(reflect.TypeFor[model.Document](), list)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("headgate.json", parsed); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("headgate.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// asJSON reads YAML as an editor does before it asks the schema.
func asJSON(t *testing.T, text string) any {
	t.Helper()
	var node yaml.Node
	var value any
	if err := yaml.Unmarshal([]byte(text), &node); err != nil {
		t.Fatal(err)
	}
	if problems := decode.Value(&node, &value); len(problems) > 0 {
		t.Fatal(problems)
	}
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if value, err = jsonschema.UnmarshalJSON(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return value
}
