package recall

import (
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func key(n uint64) Key { return Key{n, n * 7, n * 31, n * 127} }

func TestWhatWasPutIsFoundUntilItRunsOut(t *testing.T) {
	m := New[string](100, 1000)
	m.Put(key(1), Version{1}, 10, 20, 5, "a")
	m.Put(key(2), Version{1}, 10, 0, 5, "b")
	for _, c := range []struct {
		name    string
		key     Key
		version Version
		now     int64
		want    string
		ok      bool
	}{
		{"known", key(1), Version{1}, 19, "a", true},
		{"at its end it is over", key(1), Version{1}, 20, "", false},
		{"for ever", key(2), Version{1}, 1 << 60, "b", true},
		{"another version of the world", key(1), Version{2}, 10, "", false},
		{"another key", key(3), Version{1}, 10, "", false},
		{"a key that differs in its last word", Key{1, 7, 31, 128}, Version{1}, 10, "", false},
	} {
		if got, ok := m.Get(c.key, c.version, c.now); got != c.want || ok != c.ok {
			t.Errorf("%s: got %q, %v; want %q, %v", c.name, got, ok, c.want, c.ok)
		}
	}
}

func TestMemoryStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := New[uint64](128, 500)
		for range rapid.IntRange(1, 600).Draw(t, "entries") {
			n, bytes := rapid.Uint64().Draw(t, "key"), rapid.IntRange(0, 40).Draw(t, "bytes")
			m.Put(key(n), Version{}, 0, 0, bytes, n)
			if v, ok := m.Get(key(n), Version{}, 0); ok && v != n {
				t.Fatalf("key %d holds %d", n, v)
			}
			count, held := m.Len()
			if count > 128 {
				t.Fatalf("%d entries", count)
			}
			sum := 0
			for i := range m.table.Load().slots {
				if e := m.table.Load().slots[i].Load(); e != nil {
					sum += e.bytes
					count--
				}
			}
			if count != 0 || sum != held || held > 500 || len(m.table.Load().slots) > 128*spread {
				t.Fatalf("count is off by %d, %d bytes are held and %d counted, %d slots", count, sum, held, len(m.table.Load().slots))
			}
		}
	})
}

func TestAnEntryInUseOutlivesAFloodOfOthers(t *testing.T) {
	m := New[int](1024, 1<<20)
	m.Put(key(1), Version{}, 0, 0, 1, 1)
	lost := 0
	for n := range uint64(10_000) {
		m.Put(key(n+2), Version{}, 0, 0, 1, 2)
		if _, ok := m.Get(key(1), Version{}, 0); !ok {
			lost++
			m.Put(key(1), Version{}, 0, 0, 1, 1)
		}
	}
	if lost > 10 {
		t.Errorf("the entry in use was pushed out %d times by 10,000 others", lost)
	}
}

// A few credentials that take turns are all remembered, wherever their hashes put them.
func TestOnesThatTakeTurnsDoNotPushEachOtherOut(t *testing.T) {
	m := New[int](1024, 1<<20)
	missed := 0
	for round := range 20 {
		for n := range uint64(300) {
			if _, ok := m.Get(key(n), Version{}, 0); ok {
				continue
			}
			m.Put(key(n), Version{}, 0, 0, 1, 1)
			if round > 0 {
				missed++
			}
		}
	}
	if missed > 19*300/10 { // an overfull place now and then
		t.Errorf("%d of %d were forgotten", missed, 19*300)
	}
}

func TestAnEntryTooLargeIsNotRemembered(t *testing.T) {
	m := New[int](64, 100)
	m.Put(key(1), Version{}, 0, 0, 101, 1)
	if n, bytes := m.Len(); n != 0 || bytes != 0 {
		t.Errorf("remembers %d entries of %d bytes", n, bytes)
	}
}

func TestReadersAndWritersTogether(t *testing.T) {
	m := New[uint64](512, 4096)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			for n := range uint64(5000) {
				k := (n*13 + g) % 700
				m.Put(key(k), Version{}, 0, 0, 8, k)
				if v, ok := m.Get(key(k), Version{}, 0); ok && v != k {
					t.Errorf("key %d holds %d", k, v)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestGetAllocatesNothing(t *testing.T) {
	m := New[*int](64, 100)
	m.Put(key(1), Version{}, 0, 0, 1, new(int))
	if n := testing.AllocsPerRun(100, func() { m.Get(key(1), Version{}, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGet(b *testing.B) {
	m := New[*int](4096, 1<<20)
	m.Put(key(1), Version{}, 0, 0, 1, new(int))
	b.ReportAllocs()
	for b.Loop() {
		m.Get(key(1), Version{}, 1)
	}
}
