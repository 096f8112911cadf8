package guard

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

// kernel makes a file system of the files that a kernel shows.
func kernel(files map[string]string) Linux {
	fs := fstest.MapFS{}
	for name, text := range files {
		fs[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return Linux{fs}
}

const (
	meminfo = "MemTotal:       16384 kB\nMemFree:        1 kB\n"
	v2      = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	v1      = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
	v1cpu   = "33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
)

func TestTheTightestLimitIsFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		files  map[string]string
		bytes  int64
		source string
	}{
		{"a machine without groups", nil, 16 * mib, "/proc/meminfo"},
		{"a container of version 2", map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/memory.max": "4194304\n",
		}, 4 * mib, "/sys/fs/cgroup/memory.max"},
		{"no limit in version 2", map[string]string{
			"proc/self/cgroup": "0::/app\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/app/memory.max": "max\n",
		}, 16 * mib, "/proc/meminfo"},
		{"a limit further up", map[string]string{
			"proc/self/cgroup": "0::/pod/app\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/pod/app/memory.max": "8388608\n",
			"sys/fs/cgroup/pod/memory.max": "6291456\n",
		}, 6 * mib, "/sys/fs/cgroup/pod/memory.max"},
		{"where the kernel begins to slow the process down", map[string]string{
			"proc/self/cgroup": "0::/app\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/app/memory.max": "8388608\n",
			"sys/fs/cgroup/app/memory.high": "7340032\n",
		}, 7 * mib, "/sys/fs/cgroup/app/memory.high"},
		{"a container that is told its path from the machine's root", map[string]string{
			"proc/self/cgroup":         "0::/docker/4711\n",
			"proc/self/mountinfo":      "30 23 0:26 /docker/4711 /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n",
			"sys/fs/cgroup/memory.max": "3145728\n",
		}, 3 * mib, "/sys/fs/cgroup/memory.max"},
		{"a group outside of what can be seen", map[string]string{
			"proc/self/cgroup": "0::/../other\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/memory.max": "3145728\n",
			"sys/fs/other/memory.max": "1\n",
		}, 3 * mib, "/sys/fs/cgroup/memory.max"},
		{"version 1", map[string]string{
			"proc/self/cgroup": "9:cpu,cpuacct:/x\n4:memory:/app\n0::/\n", "proc/self/mountinfo": v1cpu + v1,
			"sys/fs/cgroup/memory/app/memory.limit_in_bytes": "5242880\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 5 * mib, "/sys/fs/cgroup/memory/app/memory.limit_in_bytes"},
		{"no limit in version 1", map[string]string{
			"proc/self/cgroup": "4:memory:/app\n", "proc/self/mountinfo": v1,
			"sys/fs/cgroup/memory/app/memory.limit_in_bytes": "9223372036854771712\n",
		}, 16 * mib, "/proc/meminfo"},
		{"files that make no sense", map[string]string{
			"proc/self/cgroup": "::\nx\n0::/app\n", "proc/self/mountinfo": "\n - \n1 2 3\n" + v2, "sys/fs/cgroup/app/memory.max": "many\n",
		}, 16 * mib, "/proc/meminfo"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{"proc/meminfo": meminfo}
			for name, text := range c.files {
				files[name] = text
			}
			b, err := kernel(files).Budget()
			if err != nil || b.Bytes != c.bytes || b.Source != c.source {
				t.Errorf("%d of %s, %v; want %d of %s", b.Bytes, b.Source, err, c.bytes, c.source)
			}
		})
	}
}

func TestWithoutAKernelThatTellsThereIsNoBudget(t *testing.T) {
	if b, err := kernel(nil).Budget(); err == nil || b.Bytes != 0 {
		t.Errorf("%+v, %v", b, err)
	}
	if r := kernel(nil).Read(Budget{}); r.Used <= 0 || r.Live <= 0 {
		t.Errorf("Go itself knows what it uses: %+v", r)
	}
}

func TestWhatTheKernelTakesBackIsNotInUse(t *testing.T) {
	page := int64(os.Getpagesize())
	const statm = "452452 6942 6072 3675 0 34409 0\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		used  int64
	}{
		{"of the process: what has a file behind it", nil, (6942 - 6072) * page},
		{"of version 2: the cache of files", map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/memory.max": "15728640\n",
			"sys/fs/cgroup/memory.current": "14680064\n",
			"sys/fs/cgroup/memory.stat":    "anon 1\nfile 9\ninactive_file 1048576\nactive_file 2097152\n",
		}, 11 * mib},
		{"of version 1", map[string]string{
			"proc/self/cgroup": "4:memory:/\n", "proc/self/mountinfo": v1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "15728640\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "14680064\n",
			"sys/fs/cgroup/memory/memory.stat":           "inactive_file 7\ntotal_inactive_file 1048576\ntotal_active_file 2097152\n",
		}, 11 * mib},
		{"a group that does not tell what is in use", map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/memory.max": "15728640\n",
		}, (6942 - 6072) * page},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{"proc/meminfo": meminfo, "proc/self/statm": statm}
			for name, text := range c.files {
				files[name] = text
			}
			l := kernel(files)
			b, err := l.Budget()
			if err != nil {
				t.Fatal(err)
			}
			if r := l.Read(b); r.Used != c.used {
				t.Errorf("%d in use, want %d", r.Used, c.used)
			}
		})
	}
}

func TestTheRealMachineShowsWhatIsTakenAndGivenBack(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/proc is Linux's")
	}
	l := Linux{os.DirFS("/")}
	b, err := l.Budget()
	if err != nil || b.Bytes < 64*mib {
		t.Fatalf("%+v, %v", b, err)
	}
	own := Budget{} // the process alone, whatever else runs in its group
	before := l.Read(own)
	const n = 64 * mib
	taken := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		taken[i] = 1
	}
	runtime.GC()
	during := l.Read(own)
	runtime.KeepAlive(taken)
	taken = nil
	debug.FreeOSMemory()
	after := l.Read(own)
	if during.Used-before.Used < n*9/10 || during.Live-before.Live < n*9/10 {
		t.Errorf("64 MiB were taken: %+v became %+v", before, during)
	}
	if during.Used-after.Used < n*9/10 || during.Live-after.Live < n*9/10 {
		t.Errorf("64 MiB were given back: %+v became %+v", during, after)
	}
}

func BenchmarkRead(b *testing.B) {
	l := Linux{os.DirFS("/")}
	budget, err := l.Budget()
	if err != nil {
		b.Skip(err)
	}
	for b.Loop() {
		l.Read(budget)
	}
}
