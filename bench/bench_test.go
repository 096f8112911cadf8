package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headgate/bench/figure"
	"headgate/bench/fleet"
	"headgate/bench/origin"
	"headgate/bench/peers"
	"headgate/bench/proc"
	"headgate/bench/survive"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if arguments, ok := fleet.Arguments(); ok { // this program is the targets of the scenarios of survival too
		if err := fleet.Serve(arguments, os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func TestATypicalRequestHasEightFieldsAndAboutFiveHundredBytes(t *testing.T) {
	all, err := plainRequests(nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(all[0])))
	if err != nil {
		t.Fatal(err)
	}
	if fields := len(r.Header) + 1; fields != 8 || len(all[0]) < 450 || len(all[0]) > 600 { // net/http takes Host out of the header
		t.Fatalf("%d fields, %d bytes", fields, len(all[0]))
	}
}

func TestEveryRouteIsAskedOnceInATurn(t *testing.T) {
	for _, n := range []int{1, 1000, 50_000} {
		var s peers.Settings
		if err := many(n)(&s); err != nil {
			t.Fatal(err)
		}
		requests, err := routeRequests(&s)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, r := range requests {
			line, _, _ := bytes.Cut(r, []byte("\r\n"))
			seen[string(line)] = true
		}
		if len(seen) != n || len(requests) != n {
			t.Errorf("%d routes: %d requests, %d different", n, len(requests), len(seen))
		}
	}
}

func TestScenariosAreFoundByNameAndByCase(t *testing.T) {
	for name, want := range map[string]string{"S1": "S1/1 S1/64 S1/512", "s1/64": "S1/64", "S1r": "S1r", "S6": "S6/1000 S6/50000", "S9": ""} {
		var got []string
		for _, c := range tasks() {
			if c.matches(name) {
				got = append(got, c.id)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s means %q, want %q", name, got, want)
		}
	}
}

func TestFlagsThatMakeNoSenseAreRefusedWithWhatIsThere(t *testing.T) {
	for args, want := range map[string]string{
		"-contestants apache":                  "there are headgate, nginx, nginx-tuned, haproxy",
		"-scenarios S1/65":                     "there are S1/1, S1/64",
		"-rounds 0":                            "at least one round",
		"-scenarios P1":                        "-against names the other",
		"-against /nowhere":                    "no such file",
		"-contestants nginx -against bench.go": "must be among the contestants",
		"-duration 1ms":                        "at least 100ms",
		"more":                                 "flags alone",
	} {
		if _, err := parse(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	o, err := parse([]string{"-contestants", "nginx", "-scenarios", "S2,S8"})
	if err != nil || o.rounds != 5 || len(o.contestants) != 1 || len(o.scenarios) != 2 {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestTokensAreSignedAsTheirHeaderSays(t *testing.T) {
	for _, algorithm := range []string{"RS256", "ES256"} {
		key, err := newKey(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		token, err := newToken(key, algorithm, 7, time.Unix(1_800_000_000, 0))
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(token, ".")
		raw := make([][]byte, len(parts))
		for i, p := range parts {
			if raw[i], err = base64.RawURLEncoding.DecodeString(p); err != nil {
				t.Fatal(err)
			}
		}
		var claims struct {
			Sub string
			Exp int64
		}
		if err := json.Unmarshal(raw[1], &claims); err != nil || claims.Sub != "user-0007" || claims.Exp != 1_800_086_400 {
			t.Errorf("%s: %+v, %v", algorithm, claims, err)
		}
		digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		switch k := key.Public().(type) {
		case *rsa.PublicKey:
			if err := rsa.VerifyPKCS1v15(k, crypto.SHA256, digest[:], raw[2]); err != nil {
				t.Errorf("RS256: %v", err)
			}
		case *ecdsa.PublicKey:
			if !ecdsa.Verify(k, digest[:], new(big.Int).SetBytes(raw[2][:32]), new(big.Int).SetBytes(raw[2][32:])) {
				t.Error("ES256: the signature does not hold")
			}
		}
	}
}

func TestGoalsAreJudgedByTheMedianAndLossesByTheWorstRound(t *testing.T) {
	ratio := goal{metric: cpuMicros, against: peers.Nginx, limit: 0.75}
	loss := goal{metric: lostCount, limit: 0}
	objects := goal{metric: allocations, limit: 4}
	goodput := goal{metric: metric(survive.Goodput), limit: 0.95, least: true}
	failed := goal{metric: metric(survive.FailedAway), limit: 0}
	for _, c := range []struct {
		goal   goal
		s      figure.Summary
		errors float64
		want   string
	}{
		{ratio, figure.Summary{Median: 0.75, Min: 0.6, Max: 0.9, Rounds: 3}, 0, "met"},
		{ratio, figure.Summary{Median: 0.76, Min: 0.6, Max: 0.9, Rounds: 3}, 0, "not met"},
		{ratio, figure.Summary{Median: 0.1, Min: 0.1, Max: 0.1, Rounds: 3}, 1, "not met: errors"},
		{ratio, figure.Summary{Median: math.NaN()}, math.NaN(), "not met"},
		{loss, figure.Summary{Rounds: 3}, math.NaN(), "met"},
		{loss, figure.Summary{Median: 0, Max: 1, Rounds: 3}, 0, "not met"},
		{objects, figure.Summary{Median: 4.04, Rounds: 1}, 0, "met"},
		{objects, figure.Summary{Median: 4.06, Rounds: 1}, 0, "not met"},
		{goodput, figure.Summary{Median: 0.95, Min: 0.9, Rounds: 3}, 0, "met"},
		{goodput, figure.Summary{Median: 0.94, Max: 1, Rounds: 3}, 0, "not met"},
		{failed, figure.Summary{Median: 0, Max: 1, Rounds: 3}, 0, "not met"},
	} {
		if got := c.goal.verdict(c.s, c.errors); got != c.want {
			t.Errorf("%v with %+v and %v errors: %s, want %s", c.goal, c.s, c.errors, got, c.want)
		}
	}
}

func TestAMeasurementThatFailedIsMarkedWhateverItMeasured(t *testing.T) {
	for name, s := range map[string]sample{"nothing": nil, "figures": {cpuMicros: 3}, "counted": {failures: 7}} {
		if got := failed(s)[failures]; got < 1 || name == "counted" && got != 7 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestEveryGoalBelongsToACaseAndIsComparedInItsRound(t *testing.T) {
	for _, g := range goals {
		for _, id := range []string{g.id, g.ownID} {
			if id != "" && !strings.Contains(" "+strings.Join(caseNames(), " ")+" ", " "+id+" ") {
				t.Errorf("%v: there is no case %s", g, id)
			}
		}
	}
	r := results{}
	r.add("S1/64", peers.Headgate, 0, sample{cpuMicros: 10})
	r.add("S1/64", peers.Headgate, 1, sample{cpuMicros: 30})
	r.add("S1/64", peers.Nginx, 0, sample{cpuMicros: 20})
	r.add("S1/64", peers.Nginx, 1, sample{cpuMicros: 40})
	r.add("S6/1000", peers.Headgate, 1, sample{cpuMicros: 33}) // no first round: it must not be compared with it
	want := figure.Summary{Median: 0.625, Min: 0.5, Max: 0.75, Rounds: 2}
	if got := r.ratio("S1/64", peers.Headgate, "S1/64", peers.Nginx, cpuMicros); got != want {
		t.Errorf("to nginx: %+v, want %+v", got, want)
	}
	text := goalTable(r)
	for _, want := range []string{"S1/64, CPU µs / nginx", "0.62 [0.50 – 0.75]", "S6/1000, CPU µs / own S1/64", "1.10"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "S2") {
		t.Errorf("S2 was not measured:\n%s", text)
	}
}

func TestNumbersArePrintedWithThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.666: "0.67", 12.34: "12.3", 65735.4: "65735", 99.99: "100.0", math.Inf(1): "–"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
}

func TestAMetricIsFoundByItsWholeName(t *testing.T) {
	text := []byte("# TYPE go_memstats_mallocs_total counter\ngo_memstats_mallocs_total_x 1\ngo_memstats_mallocs_total 1.5e+06\n")
	if got := metricValue(text, "go_memstats_mallocs_total"); got != 1.5e6 {
		t.Errorf("%v", got)
	}
	if got := metricValue(text, "go_memstats"); !math.IsNaN(got) {
		t.Errorf("%v for a name that is not there", got)
	}
}

func TestALogIsCountedAndItsEndsAreRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	for text, want := range map[string]struct {
		lines int
		fails bool
	}{
		"{\"status\":200}\n{}\n{\"a\":1}\n": {3, false},
		"{}\nnot JSON\n":                    {2, true},
		"not JSON\n{}\n":                    {1, true},
		"":                                  {0, false},
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if lines, _, err := readLog(path); lines != want.lines || (err != nil) != want.fails {
			t.Errorf("%q: %d lines, %v", text, lines, err)
		}
	}
}

func TestFieldsOfSystemFilesAreFound(t *testing.T) {
	if got := fieldOf([]byte("vendor_id\t: X\nmodel name\t: AMD EPYC\n"), "model name", ":"); got != "AMD EPYC" {
		t.Errorf("%q", got)
	}
	if got := fieldOf([]byte("NAME=a\n"), "PRETTY_NAME", "="); got != "" {
		t.Errorf("%q", got)
	}
}

func TestNginxIsMeasuredAndNothingIsLeftOfIt(t *testing.T) {
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Skip(err)
	}
	s, err := origin.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	defer func() {
		if err := errors.Join(s.Close(), <-served); err != nil {
			t.Error(err)
		}
	}()
	cores, err := proc.Cores()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{
		options: options{duration: 500 * time.Millisecond}, ctx: context.Background(), core: cores[len(cores)-1],
		work: t.TempDir(), origin: s.Addr().String(),
	}
	before, err := proc.Tree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range tasks() {
		if c.id != "S1/1" && c.id != "S2" && c.id != "S4/post" {
			continue
		}
		got, err := b.one(c, peers.Nginx)
		if err != nil {
			t.Fatalf("%s: %v", c.id, err)
		}
		if got[failures] != 0 || !(got[cpuMicros] > 1) || got[perSecond] < 1 || got[rssMiB] < 1 || got[p50Micros] > got[p99Micros] {
			t.Errorf("%s: %v", c.id, got)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // a ctrl-C in the middle of a warm-up
	defer cancel()
	b.ctx, b.duration = ctx, time.Hour
	if _, err := b.one(tasks()[0], peers.Nginx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("broken off with %v", err)
	}
	after, err := proc.Tree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(b.work)
	if err != nil || len(left) > 0 || len(after) != len(before) {
		t.Errorf("left behind: %v, processes %v, before %v (%v)", left, after, before, err)
	}
}
