package clock

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAManualClockStandsStillUntilItIsMoved(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("somewhere", 3600))
	c := NewManual(start)
	if !c.Now().Equal(start) || c.Now().Location() != time.UTC {
		t.Errorf("%v", c.Now())
	}
	c.Advance(90 * time.Minute)
	c.Advance(-30 * time.Minute)
	if got := c.Now().Sub(start); got != time.Hour {
		t.Errorf("moved by %v", got)
	}
}

func TestAShiftedClockRunsAheadOfTheMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Shifted
		start := time.Now()
		if !c.Now().Equal(start) || !(System{}).Now().Equal(start) {
			t.Error("ahead before it was moved")
		}
		c.Advance(time.Hour)
		time.Sleep(time.Minute)
		if got := c.Now().Sub(start); got != time.Hour+time.Minute {
			t.Errorf("%v later", got)
		}
	})
}

func TestClocksAreSafeForConcurrentUse(t *testing.T) {
	m, s := NewManual(time.Unix(0, 0)), new(Shifted)
	done := make(chan bool)
	for range 4 {
		go func() {
			for range 1000 {
				m.Advance(time.Second)
				s.Advance(time.Second)
				_, _ = m.Now(), s.Now()
			}
			done <- true
		}()
	}
	for range 4 {
		<-done
	}
	if got := m.Now().Unix(); got != 4000 {
		t.Errorf("%d seconds", got)
	}
}
