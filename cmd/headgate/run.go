package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"headgate/config/model"
	"headgate/gateway/local"
	"headgate/internal/clock"
	"headgate/internal/demo"
)

// runOptions are the flags of run.
type runOptions struct {
	demo, testClock bool
	services        map[string]string // of the demo, and where each listens; nil with demo: where they usually do
	live            func()            // called when the first document is live
}

func runCommand() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run FILE|DIR",
		Short: "Run the gateway",
		Long: "Runs the gateway with the document in FILE, or in all the files of DIR, until SIGTERM or SIGINT,\n" +
			"which drain it; a second one ends it at once.\n" +
			"The document is read again when it changes, on SIGHUP, and on POST /reload of the admin listener.",
		Example: "  headgate run gateway.yaml\n  headgate run --demo examples/shop.yaml\n  kill -HUP $(pidof headgate)",
		Args:    takes(1),
		RunE:    func(c *cobra.Command, args []string) error { return run(c.Context(), args[0], o, c.ErrOrStderr()) },
	}
	c.Flags().BoolVar(&o.demo, "demo", false, "serve the demo shop beside the gateway")
	c.Flags().BoolVar(&o.testClock, "test-clock", false, "let POST /test/advance?d=1m of the admin listener move the clock")
	return c
}

// component is a part of the running gateway. run returns when its context is done, or earlier with an error that stops
// the gateway. Components start in order and stop in reverse.
type component struct {
	name string
	run  func(context.Context) error
}

// run runs the gateway until ctx is done.
func run(ctx context.Context, path string, o runOptions, stderr io.Writer) error {
	var c clock.Clock = clock.System{}
	var advance func(time.Duration)
	if o.testClock {
		shifted := &clock.Shifted{}
		c, advance = shifted, shifted.Advance
	}
	n, first, err := newNode(path, c, stderr)
	if err != nil {
		return fail(err)
	}
	admin := &first.document.Admin
	components := []component{
		// reads nothing, publishes the demo services
		{"demo", func(ctx context.Context) error { return n.runDemo(ctx, o) }},
		// reads the memory in use, publishes whether new exchanges and connections are taken
		{"guard", n.guard.Run},
		// reads connections' deadlines, publishes that they have passed
		{"sweeper", n.sweeper.Run},
		// reads what exchanges recorded, publishes logs and traces
		{"record", n.record.Run},
		// reads files of certificates, publishes certificates and the keys of tickets
		{"certificates", n.secure.Run},
		// reads authorities' answers, publishes certificates
		{"acme", n.trust.acme.Run},
		// reads lists and responders, publishes who was revoked
		{"revocation", n.trust.revoke.Run},
		// reads idle connections, closes the old ones
		{"tidy", n.runTidy},
		// reads operators' questions, publishes answers and documents
		{"admin", func(ctx context.Context) error { return n.runAdmin(ctx, admin, advance) }},
		// reads connections, publishes exchanges
		{"doors", func(ctx context.Context) error {
			return n.runDoors(ctx, func() error { return n.begin(first, o.live) })
		}},
		// reads SIGHUP, publishes documents
		{"signals", n.runSignals},
		// reads the source, publishes documents
		{"watch", n.runWatch},
	}
	err = runAll(ctx, components, n.log)
	if err == nil {
		n.log.Info("stopped")
	}
	return fail(err)
}

// runAll starts the components in order, waits until ctx is done or one of them ends, and stops them in reverse.
func runAll(ctx context.Context, components []component, log *slog.Logger) error {
	type running struct {
		component
		stop func()
		done chan error
	}
	ended := make(chan error, len(components))
	var all []running
	for _, c := range components {
		own, cancel := context.WithCancel(context.Background())
		r := running{c, cancel, make(chan error, 1)}
		all = append(all, r)
		go func() {
			err := c.run(own)
			r.done <- err
			if err != nil {
				ended <- err
			}
		}()
	}
	var result error
	select {
	case <-ctx.Done():
	case result = <-ended:
	}
	for i := len(all) - 1; i >= 0; i-- {
		all[i].stop()
		if err := <-all[i].done; err != nil && !errors.Is(err, result) {
			log.Error("a part of the gateway ended with an error", "part", all[i].name, "error", err)
		}
	}
	return result
}

func (n *node) runDemo(ctx context.Context, o runOptions) error {
	where := o.services
	switch {
	case where == nil && o.demo:
		where = map[string]string{}
		for _, s := range demo.Services() {
			where[s.Name] = s.Address
		}
	case where == nil:
		<-ctx.Done()
		return nil
	}
	return demo.Run(ctx, where, n.log.With("part", "demo"))
}

// tidyInterval is how often idle upstream connections are looked at.
const tidyInterval = 5 * time.Second

func (n *node) runTidy(ctx context.Context) error {
	t := time.NewTicker(tidyInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if s := n.engine.Current(); s != nil {
			for _, u := range s.Upstreams() {
				u.Tidy()
			}
		}
	}
}

// adminHeaderTimeout keeps a slow caller from holding a connection of the admin listener.
const adminHeaderTimeout = 5 * time.Second

// runAdmin serves the operators' listener.
func (n *node) runAdmin(ctx context.Context, m *model.Admin, advance func(time.Duration)) error {
	if m.Address == "off" {
		<-ctx.Done()
		return nil
	}
	l, err := net.Listen("tcp", m.Address)
	if err != nil {
		return fmt.Errorf("admin.address: %w", err)
	}
	s := &http.Server{
		Handler:           local.Handler(n, local.Options{Metrics: n.record.Handler(), Pprof: m.Pprof, Advance: advance}),
		ReadHeaderTimeout: adminHeaderTimeout, ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelWarn),
	}
	n.log.Info("admin listening", "address", l.Addr().String())
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	return s.Close()
}

// begin makes the first document live, and tells whoever waits for that.
func (n *node) begin(c *compiled, live func()) error {
	if err := n.first(c); err != nil {
		return err
	}
	if live != nil {
		live()
	}
	return nil
}

// runDoors makes the first document live, lets connections in, and drains them at the end.
func (n *node) runDoors(ctx context.Context, goLive func() error) error {
	accepting, stop := context.WithCancel(context.Background())
	defer stop()
	n.doors.ctx = accepting
	if err := goLive(); err != nil {
		return err
	}
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-n.doors.failed:
	}
	n.reloading.Lock() // a reload that runs ends first, and none opens a door any more
	n.doors.draining.Store(true)
	n.reloading.Unlock()
	n.doors.drain(n.document.Load().Drain)
	return errors.Join(failed, n.engine.Close())
}

// runSignals reloads on SIGHUP.
func (n *node) runSignals(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			_ = n.Reload() // it has logged what is wrong
		}
	}
}

// runWatch reloads when the source has changed.
func (n *node) runWatch(ctx context.Context) error {
	n.source.Watch(ctx, func() { _ = n.Reload() }) // it has logged what is wrong
	return nil
}
