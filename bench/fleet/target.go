package fleet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"headgate/bench/proc"
)

const (
	endWithin   = 10 * time.Second // of being told to; then a target is killed
	backWithin  = 5 * time.Second  // for a target that was killed to have its port again
	askWithin   = 5 * time.Second  // one question to a target's control
	maxAnswer   = 1 << 10          // of a target's control
	betweenTrys = 20 * time.Millisecond
)

// Target is one process of the service. Its methods are called by one goroutine.
type Target struct {
	Address string // host:port
	control string
	core    int
	how     Behaviour
	before  int // asked before the process was killed
	cmd     *exec.Cmd
	ended   chan struct{}
}

// Start starts a target on a core. The program must call Serve when it is started with Arguments.
func Start(core int, b Behaviour) (*Target, error) {
	t := &Target{core: core, how: b}
	return t, t.start()
}

// Fleet is targets of one behaviour.
type Fleet []*Target

// StartFleet starts so many targets.
func StartFleet(core, n int, b Behaviour) (Fleet, error) {
	var f Fleet
	for range n {
		t, err := Start(core, b)
		if err != nil {
			return nil, errors.Join(err, f.Kill())
		}
		f = append(f, t)
	}
	return f, nil
}

// Addresses returns where they answer.
func (f Fleet) Addresses() []string {
	var all []string
	for _, t := range f {
		all = append(all, t.Address)
	}
	return all
}

// Asked returns how often each was asked since the first start.
func (f Fleet) Asked(ctx context.Context) ([]int, error) {
	var all []int
	for _, t := range f {
		n, err := t.Asked(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// Kill ends all of them.
func (f Fleet) Kill() error {
	var err error
	for _, t := range f {
		err = errors.Join(err, t.Kill())
	}
	return err
}

func (t *Target) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, t.how.command(t.Address)...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := proc.StartOn(t.core, cmd); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	public, control, ok := strings.Cut(strings.TrimSpace(line), " ")
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how a process ends that is killed is known
		close(ended)
	}()
	if err != nil || !ok {
		_ = cmd.Process.Kill()
		<-ended
		return fmt.Errorf("the target did not start; it said %q (%w)", line, err)
	}
	t.Address, t.control, t.cmd, t.ended = public, control, cmd, ended
	return nil
}

// Slow changes the service time, from the next request on.
func (t *Target) Slow(ctx context.Context, d time.Duration) error {
	_, err := t.ask(ctx, http.MethodPost, "/service?time="+url.QueryEscape(d.String()))
	return err
}

// Asked returns how often the target was asked since it was first started; health checks do not count.
func (t *Target) Asked(ctx context.Context) (int, error) {
	if t.cmd == nil {
		return t.before, nil
	}
	n, err := t.ask(ctx, http.MethodGet, "/asked")
	return t.before + n, err
}

func (t *Target) ask(ctx context.Context, method, path string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+t.control+path, nil)
	if err != nil {
		return 0, err
	}
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return 0, err
	}
	if answer.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the target answers %s: %s", answer.Status, body)
	}
	return strconv.Atoi(string(body))
}

// Kill ends the process with SIGKILL: its connections are reset, its port is closed, what it worked on is lost.
func (t *Target) Kill() error {
	if t.cmd == nil {
		return nil
	}
	err := t.cmd.Process.Kill()
	<-t.ended
	t.cmd = nil
	if errors.Is(err, os.ErrProcessDone) {
		return errors.New("the target had ended by itself")
	}
	return err
}

// KillRemembering kills the target and keeps its count.
func (t *Target) KillRemembering(ctx context.Context) error {
	n, err := t.Asked(ctx)
	t.before = n
	return errors.Join(err, t.Kill())
}

// Back starts the target again where it was.
func (t *Target) Back(ctx context.Context) error {
	for deadline := time.Now().Add(backWithin); ; {
		err := t.start()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select { // its port may still be taken
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(betweenTrys):
		}
	}
}

// Stop tells the target to end when it has answered what it has begun (SIGTERM), as an orchestrator does, and waits for it.
func (t *Target) Stop() error {
	if t.cmd == nil {
		return nil
	}
	if err := t.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-t.ended:
		t.cmd = nil
		return nil
	case <-time.After(endWithin):
		return errors.Join(fmt.Errorf("the target did not end within %v of SIGTERM", endWithin), t.Kill())
	}
}
