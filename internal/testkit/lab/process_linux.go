package lab

import (
	"bytes"
	"os/exec"
	"sync"
	"syscall"
	"testing"
)

// maxOutput is how much of what a process prints is kept: a process that prints for ever costs no more.
const maxOutput = 1 << 20

// Process is a process in a machine.
type Process struct {
	*exec.Cmd
	Exited <-chan struct{} // closed when it has ended
	out    output
}

// Start starts a process in the machine. It is killed with the test at the latest, and by the kernel when this process ends.
func (m *Machine) Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	exited := make(chan struct{})
	p := &Process{Cmd: cmd, Exited: exited}
	if cmd.Stdout == nil && cmd.Stderr == nil {
		cmd.Stdout, cmd.Stderr = &p.out, &p.out
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := m.resident.do(cmd.Start); err != nil {
		t.Fatalf("start %s in machine %s: %v", cmd.Path, m.Name, err)
	}
	go func() {
		defer close(exited)
		_ = cmd.Wait() // how it ended is read from ProcessState
	}()
	t.Cleanup(p.Kill)
	return p
}

// Kill ends the process at once, with SIGKILL and all that it has started, and waits until it is gone.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.Process.Pid, syscall.SIGKILL) // they may have ended by themselves
	<-p.Exited
}

// Log returns what the process has printed so far, from the beginning, up to a mebibyte.
func (p *Process) Log() string { return p.out.String() }

// output keeps what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(b[:min(len(b), maxOutput-o.buf.Len())])
	return len(b), nil
}

// String returns what was printed so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
