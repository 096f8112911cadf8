package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"headgate/internal/testkit"
)

// TestReferenceIsFresh compares docs/reference with what the binary says of itself today.
func TestReferenceIsFresh(t *testing.T) {
	binary, err := testkit.Build(t.Context(), t.TempDir(), raceEnabled)
	if err != nil {
		t.Fatal(err)
	}
	fresh := t.TempDir()
	if out, err := exec.Command("../.ci/docs", binary, fresh).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, err := os.ReadDir(fresh)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		want, err := os.ReadFile(filepath.Join(fresh, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("../docs/reference", f.Name()))
		if err != nil || string(got) != string(want) {
			t.Errorf("docs/reference/%s is not what the binary says (%v); run make docs and commit it", f.Name(), err)
		}
	}
}
