package schema

import "testing"

func TestMarkdownKeepsEveryTextInItsCell(t *testing.T) {
	got := Markdown([]Row{
		{Name: "limit", Type: "whole number", Required: true, Allowed: "at least 1", Doc: "How many."},
		{Name: "match", Type: "text", Default: "a|b", Doc: "One\nor the other."},
	})
	want := "| Option | Type | Default | Allowed | Meaning |\n| --- | --- | --- | --- | --- |\n" +
		"| `limit` | whole number | required | at least 1 | How many. |\n" +
		"| `match` | text | `a\\|b` | | One or the other. |\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := Markdown(nil); got != "None.\n" {
		t.Errorf("no rows give %q", got)
	}
}
