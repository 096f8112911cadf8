package grpc

import (
	"math"
	"strconv"
	"time"
)

const (
	// maxTimeoutDigits is what a grpc-timeout may have (PROTOCOL-HTTP2.md: TimeoutValue is at most 8 digits).
	maxTimeoutDigits = 8
	// maxConnectDigits is the same for Connect-Timeout-Ms.
	maxConnectDigits = 10
)

// timeoutUnits are those of grpc-timeout, the finest first.
var timeoutUnits = [...]struct {
	letter byte
	unit   time.Duration
}{
	{'n', time.Nanosecond}, {'u', time.Microsecond}, {'m', time.Millisecond}, {'S', time.Second}, {'M', time.Minute}, {'H', time.Hour},
}

// parseTimeout reads a grpc-timeout: 1 to 8 digits and one of H M S m u n. What is longer than a Duration can say, some 292
// years, is that long.
func parseTimeout(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	n, ok := digits(s[:len(s)-1], maxTimeoutDigits)
	if !ok {
		return 0, false
	}
	for _, u := range timeoutUnits {
		if u.letter != s[len(s)-1] {
			continue
		}
		if n > math.MaxInt64/int64(u.unit) {
			return math.MaxInt64, true
		}
		return time.Duration(n) * u.unit, true
	}
	return 0, false
}

// formatTimeout writes what is left of a call's time in the finest unit that it fits, rounded down, so that the upstream
// does not outlast us. No time left is the shortest that can be said.
func formatTimeout(d time.Duration) string {
	for _, u := range timeoutUnits {
		if n := int64(d / u.unit); n < 1e8 {
			return strconv.FormatInt(max(n, 1), 10) + string(u.letter)
		}
	}
	return "99999999H"
}

// parseConnectTimeout reads a Connect-Timeout-Ms: 1 to 10 digits.
func parseConnectTimeout(s string) (time.Duration, bool) {
	n, ok := digits(s, maxConnectDigits)
	return time.Duration(n) * time.Millisecond, ok
}

func formatConnectTimeout(d time.Duration) string {
	return strconv.FormatInt(min(max(int64(d/time.Millisecond), 1), 9_999_999_999), 10)
}

// digits reads at most limit ASCII digits and nothing else.
func digits(s string, limit int) (n int64, ok bool) {
	if s == "" || len(s) > limit {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}
