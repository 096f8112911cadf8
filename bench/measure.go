package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"headgate/bench/load"
	"headgate/bench/peers"
	"headgate/bench/proc"
)

// metric names one measured figure.
type metric string

// What a case measures. Times are in the unit that the name ends in.
const (
	cpuMicros    metric = "CPU µs"
	userMicros   metric = "user µs"
	systemMicros metric = "system µs"
	perSecond    metric = "requests/s"
	meanMicros   metric = "mean µs"
	p50Micros    metric = "p50 µs"
	p99Micros    metric = "p99 µs"
	p999Micros   metric = "p99.9 µs"
	maxMillis    metric = "max ms"
	allocations  metric = "allocations"
	rssMiB       metric = "RSS MiB"
	busyPercent  metric = "core %"
	failures     metric = "errors"

	startMillis metric = "first answer ms"
	rss1000     metric = "RSS MiB, 1,000 idle"
	rss10000    metric = "RSS MiB, 10,000 idle"
	idleCount   metric = "idle connections"
	rssAllIdle  metric = "RSS MiB, all idle"
	perIdleKiB  metric = "KiB per idle connection"
	lostCount   metric = "lost"
	refusedOnes metric = "refused"
	liveMillis  metric = "reload to live ms"
)

// sample is what one contestant did in one case of one round.
type sample map[metric]float64

// bench is one run of everything.
type bench struct {
	options
	ctx        context.Context
	core       int
	work       string            // temporary folder
	origin     string            // address of the upstream
	origins    map[string]string // of those of another kind, by kind
	stops      []func()          // of these
	tls        *peers.TLS        // made for this run
	results    results
	complaints []string
	round      int // that is going on, from 1
	mutex      sync.Mutex
	notes      []string // what failed where failing is a figure; while contestants run side by side it is the mutex's
}

// measure makes the rounds, prints the tables and cleans up.
func measure(ctx context.Context, o options, core int) (err error) {
	if err := install(ctx, o.contestants); err != nil {
		return err
	}
	work, err := os.MkdirTemp(o.temporary, "headgate-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b := &bench{options: o, ctx: ctx, core: core, work: work, results: results{}, origins: map[string]string{}}
	if b.headgate, err = headgateBinary(ctx, o, work); err != nil {
		return err
	}
	var stop func()
	if b.origin, stop, err = b.startOrigin(""); err != nil {
		return err
	}
	b.stops = append(b.stops, stop)
	defer func() {
		for _, stop := range b.stops {
			stop()
		}
	}()
	m := describe(ctx, b.headgate, o.contestants)
	b.rounds(os.Stderr)
	text := b.report(m)
	if _, err := io.WriteString(os.Stdout, text); err != nil {
		return err
	}
	if o.save != "" && ctx.Err() == nil {
		path := filepath.Join(o.out, o.save+".md")
		if err := errors.Join(os.MkdirAll(o.out, 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "kept in", path)
	}
	if len(b.complaints) > 0 {
		return fmt.Errorf("%d measurements had errors, see above", len(b.complaints))
	}
	return ctx.Err()
}

// headgateBinary returns an absolute path, building the program when none was named.
func headgateBinary(ctx context.Context, o options, work string) (string, error) {
	for _, k := range o.contestants {
		if k != peers.Headgate {
			continue
		}
		if o.headgate != "" {
			return filepath.Abs(o.headgate)
		}
		path := filepath.Join(work, "headgate")
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "headgate/cmd/headgate")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build Headgate: %w\n%s", err, out)
		}
		return path, nil
	}
	return "", nil
}

// rounds measures every wanted case with every contestant in turns, as often as asked.
func (b *bench) rounds(progress io.Writer) {
	for round := range b.options.rounds {
		b.round = round + 1
		for _, t := range tasks() {
			if !b.wants(t) {
				continue
			}
			if t.together && round >= maxSurvivals {
				continue
			}
			for _, turn := range b.turns(t) {
				kind, s, err := turn.kind, turn.sample, turn.err
				if b.ctx.Err() != nil {
					return
				}
				if errors.Is(err, errCannot) {
					continue
				}
				if err != nil {
					b.complaints = append(b.complaints, fmt.Sprintf("round %d, %s, %s: %v", round+1, t.id, kind, err))
					s = failed(s)
				}
				b.results.add(t.id, kind, round, s)
				fmt.Fprintf(progress, "round %d  %-14s %-15s %s\n", round+1, t.id, kind, line(s, err))
			}
		}
	}
}

// failed marks a sample as one with errors, whatever kind they were of.
func failed(s sample) sample {
	if s == nil {
		s = sample{}
	}
	s[failures] = max(s[failures], 1)
	return s
}

func (b *bench) wants(t task) bool {
	for _, name := range b.scenarios {
		if t.matches(name) {
			return true
		}
	}
	return len(b.scenarios) == 0
}

var errCannot = errors.New("this contestant cannot do the case")

// one makes one measurement. What could be measured comes back also beside an error.
func (b *bench) one(t task, kind peers.Kind) (s sample, err error) {
	if t.special != nil {
		return t.special(b, t, kind)
	}
	g, requests, err := b.start(t, kind)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, g.Stop(), b.checkLog(g, s), os.RemoveAll(g.Settings.Dir))
	}()
	if _, err := g.Ready(b.ctx, requests[0]); err != nil {
		return nil, err
	}
	if t.drive != nil {
		return t.drive(b, t, g)
	}
	session, err := load.Open(load.Plan{
		Address: g.Settings.Listen, Connections: t.connections, Requests: requests, Expect: t.expect, Rate: t.rate,
	})
	if err != nil {
		return nil, err
	}
	defer session.Close()
	warm, err := session.Run(b.ctx, b.duration/4)
	if err != nil {
		return nil, err
	}
	if warm.Failed() > 0 {
		return sample{failures: float64(warm.Failed())}, complain(warm)
	}
	return b.observe(g, session)
}

// start prepares the settings of a case and starts the contestant.
func (b *bench) start(t task, kind peers.Kind) (*peers.Gateway, [][]byte, error) {
	return b.startBinary(t, kind, b.headgate)
}

// startBinary is start with another binary of Headgate.
func (b *bench) startBinary(t task, kind peers.Kind, binary string) (*peers.Gateway, [][]byte, error) {
	dir, err := os.MkdirTemp(b.work, "gateway-")
	if err != nil {
		return nil, nil, err
	}
	s := peers.Settings{Dir: dir, Files: openFiles(), Connections: 24_576}
	if s.Upstream, err = b.upstream(t.origin); err != nil {
		return nil, nil, err
	}
	if t.encrypted {
		if s.TLS, err = b.certificate(); err != nil {
			return nil, nil, err
		}
	}
	if s.Listen, s.Admin, err = freePorts(); err != nil {
		return nil, nil, err
	}
	if t.shape != nil {
		if err := t.shape(&s); err != nil {
			return nil, nil, err
		}
	}
	if !kind.Can(s) {
		return nil, nil, errCannot
	}
	requests, err := t.requests(&s)
	if err != nil {
		return nil, nil, err
	}
	g, err := peers.Start(kind, s, b.core, binary)
	return g, requests, err
}

// observe makes the measured run: accounts before and after, the load between them, nothing else.
func (b *bench) observe(g *peers.Gateway, session *load.Session) (sample, error) {
	pids, err := g.Processes()
	if err != nil {
		return nil, err
	}
	counted, err := b.counted()
	if err != nil {
		return nil, err
	}
	mallocs := mallocsOf(g)
	asking := mallocsOf(g) - mallocs // what reading the metric allocates itself
	before, err := proc.Used(pids)
	if err != nil {
		return nil, err
	}
	r, err := session.Run(b.ctx, b.duration)
	if err != nil {
		return nil, err
	}
	after, err := proc.Used(pids)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, g.Output())
	}
	mallocs = mallocsOf(g) - mallocs - 2*asking
	rss, err := proc.RSS(pids)
	if err != nil {
		return nil, err
	}
	s := throughput(r)
	used := after.Since(before)
	user, system := used.Split()
	n := float64(r.Completed)
	s[cpuMicros], s[userMicros], s[systemMicros] = micros(used.Run)/n, micros(user)/n, micros(system)/n
	s[allocations], s[rssMiB] = mallocs/n, float64(rss)/(1<<20)
	s[busyPercent] = 100 * used.Run.Seconds() / r.Elapsed.Seconds()
	now, err := b.counted()
	if err == nil && now-counted < r.Completed {
		err = fmt.Errorf("%d right answers, but the upstream was asked %d times only", r.Completed, now-counted)
	}
	return s, errors.Join(err, complain(r))
}

// throughput turns a run into figures.
func throughput(r *load.Result) sample {
	return sample{
		perSecond: r.Rate(), failures: float64(r.Failed()),
		p50Micros: micros(r.Percentile(0.5)), p99Micros: micros(r.Percentile(0.99)), p999Micros: micros(r.Percentile(0.999)),
		maxMillis: micros(r.Percentile(1)) / 1000,
	}
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

func complain(r *load.Result) error {
	if r == nil || r.Failed() == 0 {
		return nil
	}
	return errors.New(r.Complaint())
}

// counted asks the upstream how many requests it has answered.
func (b *bench) counted() (int, error) {
	body, err := fetch("http://" + b.origin + "/count")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(body))
}

// mallocsOf reads how many objects Headgate has allocated since it began; it is NaN for the others.
func mallocsOf(g *peers.Gateway) float64 {
	if g.Kind != peers.Headgate {
		return math.NaN()
	}
	body, err := fetch("http://" + g.Settings.Admin + "/metrics")
	if err != nil {
		return math.NaN()
	}
	return metricValue(body, "go_memstats_mallocs_total")
}

// metricValue finds a metric without labels in the Prometheus text format; NaN when it is not there.
func metricValue(text []byte, name string) float64 {
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			if v, err := strconv.ParseFloat(string(bytes.TrimSpace(value)), 64); err == nil {
				return v
			}
		}
	}
	return math.NaN()
}

func fetch(url string) ([]byte, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = reply.Body.Close() }()
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, reply.Status)
	}
	return io.ReadAll(io.LimitReader(reply.Body, 16<<20))
}

// freePorts finds two addresses that nobody listens on.
func freePorts() (public, admin string, err error) {
	var found [2]string
	for i := range found {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer func() { _ = l.Close() }() // both stay taken until both are found
		found[i] = l.Addr().String()
	}
	return found[0], found[1], nil
}
