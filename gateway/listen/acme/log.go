package acme

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// aside is a handler that takes everything as detail. What goes wrong we tell ourselves, once for each attempt and with
// what to do; the libraries tell it again at every level that it passes.
type aside struct{ slog.Handler }

// Enabled implements slog.Handler.
func (a aside) Enabled(ctx context.Context, _ slog.Level) bool {
	return a.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle implements slog.Handler.
func (a aside) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return a.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (a aside) WithAttrs(attrs []slog.Attr) slog.Handler { return aside{a.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (a aside) WithGroup(name string) slog.Handler { return aside{a.Handler.WithGroup(name)} }

// core hands what certmagic logs with zap to slog.
type core struct{ handler slog.Handler }

func zapLogger(h slog.Handler) *zap.Logger { return zap.New(core{h}) }

// Enabled implements zapcore.Core.
func (c core) Enabled(zapcore.Level) bool {
	return c.handler.Enabled(context.Background(), slog.LevelDebug)
}

// With implements zapcore.Core.
func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{c.handler.WithAttrs(attrs(fields))}
}

// Check implements zapcore.Core.
func (c core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements zapcore.Core.
func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	r := slog.NewRecord(e.Time, slog.LevelDebug, e.Message, 0)
	if e.LoggerName != "" {
		r.AddAttrs(slog.String("logger", e.LoggerName))
	}
	r.AddAttrs(attrs(fields)...)
	return c.handler.Handle(context.Background(), r)
}

// Sync implements zapcore.Core.
func (c core) Sync() error { return nil }

// attrs keeps the order of fields: a map would not.
func attrs(fields []zapcore.Field) []slog.Attr {
	list := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		m := zapcore.NewMapObjectEncoder()
		f.AddTo(m)
		for key, value := range m.Fields {
			list = append(list, slog.Any(key, value))
		}
	}
	return list
}
