package headgate_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// room is one row of the import table: what the packages under a folder may import of ours, and what of the standard
// library they must do without. The first row whose folder fits a package decides.
type room struct {
	folder string // a package's folder, or "x/..." for everything under it
	may    []string
	never  []string // standard library packages
	why    string
}

// table says who may import whom. Read a row as a sentence: packages in this folder may import those, because.
var table = []room{
	{"cmd/...", []string{"..."}, nil, "only the binary sees everything"},
	{".", []string{"internal/testkit"}, nil, "the house rules look at files, not at packages"},
	{"test/...", []string{"internal/...", "config/..."}, nil, "behaviour is proven from outside, against the binary"},
	{"examples", nil, nil, "documents; the demo carries one in the binary"},
	{"bench/...", []string{"bench/...", "internal/..."}, nil, "figures are taken from outside"},

	{"policies", []string{"policies/...", "gateway/policy"}, nil, "catalog.go is the list of policies"},
	{"policies/...", []string{"gateway/policy/...", "gateway/exchange", "config/...", "internal/..."}, []string{"net", "os", "os/exec"},
		"a policy knows the contract and the exchange; what it needs from outside, Env hands in"},

	{"gateway/exchange", []string{"internal/..."}, []string{"net", "os"}, "knows no protocol and no policy"},
	{"gateway/policy", []string{"gateway/exchange", "config/decode", "internal/..."}, []string{"os"},
		"the contract stands on the exchange alone"},
	{"gateway/policy/...", []string{"gateway/...", "config/...", "internal/..."}, nil, "policytest runs a policy in a real chain"},
	{"gateway/wire/h1", []string{"gateway/exchange", "internal/..."}, []string{"net/http", "os"},
		"an own codec that does no I/O, and the driver that feeds it"},
	{"gateway/wire/...", []string{"gateway/wire/...", "gateway/exchange", "internal/..."}, nil,
		"a wire knows exchanges and nothing above them"},
	{"gateway/listen/...", []string{"gateway/listen/...", "gateway/exchange", "config/...", "internal/..."}, nil,
		"sockets know who the client is, and no HTTP"},
	{"gateway/route/...", []string{"gateway/route/...", "gateway/exchange", "config/...", "internal/..."}, []string{"net", "os"},
		"matching is arithmetic"},
	{"gateway/upstream/...", []string{"gateway/upstream/...", "gateway/wire/...", "gateway/exchange", "config/...", "internal/..."}, nil,
		"choosing and asking a target needs no policy"},
	{"gateway/record/...", []string{"gateway/record/...", "gateway/exchange", "config/...", "internal/..."}, nil,
		"what happened is told by the exchange"},
	{"gateway/release/...", []string{"gateway/release/...", "gateway/upstream", "gateway/exchange", "gateway/policy", "config/...",
		"internal/..."}, nil, "a release is a way to upstreams; of policies it knows how expressions are compiled"},
	{"gateway/compile/...", []string{"gateway/...", "config/...", "internal/..."}, nil, "compiling sees the parts that it puts together"},
	{"gateway/...", []string{"gateway/...", "config/...", "internal/..."}, nil, "the data plane never sees the management plane"},

	{"config/model", []string{"config/decode", "internal/..."}, []string{"net/http", "os"}, "the document is data"},
	{"config/schema/...", []string{"config/...", "gateway/policy", "gateway/exchange", "internal/..."}, nil,
		"schemas and pages are made from what policies declare"},
	{"config/...", []string{"config/...", "internal/..."}, nil, "both planes share the document, so it knows neither"},

	{"manage/...", []string{"manage/...", "config/...", "internal/..."}, nil, "the planes meet in config/model and internal/event only"},
	{"cluster/...", []string{"cluster/...", "config/...", "internal/..."}, nil, "carries documents, does not read them"},
	{"internal/...", []string{"internal/..."}, nil, "leaves"},
}

// TestImportsFollowTheTable fails for every import that the table does not allow.
func TestImportsFollowTheTable(t *testing.T) {
	for _, f := range sources(t) {
		row, ok := roomOf(f.folder)
		if !ok {
			t.Errorf("%s: no row of the import table speaks about folder %s; add one with its reason", f.path, f.folder)
			continue
		}
		for _, spec := range f.ast.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if problem := row.judge(f, path); problem != "" {
				t.Errorf("%s: %s", f.at(spec), problem)
			}
		}
	}
}

// TestImportTableAnswers proves the table on imports that are known to be right or wrong.
func TestImportTableAnswers(t *testing.T) {
	for _, c := range []struct {
		folder, imported string
		allowed          bool
	}{
		{"policies/acl", "headgate/gateway/policy", true},
		{"policies/acl", "headgate/gateway/engine", false},
		{"policies/acl", "headgate/policies/cors", false},
		{"policies/acl", "net", false},
		{"gateway/engine", "headgate/manage/usage", false},
		{"manage/usage", "headgate/gateway/exchange", false},
		{"manage/usage", "headgate/internal/event", true},
		{"gateway/wire/h1", "net/http", false},
		{"internal/lru", "headgate/config/model", false},
		{"cmd/headgate", "headgate/manage/store", true},
	} {
		row, ok := roomOf(c.folder)
		if !ok {
			t.Fatalf("no row for %s", c.folder)
		}
		if got := row.judge(source{folder: c.folder}, c.imported) == ""; got != c.allowed {
			t.Errorf("%s importing %s: allowed %v, want %v", c.folder, c.imported, got, c.allowed)
		}
	}
}

// judge says what is wrong with an import, or "". Tests may import any of ours: they prove that the parts fit together.
func (r room) judge(f source, path string) string {
	ours, isOurs := strings.CutPrefix(path, "headgate/")
	if !isOurs {
		for _, n := range r.never {
			if path == n && !f.test {
				return fmt.Sprintf("%s must not import %q: %s", f.folder, path, r.why)
			}
		}
		return ""
	}
	for _, pattern := range r.may {
		if fits(pattern, ours) {
			return ""
		}
	}
	if f.test && !strings.HasPrefix(ours, "manage/") == !strings.HasPrefix(f.folder, "manage/") {
		return ""
	}
	return fmt.Sprintf("%s may import only %s: %s", f.folder, strings.Join(r.may, ", "), r.why)
}

func roomOf(folder string) (room, bool) {
	for _, r := range table {
		if fits(r.folder, folder) {
			return r, true
		}
	}
	return room{}, false
}

// fits reports whether a folder is the pattern, or under it when the pattern ends in "...".
func fits(pattern, folder string) bool {
	base, under := strings.CutSuffix(pattern, "...")
	if !under {
		return pattern == folder
	}
	return base == "" || folder == strings.TrimSuffix(base, "/") || strings.HasPrefix(folder, base)
}
