package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMain makes the test's own binary the command, when it is called as one.
func TestMain(m *testing.M) {
	if os.Getenv("HEADGATE_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// headgate runs the command in testdata and returns what it printed and how it exited.
func headgate(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, args...)
	var out, errs bytes.Buffer
	c.Dir, c.Stdout, c.Stderr, c.Env = "testdata", &out, &errs, append(os.Environ(), "HEADGATE_MAIN=1")
	if err := c.Run(); err != nil && c.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// Each transcript in testdata has commands behind "$ ", and under each what it prints: lines of the standard output as
// they are, lines of the error output behind "! ", and its exit status. After a change that is meant,
// UPDATE=1 go test ./cmd/headgate writes them anew.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := string(b)
			got := transcribe(t, want)
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: what is expected (-) and what was printed (+):\n%s", file, diff)
			}
		})
	}
}

// transcribe runs the commands of a transcript and returns it as it is now. What stands before the first stays.
func transcribe(t *testing.T, script string) string {
	t.Helper()
	var b strings.Builder
	begun := false
	for line := range strings.Lines(script) {
		command, is := strings.CutPrefix(line, "$ headgate")
		if !is {
			if !begun {
				b.WriteString(line)
			}
			continue
		}
		if begun {
			b.WriteByte('\n')
		}
		begun = true
		b.WriteString(line)
		stdout, stderr, status := headgate(t, words(command)...)
		b.WriteString(stdout)
		for e := range strings.Lines(stderr) {
			b.WriteString(strings.TrimRight("! "+e, " \n") + "\n")
		}
		b.WriteString("exit " + strconv.Itoa(status) + "\n")
	}
	return b.String()
}

// words splits a command line at spaces that do not stand between single quotes.
func words(line string) (list []string) {
	for i, piece := range strings.Split(strings.TrimSpace(line), "'") {
		if i%2 == 1 {
			list = append(list, piece)
		} else {
			list = append(list, strings.Fields(piece)...)
		}
	}
	return list
}
