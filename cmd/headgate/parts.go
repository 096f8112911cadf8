package main

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"headgate/config/model"
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

// discard closes a snapshot that was never swapped in.
func discard(s *engine.Snapshot) error {
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

// newLogger makes the gateway's own log. Its level follows reloads.
func newLogger(w io.Writer, format string, level *slog.LevelVar) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// logLevel reads a level as documents write it.
func logLevel(s string) slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(s)); err != nil {
		return slog.LevelInfo // the document was checked: it is one of four
	}
	return l
}
