package text

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNearestFindsWhatWasMeant(t *testing.T) {
	keys := []string{"policies", "routes", "upstream", "base_path", "on_error", "when", "rate-limit"}
	for word, want := range map[string]string{
		"polices":   "policies",
		"Policies":  "policies",
		"rotues":    "routes", // a swap is one slip
		"upstreams": "upstream",
		"base-path": "base_path",
		"basepath":  "base_path",
		"onerror":   "on_error",
		"wehn":      "when",
		"rate_limt": "rate-limit",
		"timeout":   "",
		"x":         "",
		"":          "",
		"match":     "",
	} {
		got, ok := Nearest(word, keys)
		if got != want || ok != (want != "") {
			t.Errorf("Nearest(%q) = %q, %v; want %q", word, got, ok, want)
		}
	}
}

func TestNearestDoesNotCompareEndlessWords(t *testing.T) {
	if got, ok := Nearest(strings.Repeat("a", 1<<20), []string{strings.Repeat("a", 1<<20-1)}); ok {
		t.Errorf("compared a word of a mebibyte: %d bytes", len(got))
	}
}

func TestListReadsAsProse(t *testing.T) {
	for want, words := range map[string][]string{"": nil, "a": {"a"}, "a or b": {"a", "b"}, "a, b or c": {"a", "b", "c"}} {
		if got := List(words); got != want {
			t.Errorf("List(%v) = %q, want %q", words, got, want)
		}
	}
}

func TestDistanceIsSymmetricAndZeroOnlyForEqualWords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := []rune(rapid.StringMatching(`[a-d]{0,8}`).Draw(t, "a"))
		b := []rune(rapid.StringMatching(`[a-d]{0,8}`).Draw(t, "b"))
		d := distance(a, b)
		if d != distance(b, a) || (d == 0) != (string(a) == string(b)) || d > max(len(a), len(b)) {
			t.Fatalf("distance(%q, %q) = %d", string(a), string(b), d)
		}
	})
}
