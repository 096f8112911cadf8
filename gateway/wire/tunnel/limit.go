package tunnel

import (
	"time"

	"headgate/internal/sock"
)

// piecesPerSecond is into how many pieces a second's worth of a limited bandwidth is cut.
const piecesPerSecond = 20

// limited carries the direction piece by piece, within the tunnel's bytes and bandwidth. After each piece it waits for as
// long as the piece is worth, so that what is carried is never more than allowed, and a little less.
func (f *flow) limited() {
	o := &f.tunnel.options
	buf := sock.Get()
	defer sock.Put(buf)
	room := *buf
	if o.Bandwidth > 0 {
		room = room[:max(1, min(int64(len(room)), o.Bandwidth/piecesPerSecond))]
	}
	for {
		n, err := f.from.Read(room)
		granted, last := f.tunnel.grant(n)
		if granted > 0 && !f.pass(room[:granted]) {
			return
		}
		switch {
		case last:
			f.tunnel.stop(Limit, nil)
			err = sock.ErrInterrupted
		case err == nil && o.Bandwidth > 0 && !f.tunnel.pause(time.Duration(n)*time.Second/time.Duration(o.Bandwidth)):
			err = sock.ErrInterrupted
		}
		if err != nil {
			f.fail(f.from, err)
			return
		}
	}
}

// grant takes up to n bytes from what the tunnel may still carry, both ways together, and reports whether that was all.
func (t *tunnel) grant(n int) (granted int, last bool) {
	if t.options.Bytes == 0 {
		return n, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	granted = int(min(int64(n), t.options.Bytes-t.granted))
	t.granted += int64(granted)
	return granted, t.granted == t.options.Bytes
}

// pause waits. It returns false at once when the tunnel has been stopped.
func (t *tunnel) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.halted:
		return false
	}
}
