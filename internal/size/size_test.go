package size

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestAmountsAreReadWithOrWithoutAUnit(t *testing.T) {
	for s, want := range map[string]Bytes{
		"0": 0, "512": 512, "512B": 512, "1kB": 1000, "1KB": 1000, "16KiB": 16 << 10, "1MB": 1e6, "1MiB": 1 << 20, "2GB": 2e9,
		"2GiB": 2 << 30, " 5 MiB ": 5 << 20, "9223372036854775807": 1<<63 - 1, "8589934591GiB": 8589934591 << 30,
	} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
}

func TestWhatIsNoAmountIsRefusedWithWhatWouldBeOne(t *testing.T) {
	for s, want := range map[string]string{
		"": "whole number", "MB": "whole number", "-1": "whole number", "-1KiB": "whole number", "1.5MB": "whole number",
		"1TB": "whole number", "1mb": "whole number", "1 M": "whole number", "0x10": "whole number", "1_000": "whole number",
		"8589934592GiB": "63 bits", "9223372036854775808": "whole number",
	} {
		got, err := Parse(s)
		if err == nil || !strings.Contains(err.Error(), want) || got != 0 {
			t.Errorf("%q: %d, %v; want %q", s, got, err, want)
		}
	}
}

func TestWhatIsPrintedIsReadBackAsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Bytes(rapid.Int64Range(0, 1<<63-1).Draw(t, "b"))
		if rapid.Bool().Draw(t, "round") {
			b = b >> 40 << 20
		}
		text, err := b.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Bytes
		if err := back.UnmarshalText(text); err != nil || back != b {
			t.Fatalf("%d prints as %s, which is %d, %v", b, text, back, err)
		}
	})
}

func TestAmountsPrintWithTheLargestUnitThatDividesThem(t *testing.T) {
	for b, want := range map[Bytes]string{
		0: "0", 1: "1", 1000: "1000", 1024: "1KiB", 1536: "1536", 3 << 20: "3MiB", 1 << 30: "1GiB", 1<<30 + 1<<10: "1048577KiB",
	} {
		if got := b.String(); got != want {
			t.Errorf("%d prints as %s, want %s", int64(b), got, want)
		}
	}
}

func TestABadAmountLeavesTheValueAsItWas(t *testing.T) {
	b := 7 * KiB
	if err := b.UnmarshalText([]byte("much")); err == nil || b != 7*KiB {
		t.Errorf("%v, %v", b, err)
	}
}
