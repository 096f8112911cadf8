package watch

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// running watches the files and returns where changes are told, after the first call, which Set causes.
func running(t *testing.T, paths ...string) <-chan struct{} {
	t.Helper()
	var f Files
	f.Set(paths)
	changes, ended := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(t.Context(), func() { changes <- struct{}{} })
	}()
	t.Cleanup(func() { <-ended })
	await(t, changes)
	return changes
}

func await(t *testing.T, changes <-chan struct{}) {
	t.Helper()
	select {
	case <-changes:
	case <-time.After(30 * time.Second):
		t.Fatal("not told")
	}
}

func TestEveryKindOfChangeIsTold(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.pem")
	write(t, file, "one")
	changes := running(t, file)
	write(t, file, "two")
	await(t, changes)
	other := filepath.Join(dir, "new.pem")
	write(t, other, "three")
	if err := os.Rename(other, file); err != nil {
		t.Fatal(err)
	}
	await(t, changes)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	await(t, changes)
	write(t, file, "four")
	await(t, changes)
}

func TestAKubernetesLinkSwapIsTold(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"..1", "..2"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "tls.crt"), version)
	}
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..1", "..data")
	link("..data/tls.crt", "tls.crt")
	changes := running(t, filepath.Join(dir, "tls.crt"))
	link("..2", "..data_tmp")
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	await(t, changes)
}

func TestAFileThatDoesNotExistYetIsWaitedFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "later.pem")
	changes := running(t, file)
	write(t, file, "here")
	await(t, changes)
}

func TestFoldersThatCannotBeWatchedArePolled(t *testing.T) {
	changes := running(t, filepath.Join(t.TempDir(), "not", "there", "a.pem"))
	await(t, changes)
	await(t, changes)
}

func TestWithoutNotificationsIsPolled(t *testing.T) {
	w := &watcher{} // as where the system has none to give
	w.follow(Scope{Files: []string{t.TempDir() + "/a"}})
	if w.interval() != pollEvery {
		t.Errorf("interval %v", w.interval())
	}
}
