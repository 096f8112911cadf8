package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"headgate/bench/origin"
	"headgate/bench/proc"
)

// upstreamServer is one kind of upstream.
type upstreamServer interface{ Serve() error }

// serveOrigin is an upstream as a process of its own; its first line of output is its address.
func serveOrigin(kind []string) error {
	// It allocates next to nothing, so its one thread is never asked to wait for a collection.
	var s upstreamServer
	var at net.Addr
	var err error
	switch strings.Join(kind, " ") {
	case grpcOrigin:
		g, failed := origin.ListenGRPC("127.0.0.1:0")
		s, at, err = g, g.Addr(), failed
	case echoOrigin:
		e, failed := origin.ListenEcho("127.0.0.1:0")
		s, at, err = e, e.Addr(), failed
	default:
		h, failed := origin.Listen("127.0.0.1:0")
		if failed != nil {
			return failed
		}
		s, at = h, h.Addr()
	}
	if err != nil {
		return err
	}
	if _, err := fmt.Println(at); err != nil {
		return err
	}
	return s.Serve()
}

// startOrigin starts an upstream of a kind, which inherits our core.
func (b *bench) startOrigin(kind string) (address string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	load, err := proc.Cores()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(self, "origin", kind)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=256MiB")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := proc.StartOn(load[0], cmd); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill() // it holds nothing that could be lost
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("the upstream did not start: %w", err)
	}
	return strings.TrimSpace(line), stop, nil
}

// upstream returns where the upstream that a case wants is, starting it when it is the first to ask.
func (b *bench) upstream(kind string) (string, error) {
	if kind == "" {
		return b.origin, nil
	}
	if b.origins[kind] == "" {
		address, stop, err := b.startOrigin(kind)
		if err != nil {
			return "", err
		}
		b.origins[kind] = address
		b.stops = append(b.stops, stop)
	}
	return b.origins[kind], nil
}
