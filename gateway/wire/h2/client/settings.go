package client

import (
	"golang.org/x/net/http2"
)

// settings takes a SETTINGS frame and acknowledges it.
func (in *inbound) settings(f *http2.SettingsFrame) error {
	if err := in.idleChatter(); err != nil || f.IsAck() {
		return err
	}
	c := in.conn
	w := wishes{streams: -1, window: -1, table: -1, connect: -1}
	if err := f.ForeachSetting(w.hear); err != nil {
		return err
	}
	if w.table >= 0 {
		c.out.resize(int(min(w.table, maxTable)))
	}
	more, err := c.agree(&w)
	if err != nil {
		return err
	}
	if more {
		c.owner.Free(c)
	}
	return answered(c.out.say(func(w *http2.Framer) { _ = w.WriteSettingsAck() }))
}

// wishes are a target's settings; -1: it says nothing about it. The largest frame that it takes does not matter: ours are
// smaller than any that it may name.
type wishes struct{ streams, window, table, connect int64 }

// hear takes one setting; of several alike the last one counts (RFC 9113 section 6.5.3).
func (w *wishes) hear(s http2.Setting) error {
	switch v := int64(s.Val); s.ID {
	case http2.SettingMaxConcurrentStreams:
		w.streams = v
	case http2.SettingInitialWindowSize:
		w.window = v
	case http2.SettingHeaderTableSize:
		w.table = v
	case http2.SettingEnableConnectProtocol:
		w.connect = v
	case http2.SettingEnablePush:
		if v != 0 {
			return errSettings // RFC 9113 section 6.5.2: a server must not
		}
	}
	return s.Valid()
}

// agree takes the target's settings (RFC 9113 section 6.5.2). more: it allows more calls than before.
func (c *Conn) agree(w *wishes) (more bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.state
	if w.window >= 0 {
		delta := w.window - s.initial
		s.initial = w.window
		for _, call := range s.calls {
			if call.out.window += delta; call.out.window > 1<<31-1 {
				return false, &codedError{errWindowUpdate, http2.ErrCodeFlowControl}
			}
			call.outNews()
		}
	}
	if w.connect >= 0 {
		if w.connect > 1 || s.extended && w.connect == 0 {
			return false, errSettings // RFC 8441 section 3
		}
		s.extended = w.connect == 1
	}
	if room := int64(c.terms.Streams); !s.leaving && (w.streams >= 0 || !s.settled) {
		if w.streams >= 0 {
			room = min(room, w.streams)
		}
		more = c.room.Swap(int32(room)) < int32(room) && s.settled
	}
	if !s.settled {
		s.settled = true
		close(c.ready)
	}
	return more, nil
}
