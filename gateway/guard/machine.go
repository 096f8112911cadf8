package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime/metrics"
	"strconv"
	"strings"
)

// Budget is an amount of memory that is not to be used up.
type Budget struct {
	Bytes  int64  // 0: no limit is known
	Source string // who says so: a file, or limits.memory
	group  *group // whose memory is counted against it; nil: the process's own
}

// Reading is memory in use, in bytes.
type Reading struct {
	Used int64 // as the kernel counts it: what it could not take back without killing
	Live int64 // as Go counts it, after its last collection: also what was allocated and never touched
}

// Machine tells how much memory there is and how much is used.
type Machine interface {
	// Budget finds the memory of the container, or of the machine. The error says that neither is known.
	Budget() (Budget, error)
	// Read reads what counts against a budget.
	Read(Budget) Reading
}

// Linux is the machine as its kernel shows it under /proc and /sys. Elsewhere there is no budget, and what Go says is used.
type Linux struct{ Files fs.FS } // rooted at /

// Budget implements Machine: the tightest limit of the control groups that the process is in, or all of the machine.
func (l Linux) Budget() (Budget, error) {
	total, err := l.total()
	if err != nil {
		return Budget{}, err
	}
	best := Budget{Bytes: total, Source: "/proc/meminfo"}
	for _, g := range l.groups() {
		for dir := g.dir; ; dir = path.Dir(dir) {
			for _, name := range g.limits {
				if n, err := l.number(path.Join(dir, name)); err == nil && n > 0 && n < best.Bytes {
					at := g
					at.dir = dir
					best = Budget{Bytes: n, Source: "/" + path.Join(dir, name), group: l.known(&at)}
				}
			}
			if dir == g.mount || dir == "." || dir == "/" {
				break
			}
		}
	}
	return best, nil
}

// Read implements Machine.
func (l Linux) Read(b Budget) Reading {
	r := ofGo()
	if own, err := l.own(); err == nil {
		r.Used = own
	}
	if b.group == nil {
		return r
	}
	current, err := l.number(path.Join(b.group.dir, b.group.current))
	if err != nil {
		return r // the process's own is still known
	}
	stat, err := fs.ReadFile(l.Files, path.Join(b.group.dir, "memory.stat"))
	if err != nil {
		return r
	}
	// The kernel takes the cache of files back before it kills.
	r.Used = max(r.Used, current-field(stat, b.group.files[0])-field(stat, b.group.files[1]))
	return r
}

// total returns the memory of the machine.
func (l Linux) total() (int64, error) {
	b, err := fs.ReadFile(l.Files, "proc/meminfo")
	if err != nil {
		return 0, err
	}
	if kib := field(b, "MemTotal:"); kib > 0 {
		return kib << 10, nil
	}
	return 0, errors.New("/proc/meminfo has no MemTotal")
}

// own returns what of the process's memory is in no file: what has a file behind it, such as the program itself, is taken
// back by the kernel at need.
func (l Linux) own() (int64, error) {
	b, err := fs.ReadFile(l.Files, "proc/self/statm")
	if err != nil {
		return 0, err
	}
	var size, resident, shared int64
	if _, err := fmt.Sscan(string(b), &size, &resident, &shared); err != nil {
		return 0, err
	}
	return (resident - shared) * int64(os.Getpagesize()), nil
}

// ofGo returns what Go says of itself.
func ofGo() Reading {
	samples := [...]metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
	}
	metrics.Read(samples[:])
	var n [len(samples)]int64
	for i := range samples {
		if samples[i].Value.Kind() == metrics.KindUint64 {
			n[i] = int64(samples[i].Value.Uint64())
		}
	}
	used := n[0] - n[1]
	return Reading{Used: used, Live: used - n[2] - n[3] - n[4] + n[5]}
}

// number reads a file with one number; "max" is none.
func (l Linux) number(name string) (int64, error) {
	b, err := fs.ReadFile(l.Files, name)
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return 0, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

// field returns the number behind a name at the beginning of a line; 0: there is none.
func field(b []byte, name string) int64 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok && len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
			first := bytes.Fields(rest)
			if len(first) == 0 {
				return 0
			}
			n, _ := strconv.ParseInt(string(first[0]), 10, 64) // what is no number counts nothing
			return n
		}
	}
	return 0
}
