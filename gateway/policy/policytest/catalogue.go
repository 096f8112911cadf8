package policytest

import (
	"regexp"
	"testing"

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
	for _, k := range kinds {
		t.Run(k.Name, func(t *testing.T) {
			readme := ReadReadme(t, k.Name)
			for _, e := range readme.Examples {
				for _, p := range Policies(e.Decode(t, readme.Path)) {
					other, ok := byName[p.Kind]
					if !ok {
						t.Errorf("%s, example at line %d: there is no policy %s", readme.Path, e.Line, p.Kind)
						continue
					}
					built, problems := New(t).build(other, p.Options)
					if len(problems) > 0 {
						t.Errorf("%s, example at line %d: %s:\n%v", readme.Path, e.Line, p.Kind, problems)
						continue
					}
					built.Close()
				}
			}
		})
	}
}
