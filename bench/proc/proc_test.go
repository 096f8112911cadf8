package proc

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestStatIsReadBehindACommandNameWithParenthesesAndSpaces(t *testing.T) {
	raw := "4242 (a) (b c) S 17 4242 4242 0 -1 4194304 99 0 0 0 1234 567 0 0 20 0 1 0 184617 3133440 394\n"
	got, err := parseStat([]byte(raw))
	if want := (stat{'S', 17, 1234, 567}); err != nil || got != want {
		t.Fatalf("%+v, %v; want %+v", got, err, want)
	}
}

func TestWhatIsNotAnAccountIsRefused(t *testing.T) {
	for _, raw := range []string{"", "12 (x", "12 (x) S 1 2", "12 (x) S one 1 1 0 0 0 0 0 0 0 0 1 1"} {
		if got, err := parseStat([]byte(raw)); err == nil {
			t.Errorf("parseStat(%q) = %+v", raw, got)
		}
	}
	for _, raw := range []string{"", "1 2", "x 2 3"} {
		if got, err := parseSchedstat([]byte(raw)); err == nil {
			t.Errorf("parseSchedstat(%q) = %v", raw, got)
		}
	}
	for _, raw := range []string{"", "VmRSS: 12 MB\n", "VmSize: 12 kB\n"} {
		if got, err := parseRSS([]byte(raw)); err == nil {
			t.Errorf("parseRSS(%q) = %v", raw, got)
		}
	}
}

func TestSchedstatAndStatusAreRead(t *testing.T) {
	if got, err := parseSchedstat([]byte("751308 45399 1\n")); err != nil || got != 751308 {
		t.Errorf("schedstat %d, %v", got, err)
	}
	if got, err := parseRSS([]byte("Name:\tx\nVmRSS:\t    1576 kB\nRssAnon:\t 92 kB\n")); err != nil || got != 1576<<10 {
		t.Errorf("rss %d, %v", got, err)
	}
}

func TestCPUDividesInTheProportionOfTheTicks(t *testing.T) {
	c := CPU{Run: 1000, UserTicks: 130, SystemTicks: 370}.Since(CPU{Run: 600, UserTicks: 30, SystemTicks: 70})
	if user, system := c.Split(); user != 100 || system != 300 {
		t.Fatalf("user %d, system %d", user, system)
	}
	if user, system := (CPU{Run: 9}).Split(); user != 0 || system != 9 {
		t.Fatalf("without ticks: user %d, system %d", user, system)
	}
}

func TestAProcessIsStartedOnItsCoreAndFoundInTheTree(t *testing.T) {
	cores, err := Cores()
	if err != nil {
		t.Fatal(err)
	}
	last := cores[len(cores)-1]
	cmd := exec.Command("sleep", "60")
	if err := StartOn(last, cmd); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	tree, err := Tree(os.Getpid())
	if err != nil || !slices.Contains(tree, cmd.Process.Pid) {
		t.Fatalf("the tree %v has no %d (%v)", tree, cmd.Process.Pid, err)
	}
	out, err := exec.Command("taskset", "-cp", itoa(cmd.Process.Pid)).Output()
	if err != nil {
		t.Skip("taskset is not installed")
	}
	if got := strings.TrimSpace(string(out)); !strings.HasSuffix(got, ": "+itoa(last)) {
		t.Fatalf("core %d wanted: %s", last, got)
	}
	if after, _ := Cores(); !slices.Equal(after, cores) {
		t.Fatalf("our own cores changed from %v to %v", cores, after)
	}
}

func TestUsedCountsWhatThisProcessBurns(t *testing.T) {
	self := []int{os.Getpid()}
	before, err := Used(self)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for run := time.Duration(0); run < 50*time.Millisecond; { // as long as it takes: others use the machine too
		after, err := Used(self)
		if err != nil {
			t.Fatal(err)
		}
		run = after.Since(before).Run
		if wall := time.Since(began); run > wall*time.Duration(runtime.NumCPU())+10*time.Millisecond || wall > 30*time.Second {
			t.Fatalf("%v of work were accounted as %v", wall, run)
		}
	}
	if rss, err := RSS(self); err != nil || rss < 1<<20 {
		t.Fatalf("rss %d, %v", rss, err)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
