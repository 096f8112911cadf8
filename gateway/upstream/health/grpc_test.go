package health

import (
	"strings"
	"testing"
)

func TestHealthMessagesAreReadAsTheProtocolWritesThem(t *testing.T) {
	for message, want := range map[string]string{
		"\x00\x00\x00\x00\x02\x08\x01":             "",
		"\x00\x00\x00\x00\x02\x08\x02":             "NOT_SERVING",
		"\x00\x00\x00\x00\x00":                     "UNKNOWN",
		"\x00\x00\x00\x00\x05\x12\x01x\x08\x01":    "", // a field of a later version in front
		"\x00\x00\x00\x00\x02\x08\x07":             "that it is 7",
		"\x01\x00\x00\x00\x02\x08\x01":             "HealthCheckResponse",
		"\x00\x00\x00\x00\x03\x08\x01":             "HealthCheckResponse",
		"\x00\x00\x00\x00\x03\x12\x09x":            "HealthCheckResponse",
		"\x00\x00\x00\x00\x01\x08":                 "HealthCheckResponse",
		"":                                         "HealthCheckResponse",
		"\x00\x00\x00\x00\x05\x0d\x01\x00\x00\x00": "HealthCheckResponse",
	} {
		if err := servingOf([]byte(message)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", message, err, want)
		}
	}
}
