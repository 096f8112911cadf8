package sock

import (
	"testing"
	"time"
)

// A connection on which nothing is sent is not looked at, however many of them there are; one on which something was is, until
// that has been acknowledged.
func TestOnlyWhatWasSentIsLookedAt(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	c.AckWithin(time.Second)
	if c.looks.unsettled() {
		t.Error("nothing was sent")
	}
	if _, err := c.Write([]byte("request")); err != nil {
		t.Fatal(err)
	}
	if !c.looks.unsettled() {
		t.Error("something was sent")
	}
	if _, err := far.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); c.looks.unsettled(); time.Sleep(time.Millisecond) {
		if c.checkAcks(int64(time.Since(began))); time.Since(began) > patience {
			t.Fatal("it was acknowledged, and is still looked at")
		}
	}
	if c.looks.lost.Load() {
		t.Error("it is taken for lost")
	}
}

// A sweep over connections on which nothing is sent asks the kernel nothing.
func BenchmarkSweepOfIdleConnections(b *testing.B) {
	s := NewSweeper()
	near, _ := tcp(b)
	const n = 10_000
	for range n {
		c, err := New(near, s, nil) // one socket stands for all
		if err != nil {
			b.Fatal(err)
		}
		c.AckWithin(time.Second)
	}
	for b.Loop() {
		s.sweep(s.clock(), true)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/conn")
}
