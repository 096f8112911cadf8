// Package fleet is the service behind the gateways in the scenarios of survival: targets, each a process of its own that can be
// killed, made slower and brought back.
//
// A target has so many workers, each of which needs so long for a request: it sleeps, so that its capacity is workers ÷ service time
// and neither the machine nor the other contestants feel it. Requests that find no free worker wait in turn without a limit, and one
// that waits is worked on although whoever sent it may have gone, as most servers do: nothing here spares a gateway from
// collapse.
package fleet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"headgate/bench/payload"
)

// Behaviour is how a target works.
type Behaviour struct {
	Service time.Duration // of one request
	Workers int           // requests that are worked on at a time
	Tail    float64       // share of requests, 0 to 1, that take Factor times as long
	Factor  int
}

// Capacity is the requests per second that a target can answer.
func (b Behaviour) Capacity() float64 { return float64(b.Workers) / b.Service.Seconds() }

const (
	firstPort, lastPort = 20_000, 32_000 // below those that the kernel hands out, so that a target that was killed finds its own free again
	portTries           = 100            // ports asked for before we say that none is free
	maxWorkers          = 10_000         // a worker costs a place in a channel
)

type server struct {
	behaviour Behaviour
	service   atomic.Int64   // now, in nanoseconds
	free      chan time.Time // the idle workers: since when each has been free
	asked     atomic.Int64
	random    uint64
}

// Serve is the target as a process: it writes its address and that of its control to out and answers until it is told to end (SIGTERM),
// when it finishes what it has begun.
func Serve(args []string, out io.Writer) error {
	s := &server{random: rand.Uint64()}
	f := flag.NewFlagSet("target", flag.ContinueOnError)
	address := f.String("listen", "", "host:port; without one, a free one")
	f.DurationVar(&s.behaviour.Service, "service", 5*time.Millisecond, "time that a request takes")
	f.IntVar(&s.behaviour.Workers, "workers", 1, "requests at a time")
	f.Float64Var(&s.behaviour.Tail, "tail", 0, "share of requests that take longer")
	f.IntVar(&s.behaviour.Factor, "factor", 1, "how many times longer")
	if err := f.Parse(args); err != nil {
		return err
	}
	if b := s.behaviour; b.Workers < 1 || b.Workers > maxWorkers || b.Service <= 0 || b.Factor < 1 {
		return fmt.Errorf("a target needs 1 to %d workers, a service time and a factor; got %+v", maxWorkers, b)
	}
	s.service.Store(int64(s.behaviour.Service))
	s.free = make(chan time.Time, s.behaviour.Workers)
	for range s.behaviour.Workers {
		s.free <- time.Time{}
	}
	return s.run(*address, out)
}

func (s *server) run(address string, out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	public, err := listen(address)
	if err != nil {
		return err
	}
	control, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	answers, controls := http.Server{Handler: http.HandlerFunc(s.answer)}, http.Server{Handler: http.HandlerFunc(s.control)}
	ended := make(chan error, 2)
	go func() { ended <- answers.Serve(public) }()
	go func() { ended <- controls.Serve(control) }()
	if _, err := fmt.Fprintln(out, public.Addr(), control.Addr()); err != nil {
		return err
	}
	select {
	case err = <-ended:
		return err
	case <-ctx.Done():
	}
	err = errors.Join(answers.Shutdown(context.Background()), controls.Close())
	for range 2 {
		if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func listen(address string) (net.Listener, error) {
	if address != "" {
		return net.Listen("tcp4", address)
	}
	var err error
	for range portTries {
		var l net.Listener
		if l, err = net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort)))); err == nil {
			return l, nil
		}
	}
	return nil, err
}

// answer works on a request. A worker that finds another request waiting begins it when the last one ended, not when the
// scheduler got round to it: the capacity is what it is said to be.
func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Origin", "bench")
	if r.URL.Path == "/healthz" { // asked by who looks after us, not by our users
		w.WriteHeader(http.StatusOK)
		return
	}
	came, number := time.Now(), s.asked.Add(1)
	begun := <-s.free
	if begun.Before(came) {
		begun = came
	}
	end := begun.Add(s.length(uint64(number)))
	time.Sleep(time.Until(end))
	s.free <- end
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(payload.Small())))
	_, _ = w.Write(payload.Small()) // who has gone is not told
}

// length is the service time of the request with this number.
func (s *server) length(number uint64) time.Duration {
	d := time.Duration(s.service.Load())
	if rand.New(rand.NewPCG(s.random, number)).Float64() < s.behaviour.Tail {
		d *= time.Duration(s.behaviour.Factor)
	}
	return d
}

// control answers the harness: GET /asked, POST /service?time=50ms.
func (s *server) control(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		d, err := time.ParseDuration(r.FormValue("time"))
		if err != nil || d <= 0 {
			http.Error(w, "time=DURATION, above 0, is wanted", http.StatusBadRequest)
			return
		}
		s.service.Store(int64(d))
	}
	_, _ = fmt.Fprint(w, s.asked.Load())
}

// command is the arguments of a target's process behind the program's name.
func (b Behaviour) command(address string) []string {
	return []string{"target", "-listen", address, "-service", b.Service.String(), "-workers", strconv.Itoa(b.Workers),
		"-tail", strconv.FormatFloat(b.Tail, 'g', -1, 64), "-factor", strconv.Itoa(max(b.Factor, 1))}
}

// Arguments returns the arguments of a target when the program was started as one.
func Arguments() ([]string, bool) {
	if len(os.Args) > 1 && os.Args[1] == "target" {
		return os.Args[2:], true
	}
	return nil, false
}
