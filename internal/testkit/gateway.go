package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Build compiles the binary that scripts are run against and returns its path. HEADGATE_BINARY names another one instead.
// race builds it with the race detector, which needs a C compiler.
func Build(ctx context.Context, dir string, race bool) (string, error) {
	if path := os.Getenv("HEADGATE_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(dir, "headgate")
	args, cgo := []string{"build", "-trimpath", "-o", path}, "CGO_ENABLED=0" // as the Makefile does, so that both share the cache
	if race {
		args, cgo = append(args, "-race"), "CGO_ENABLED=1"
	}
	c := exec.CommandContext(ctx, "go", append(args, "headgate/cmd/headgate")...)
	c.Env = append(os.Environ(), cgo)
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// FreeAddress returns an address of 127.0.0.1 that nobody listens on. Its port lies below the range from which the kernel
// takes the near ends of connections, so that none of them takes it before the gateway does.
func FreeAddress() (string, error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for i := 0; ports.held == nil && i < portBlocks; i++ {
		ports.first = firstPort + (os.Getpid()+i)%portBlocks*portsEach
		ports.held, _ = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", ports.first)) // an error: it belongs to another process
	}
	for range portsEach {
		ports.last = ports.last%(portsEach-1) + 1
		address := fmt.Sprintf("127.0.0.1:%d", ports.first+ports.last)
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no port is free")
}

// Each process hands out ports from a block of its own, so that test binaries that run at once do not meet.
const (
	firstPort  = 10_000
	portBlocks = 44
	portsEach  = 500
)

// ports is the block of this process. What is handed out once is not handed out again soon.
var ports struct {
	mu    sync.Mutex
	held  net.Listener // the first port of the block, by which others know that it is taken
	first int
	last  int // that was handed out, from the first
}

// output keeps what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

// String returns what was printed so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// gateway is the running binary.
type gateway struct {
	cmd     *exec.Cmd
	out     *output
	exited  chan struct{}
	code    int    // once exited
	admin   string // address of the operators' listener
	expects bool   // the script has said how it ends
}

// raceExit is the exit code by which the race detector tells what it found.
const raceExit = 66

// startGateway starts the binary.
func startGateway(binary, dir, document, admin string, env, flags []string) (*gateway, error) {
	g := &gateway{out: &output{}, exited: make(chan struct{}), admin: admin}
	g.cmd = exec.Command(binary, append([]string{"run", document}, flags...)...)
	g.cmd.Dir, g.cmd.Stdout, g.cmd.Stderr = dir, g.out, g.out
	race := fmt.Sprintf("GORACE=exitcode=%d atexit_sleep_ms=1", raceExit)
	g.cmd.Env = append(append(os.Environ(), race), env...)
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(g.exited)
		err := g.cmd.Wait()
		if failed := new(exec.ExitError); err != nil && !errors.As(err, &failed) {
			fmt.Fprintln(g.out, err)
		}
		g.code = g.cmd.ProcessState.ExitCode()
	}()
	return g, nil
}

// ready waits until the gateway says that it is.
func (g *gateway) ready() error {
	err := g.await(patience, func() (bool, string) {
		status, body, err := g.ask(http.MethodGet, "/readyz")
		if err != nil {
			return false, err.Error()
		}
		return status == http.StatusOK, fmt.Sprintf("%d %s", status, body)
	})
	if err != nil {
		g.kill()
		g.expects = true // how it ends no longer matters
		return fmt.Errorf("the gateway is not ready: %w", err)
	}
	return nil
}

// await asks again and again until what is asked for holds. It ends early when the gateway does.
func (g *gateway) await(most time.Duration, holds func() (bool, string)) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(most)
	for {
		ok, last := holds()
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v; the last answer: %s", most, last)
		}
		select {
		case <-g.exited:
			if ok, last = holds(); ok {
				return nil
			}
			return fmt.Errorf("it has exited with code %d; the last answer: %s", g.code, last)
		case <-tick.C:
		}
	}
}

// ask sends a request to the operators' listener.
func (g *gateway) ask(method, path string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+g.admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// kill ends the gateway at once.
func (g *gateway) kill() {
	select {
	case <-g.exited:
	default:
		g.cmd.Process.Kill()
		<-g.exited
	}
}

// waitExit waits for the end of the process and returns its code.
func (g *gateway) waitExit() (int, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-g.exited:
		return g.code, nil
	case <-timer.C:
		return 0, errors.New("the gateway does not exit")
	}
}

// end stops the gateway in order and says what is wrong with how it lived and died.
func (g *gateway) end() error {
	defer g.kill()
	var faults []error
	if !g.expects {
		if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			faults = append(faults, fmt.Errorf("signal the gateway: %w", err))
		}
		if code, err := g.waitExit(); err != nil {
			faults = append(faults, err)
		} else if code != 0 {
			faults = append(faults, fmt.Errorf("the gateway exits with code %d after SIGTERM", code))
		}
	}
	if strings.Contains(g.out.String(), "DATA RACE") {
		faults = append(faults, errors.New("the race detector has found something; see the gateway's log"))
	}
	return errors.Join(faults...)
}
