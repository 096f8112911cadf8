package policies

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"testing"

	"headgate/gateway/policy"
	"headgate/gateway/policy/policytest"
)

func TestEveryPolicyKeepsTheContract(t *testing.T) {
	for _, kind := range Catalog() {
		t.Run(kind.Name, func(t *testing.T) { policytest.Contract(t, kind) })
	}
}

func TestTheCatalogueFitsTogether(t *testing.T) {
	policytest.Catalogue(t, Catalog())
}

func TestTheCatalogueIsInOrderAndComplete(t *testing.T) {
	kinds := Catalog()
	if !slices.IsSortedFunc(kinds, func(a, b policy.Kind) int {
		return cmp.Or(cmp.Compare(a.Stage, b.Stage), strings.Compare(a.Name, b.Name))
	}) {
		t.Error("Catalog() is not in order of stage and name")
	}
	folders, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if f.IsDir() && !slices.ContainsFunc(kinds, func(k policy.Kind) bool { return policytest.Folder(k.Name) == f.Name() }) {
			t.Errorf("policies/%s is not in Catalog()", f.Name())
		}
	}
}
