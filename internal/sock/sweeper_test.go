package sock

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// unconnected returns a connection of which only the deadline matters.
func unconnected(s *Sweeper) *Conn {
	c := &Conn{tcp: new(net.TCPConn), raw: noSocket{}, sweeper: s}
	s.add(c)
	return c
}

// noSocket is the descriptor of a connection without one: every call fails, as on one that was closed.
type noSocket struct{}

func (noSocket) Control(func(uintptr)) error    { return net.ErrClosed }
func (noSocket) Read(func(uintptr) bool) error  { return net.ErrClosed }
func (noSocket) Write(func(uintptr) bool) error { return net.ErrClosed }

// bubble runs f beside a running sweeper, in a time of their own.
func bubble(t *testing.T, f func(s *Sweeper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := NewSweeper()
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = s.Run(ctx) }()
		f(s)
		cancel()
		synctest.Wait()
	})
}

// latest is how late a deadline may pass: at once for short ones, one interval of reckoning and one of sweeping for
// long ones.
func latest(d time.Duration) time.Duration {
	if d >= coarseFrom {
		return d + 2*sweepInterval
	}
	return d + sweepFloor
}

func TestADeadlineNeverPassesEarlyAndAShortOnePassesInTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		wait := time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(rt, "wait"))
		d := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(30*time.Second)).Draw(rt, "d"))
		bubble(t, func(s *Sweeper) {
			time.Sleep(wait)
			c := unconnected(s)
			c.Arm(PhaseRead, d)
			time.Sleep(d - 1)
			if synctest.Wait(); c.Expired() {
				rt.Errorf("%v passed early", d)
			}
			time.Sleep(latest(d) - d + 2)
			if synctest.Wait(); !c.Expired() {
				rt.Errorf("%v has not passed after %v", d, latest(d))
			}
		})
	})
}

func TestALongDeadlineIsNotEarlyThoughTheSweeperStartedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSweeper()
		time.Sleep(time.Minute) // compiling a large document
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = s.Run(ctx) }()
		synctest.Wait()
		c := unconnected(s)
		c.Arm(PhaseRead, 20*time.Second)
		time.Sleep(20*time.Second - 1)
		if synctest.Wait(); c.Expired() {
			t.Error("early")
		}
		cancel()
		synctest.Wait()
	})
}

func TestADisarmedDeadlineDoesNotPass(t *testing.T) {
	bubble(t, func(s *Sweeper) {
		c, zero := unconnected(s), unconnected(s)
		c.Arm(PhaseRead, 100*time.Millisecond)
		zero.Arm(PhaseRead, 100*time.Millisecond)
		time.Sleep(99 * time.Millisecond)
		c.Disarm()
		zero.Arm(PhaseRead, 0)
		time.Sleep(time.Minute)
		if c.Expired() || zero.Expired() {
			t.Error("it did")
		}
	})
}

func TestADeadlineThatIsArmedAnewBeforeItPassesDoesNotPass(t *testing.T) {
	bubble(t, func(s *Sweeper) {
		c := unconnected(s)
		for range 100 { // a busy keep-alive connection
			c.Arm(PhaseRead, 100*time.Millisecond)
			time.Sleep(99 * time.Millisecond)
		}
		if c.Expired() {
			t.Error("it did")
		}
		time.Sleep(latest(100 * time.Millisecond))
		if synctest.Wait(); !c.Expired() {
			t.Error("the last one has not")
		}
	})
}

func TestThousandsOfDeadlinesPassEachInItsTime(t *testing.T) {
	bubble(t, func(s *Sweeper) {
		conns := map[time.Duration]*Conn{}
		for i := range 2_000 {
			d := time.Duration(i+1) * 10 * time.Millisecond
			conns[d] = unconnected(s)
			conns[d].Arm(PhaseRead, d)
		}
		if s.Len() != 2_000 {
			t.Fatalf("%d are watched", s.Len())
		}
		began := time.Now()
		for range 22 {
			time.Sleep(time.Second)
			synctest.Wait()
			now := time.Since(began)
			for d, c := range conns {
				if c.Expired() && now < d {
					t.Fatalf("%v passed before %v", d, now)
				}
				if !c.Expired() && now > latest(d) {
					t.Fatalf("%v has not passed at %v", d, now)
				}
			}
		}
	})
}

func TestManyShortDeadlinesDoNotKeepTheSweeperBusy(t *testing.T) {
	bubble(t, func(s *Sweeper) {
		for i := range 1000 {
			unconnected(s).Arm(PhaseRead, 100*time.Millisecond+time.Duration(i)*100*time.Microsecond)
		}
		sweeps, last := 0, s.Coarse()
		for range 3000 {
			time.Sleep(100 * time.Microsecond)
			if synctest.Wait(); s.Coarse() != last {
				sweeps, last = sweeps+1, s.Coarse()
			}
		}
		if limit := int(300*time.Millisecond/sweepFloor) + 2; sweeps > limit {
			t.Errorf("%d sweeps in 300 ms, at most %d are allowed", sweeps, limit)
		}
	})
}

func TestTheCoarseClockIsAtMostASecondBehind(t *testing.T) {
	bubble(t, func(s *Sweeper) {
		began := time.Now()
		for range 1000 {
			time.Sleep(17 * time.Millisecond)
			synctest.Wait()
			if behind := time.Since(began) - s.Coarse(); behind < 0 || behind > sweepInterval {
				t.Fatalf("%v behind", behind)
			}
		}
	})
}

// An expiry that meets a connection armed anew leaves it alone: the request that just began is not the one that was slow.
func TestArmingAnewWhileTheSweeperIsAtIt(t *testing.T) {
	s := NewSweeper()
	c := unconnected(s)
	c.Arm(PhaseRead, time.Nanosecond)
	now := s.clock() + 1
	c.Arm(PhaseRead, time.Hour)
	c.expire(now)
	if c.Expired() {
		t.Error("expired")
	}
	c.Disarm()
	c.expire(now)
	if c.Expired() {
		t.Error("expired after it was disarmed")
	}
}

func TestConnectionsComeAndGoWhileTheSweeperRuns(t *testing.T) {
	s := sweeping(t)
	done := make(chan error, 8)
	for range 8 {
		go func() {
			for range 300 {
				c := unconnected(s)
				c.Arm(PhaseRead, time.Millisecond)
				c.Arm(PhaseWrite, time.Hour)
				c.Arm(PhaseRead, time.Microsecond)
				c.Disarm()
				_ = c.Close() // there is no socket
			}
			done <- nil
		}()
	}
	for range 8 {
		_ = result(t, done)
	}
	if s.Len() != 0 {
		t.Errorf("%d left", s.Len())
	}
}

func TestAPeerThatClosesWhileItIsServedIsGone(t *testing.T) {
	look := func(s *Sweeper) { s.sweep(s.clock(), true) }
	closed := func(t *testing.T, c *Conn, far *net.TCPConn) {
		_ = far.CloseWrite()
		until(t, "the end has arrived", c.peerClosed)
	}
	tests := map[string]struct {
		play func(t *testing.T, s *Sweeper, c *Conn, far *net.TCPConn)
		want int64
	}{
		"closed, and served for two looks": {func(t *testing.T, s *Sweeper, c *Conn, far *net.TCPConn) {
			c.Serving()
			closed(t, c, far)
			look(s)
			look(s)
		}, 1},
		"answered before the second look": {func(t *testing.T, s *Sweeper, c *Conn, far *net.TCPConn) {
			c.Serving()
			closed(t, c, far)
			look(s)
			c.Served()
			look(s)
		}, 0},
		"another request at the second look": {func(t *testing.T, s *Sweeper, c *Conn, far *net.TCPConn) {
			c.Serving()
			closed(t, c, far)
			look(s)
			c.Served()
			c.Serving()
			look(s)
		}, 0},
		"idle": {func(t *testing.T, s *Sweeper, c *Conn, far *net.TCPConn) {
			closed(t, c, far)
			look(s)
			look(s)
		}, 0},
		"open": {func(_ *testing.T, s *Sweeper, c *Conn, _ *net.TCPConn) {
			c.Serving()
			look(s)
			look(s)
			look(s)
		}, 0},
		"open, with pipelined bytes": {func(t *testing.T, s *Sweeper, c *Conn, far *net.TCPConn) {
			c.Serving()
			send(t, far, "the next request")
			look(s)
			look(s)
		}, 0},
		"reset": {func(t *testing.T, s *Sweeper, c *Conn, far *net.TCPConn) {
			c.Serving()
			_ = far.SetLinger(0)
			_ = far.Close()
			until(t, "the reset has arrived", c.peerClosed)
			look(s)
			look(s)
		}, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var gone atomic.Int64
			s := NewSweeper()
			c, far := pair(t, s, func() { gone.Add(1) })
			test.play(t, s, c, far)
			if gone.Load() != test.want {
				t.Errorf("told %d times, want %d", gone.Load(), test.want)
			}
		})
	}
}

func TestTheRunningSweeperTellsThatAPeerHasGone(t *testing.T) {
	gone := make(chan error, 10)
	c, far := pair(t, sweeping(t), func() { gone <- nil })
	c.Serving()
	defer c.Served()
	send(t, far, "the request")
	if err := far.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = result(t, gone)
	expect(t, c, "the request")
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v", err)
	}
}
