package guard

import (
	"io/fs"
	"path"
	"strings"
)

// group is a control group that the process is in (cgroups(7)).
type group struct {
	dir, mount string   // its folder, and that of the topmost one that can be seen
	limits     []string // files with a limit
	current    string   // file with what is in use
	files      [2]string
}

// known returns the group with what its budget is compared by.
func (l Linux) known(g *group) *group {
	if _, err := fs.Stat(l.Files, path.Join(g.dir, g.current)); err != nil {
		return nil // then the process's own memory has to do
	}
	return g
}

// groups returns the process's group of the unified hierarchy (version 2) and that of the memory controller (version 1),
// where it is in one and can see it.
func (l Linux) groups() (list []group) {
	memberships, err := fs.ReadFile(l.Files, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	mounts, err := fs.ReadFile(l.Files, "proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(memberships)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy, controllers, path
		if len(parts) != 3 {
			continue
		}
		unified := parts[0] == "0" && parts[1] == ""
		if !unified && !contains(parts[1], "memory") {
			continue
		}
		for mount := range strings.Lines(string(mounts)) {
			if g, ok := mounted(mount, parts[2], unified); ok {
				list = append(list, g)
				break
			}
		}
	}
	return list
}

// mounted reads a line of mountinfo (proc_pid_mountinfo(5)) and returns the folder of a group if the line is of its hierarchy.
func mounted(line, where string, unified bool) (group, bool) {
	before, after, ok := strings.Cut(line, " - ")
	own, kind := strings.Fields(before), strings.Fields(after)
	if !ok || len(own) < 5 || len(kind) < 3 {
		return group{}, false
	}
	if unified && kind[0] != "cgroup2" || !unified && (kind[0] != "cgroup" || !contains(kind[2], "memory")) {
		return group{}, false
	}
	// A container may see its own group as the root of the mount and yet be told its path from the machine's root.
	root, point := own[3], strings.TrimPrefix(own[4], "/")
	below := where
	if root != "/" {
		if below, ok = strings.CutPrefix(where, root); !ok || below != "" && below[0] != '/' {
			below = ""
		}
	}
	if strings.HasPrefix(below, "/..") { // the group is outside of what can be seen
		below = ""
	}
	g := group{mount: path.Clean(point), dir: path.Join(point, below)}
	if unified {
		g.limits, g.current = []string{"memory.max", "memory.high"}, "memory.current"
		g.files = [2]string{"active_file", "inactive_file"}
		return g, true
	}
	g.limits, g.current = []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes"
	g.files = [2]string{"total_active_file", "total_inactive_file"}
	return g, true
}

// contains reports whether a list separated by commas has the word.
func contains(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}
