package record

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/internal/metric"
)

const (
	// maxChunk is how much of one shard is gathered for one write; small enough to stay in a core's cache.
	maxChunk = 32 << 10
	// wakeAt is how many full chunks wake the writer before its next tick: to wake it costs as much as thirty lines.
	wakeAt = 8
	// maxFree is how many written chunks are kept for reuse; after a burst the others are left to the collector.
	maxFree = wakeAt + metric.Shards
	// closeTimeout is how long what is pending may take to be written when the log is closed or replaced: a reader that is
	// stuck must not hold up a reload or a stop.
	closeTimeout = 3 * time.Second
)

// accessLog is one configuration of the access log: lines gather in a chunk for each shard, full chunks wait in one list,
// and one goroutine writes them. A reload makes a new one, so that a file is opened anew, and closes the old one when
// its lines are written.
type accessLog struct {
	shards  [metric.Shards]logShard
	layout  *layout
	chunk   int // a chunk that has grown to this is full
	wakeAt  int // at most the constant of this name
	flush   time.Duration
	to      string
	file    io.WriteCloser
	dropped *metric.Counter
	failure atomic.Pointer[error] // why the last write failed; nil: it did not

	mu      sync.Mutex // taken once for a chunk, not for a line; after the shard's
	full    [][]byte   // in the order in which they are written
	free    [][]byte
	pending int // size of the chunks in full and with the writer
	limit   int // of pending

	wake, quit, done chan struct{}
	released         chan struct{} // closed when the next log may write to the same place
}

type logShard struct {
	mu     sync.Mutex
	buf    []byte // whole lines
	closed bool
	line   line
	_      [64]byte // a line between this shard's words and the next one's
}

func newAccessLog(a *model.AccessLog, m *mask, y *layout, file io.WriteCloser, dropped *metric.Counter) *accessLog {
	chunk := min(maxChunk, int(a.Buffer)/(2*metric.Shards))
	l := &accessLog{
		layout: y, chunk: chunk, limit: int(a.Buffer) - metric.Shards*chunk, flush: a.Flush, to: a.To, file: file, dropped: dropped,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}), released: make(chan struct{}),
	}
	l.wakeAt = max(1, min(wakeAt, l.limit/(2*chunk)))
	for i := range l.shards {
		l.shards[i].line.mask = m
	}
	return l
}

// append appends the exchange's line to its shard's chunk, or drops it when that is full and no more may wait. It returns
// false when the log has been replaced meanwhile.
func (l *accessLog) append(x *exchange.Exchange, duration time.Duration) bool {
	s := &l.shards[x.Shard%metric.Shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if len(s.buf) >= l.chunk && !l.hand(s, false) {
		l.dropped.Inc(x.Shard)
		return true
	}
	if s.buf == nil {
		s.buf = l.fresh()
	}
	s.line.x, s.line.duration = x, duration
	s.buf = l.layout.append(s.buf, &s.line)
	s.line.x = nil
	if len(s.buf) >= l.chunk {
		l.hand(s, false)
	}
	return true
}

// hand puts the shard's chunk, which is locked, on the list of full ones. Unless it is forced, a list that holds as much as
// may wait refuses it.
func (l *accessLog) hand(s *logShard, force bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !force && l.pending+cap(s.buf) > l.limit {
		return false
	}
	l.pending += cap(s.buf)
	l.full = append(l.full, s.buf)
	s.buf = nil
	if len(l.full) == l.wakeAt {
		select {
		case l.wake <- struct{}{}:
		default: // the writer is awake already
		}
	}
	return true
}

// fresh returns an empty chunk, with room for a long last line.
func (l *accessLog) fresh() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		b := l.free[n-1]
		l.free = l.free[:n-1]
		return b
	}
	return make([]byte, 0, l.chunk+l.chunk/4)
}

// run writes until the log is closed. after, if there is one, is the log that this one replaces: it writes first.
func (l *accessLog) run(after *accessLog) {
	defer close(l.done)
	if after != nil {
		<-after.released
	}
	ticker := time.NewTicker(l.flush)
	defer ticker.Stop()
	w := writer{log: l}
	wake := l.wake
	for {
		select {
		case <-l.quit:
			w.finish()
			return
		case <-ticker.C:
			if wake = l.wake; w.write() == nil { // chunks that are not full are gathered when they can be written at once
				l.gather(false)
			}
		case <-wake:
		}
		if w.write() != nil {
			wake = nil // a disk that is full gets another try at the next tick, not at once
		}
	}
}

// gather hands over what waits in the shards.
func (l *accessLog) gather(force bool) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		if len(s.buf) > 0 {
			l.hand(s, force)
		}
		s.mu.Unlock()
	}
}

// shut takes no more lines.
func (l *accessLog) shut() {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
	}
	l.gather(true)
}

// close takes no more lines and ends the writer. It waits until what is pending has been written, or for closeTimeout;
// after that a write that hangs is cut off where the system allows it, and what is left is counted as lost. It returns
// whether the writer has ended.
func (l *accessLog) close() bool {
	defer close(l.released)
	l.shut()
	close(l.quit)
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-l.done:
		return true
	case <-timer.C:
	}
	if f, ok := l.file.(interface{ SetWriteDeadline(time.Time) error }); ok && f.SetWriteDeadline(time.Unix(1, 0)) == nil {
		<-l.done
		return true
	}
	l.abandon(nil)
	return false
}

// discard closes a log that never ran, or that ended before.
func (l *accessLog) discard() {
	l.shut()
	l.abandon(nil)
	_ = l.file.Close() // nothing was written
}

// abandon counts the lines of the full chunks and of those given as lost.
func (l *accessLog) abandon(more [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, chunks := range [][][]byte{more, l.full} {
		for _, b := range chunks {
			l.dropped.Add(0, countLines(b))
		}
	}
	l.full, l.free = nil, nil
}

func countLines(b []byte) (n uint64) {
	for _, c := range b {
		if c == '\n' {
			n++
		}
	}
	return n
}

// reason says why lines are dropped.
func (l *accessLog) reason() string {
	if err := l.failure.Load(); err != nil {
		return (*err).Error()
	}
	return "lines come faster than they are taken"
}

// writer writes full chunks. What a failed write left is kept and comes first the next time, so that no line is torn.
type writer struct {
	log    *accessLog
	queue  [][]byte // chunks, of which the first have been written
	next   int      // the first that has not
	offset int      // how much of it has
}

// write writes everything on the list, one chunk at a time.
func (w *writer) write() error {
	l := w.log
	for {
		if w.next == len(w.queue) && !w.refill() {
			return nil
		}
		b := w.queue[w.next]
		n, err := l.file.Write(b[w.offset:])
		if w.offset += max(0, n); err != nil {
			l.failure.Store(&err)
			return err
		}
		if l.failure.Load() != nil {
			l.failure.Store(nil)
		}
		w.queue[w.next] = nil
		w.next++
		w.offset = 0
		l.recycle(b)
	}
}

// refill takes the list of full chunks, and gives the old list's memory for the next one.
func (w *writer) refill() bool {
	l := w.log
	l.mu.Lock()
	defer l.mu.Unlock()
	w.queue, l.full = l.full, w.queue[:0]
	w.next = 0
	return len(w.queue) > 0
}

// recycle gives a written chunk back.
func (l *accessLog) recycle(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending -= cap(b)
	if len(l.free) < maxFree && cap(b) <= 2*maxChunk {
		l.free = append(l.free, b[:0])
	}
}

// finish writes what is left and closes the file.
func (w *writer) finish() {
	_ = w.write() // what could not be written is counted as lost
	w.log.abandon(w.queue[w.next:])
	if err := w.log.file.Close(); err != nil {
		w.log.failure.Store(&err)
	}
}
