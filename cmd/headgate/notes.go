package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/internal/text"
	"headgate/policies/acl"
)

// notes says what of a good document is probably not meant: each line with its place, where it has one.
func notes(l *decode.Loaded) (lines []string) {
	d := &l.Document
	if len(d.APIs) == 0 && (len(d.Listeners) == 0 || tcpListeners(d) < len(d.Listeners)) {
		lines = append(lines, "the document has no APIs: every request is answered with 404")
	}
	groups := map[string]bool{}
	for _, c := range d.Consumers {
		for _, g := range c.Groups {
			groups[g] = true
		}
	}
	known := slices.Sorted(maps.Keys(groups))
	each(d, func(p *model.Policy, at []string) {
		var c acl.Config
		if p.Kind != acl.Kind.Name || len(decode.Value(p.Options, &c)) > 0 {
			return
		}
		for _, g := range slices.Concat(c.Allow.Groups, c.Deny.Groups) {
			if !groups[g] {
				at := append(at, p.Kind)
				file, line, col := l.At(at)
				lines = append(lines, fmt.Sprintf("%s: %s: no consumer is in the group %q%s", decode.Problem{File: file, Line: line, Col: col}.Place(),
					decode.FormatPath(at), g, text.DidYouMean(g, known)))
			}
		}
	})
	return lines
}

// certificateNotes says what clients may hold against the certificates of a good document.
func certificateNotes(c *compiled, now time.Time) (lines []string) {
	for _, name := range slices.Sorted(maps.Keys(c.snapshot.Doors)) {
		terms := c.snapshot.Doors[name].TLS
		if terms == nil {
			continue
		}
		for _, w := range terms.Warnings(now) {
			at := []string{"listeners", name, "tls"}
			var below *decode.PathError
			if errors.As(w, &below) {
				at = append(at, below.Path...)
			}
			file, line, col := c.loaded.At(at)
			lines = append(lines, fmt.Sprintf("%s: %s: %s", decode.Problem{File: file, Line: line, Col: col}.Place(), decode.FormatPath(at), w))
		}
	}
	return lines
}

// each visits every policy of a document, those inside groups too, with its path.
func each(d *model.Document, visit func(p *model.Policy, at []string)) {
	var walk func(list []model.Policy, at ...string)
	walk = func(list []model.Policy, at ...string) {
		for i := range list {
			here := slices.Concat(at, []string{strconv.Itoa(i)})
			visit(&list[i], here)
			walk(list[i].Group, slices.Concat(here, []string{list[i].Kind})...)
		}
	}
	walk(d.Policies, "policies")
	for _, api := range slices.Sorted(maps.Keys(d.APIs)) {
		walk(d.APIs[api].Policies, "apis", api, "policies")
		for _, route := range slices.Sorted(maps.Keys(d.APIs[api].Routes)) {
			walk(d.APIs[api].Routes[route].Policies, "apis", api, "routes", route, "policies")
		}
	}
}
