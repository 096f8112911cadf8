package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"headgate/gateway/release"
)

// printRelease prints what is asked in place of an upstream that has no targets of its own.
func printRelease(w io.Writer, e *upstreamExplanation) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) { fmt.Fprintf(t, "%s\t%s\n", name, value) }
	row("upstream", e.release.Name)
	row("told by", e.ToldBy)
	releaseRows(row, e.release)
	if err := t.Flush(); err != nil {
		return err
	}
	return printVariants(w, e.release.Variants)
}

// releaseRows says what stands in front of targets or variants, and what becomes of copies.
func releaseRows(row func(name, value string), s *release.Status) {
	if s.Cookie != "" {
		what := "target"
		if len(s.Variants) > 0 {
			what = "variant and target"
		}
		row("sticky", "the cookie "+s.Cookie+" keeps a client at its "+what)
	}
	m := s.Mirror
	if m == nil {
		return
	}
	which := "requests"
	if m.Conditional {
		which = "requests that its condition fits"
	}
	row("mirror", fmt.Sprintf("upstream %s gets copies of %.4g %% of the %s; %d under way of at most %d", m.Upstream, m.Percent, which,
		m.UnderWay, m.Limit))
	row("copies", countsLine(m.Copies))
	row("left out", countsLine(m.LeftOut))
	if m.Compared != nil {
		row("compared", countsLine(m.Compared))
		row("different", countsLine(m.Differences))
	}
}

// printVariants prints who gets how much, and how that changes.
func printVariants(w io.Writer, variants []release.VariantStatus) error {
	if len(variants) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "variant\tupstream\tweight\tshare\trequests\tanswers")
	for i := range variants {
		v := &variants[i]
		fmt.Fprintf(t, "%s\t%s\t%.4g\t%.4g %%\t%d\t%s\n", v.Name, v.Upstream, v.Weight, 100*v.Share, v.Requests, countsLine(v.Answers))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	first := "\n"
	for i := range variants {
		if r := variants[i].Ramp; r != nil {
			fmt.Fprintf(w, "%s%s: %.3g %% of its ramp is over; next change: %s\n", first, variants[i].Name, 100*r.Done, r.Next)
			first = ""
		}
	}
	return nil
}

// countsLine names what was counted at all, by its labels.
func countsLine(counts map[string]uint64) string {
	var list []string
	for _, label := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[label]; n > 0 {
			list = append(list, fmt.Sprintf("%s %d", label, n))
		}
	}
	return cmp.Or(strings.Join(list, ", "), "-")
}
