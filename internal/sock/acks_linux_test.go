package sock

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"headgate/internal/testkit/lab"
)

// apart returns both ends of a connection between two machines, the near one driven by a running sweeper, and the network
// between them with its cut.
func apart(t *testing.T) (c *Conn, far net.Conn, set func(lab.Condition)) {
	t.Helper()
	n := lab.New(t)
	a, b := n.Machine(t, "near"), n.Machine(t, "far")
	l, err := b.Listen("tcp", b.At(80))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := a.Dial(t.Context(), "tcp", b.At(80))
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	if c, err = New(near, sweeping(t), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, far, func(condition lab.Condition) { n.Both(a, b, condition) }
}

// A machine that has vanished is noticed when something is sent to it, long before the kernel gives up; while nothing is, it is
// nobody's business.
func TestAMachineThatIsGoneIsNoticed(t *testing.T) {
	c, _, set := apart(t)
	c.AckWithin(time.Second)
	set(lab.Condition{Loss: 1})
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	select {
	case err := <-read:
		t.Fatal("while nothing was sent: ", err)
	case <-time.After(2500 * time.Millisecond): // looks have been made
	}
	if _, err := c.Write([]byte("request")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-read:
		if !errors.Is(err, ErrLost) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it is not noticed")
	}
	if _, err := c.Write([]byte("more")); !errors.Is(err, ErrLost) {
		t.Error("a write afterwards: ", err)
	}
	if c.Quiet() {
		t.Error("it would be used again")
	}
}

// A peer that is slow, or that stands still, has a machine that acknowledges.
func TestAPeerThatIsSlowIsNotGone(t *testing.T) {
	for _, how := range []struct {
		name      string
		condition lab.Condition
		reads     bool
	}{
		{"far away", lab.Condition{Delay: 300 * time.Millisecond}, true},
		{"stands still", lab.Condition{}, false},
	} {
		t.Run(how.name, func(t *testing.T) {
			t.Parallel()
			c, far, set := apart(t)
			set(how.condition)
			c.AckWithin(time.Second)
			if how.reads {
				ended := make(chan struct{})
				t.Cleanup(func() { <-ended })
				t.Cleanup(func() { far.Close() })
				go func() { defer close(ended); _, _ = io.Copy(io.Discard, far) }()
			}
			c.Arm(PhaseWrite, 4*time.Second)
			var err error
			for began := time.Now(); err == nil && time.Since(began) < 4*time.Second; {
				_, err = c.Write(make([]byte, 64<<10))
			}
			if errors.Is(err, ErrLost) || c.looks.lost.Load() {
				t.Error(err)
			}
		})
	}
}

// A peer at the end of a slow way takes what it was sent, though it makes no room for more within the time that it has; one that
// takes nothing is at fault.
func TestASlowWayIsNoFault(t *testing.T) {
	const most = 500 * time.Millisecond
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		c, far, set := apart(t)
		set(lab.Condition{Rate: 40_000, Queue: 30})
		ended := make(chan struct{})
		t.Cleanup(func() { <-ended })
		t.Cleanup(func() { far.Close() })
		go func() { defer close(ended); _, _ = io.Copy(io.Discard, far) }()
		var longest time.Duration
		for range 3 {
			began := time.Now()
			c.Arm(PhaseWrite, most)
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				t.Fatal(err)
			}
			c.Disarm()
			longest = max(longest, time.Since(began))
		}
		if longest < most {
			t.Error("nothing here took longer than it might, so this shows nothing")
		}
	})
	t.Run("stands still", func(t *testing.T) {
		t.Parallel()
		c, _, _ := apart(t)
		var err error
		for began := time.Now(); err == nil && time.Since(began) < patience; {
			c.Arm(PhaseWrite, most)
			_, err = c.Write(make([]byte, 64<<10))
		}
		if err == nil || !c.Expired() {
			t.Error(err)
		}
	})
	t.Run("is gone", func(t *testing.T) {
		t.Parallel()
		c, _, set := apart(t)
		set(lab.Condition{Loss: 1})
		c.Arm(PhaseWrite, most)
		began := time.Now()
		var err error
		for err == nil {
			_, err = c.Write(make([]byte, 1<<20))
		}
		if took := time.Since(began); !c.Expired() || took > patience {
			t.Error(took, err)
		}
	})
}
