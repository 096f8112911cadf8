package spread

import (
	"hash/fnv"
	"math/bits"
	"testing"

	"pgregory.net/rapid"
)

// The numbers decide who gets what on every node, of every version: they must not change.
func TestItIsFNV1a(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		want := fnv.New64a()
		_, _ = want.Write([]byte(a + "\x00" + b)) // never fails
		if got := Text(Next(Text(Start, a)), b); got != want.Sum64() {
			t.Fatalf("%x, want %x", got, want.Sum64())
		}
	})
}

func TestMixTurnsHalfOfTheBitsForEachThatIsTurned(t *testing.T) {
	const texts = 2000
	var turned [64]int
	for i := range texts {
		h := Text(Start, string(rune('a'+i%26))+string(rune('0'+i/26%10))+string(rune('A'+i/260)))
		for bit := range 64 {
			turned[bit] += bits.OnesCount64(Mix(h) ^ Mix(h^1<<bit))
		}
	}
	for bit, n := range turned {
		if share := float64(n) / texts / 64; share < .45 || share > .55 {
			t.Errorf("bit %d turns %.3f of all", bit, share)
		}
	}
	if Mix(0) != 0 || Mix(1) != 0xb456bcfc34c2cb2c { // as published with MurmurHash3's finalizer
		t.Errorf("%x", Mix(1))
	}
}
