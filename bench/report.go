package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"headgate/bench/figure"
	"headgate/bench/peers"
	"headgate/bench/survive"
)

// columns are the figures of a throughput case, in the order of the table.
var columns = [...]metric{
	userMicros, systemMicros, perSecond, meanMicros, p50Micros, p99Micros, p999Micros, maxMillis, allocations, rssMiB, busyPercent, failures,
}

// reloadColumns are those of a case with reloads.
var reloadColumns = [...]metric{lostCount, refusedOnes, p50Micros, p99Micros, p999Micros, maxMillis, liveMillis}

// startColumns are those of starting and idling.
var startColumns = [...]metric{startMillis, rssMiB, rss1000, rss10000, perIdleKiB}

// report is the whole result in Markdown, readable as it is.
func (b *bench) report(m machine) string {
	var out strings.Builder
	fmt.Fprintf(&out, "# Headgate beside nginx and HAProxy\n\n%s\n", m)
	fmt.Fprintf(&out, "%d rounds in turns, %v each after a warm-up of %v; ", b.options.rounds, b.duration, b.duration/4)
	out.WriteString("the gateway alone on one core, load and upstream on another.\n")
	out.WriteString("CPU is the gateway's own time for each completed request. ")
	out.WriteString("Every answer is checked: status, length, body, header fields.\n")
	out.WriteString("In the cases U the contestants run side by side, three rounds at most, each for as long as its scenario lasts.\n")
	out.WriteString("Median, and where it says so [smallest – largest] of the rounds; ratios are of the same round.\n\n")
	out.WriteString(goalTable(b.results))
	for _, t := range tasks() {
		if b.results[t.id] != nil {
			b.caseTable(&out, t)
		}
	}
	if len(b.notes) > 0 {
		out.WriteString("\n## What failed in the scenarios of survival\n\n")
		for _, n := range b.notes {
			fmt.Fprintf(&out, "- %s\n", n)
		}
	}
	if len(b.complaints) > 0 {
		out.WriteString("\n## Errors\n\n")
		for _, c := range b.complaints {
			fmt.Fprintf(&out, "- %s\n", strings.ReplaceAll(c, "\n", "\n  "))
		}
	}
	return out.String()
}

func (b *bench) caseTable(out *strings.Builder, t task) {
	fmt.Fprintf(out, "\n## %s: %s\n\n", t.id, t.title)
	head, metrics := []string{""}, columns[:]
	if t.special == nil {
		head = append(head, string(cpuMicros)+" [min – max]", "/ nginx", "/ haproxy")
	} else {
		metrics = t.columns
	}
	for _, m := range metrics {
		head = append(head, string(m))
	}
	var rows [][]string
	for _, kind := range b.contestants {
		if b.results[t.id][kind] == nil {
			continue
		}
		row := []string{string(kind)}
		if t.special == nil {
			row = append(row, spread(b.results.summary(t.id, kind, cpuMicros)),
				spread(b.results.ratio(t.id, kind, t.id, peers.Nginx, cpuMicros)),
				spread(b.results.ratio(t.id, kind, t.id, peers.HAProxy, cpuMicros)))
		}
		for _, m := range metrics {
			s := b.results.summary(t.id, kind, m)
			switch {
			case m == failures:
				row = append(row, number(s.Max))
			case t.special != nil:
				row = append(row, spread(s))
			default:
				row = append(row, number(s.Median))
			}
		}
		rows = append(rows, row)
	}
	table(out, head, rows)
}

// line is the progress of one measurement.
func line(s sample, err error) string {
	var parts []string
	for _, m := range []metric{cpuMicros, perSecond, p99Micros, startMillis, rssMiB, lostCount, refusedOnes, maxMillis,
		metric(survive.AfterP99), metric(survive.FailedAway), metric(survive.Goodput), metric(survive.SmallGood),
		metric(survive.P999), costRatio} {
		if v, ok := s[m]; ok {
			parts = append(parts, fmt.Sprintf("%s %s", number(v), m))
		}
	}
	if err != nil {
		parts = append(parts, "ERROR: "+err.Error())
	}
	return strings.Join(parts, " · ")
}

// spread prints a median with its range; the range is left out when it says nothing.
func spread(s figure.Summary) string {
	if s.Rounds < 2 || s.Min == s.Max {
		return number(s.Median)
	}
	return fmt.Sprintf("%s [%s – %s]", number(s.Median), number(s.Min), number(s.Max))
}

// number prints three significant digits or all whole ones.
func number(v float64) string {
	switch size := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case v == math.Trunc(v) || size >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case size >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// table prints a Markdown table whose columns stand under each other.
func table(out *strings.Builder, head []string, rows [][]string) {
	width := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell), 3)
		}
	}
	row := func(cells []string) {
		for i, cell := range cells {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				cell += pad
			} else {
				cell = pad + cell
			}
			out.WriteString("| " + cell + " ")
		}
		out.WriteString("|\n")
	}
	row(head)
	for i, w := range width {
		rule := strings.Repeat("-", w)
		if i > 0 {
			rule = rule[1:] + ":"
		}
		out.WriteString("| " + rule + " ")
	}
	out.WriteString("|\n")
	for _, cells := range rows {
		row(cells)
	}
	out.WriteString("\n")
}
