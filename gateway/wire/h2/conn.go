package h2

import (
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// conn is one client connection.
type conn struct {
	sock   *sock.Conn
	server *Server
	client exchange.Client
	shard  uint32
	in     inbound // the reader's

	mu    sync.Mutex // for what follows
	out   outbound
	seen  census
	purse purse
	peer  peer
	// dead: nothing is written for streams any more, and those who wait for something are told so.
	dead     bool
	parting  parting
	deadline deadline
	released *sync.Cond // told when nobody writes any more, and when the last stream has ended
}

// census is which streams there are.
type census struct {
	streams map[uint32]*stream // whose exchange has not ended
	open    int                // of them, those that count against maxStreams
	last    uint32             // the highest stream that was opened
	served  int
	past    [maxPast]ended // the last ones that have ended, the oldest overwritten first
	next    int
}

// ended is a stream that has.
type ended struct {
	id  uint32
	cut bool // by us, so that something may have been on its way
}

func (c *census) remember(id uint32, cut bool) {
	c.past[c.next%maxPast] = ended{id, cut}
	c.next++
}

// ended returns what is remembered of a stream that has ended.
func (c *census) ended(id uint32) (e ended, known bool) {
	for _, e := range c.past {
		if e.id == id {
			return e, true
		}
	}
	return e, false
}

// peer is what the client allows, and what it has been allowed.
type peer struct {
	window    int64  // of the connection, for DATA to the client
	initial   int64  // of a new stream
	frame     int    // the largest payload that it takes
	room      int64  // of the connection, for DATA from the client
	owed      int64  // that have been consumed and not been given back
	confirmed bool   // it has seen our settings
	left      bool   // it has said GOAWAY
	_         [0]any // not comparable
}

// parting is how far we have got in saying goodbye.
type parting uint8

const (
	staying parting = iota
	announced
	final // GOAWAY with the last stream that is carried
)

func newConn(s *Server, sc *sock.Conn, client exchange.Client) *conn {
	c := &conn{sock: sc, server: s, client: client, shard: s.shards.Add(1)}
	c.in.Conn = sc
	c.released = sync.NewCond(&c.mu)
	c.seen.streams = map[uint32]*stream{}
	c.peer = peer{window: initialWindow, initial: initialWindow, frame: maxFrame, room: connWindow}
	c.purse.begin(s.Sweeper.Coarse())
	c.preface()
	return c
}

// serve reads until the connection ends.
func (c *conn) serve() {
	defer c.end()
	c.greet()
	for {
		c.awaitMore()
		if err := c.in.Fill(frameHead + maxFrame); err != nil {
			c.unread(err)
			return
		}
		if !c.arrived() {
			return
		}
	}
}

// preface is our side of it, which must be the first thing that the client gets (RFC 9113 section 3.4): it is appended before
// anybody knows of the connection, for a drain may say goodbye before the connection is served.
func (c *conn) preface() {
	c.out.settings(
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: maxStreams},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(c.server.Limits.Load().Head)},
		http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1},
	)
	c.out.windowUpdate(0, connWindow-initialWindow)
}

// greet sends the preface.
func (c *conn) greet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server.drained.Load() { // the last call to the others may have been made already
		time.AfterFunc(goodbyeTime, c.lastCall)
	}
	c.hand()
}

// arrived takes the frames that have arrived, starts the streams that came with them and reports whether the connection
// goes on.
func (c *conn) arrived() bool {
	goOn := c.frames()
	c.start()
	c.mu.Lock()
	defer c.mu.Unlock()
	if goOn && c.out.control > maxControl {
		c.abuse(controlFlood)
		goOn = false
	}
	c.hand()
	return goOn
}

// start has the streams carried that have come. All of what was read has been looked at by then, so that a short body
// stands there whole.
func (c *conn) start() {
	if len(c.in.fresh) > 0 {
		now := c.server.Clock.Now()
		for i, s := range c.in.fresh {
			c.in.fresh[i] = nil
			s.x.Start = now
			s.settleBody()
			c.server.workers.run(c.shard, job{s: s})
		}
		c.in.fresh = c.in.fresh[:0]
	}
	for i, s := range c.in.canceled {
		c.in.canceled[i] = nil
		s.cancel.Cancel()
		s.unpin()
	}
	c.in.canceled = c.in.canceled[:0]
}

// unread is called when reading has ended, to find out whether the client is to be told why.
func (c *conn) unread(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.parting == final && len(c.seen.streams) == 0: // woken: nothing is left to do
	case c.sock.Interrupted() || c.dead || !c.sock.Expired():
		c.dead = true // the client has gone, or writing failed
	case c.deadline.kind == forHead:
		c.abuse(slowHead)
	default: // idle
		c.sayFinal(http2.ErrCodeNo, "")
	}
	if !errors.Is(err, sock.ErrInterrupted) {
		c.hand()
	}
}

// fail ends the connection because of what the client did (RFC 9113 section 5.4.1). It returns false for the convenience
// of those who stop there. The lock is held.
func (c *conn) fail(code http2.ErrCode, reason string) bool {
	if c.dead {
		return false
	}
	if code != http2.ErrCodeNo && c.server.Metrics != nil {
		c.server.Metrics.errors.Inc(c.shard)
	}
	c.server.Log.Debug("an HTTP/2 connection is ended", "peer", c.client.Addr, "code", code.String(), "reason", reason)
	c.sayFinal(code, reason)
	c.dead = true
	return false
}

// abuse ends the connection of a client that costs too much.
func (c *conn) abuse(kind abuse) bool {
	if c.dead {
		return false
	}
	if m := c.server.Metrics; m != nil {
		m.abuse[kind].Inc(c.shard)
	}
	return c.fail(http2.ErrCodeEnhanceYourCalm, budgets[kind].name)
}

// spend takes one of the kind from what the client may do.
func (c *conn) spend(kind abuse) bool {
	return c.purse.spend(kind, c.server.Sweeper.Coarse()) || c.abuse(kind)
}

// end ends the connection: streams that nobody waits for any more are cancelled; what still stands to be written is,
// for a client that is there to read it.
func (c *conn) end() {
	if r := recover(); r != nil {
		c.server.Log.Error("a connection panicked", slog.Any("panic", r), slog.String("stack", string(debug.Stack())))
		c.cut()
	}
	c.finish()
	c.in.Release()
	c.mu.Lock()
	c.dead = true
	c.mu.Unlock()
	c.cancelAll()
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.sock.Close() // the client has been told everything
	for len(c.seen.streams) > 0 || c.out.writing {
		c.released.Wait()
	}
	c.out.drop()
}

// finish carries the last streams of a connection that ends in peace, and writes what is to be written.
func (c *conn) finish() {
	c.mu.Lock()
	for !c.dead && c.parting == final && len(c.seen.streams) > 0 {
		c.released.Wait()
	}
	told := c.parting == final && !c.sock.Interrupted() && c.out.err == nil
	if c.dead {
		c.mu.Unlock()
		c.cancelAll()
		c.mu.Lock()
	}
	if !told {
		c.mu.Unlock()
		return
	}
	c.deadline.hurry(c)
	c.hand()
	for c.out.writing {
		c.released.Wait()
	}
	told = c.out.err == nil
	c.mu.Unlock()
	if told {
		c.linger()
	}
}

// linger closes the sending side and throws away what still comes, within bounds: closing at once would reset the
// connection, and the client would lose what it was told last.
func (c *conn) linger() {
	if c.sock.CloseWrite() != nil || c.sock.Interrupted() {
		return
	}
	c.sock.Rearm()
	c.sock.Arm(sock.PhaseRead, lingerTime)
	buf := sock.Get()
	defer sock.Put(buf)
	for total := 0; total < lingerBytes; {
		n, err := c.sock.Read(*buf)
		if err != nil {
			return
		}
		total += n
	}
}

// cancelAll ends the exchanges of all streams: nobody waits for them.
func (c *conn) cancelAll() {
	c.mu.Lock()
	all := make([]*stream, 0, len(c.seen.streams))
	for _, s := range c.seen.streams {
		s.pins++
		s.wake()
		all = append(all, s)
	}
	c.mu.Unlock()
	for _, s := range all {
		s.cancel.Cancel()
		s.unpin()
	}
}

// cut ends the connection from outside, at once.
func (c *conn) cut() {
	c.mu.Lock()
	c.dead = true
	c.released.Broadcast()
	c.mu.Unlock()
	c.sock.Interrupt()
	c.cancelAll()
}

// goodbye announces that the connection will end. One that has asked nothing yet is told with its first request: clients take
// a GOAWAY before it for a connection that cannot be had, and fail the request.
func (c *conn) goodbye() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parting == staying && !c.dead && c.seen.served > 0 {
		c.announce()
		c.hand()
	}
}

// announce is the first of two steps: requests that are on their way are still taken, since the client cannot know yet.
// Its answer to our PING says that it does (RFC 9113 section 6.8).
func (c *conn) announce() {
	c.parting = announced
	c.out.goAway(maxStreamID, http2.ErrCodeNo, "")
	c.out.ping(false, goodbyePing)
}

// lastCall is the second step.
func (c *conn) lastCall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parting != final && !c.dead {
		c.sayFinal(http2.ErrCodeNo, "")
		c.hand()
		c.settle()
	}
}

// sayFinal says which stream is the last one that is carried.
func (c *conn) sayFinal(code http2.ErrCode, reason string) {
	c.parting = final
	c.out.goAway(c.seen.last, code, reason)
}

// settle ends a connection whose last stream has ended.
func (c *conn) settle() {
	if len(c.seen.streams) > 0 {
		return
	}
	if c.parting == final || c.peer.left {
		c.parting = final
		c.sock.WakeReader()
	}
	c.released.Broadcast()
}

var goodbyePing = [8]byte{'g', 'o', 'o', 'd', 'b', 'y', 'e', '!'}
