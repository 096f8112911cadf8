// Package proc reads the operating system's own accounting of processes from Linux's /proc (see proc(5)).
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// CPU is what processes have used since they began.
type CPU struct {
	Run         time.Duration // on a core, to the nanosecond, from schedstat of all threads
	UserTicks   uint64        // user time in clock ticks, from stat; says how Run divides
	SystemTicks uint64
}

// Since returns what was used after before.
func (c CPU) Since(before CPU) CPU {
	return CPU{c.Run - before.Run, c.UserTicks - before.UserTicks, c.SystemTicks - before.SystemTicks}
}

// Split divides Run into user and system time in the proportion of the ticks; without a tick all of it counts as system.
func (c CPU) Split() (user, system time.Duration) {
	ticks := c.UserTicks + c.SystemTicks
	if ticks == 0 {
		return 0, c.Run
	}
	user = time.Duration(float64(c.Run) * float64(c.UserTicks) / float64(ticks))
	return user, c.Run - user
}

// Used adds up the CPU of the processes and all their threads. A thread that has ended is missing from Run; the gateways
// measured here keep theirs.
func Used(pids []int) (CPU, error) {
	var sum CPU
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		raw, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			return CPU{}, err
		}
		st, err := parseStat(raw)
		if err != nil {
			return CPU{}, fmt.Errorf("%s/stat: %w", dir, err)
		}
		sum.UserTicks += st.user
		sum.SystemTicks += st.system
		run, err := threads(dir)
		if err != nil {
			return CPU{}, err
		}
		sum.Run += run
	}
	return sum, nil
}

// threads adds up the schedstat of a process's threads.
func threads(dir string) (time.Duration, error) {
	tasks, err := os.ReadDir(filepath.Join(dir, "task"))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, t := range tasks {
		path := filepath.Join(dir, "task", t.Name(), "schedstat")
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the thread ended between the two reads
		}
		if err != nil {
			return 0, err
		}
		run, err := parseSchedstat(raw)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += run
	}
	return sum, nil
}

// RSS adds up the resident memory of the processes, in bytes. Pages that they share count once for each.
func RSS(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
		if err != nil {
			return 0, err
		}
		rss, err := parseRSS(raw)
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		sum += rss
	}
	return sum, nil
}

// Tree returns the process and all its descendants.
func Tree(root int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it ended between the two reads
		}
		if st, err := parseStat(raw); err == nil && st.state != 'Z' {
			children[st.parent] = append(children[st.parent], pid)
		}
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

type stat struct {
	state        byte
	parent       int
	user, system uint64
}

// parseStat reads /proc/PID/stat. The second field is the command's name in parentheses and may itself hold spaces and
// parentheses, so the fields are counted from the last one.
func parseStat(raw []byte) (stat, error) {
	end := bytes.LastIndexByte(raw, ')')
	if end < 0 {
		return stat{}, errors.New("no command name in parentheses")
	}
	fields := bytes.Fields(raw[end+1:]) // from field 3, state
	if len(fields) < 13 {
		return stat{}, fmt.Errorf("%d fields after the command name; at least 13 expected", len(fields))
	}
	parent, err1 := strconv.Atoi(string(fields[1]))
	user, err2 := strconv.ParseUint(string(fields[11]), 10, 64)   // field 14, utime
	system, err3 := strconv.ParseUint(string(fields[12]), 10, 64) // field 15, stime
	return stat{fields[0][0], parent, user, system}, errors.Join(err1, err2, err3)
}

// parseSchedstat reads the first of the three numbers: nanoseconds spent on a core.
func parseSchedstat(raw []byte) (time.Duration, error) {
	fields := bytes.Fields(raw)
	if len(fields) != 3 {
		return 0, fmt.Errorf("%q: three numbers expected", raw)
	}
	n, err := strconv.ParseInt(string(fields[0]), 10, 64)
	return time.Duration(n), err
}

// parseRSS reads VmRSS of /proc/PID/status, in bytes.
func parseRSS(raw []byte) (int64, error) {
	for line := range bytes.Lines(raw) {
		value, ok := bytes.CutPrefix(line, []byte("VmRSS:"))
		if !ok {
			continue
		}
		fields := bytes.Fields(value)
		if len(fields) != 2 || string(fields[1]) != "kB" {
			return 0, fmt.Errorf("VmRSS is %q; a number of kB expected", bytes.TrimSpace(value))
		}
		kib, err := strconv.ParseInt(string(fields[0]), 10, 64)
		return kib << 10, err
	}
	return 0, errors.New("no VmRSS in status")
}
