package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	os.Exit(Enter(func() int {
		code := m.Run()
		if err := goleak.Find(); code == 0 && err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}

// pair is two machines, the second of which sends back what comes over TCP.
type pair struct {
	*Network
	near, far *Machine
}

const echoPort = 7

func newPair(t *testing.T) *pair {
	n := New(t)
	p := &pair{n, n.Machine(t, "near"), n.Machine(t, "far")}
	for _, address := range []string{p.far.At(echoPort), net.JoinHostPort(p.far.Addr6.String(), fmt.Sprint(echoPort))} {
		l, err := p.far.Listen("tcp", address)
		if err != nil {
			t.Logf("%s: %v", address, err)
			continue
		}
		serve(t, l)
	}
	return p
}

// serve sends back what comes, until the end of the test.
func serve(t *testing.T, l net.Listener) {
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer context.AfterFunc(t.Context(), func() { c.Close() })()
				_, _ = io.Copy(c, c) // until either end is closed
				c.Close()
			})
		}
	})
	t.Cleanup(func() { l.Close(); group.Wait() })
}

// dial opens a connection to the far machine.
func (p *pair) dial(t *testing.T, patience time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return p.near.Dial(ctx, "tcp", p.far.At(echoPort))
}

func (p *pair) connect(t *testing.T) net.Conn {
	t.Helper()
	c, err := p.dial(t, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends bytes and waits until they have come back.
func ask(c net.Conn, bytes int, patience time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, strings.Repeat("x", bytes))
		sent <- err
	}()
	_, err := io.ReadFull(c, make([]byte, bytes))
	return errors.Join(err, <-sent)
}

// What is sent arrives, over both families, and what a machine tells itself is no business of the network's.
func TestMachinesReachEachOther(t *testing.T) {
	p := newPair(t)
	if err := ask(p.connect(t), 1<<20, 20*time.Second); err != nil {
		t.Error(err)
	}
	if p.Carried(p.near, p.far) < 20 || p.Carried(p.far, p.near) < 20 || p.Lost(p.near, p.far) > 0 {
		t.Errorf("%d packets there, %d back", p.Carried(p.near, p.far), p.Carried(p.far, p.near))
	}
	c, err := p.near.Dial(t.Context(), "tcp", net.JoinHostPort(p.far.Addr6.String(), fmt.Sprint(echoPort)))
	if err != nil {
		t.Skip("IPv6:", err)
	}
	defer c.Close()
	if err := ask(c, 1000, 10*time.Second); err != nil {
		t.Error("IPv6:", err)
	}
}

// A path that is cut swallows silently, one way or both, and TCP recovers when it heals.
func TestCutPathsSwallow(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  func(p *pair)
		lost func(p *pair) int64
	}{
		{"both ways", func(p *pair) { p.Cut(p.near, p.far) }, func(p *pair) int64 { return p.Lost(p.near, p.far) }},
		{"there", func(p *pair) { p.Set(p.near, p.far, Condition{Loss: 1}) }, func(p *pair) int64 { return p.Lost(p.near, p.far) }},
		{"back", func(p *pair) { p.Set(p.far, p.near, Condition{Loss: 1}) }, func(p *pair) int64 { return p.Lost(p.far, p.near) }},
		{"its device off", func(p *pair) { _ = p.far.Plug(false) }, func(p *pair) int64 { return p.Lost(p.near, p.far) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			conn := p.connect(t)
			if err := ask(conn, 100, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			c.cut(p)
			if err := ask(conn, 100, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("an open connection: %v", err)
			}
			if c, err := p.dial(t, 300*time.Millisecond); err == nil || !strings.Contains(err.Error(), "timeout") {
				t.Errorf("a new connection: %v, %v", c, err)
			}
			if c.lost(p) == 0 {
				t.Error("nothing was lost")
			}
			p.Heal(p.near, p.far)
			if err := p.far.Plug(true); err != nil {
				t.Fatal(err)
			}
			if err := ask(p.connect(t), 100, 10*time.Second); err != nil {
				t.Errorf("healed: %v", err)
			}
		})
	}
}

// Refusals arrive as the errors that programs know.
func TestRefusals(t *testing.T) {
	p := newPair(t)
	for _, c := range []struct {
		name string
		dial func() (net.Conn, error)
		want error
	}{
		{"nobody listens", func() (net.Conn, error) { return p.near.Dial(t.Context(), "tcp", p.far.At(9)) }, syscall.ECONNREFUSED},
		{"no such machine", func() (net.Conn, error) { return p.near.Dial(t.Context(), "tcp", "10.77.0.200:80") }, syscall.EHOSTUNREACH},
		{"a router refuses", func() (net.Conn, error) {
			p.Set(p.near, p.far, Condition{Unreachable: true})
			return p.dial(t, 10*time.Second)
		}, syscall.EHOSTUNREACH},
		{"the own device is off", func() (net.Conn, error) {
			if err := p.near.Plug(false); err != nil {
				t.Fatal(err)
			}
			return p.dial(t, 10*time.Second)
		}, syscall.ENETUNREACH},
	} {
		if conn, err := c.dial(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", c.name, conn, err)
		}
	}
}

// Delay, rate and loss cost time, and nothing else.
func TestPathsThatAreNotPerfect(t *testing.T) {
	for _, c := range []struct {
		name      string
		condition Condition
		bytes     int
		least     time.Duration
		loses     bool
	}{
		{"delay", Condition{Delay: 50 * time.Millisecond}, 100, 100 * time.Millisecond, false},
		{"rate", Condition{Rate: 100_000}, 50_000, 450 * time.Millisecond, false},
		{"loss", Condition{Loss: 0.05}, 200_000, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			conn := p.connect(t)
			p.Both(p.near, p.far, c.condition)
			began := time.Now()
			if err := ask(conn, c.bytes, 30*time.Second); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took < c.least {
				t.Errorf("after %v; it takes at least %v", took, c.least)
			}
			if lost := p.Lost(p.near, p.far) + p.Lost(p.far, p.near); lost > 0 != c.loses {
				t.Errorf("%d packets were lost", lost)
			}
		})
	}
}

// Where large packets vanish, small ones do not.
func TestLargePacketsVanish(t *testing.T) {
	p := newPair(t)
	conn := p.connect(t)
	p.Set(p.near, p.far, Condition{MTU: 600})
	if err := ask(conn, 500, 10*time.Second); err != nil {
		t.Error(err)
	}
	if err := ask(conn, 5000, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// A process sees its machine and no other, and ends with it.
func TestProcessesBelongToTheirMachine(t *testing.T) {
	var p *Process
	t.Run("here", func(t *testing.T) {
		m := New(t).Machine(t, "one")
		cmd := exec.Command("/bin/sh", "-c", "cat /proc/self/net/dev; sleep 1000")
		p = m.Start(t, cmd)
		deadline := time.Now().Add(20 * time.Second)
		for !strings.Contains(p.Log(), device) || !strings.Contains(p.Log(), "lo:") {
			if time.Now().After(deadline) {
				t.Fatal(p.Log())
			}
			time.Sleep(time.Millisecond)
		}
		if strings.Count(p.Log(), ":") > 2+len("Inter-|") {
			t.Log(p.Log())
		}
	})
	if p == nil {
		t.Skip("no machine")
	}
	select {
	case <-p.Exited:
	default:
		t.Error("it lives on")
	}
}

// doomed is set for the test binary to be one that fails.
const doomed = "HEADGATE_LAB_DOOMED"

// Whatever ends the tests (a panic, the time limit, SIGKILL), no process and no file of theirs stays behind.
func TestNothingStaysBehind(t *testing.T) {
	if how := os.Getenv(doomed); how != "" {
		perish(t, how)
	}
	New(t).Machine(t, "needed")
	for _, how := range []string{"panic", "hang", "kill"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			mark := fmt.Sprintf("77%d%d", os.Getpid(), len(how))
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestNothingStaysBehind$", "-test.timeout=3s")
			for _, v := range os.Environ() {
				if !strings.HasPrefix(v, inside+"=") && !strings.HasPrefix(v, "TMPDIR=") {
					cmd.Env = append(cmd.Env, v)
				}
			}
			cmd.Env = append(cmd.Env, doomed+"="+how+" "+mark)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = cmd.Stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said, deadline := "", time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
			defer deadline.Stop()
			for b := make([]byte, 1000); !strings.Contains(said, "ready"); {
				n, err := out.Read(b)
				if said += string(b[:n]); err != nil {
					t.Fatal(said, err)
				}
			}
			if how == "kill" {
				_ = cmd.Process.Kill() // of the first process alone
			}
			rest, _ := io.ReadAll(out) // until the last process has closed it
			if err := cmd.Wait(); err == nil {
				t.Errorf("it ended well: %s%s", said, rest)
			}
			for sleeps := sleepers(t, mark); sleeps > 0; sleeps = sleepers(t, mark) {
				if !deadline.Stop() {
					t.Fatal("a process stays behind")
				}
				deadline.Reset(10 * time.Second)
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// perish does what a doomed test does, with a process that holds its output open.
func perish(t *testing.T, how string) {
	how, mark, _ := strings.Cut(how, " ")
	m := New(t).Machine(t, "doomed")
	cmd := exec.Command("/bin/sleep", mark)
	cmd.Stdout = os.Stdout
	m.Start(t, cmd)
	if err := os.WriteFile(t.TempDir()+"/file", []byte(mark), 0o600); err != nil {
		t.Fatal(err)
	}
	fmt.Println("ready")
	if how == "panic" {
		go panic("as asked")
	}
	select {}
}

// sleepers counts processes that sleep for as long as the mark says.
func sleepers(t *testing.T, mark string) (n int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && strings.Contains(string(b), "sleep\x00"+mark) {
			n++
		}
	}
	return n
}
