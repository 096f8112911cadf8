package peers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"headgate/bench/proc"
)

// Kind is one contestant.
type Kind string

// The contestants.
const (
	Headgate   Kind = "headgate"
	Nginx      Kind = "nginx"
	NginxTuned Kind = "nginx-tuned" // S2: its log is written in pieces of 64 KiB; S4: larger buffers, nothing spooled to disk
	HAProxy    Kind = "haproxy"
)

// Names returns the contestants in the order in which they run.
func Names() []string {
	return []string{string(Headgate), string(Nginx), string(NginxTuned), string(HAProxy)}
}

// Can reports whether the contestant can do what the settings ask, in what Debian packages of it.
func (k Kind) Can(s Settings) bool {
	if s.Survival != nil {
		return s.Survival.can(k)
	}
	switch k {
	case Nginx:
		return s.JWT == nil // needs njs or NGINX Plus
	case NginxTuned:
		return len(s.Keys) > 0 || s.Bodies
	}
	return true
}

const (
	stopWithin = 10 * time.Second       // for a gateway that was asked to end, until it is killed
	startWait  = 60 * time.Second       // for the first answer, also with 50,000 routes
	pollEvery  = 500 * time.Microsecond // while waiting for the first answer
)

// Gateway is a contestant that runs.
type Gateway struct {
	Kind     Kind
	Settings Settings
	cmd      *exec.Cmd
	began    time.Time
	output   string // what it wrote: a file
	ended    chan struct{}
	exit     error // once ended is closed
}

// Start writes the configuration and starts the contestant on the core. binary is Headgate's; the others are found in PATH.
func Start(kind Kind, s Settings, core int, binary string) (*Gateway, error) {
	config, err := Write(kind, s)
	if err != nil {
		return nil, err
	}
	cmd := command(kind, s, config, binary)
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := os.Create(filepath.Join(s.Dir, "output"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the child has its own descriptor
	cmd.Stdout, cmd.Stderr = out, out
	if len(s.Keys) > 0 && kind == HAProxy { // its log goes to standard output: a real file, a line at a time
		log, err := os.Create(s.Log)
		if err != nil {
			return nil, err
		}
		defer func() { _ = log.Close() }()
		cmd.Stdout = log
	}
	began := time.Now()
	if err := proc.StartOn(core, cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", kind, err)
	}
	g := &Gateway{Kind: kind, Settings: s, cmd: cmd, began: began, output: out.Name(), ended: make(chan struct{})}
	go func() {
		g.exit = cmd.Wait()
		close(g.ended)
	}()
	return g, nil
}

func command(kind Kind, s Settings, config, binary string) *exec.Cmd {
	switch kind {
	case Nginx, NginxTuned:
		return exec.Command("nginx", "-e", filepath.Join(s.Dir, "error.log"), "-p", s.Dir, "-c", config)
	case HAProxy:
		mode := []string{"-db"}
		if s.Reloads {
			mode = []string{"-W", "-db"} // a master that starts new workers: the only way to reload it
		}
		return exec.Command("haproxy", append(mode, "-f", config)...)
	}
	return exec.Command(binary, "run", config)
}

// Ready waits until the gateway answers the request with status 200 and returns how long that took from
// the moment at which its program was started.
func (g *Gateway) Ready(ctx context.Context, request []byte) (time.Duration, error) {
	for {
		last := g.ask(request)
		if last == nil {
			return time.Since(g.began), nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-g.ended:
			return 0, fmt.Errorf("%s ended (%v) before its first answer:\n%s", g.Kind, g.exit, g.Output())
		case <-time.After(pollEvery):
		}
		if time.Since(g.began) > startWait {
			return 0, fmt.Errorf("%s gave no answer within %v: %w\n%s", g.Kind, startWait, last, g.Output())
		}
	}
}

// ask sends one request on a connection of its own.
func (g *Gateway) ask(request []byte) error {
	conn, err := net.DialTimeout("tcp", g.Settings.Listen, time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if g.Settings.GRPC {
		return nil // a door that is open is all that a request in HTTP/1.1 can find out
	}
	if g.Settings.TLS != nil { // the certificate was made for this run
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	line := make([]byte, 12)
	n, err := conn.Read(line)
	if status := string(line[:n]); status != "HTTP/1.1 200" {
		return errors.Join(fmt.Errorf("it answers %q", status), err)
	}
	return nil
}

// Output returns the end of what the gateway wrote, for an error's text.
func (g *Gateway) Output() string {
	const most = 2000
	var all []string
	for _, path := range []string{g.output, filepath.Join(g.Settings.Dir, "error.log")} {
		text, err := os.ReadFile(path)
		if err == nil && len(text) > 0 {
			all = append(all, strings.TrimSpace(string(text[max(0, len(text)-most):])))
		}
	}
	return strings.Join(all, "\n")
}

// Processes returns the gateway's processes: master and workers.
func (g *Gateway) Processes() ([]int, error) { return proc.Tree(g.cmd.Process.Pid) }

// Reload replaces the configuration and tells the gateway.
func (g *Gateway) Reload(s Settings) error {
	if _, err := Write(g.Kind, s); err != nil {
		return err
	}
	signal := syscall.SIGHUP
	if g.Kind == HAProxy {
		signal = syscall.SIGUSR2
	}
	g.Settings = s
	return g.cmd.Process.Signal(signal)
}

// Stop ends the gateway and waits for it; what is left of its process group after that, or after stopWithin, is killed. An
// error says that it did not end well.
func (g *Gateway) Stop() error {
	err := g.cmd.Process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		err = fmt.Errorf("%s had ended by itself (%v)", g.Kind, g.exit)
	}
	select {
	case <-g.ended:
	case <-time.After(stopWithin):
		err = errors.Join(err, fmt.Errorf("%s did not end within %v of SIGTERM and was killed", g.Kind, stopWithin))
	}
	if e := syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL); e != nil && !errors.Is(e, syscall.ESRCH) {
		err = errors.Join(err, fmt.Errorf("kill what is left of %s: %w", g.Kind, e))
	}
	<-g.ended
	return err
}
