package policytest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/config/model"
)

// sections are what a policy's README has, in this order.
var sections = []string{"Name", "Description", "Options", "Examples", "Metrics", "Cost", "See also"}

// Readme is a policy's README.md.
type Readme struct {
	Path     string
	Title    string
	Sections map[string]string
	Order    []string
	Examples []Example
}

// Example is one document in a README.
type Example struct {
	Line int // where it begins in the README
	Text string
}

// Folder returns the folder of a kind's package below policies/: its name without the dashes.
func Folder(kind string) string { return strings.ReplaceAll(kind, "-", "") }

// ReadReadme reads the README of a kind, from policies/ or from the kind's own folder.
func ReadReadme(t testing.TB, kind string) Readme {
	t.Helper()
	path := "README.md"
	if wd, err := os.Getwd(); err != nil {
		t.Fatal(err)
	} else if filepath.Base(wd) != Folder(kind) {
		path = filepath.Join(Folder(kind), path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("every policy has a README: %v", err)
	}
	return parseReadme(path, string(data))
}

func parseReadme(path, text string) Readme {
	r := Readme{Path: path, Sections: map[string]string{}}
	section, example := "", -1
	for i, line := range strings.Split(text, "\n") {
		switch {
		case example >= 0 && strings.HasPrefix(line, "```"):
			example = -1
		case example >= 0:
			r.Examples[example].Text += line + "\n"
		case section == "Examples" && strings.HasPrefix(line, "```yaml"):
			r.Examples = append(r.Examples, Example{Line: i + 2})
			example = len(r.Examples) - 1
		case strings.HasPrefix(line, "# ") && r.Title == "":
			r.Title = strings.TrimPrefix(line, "# ")
		case strings.HasPrefix(line, "## "):
			section = strings.TrimPrefix(line, "## ")
			r.Order = append(r.Order, section)
			continue
		}
		r.Sections[section] += line + "\n"
	}
	return r
}

var (
	envReference  = regexp.MustCompile(`\$\{env:(\w+)\}`)
	fileReference = regexp.MustCompile(`\$\{file:[^}]*\}`)
)

// exampleSecret is what a reference in an example stands for: long enough for the key of any HMAC.
const exampleSecret = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"

// Decode reads the example as a whole document, with something behind every reference, and fails the test when that
// cannot be read.
func (e Example) Decode(t *testing.T, path string) model.Document {
	t.Helper()
	place := fmt.Sprintf("%s, example at line %d", path, e.Line)
	loaded, problems := decode.Document([]decode.File{{Name: place, Data: []byte(e.resolve(t))}})
	if len(problems) > 0 {
		t.Fatalf("%s does not decode:\n%v", place, problems)
	}
	return loaded.Document
}

// resolve puts something behind every reference of the example and returns its text.
func (e Example) resolve(t *testing.T) string {
	t.Helper()
	for _, m := range envReference.FindAllStringSubmatch(e.Text, -1) {
		t.Setenv(m[1], exampleSecret)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(exampleSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	return fileReference.ReplaceAllLiteralString(e.Text, "${file:"+secret+"}")
}

// Policies returns every policy of a document, also those inside any and all.
func Policies(d model.Document) []model.Policy {
	list := slices.Clone(d.Policies)
	for _, name := range sortedKeys(d.APIs) {
		api := d.APIs[name]
		list = append(list, api.Policies...)
		for _, name := range sortedKeys(api.Routes) {
			list = append(list, api.Routes[name].Policies...)
		}
	}
	for i := 0; i < len(list); i++ { // grows while it is walked
		list = append(list, list[i].Group...)
	}
	return slices.DeleteFunc(list, func(p model.Policy) bool { return model.GroupKind(p.Kind) })
}

// options returns the options with which a document uses a kind; nil stands for its defaults.
func options(d model.Document, kind string) (list []*yaml.Node) {
	for _, p := range Policies(d) {
		if p.Kind == kind {
			list = append(list, p.Options)
		}
	}
	return list
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
