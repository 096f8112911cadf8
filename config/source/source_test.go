package source

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a test waits for what must happen; it is met in a fraction of a second.
const soon = 20 * time.Second

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *Source {
	t.Helper()
	s, err := Open(path)
	must(t, err)
	return s
}

// contents reads the source and returns what its files hold, in order.
func contents(t *testing.T, s *Source) string {
	t.Helper()
	files, err := s.Read()
	if err != nil {
		return "error"
	}
	var all []string
	for _, f := range files {
		all = append(all, string(f.Data))
	}
	return strings.Join(all, "|")
}

func TestAFolderIsReadWholeSortedAndWithoutWhatIsHidden(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.yaml": "b", "a.yml": "a", "c.json": "c", "sub/d.YAML": "d", "README.md": "no", ".hidden.yaml": "no",
		".git/x.yaml": "no", "b.yaml~": "no", "elsewhere/e.yaml": "e", "sub/deeper/f.yaml": "f",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	outside := t.TempDir()
	write(t, filepath.Join(outside, "g.yaml"), "g")
	must(t, os.Symlink(outside, filepath.Join(dir, "linked")))
	if got := contents(t, open(t, dir)); got != "a|b|c|e|g|d|f" {
		t.Error(got)
	}
}

func TestWhatIsNoDocumentIsRefused(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "nowhere")); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Error(err)
	}
	if _, err := Open("/dev/null"); err == nil || !strings.Contains(err.Error(), "neither a file nor a folder") {
		t.Error(err)
	}
	if _, err := open(t, dir).Read(); err == nil || !strings.Contains(err.Error(), "there is no *.yaml") {
		t.Error(err)
	}
	must(t, os.Symlink(dir, filepath.Join(dir, "self")))
	if _, err := open(t, dir).Read(); err == nil || !strings.Contains(err.Error(), "nested more than") {
		t.Error(err)
	}
	must(t, os.Remove(filepath.Join(dir, "self")))
	must(t, os.Symlink("gone", filepath.Join(dir, "broken.yaml")))
	if _, err := open(t, dir).Read(); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}

// configMap writes a folder as Kubernetes does, or swaps it for the next version.
func configMap(t *testing.T, dir, version string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		write(t, filepath.Join(dir, "..v"+version, name), text)
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			must(t, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
		}
	}
	before, _ := os.Readlink(filepath.Join(dir, "..data"))
	must(t, os.Symlink("..v"+version, filepath.Join(dir, "..data_tmp")))
	must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	if before != "" {
		must(t, os.RemoveAll(filepath.Join(dir, before)))
	}
}

// TestEveryWayOfChangingIsNoticed changes real files in each way that people and programs do.
func TestEveryWayOfChangingIsNoticed(t *testing.T) {
	for _, c := range []struct {
		name   string
		start  func(t *testing.T, dir string) (path string)
		change func(t *testing.T, dir string)
		want   string
	}{
		{"a file is written in place", file, func(t *testing.T, dir string) { write(t, dir+"/doc.yaml", "new") }, "new"},
		{"an editor renames a new file over it", file, func(t *testing.T, dir string) {
			write(t, dir+"/.doc.yaml.swp", "new")
			must(t, os.Rename(dir+"/.doc.yaml.swp", dir+"/doc.yaml"))
		}, "new"},
		{"an editor moves it away and writes anew", file, func(t *testing.T, dir string) {
			must(t, os.Rename(dir+"/doc.yaml", dir+"/doc.yaml~"))
			write(t, dir+"/doc.yaml", "new")
		}, "new"},
		{"it is removed", file, func(t *testing.T, dir string) { must(t, os.Remove(dir+"/doc.yaml")) }, "error"},
		{"a link to it is swapped", func(t *testing.T, dir string) string {
			write(t, dir+"/one/doc.yaml", "old")
			write(t, dir+"/two/doc.yaml", "new")
			must(t, os.Symlink("one/doc.yaml", dir+"/doc.yaml"))
			return dir + "/doc.yaml"
		}, func(t *testing.T, dir string) {
			must(t, os.Symlink("two/doc.yaml", dir+"/next"))
			must(t, os.Rename(dir+"/next", dir+"/doc.yaml"))
		}, "new"},
		{"what a link points to is written", func(t *testing.T, dir string) string {
			write(t, dir+"/one/doc.yaml", "old")
			must(t, os.Symlink("one/doc.yaml", dir+"/doc.yaml"))
			return dir + "/doc.yaml"
		}, func(t *testing.T, dir string) { write(t, dir+"/one/doc.yaml", "new") }, "new"},
		{"a ConfigMap is swapped under a file", func(t *testing.T, dir string) string {
			configMap(t, dir, "1", map[string]string{"doc.yaml": "old"})
			return dir + "/doc.yaml"
		}, func(t *testing.T, dir string) { configMap(t, dir, "2", map[string]string{"doc.yaml": "new"}) }, "new"},
		{"a ConfigMap is swapped as a folder", func(t *testing.T, dir string) string {
			configMap(t, dir, "1", map[string]string{"a.yaml": "old", "b.yaml": "b"})
			return dir
		}, func(t *testing.T, dir string) {
			configMap(t, dir, "2", map[string]string{"a.yaml": "new", "b.yaml": "b", "c.yaml": "c"})
		}, "new|b|c"},
		{"a file is added to a folder", folder, func(t *testing.T, dir string) { write(t, dir+"/b.yaml", "new") }, "old|new"},
		{"a file is removed from a folder", folder, func(t *testing.T, dir string) { must(t, os.Remove(dir+"/a.yaml")) }, "error"},
		{"a file is renamed in a folder", folder, func(t *testing.T, dir string) { must(t, os.Rename(dir+"/a.yaml", dir+"/b.yaml")) }, "old"},
		{"a folder is added to a folder", folder, func(t *testing.T, dir string) { write(t, dir+"/x/y/b.yaml", "new") }, "old|new"},
		{"a file in a folder below is written", func(t *testing.T, dir string) string {
			write(t, dir+"/x/a.yaml", "old")
			return dir
		}, func(t *testing.T, dir string) { write(t, dir+"/x/a.yaml", "new") }, "new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, c.start(t, dir))
			contents(t, s)
			w := watched(t, s)
			w.compared(t) // it is watching
			c.change(t, dir)
			w.until(t, func() bool { return contents(t, s) == c.want })
		})
	}
}

func file(t *testing.T, dir string) string {
	write(t, dir+"/doc.yaml", "old")
	return dir + "/doc.yaml"
}

func folder(t *testing.T, dir string) string {
	write(t, dir+"/a.yaml", "old")
	return dir
}

// watching is a Watch that runs until the test ends.
type watching struct {
	changes  chan struct{}
	compares chan bool
}

func watched(t *testing.T, s *Source) *watching {
	t.Helper()
	w := &watching{make(chan struct{}, 1000), make(chan bool, 1000)}
	s.checked = func(changed bool) { w.compares <- changed }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, func() { w.changes <- struct{}{} })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// compared waits for the next comparison and returns whether it found a change.
func (w *watching) compared(t *testing.T) bool {
	t.Helper()
	select {
	case changed := <-w.compares:
		return changed
	case <-time.After(soon):
		t.Fatal("nothing was compared")
		return false
	}
}

// until waits until the condition holds after a change; a change may be seen halfway, and then again.
func (w *watching) until(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.After(soon)
	for {
		select {
		case <-w.changes:
			if done() {
				return
			}
		case <-deadline:
			t.Fatal("the change was not noticed")
		}
	}
}

func TestATouchIsComparedAndIsNoChange(t *testing.T) {
	dir := t.TempDir()
	s := open(t, file(t, dir))
	contents(t, s)
	w := watched(t, s)
	w.compared(t)
	write(t, dir+"/doc.yaml", "old") // the same content, written anew
	if w.compared(t) || len(w.changes) != 0 {
		t.Error("a touch was taken for a change")
	}
	write(t, dir+"/doc.yaml", "new")
	w.until(t, func() bool { return contents(t, s) == "new" })
}

func TestManyWritesInARowAreFewChanges(t *testing.T) {
	dir := t.TempDir()
	s := open(t, file(t, dir))
	contents(t, s)
	w := watched(t, s)
	w.compared(t)
	const writes = 200
	for i := range writes {
		write(t, dir+"/doc.yaml", strings.Repeat("x", i+1))
	}
	w.until(t, func() bool { return contents(t, s) == strings.Repeat("x", writes) })
	if n := len(w.compares); n > writes/10 {
		t.Errorf("%d comparisons for %d writes", n, writes)
	}
}

func TestReferencedFilesAreWatchedWhereverTheyAre(t *testing.T) {
	dir, secrets := t.TempDir(), t.TempDir()
	configMap(t, secrets, "1", map[string]string{"key": "old"})
	s := open(t, file(t, dir))
	contents(t, s)
	w := watched(t, s)
	w.compared(t)
	s.Also([]string{secrets + "/key", secrets + "/missing"})
	w.compared(t)
	configMap(t, secrets, "2", map[string]string{"key": "new"})
	w.until(t, func() bool { return true })
	write(t, secrets+"/missing", "found")
	w.until(t, func() bool { return true })
	s.Also(nil)
	for w.compared(t) { // what is left of the changes above, until the one that Also caused
	}
	write(t, dir+"/unrelated.log", "x") // beside the document, and none of its business
	write(t, dir+"/doc.yaml", "new")
	w.until(t, func() bool { return contents(t, s) == "new" })
}

func TestAChangeBetweenReadAndWatchIsNotLost(t *testing.T) {
	dir := t.TempDir()
	s := open(t, file(t, dir))
	contents(t, s)
	write(t, dir+"/doc.yaml", "new")
	watched(t, s).until(t, func() bool { return contents(t, s) == "new" })
}

func TestWithoutNotificationsFilesArePolled(t *testing.T) {
	dir := t.TempDir()
	s := open(t, file(t, dir))
	contents(t, s)
	// A referenced file in a folder that does not exist yet cannot be watched, so it is polled for.
	s.Also([]string{dir + "/later/key"})
	running := watched(t, s)
	running.compared(t)
	write(t, dir+"/later/key", "new")
	running.until(t, func() bool { return true })
}
