// Command bench measures Headgate beside nginx and HAProxy: the same requests, the same upstream, the same core, in turns,
// in one run. What counts is the gateway's own CPU time for each completed request, from the operating system's accounting.
//
//	go run ./bench                                   everything, five rounds
//	go run ./bench -scenarios S1/64,S2 -rounds 3     some of it
//	go run ./bench -save router-rewrite              and keep the result in bench/results
//	go run ./bench -scenarios P1 -contestants headgate -against OLD -rounds 1
//
// It ends with status 1 when an answer was wrong or something did not run, never because of a figure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"headgate/bench/fleet"
	"headgate/bench/peers"
	"headgate/bench/proc"
)

// coreVariable tells the pinned program which core is the gateway's.
const coreVariable = "HEADGATE_BENCH_GATEWAY_CORE"

type options struct {
	scenarios   []string
	contestants []peers.Kind
	rounds      int
	duration    time.Duration
	headgate    string
	against     string
	pace        float64 // of the scenarios of survival
	nice        int
	out, save   string
	temporary   string
}

func main() {
	err := run(os.Args[1:])
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

func run(args []string) error {
	if len(args) > 0 && args[0] == "origin" {
		return serveOrigin(args[1:])
	}
	if arguments, ok := fleet.Arguments(); ok {
		return fleet.Serve(arguments, os.Stdout)
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	core, err := pin(o.nice)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second ctrl-C ends us at once; what we started is then ended by the kernel
	return measure(ctx, o, core)
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	scenarios := f.String("scenarios", "all", "which, by comma: "+strings.Join(scenarioNames(), ", ")+", or one case such as S1/64")
	contestants := f.String("contestants", strings.Join(peers.Names(), ","), "which, by comma, in this order")
	f.IntVar(&o.rounds, "rounds", 5, "how often everything is measured, in turns")
	f.DurationVar(&o.duration, "duration", 4*time.Second, "of one measurement, after a warm-up of a quarter of it")
	f.StringVar(&o.headgate, "headgate", "", "Headgate's `binary`; without one it is built from this tree")
	f.StringVar(&o.against, "against", "", "another `binary` of Headgate, for P1: does a change cost the plain path anything?")
	short := f.Bool("short", false, "the scenarios of survival in a tenth of the time: to see that they run")
	f.IntVar(&o.nice, "nice", 0, "priority, from -20, of everything that is started: for a machine that has other work too")
	f.StringVar(&o.out, "out", filepath.Join("bench", "results"), "`folder` of kept results")
	f.StringVar(&o.save, "save", "", "keep the result as NAME.md in the folder")
	f.StringVar(&o.temporary, "tmp", "", "`folder` for configurations and access logs; without one, the system's temporary folder")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 || o.rounds < 1 || o.duration < 100*time.Millisecond {
		return o, fmt.Errorf("wanted: flags alone, at least one round, at least 100ms; got %q", args)
	}
	for name := range strings.SplitSeq(*contestants, ",") {
		if !slices.Contains(peers.Names(), name) {
			return o, fmt.Errorf("no contestant is called %q; there are %s", name, strings.Join(peers.Names(), ", "))
		}
		o.contestants = append(o.contestants, peers.Kind(name))
	}
	var err error
	if o.against, err = besides(o); err != nil {
		return o, err
	}
	o.pace = 1
	if *short {
		o.pace = shortPace
	}
	if *scenarios != "all" {
		o.scenarios = strings.Split(*scenarios, ",")
	}
	for _, s := range o.scenarios {
		if !slices.ContainsFunc(tasks(), func(t task) bool { return t.matches(s) }) {
			return o, fmt.Errorf("no scenario or case is called %q; there are %s", s, strings.Join(caseNames(), ", "))
		}
	}
	if o.against == "" && slices.ContainsFunc(o.scenarios, guardTask().matches) {
		return o, errors.New(guardCase + " compares two binaries: -against names the other")
	}
	return o, nil
}

// besides returns the absolute path of the other binary, if there is one.
func besides(o options) (string, error) {
	if o.against == "" {
		return "", nil
	}
	if !slices.Contains(o.contestants, peers.Headgate) {
		return "", errors.New("-against compares two binaries of Headgate: it must be among the contestants")
	}
	if _, err := os.Stat(o.against); err != nil {
		return "", err
	}
	return filepath.Abs(o.against)
}

// pin puts this program, its load generator and the upstream on the first core that we may use, and returns the second, the
// gateway's. Affinity belongs to a thread, so the program starts itself again from a pinned one.
func pin(nice int) (int, error) {
	if core, err := strconv.Atoi(os.Getenv(coreVariable)); err == nil {
		return core, nil
	}
	cores, err := proc.Cores()
	if err != nil {
		return 0, err
	}
	if len(cores) < 2 {
		return 0, errors.New("two cores are needed: one for the gateway alone, one for the load and the upstream")
	}
	raiseFiles()
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	runtime.LockOSThread()
	if err := proc.PinSelf(cores[0]); err != nil {
		return 0, err
	}
	if err := prefer(nice); err != nil {
		return 0, fmt.Errorf("priority %d (below 0 is for root): %w", nice, err)
	}
	// Two: while the load generator spins in its loop, the goroutine that reloads a gateway must run too.
	env := append(os.Environ(), coreVariable+"="+strconv.Itoa(cores[1]), "GOMAXPROCS=2")
	return 0, fmt.Errorf("start again on core %d: %w", cores[0], syscall.Exec(self, os.Args, env))
}

// prefer gives this thread, and what it starts, a priority over what else runs on the machine. Where the kernel groups processes by
// session, the priority of the session is what counts (sched(7), "The autogroup feature").
func prefer(nice int) error {
	if nice == 0 {
		return nil
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
		return err
	}
	err := os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(nice)), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// raiseFiles lifts the limit of open files as far as it goes; what it does not reach is said when a case needs it.
func raiseFiles() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	wanted := unix.Rlimit{Cur: max(limit.Max, files), Max: max(limit.Max, files)}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &wanted) != nil { // only root may raise the hard limit
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit.Max, Max: limit.Max})
	}
}

// install gets the contestants that are missing from Debian.
func install(ctx context.Context, kinds []peers.Kind) error {
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	missing := map[string]bool{}
	for _, k := range kinds {
		name := map[peers.Kind]string{peers.Nginx: "nginx", peers.NginxTuned: "nginx", peers.HAProxy: "haproxy"}[k]
		if name == "" {
			continue
		}
		if _, err := exec.LookPath(name); err != nil {
			missing[name] = true
		}
	}
	for name := range missing {
		fmt.Fprintln(os.Stderr, "installing", name)
		cmd := exec.CommandContext(ctx, "apt-get", "install", "-y", name)
		// Run level 1: Debian's scripts do not start the service, which would take port 80.
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get install -y %s: %w\n%s", name, err, out)
		}
	}
	return nil
}
