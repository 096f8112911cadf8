package main

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/config/source"
	"headgate/gateway/compile"
	"headgate/gateway/engine"
	"headgate/gateway/expr"
	"headgate/gateway/record"
	"headgate/gateway/upstream"
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
	record   *record.Recorder
	compiler *compile.Compiler
	engine   *engine.Engine
}

func newParts(c clock.Clock, log *slog.Logger) *parts {
	p := &parts{clock: c, log: log, metrics: metric.NewRegistry(), events: &event.Log{}, sweeper: sock.NewSweeper()}
	p.expr = expr.New(p.metrics)
	p.record = record.New(record.Config{Clock: c, Metrics: p.metrics, Log: log, Events: p.events, Version: buildVersion()})
	p.compiler = compile.New(compile.Options{
		Kinds: policies.Catalog(), Clock: c, Log: log, Metrics: p.metrics, Counters: counter.NewLocal(), Expr: p.expr, Record: p.record,
		HTTP:     &http.Client{Timeout: outboundTimeout},
		Upstream: upstream.Env{Sweeper: p.sweeper, Clock: c, Log: log, Metrics: p.metrics},
	})
	p.engine = &engine.Engine{Record: p.record, Log: log}
	return p
}

// newBench returns parts for looking at a document without serving it.
func newBench() *parts {
	return newParts(clock.System{}, slog.New(slog.NewTextHandler(io.Discard, nil)))
}

// load reads and compiles the document of a source. What is wrong with it is a decode.Problems.
func (p *parts) load(s *source.Source) (*engine.Snapshot, *decode.Loaded, error) {
	files, err := s.Read()
	if err != nil {
		return nil, nil, err
	}
	snapshot, l, problems := p.compiler.Load(files)
	s.Also(l.References())
	if len(problems) == 0 {
		problems = p.checkRecord(l)
	}
	if len(problems) > 0 {
		return nil, nil, errors.Join(problems, discard(snapshot))
	}
	return snapshot, l, nil
}

// checkRecord checks what the compiler knows nothing of.
func (p *parts) checkRecord(l *decode.Loaded) (problems decode.Problems) {
	for _, err := range decode.Flatten(record.Check(p.recordSettings(&l.Document))) {
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
func discard(s *engine.Snapshot) error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, f := range s.OnClose {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// recordSettings is the part of a document that is about recording.
func (p *parts) recordSettings(d *model.Document) record.Settings {
	return record.Settings{Access: d.Log.Access, Tracing: d.Tracing, Expr: p.expr}
}
