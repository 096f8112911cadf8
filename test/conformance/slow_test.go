package conformance

import (
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"
)

const (
	// slowAtMost is when the last of slowhttptest's connections must have been dropped, counted from its start. It counts
	// whole seconds, looks once a second, and takes one to open the connections. On
	// a quiet machine it is 11.
	slowAtMost = 17
	// slowTest is how long slowhttptest tries.
	slowTest = "20"
)

var (
	slowEnded = regexp.MustCompile(`Test ended on (\d+)\w* second`)
	slowGone  = regexp.MustCompile(`No open connections left`)
)

// Attackers who send a head or a body as slowly as they can, 200 at a time, are dropped, and others are answered meanwhile.
// slowhttptest comes with Debian.
func TestSlowClientsAreDroppedWhileOthersAreServed(t *testing.T) {
	tool, err := exec.LookPath("slowhttptest")
	switch {
	case err != nil:
		t.Skip("slowhttptest is not installed: apt-get install slowhttptest")
	case testing.Short():
		t.Skip("takes 10 seconds")
	}
	for _, attack := range []struct {
		name string
		args []string
	}{
		{"slow heads", []string{"-H", "-i", "3", "-x", "10"}},
		{"slow bodies", []string{"-B", "-i", "3", "-x", "10", "-s", "8192"}},
	} {
		t.Run(attack.name, func(t *testing.T) {
			t.Parallel()
			url := "http://" + startGateway(t) + "/"
			args := append([]string{"-c", "200", "-r", "400", "-p", "2", "-l", slowTest, "-u", url}, attack.args...)
			over := make(chan string)
			go func() {
				out, _ := exec.CommandContext(t.Context(), tool, args...).CombinedOutput() // its words say how it went
				over <- string(out)
			}()
			served, out := serveUntil(t, url, over)
			ended := slowEnded.FindStringSubmatch(out)
			if ended == nil || !slowGone.MatchString(out) {
				t.Fatalf("not all connections were dropped:\n%s", out)
			}
			if second, _ := strconv.Atoi(ended[1]); second > slowAtMost { // digits
				t.Errorf("the last connection was dropped in second %d, want at most %d", second, slowAtMost)
			}
			t.Logf("dropped by second %s; %d others were answered meanwhile", ended[1], served)
		})
	}
}

// serveUntil asks for a page again and again until the attack is over, and fails if one is not answered in time.
func serveUntil(t *testing.T, url string, over <-chan string) (served int, out string) {
	t.Helper()
	client := http.Client{Timeout: patience / 2}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case out = <-over:
			return served, out
		case <-tick.C:
		}
		resp, err := client.Get(url)
		if err != nil {
			t.Errorf("another client: %v", err)
			return served, <-over
		}
		_ = resp.Body.Close() // only the status counts
		if resp.StatusCode != http.StatusOK {
			t.Errorf("another client: status %d", resp.StatusCode)
		}
		served++
	}
}
