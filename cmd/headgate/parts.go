package main

import (
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/config/source"
	"headgate/gateway/compile"
	"headgate/gateway/engine"
	"headgate/gateway/expr"
	"headgate/gateway/guard"
	"headgate/gateway/listen/secure"
	"headgate/gateway/record"
	"headgate/gateway/release/sticky"
	"headgate/gateway/upstream"
	"headgate/gateway/upstream/discover"
	"headgate/gateway/wire/tunnel"
	"headgate/internal/clock"
	"headgate/internal/counter"
	"headgate/internal/event"
	"headgate/internal/metric"
	"headgate/internal/sock"
	"headgate/policies"
)

// outboundTimeout bounds one call of the gateway's own, to an identity provider and the like.
const outboundTimeout = 10 * time.Second

// parts is what documents are compiled with. Nothing in it runs yet.
type parts struct {
	clock    clock.Clock
	log      *slog.Logger
	metrics  *metric.Registry
	events   *event.Log
	expr     *expr.Compiler
	sweeper  *sock.Sweeper
	tunnels  *tunnel.Registry
	record   *record.Recorder
	compiler *compile.Compiler
	engine   *engine.Engine
	secure   *secure.Keeper
	trust    *trust
	guard    *guard.Guard
}

func newParts(c clock.Clock, log *slog.Logger) *parts {
	p := &parts{clock: c, log: log, metrics: metric.NewRegistry(), events: &event.Log{}, sweeper: sock.NewSweeper()}
	p.expr, p.tunnels = expr.New(p.metrics), tunnel.NewRegistry(p.metrics)
	p.record = record.New(record.Config{Clock: c, Metrics: p.metrics, Log: log, Events: p.events, Version: buildVersion()})
	p.trust = newTrust(c, log, p.metrics)
	p.secure = secure.New(secure.Options{Clock: c, Log: log, Metrics: p.metrics, Random: rand.Reader, Extend: p.trust.extensions()})
	p.compiler = compile.New(compile.Options{
		Kinds: policies.Catalog(), Clock: c, Log: log, Metrics: p.metrics, Counters: counter.NewLocal(), Expr: p.expr, Record: p.record,
		HTTP: &http.Client{Timeout: outboundTimeout},
		Upstream: upstream.Env{
			Sweeper: p.sweeper, Clock: c, Log: log, Metrics: p.metrics, Discovered: discover.NewStore(discoveryFolder()),
			Expr: p.expr, Zone: os.Getenv("HEADGATE_ZONE"),
		},
		Tunnels: p.tunnels,
		Secure:  p.secure,
		Sticky:  sticky.NewKeyring(stickyFolder(), rand.Reader),
	})
	p.guard = guard.New(guard.Options{
		Clock: c, Log: log, Metrics: p.metrics, Machine: guard.Linux{Files: os.DirFS("/")}, Fixed: os.Getenv("GOMEMLIMIT") != "",
		SetLimit: debug.SetMemoryLimit, Collect: debug.FreeOSMemory,
	})
	p.engine = &engine.Engine{Record: p.record, Log: log, Challenges: p.trust.acme, Guard: p.guard}
	return p
}

// newBench returns parts for looking at a document without serving it.
func newBench() *parts {
	return newParts(clock.System{}, slog.New(slog.NewTextHandler(io.Discard, nil)))
}

// compiled is a document that can go live.
type compiled struct {
	snapshot *engine.Snapshot
	loaded   *decode.Loaded
	document *model.Document
	files    []decode.File
	held     decode.Problems // of files that kept their last good version instead
}

// load reads and compiles the document of a source. What is wrong with it is a decode.Problems.
func (p *parts) load(s *source.Source) (*compiled, error) {
	files, err := s.Read()
	if err != nil {
		return nil, err
	}
	c, references, problems := p.compile(files)
	s.Also(references)
	if len(problems) > 0 {
		return nil, problems
	}
	return c, nil
}

// compile makes a document of files. It also returns which other files the document depends on, good or not.
func (p *parts) compile(files []decode.File) (c *compiled, references []string, problems decode.Problems) {
	snapshot, l, problems := p.compiler.Load(files)
	if len(problems) == 0 {
		if problems = located(l, record.Check(p.recordSettings(&l.Document))); len(problems) > 0 {
			p.discard(snapshot)
		}
	}
	if len(problems) > 0 {
		return nil, l.References(), problems
	}
	return &compiled{snapshot: snapshot, loaded: l, document: &l.Document, files: files}, l.References(), nil
}

// located places what record finds wrong with its settings, which the compiler knows nothing of.
func located(l *decode.Loaded, found error) (problems decode.Problems) {
	for _, err := range decode.Flatten(found) {
		var at *decode.PathError
		if errors.As(err, &at) {
			problems = append(problems, l.Problem("invalid_value", err.Error(), at.Path...))
			continue
		}
		problems = append(problems, l.Problem("invalid_value", err.Error(), "log"))
	}
	return problems.Sort()
}

// discard closes a snapshot that was never swapped in.
func (p *parts) discard(s *engine.Snapshot) {
	for _, f := range s.OnClose {
		if err := f(); err != nil {
			p.log.Warn("what was compiled of a refused document did not close cleanly", "error", err)
		}
	}
}

// recordSettings is the part of a document that is about recording.
func (p *parts) recordSettings(d *model.Document) record.Settings {
	return record.Settings{Access: d.Log.Access, Tracing: d.Tracing, Expr: p.expr}
}
