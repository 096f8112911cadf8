package schema

import "strings"

// Markdown returns rows as a table for a README or a reference page, ending in a newline; "None." where there is none.
func Markdown(rows []Row) string {
	if len(rows) == 0 {
		return "None.\n"
	}
	var b strings.Builder
	b.WriteString("| Option | Type | Default | Allowed | Meaning |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		standard := quoted(r.Default)
		if r.Required {
			standard = "required"
		}
		for _, cell := range []string{quoted(r.Name), r.Type, standard, cell(r.Allowed), cell(r.Doc)} {
			b.WriteString(strings.TrimRight("| "+cell, " ") + " ")
		}
		b.WriteString("|\n")
	}
	return b.String()
}

// quoted sets what is typed as it stands.
func quoted(s string) string {
	if s == "" {
		return ""
	}
	return "`" + cell(s) + "`"
}

// cell keeps a text inside its cell.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s)
}
