package health

import (
	"testing"
	"time"
)

func TestLengthsOfTimeAreWrittenAsPeopleDo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		30 * time.Second: "30 s", 100 * time.Second: "1 m 40 s", time.Minute: "1 m", 250 * time.Millisecond: "250 ms", time.Hour: "1 h",
		90 * time.Minute: "1 h 30 m", 1500 * time.Millisecond: "1.5 s", 12345 * time.Microsecond: "12.3 ms", 0: "0 ms",
	} {
		if got := Span(d).String(); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
