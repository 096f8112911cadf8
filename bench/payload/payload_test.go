package payload

import (
	"encoding/json"
	"testing"
)

func TestSmallIsTwoHundredBytesOfJSON(t *testing.T) {
	if b := Small(); len(b) != 200 || !json.Valid(b) {
		t.Fatalf("%d bytes, valid JSON: %v\n%s", len(b), json.Valid(b), b)
	}
}

func TestNoTwoPagesOfBigAreEqual(t *testing.T) {
	const page = 4096
	seen := map[string]int{}
	b := Big()
	for at := 0; at < len(b); at += page {
		if before, ok := seen[string(b[at:at+page])]; ok {
			t.Fatalf("the pages at %d and %d are equal", before, at)
		}
		seen[string(b[at:at+page])] = at
	}
	if len(b) != BigSize {
		t.Fatalf("%d bytes", len(b))
	}
}
