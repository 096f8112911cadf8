package main

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"

	"headgate/config/model"
)

// ownLog is the gateway's own log, whose level and format follow the document.
type ownLog struct {
	level slog.LevelVar
	json  atomic.Bool
}

// logger returns a logger that writes to w.
func (l *ownLog) logger(w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: &l.level}
	return slog.New(&either{l, slog.NewJSONHandler(w, o), slog.NewTextHandler(w, o)})
}

// configure makes the log what the document, which has been checked, says.
func (l *ownLog) configure(m *model.Log) {
	var level slog.Level
	if level.UnmarshalText([]byte(m.Level)) == nil {
		l.level.Set(level)
	}
	l.json.Store(m.Format == "json")
}

// either is a handler of two formats.
type either struct {
	log        *ownLog
	json, text slog.Handler
}

func (e *either) chosen() slog.Handler {
	if e.log.json.Load() {
		return e.json
	}
	return e.text
}

// Enabled implements slog.Handler.
func (e *either) Enabled(ctx context.Context, level slog.Level) bool {
	return e.chosen().Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (e *either) Handle(ctx context.Context, r slog.Record) error { return e.chosen().Handle(ctx, r) }

// WithAttrs implements slog.Handler.
func (e *either) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &either{e.log, e.json.WithAttrs(attrs), e.text.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (e *either) WithGroup(name string) slog.Handler {
	return &either{e.log, e.json.WithGroup(name), e.text.WithGroup(name)}
}
