package main

import (
	"fmt"

	"headgate/gateway/upstream"
)

// retriesLine tells how often a request is sent again, and what of it has happened. A connection of bytes is never.
func retriesLine(s *upstream.Status) string {
	r := &s.Retry
	switch {
	case r.Attempts == 0, len(s.Targets) > 0 && s.Targets[0].Protocol == "tcp":
		return ""
	case r.Attempts == 1:
		return fmt.Sprintf("only of what no target has seen: %d made", r.Made)
	}
	return fmt.Sprintf("at most %d attempts; %d made, %d refused by the budget, which has %d left", r.Attempts, r.Made, r.Refused, r.Left)
}

// hedgeLine tells when a second target is asked, and what has come of it.
func hedgeLine(h *upstream.HedgeStatus) string {
	if h == nil {
		return ""
	}
	when := "no second target is asked"
	if h.AfterMS > 0 {
		when = "a second target after " + milliseconds(h.AfterMS)
	}
	return fmt.Sprintf("%s: %s; %d asked, %d of them first, %d left", when, h.Why, h.Sent, h.Won, h.Left)
}
