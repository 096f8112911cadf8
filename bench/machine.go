package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"headgate/bench/peers"
)

// machine is where a result was measured and with what.
type machine struct {
	cpu, system, kernel, load string
	cores                     int
	versions                  []string
	when                      time.Time
}

func describe(ctx context.Context, headgate string, kinds []peers.Kind) machine {
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo") // a field that cannot be read stays empty
	release, _ := os.ReadFile("/etc/os-release")
	load, _ := os.ReadFile("/proc/loadavg")
	m := machine{
		cpu: fieldOf(cpuinfo, "model name", ":"), cores: bytes.Count(cpuinfo, []byte("processor\t")),
		system: strings.Trim(fieldOf(release, "PRETTY_NAME", "="), `"`), load: strings.TrimSpace(string(load)), when: time.Now().UTC(),
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.kernel = unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Machine[:])
	}
	for _, k := range kinds {
		switch k {
		case peers.Headgate:
			m.versions = append(m.versions, firstLine(ctx, headgate, "version"), "commit "+firstLine(ctx, "git", "describe", "--always", "--dirty"))
		case peers.Nginx:
			m.versions = append(m.versions, firstLine(ctx, "nginx", "-v"))
		case peers.HAProxy:
			m.versions = append(m.versions, firstLine(ctx, "haproxy", "-v"))
		}
	}
	m.versions = append(m.versions, runtime.Version())
	return m
}

// fieldOf finds "name<separator>value" in lines of text.
func fieldOf(text []byte, name, separator string) string {
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(line, separator)
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// firstLine is what a program says first about itself.
func firstLine(ctx context.Context, program string, args ...string) string {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return program + ": version unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

func (m machine) String() string {
	return fmt.Sprintf("%s\n%s, %d cores, %s, Linux %s, load before the first round %s\n%s\n",
		m.when.Format("2006-01-02 15:04 UTC"), m.cpu, m.cores, m.system, m.kernel, m.load, strings.Join(m.versions, " · "))
}
