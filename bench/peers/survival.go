package peers

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Survival is what a gateway shall do in a scenario of survival.
type Survival struct {
	Targets   []string // host:port
	Workers   int      // requests that the one target can work on at a time; told to nginx and HAProxy, never to Headgate
	Capacity  int      // requests per second that it can answer; told to HAProxy
	Keys      []Key    // of the consumers
	Discovery bool     // the list of targets will be replaced while requests come
	Hedge     bool     // a slow request is asked once more elsewhere
}

// Most is how many requests nginx lets through at a time: the workers and as many waiting; with several consumers, for each of them three
// quarters of that, so that one alone can keep the workers busy and two do not wait long.
func (s *Survival) Most() int {
	if len(s.Keys) > 0 {
		return s.Workers * 3 / 2
	}
	return 2 * s.Workers
}

// Fair is half of the capacity: who of two consumers asks for more is the heavy one.
func (s *Survival) Fair() int { return s.Capacity / 2 }

func (s *Survival) can(k Kind) bool {
	switch k {
	case NginxTuned:
		return false
	case Nginx, HAProxy:
		return !s.Hedge
	}
	return true
}

// template chooses the configuration of the case.
func (s *Settings) template(plain, survive string) string {
	if s.Survival != nil {
		return survive
	}
	return plain
}

func (s *Settings) keys() []Key {
	if s.Survival != nil {
		return s.Survival.Keys
	}
	return s.Keys
}

func targetList(targets []string) string {
	text, _ := json.Marshal(targets) // strings always can
	return string(text) + "\n"
}

const socketWithin = 2 * time.Second // for an answer of HAProxy's runtime API

// Tell replaces the list of targets, each gateway in its own way: Headgate's file of targets, nginx's configuration and a reload, HAProxy's
// runtime API.
func (g *Gateway) Tell(targets []string) error {
	before := g.Settings.Survival.Targets
	next := *g.Settings.Survival
	next.Targets = append([]string{}, targets...)
	s := g.Settings
	s.Survival = &next
	switch g.Kind {
	case HAProxy:
		for i, target := range targets {
			if target != before[i] {
				if err := g.setServer(i, target); err != nil {
					return err
				}
			}
		}
	case Nginx:
		if _, err := Write(g.Kind, s); err != nil {
			return err
		}
		if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			return err
		}
	default:
		if err := replace(s.Dir, map[string]string{"targets.json": targetList(targets)}); err != nil {
			return err
		}
	}
	g.Settings = s
	return nil
}

// setServer gives a server another address: https://docs.haproxy.org/2.6/management.html#9.3, "set server <b>/<s> addr".
func (g *Gateway) setServer(number int, target string) error {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout("unix", filepath.Join(g.Settings.Dir, "haproxy.sock"), socketWithin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(socketWithin)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "set server origin/target%d addr %s port %s\n", number, host, port); err != nil {
		return err
	}
	said, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(said, "changed from") {
		return fmt.Errorf("HAProxy's runtime API says %q (%w)", said, err)
	}
	return nil
}
