package sock

import "sync/atomic"

// A read that finds nothing costs a system call to learn what the runtime is going to be told anyway. Each and Ask stay
// inside one wait of the runtime's instead: between two looks at the socket nothing is forgotten that it was told, so
// they can wait at once where they know that there is nothing to read.

// eachState is an Each that runs.
type eachState struct {
	call    func(fd uintptr) bool // made once for each connection
	reader  *Reader
	handle  func() bool
	fd      uintptr
	held    bool          // the descriptor may be used directly: the runtime keeps it open
	duplex  bool          // never: somebody else writes
	wary    bool          // no short read is trusted
	tried   bool          // a whole round has been made: from then on a short read is trusted
	waits   atomic.Uint32 // how many waits on trust there have been
	assured uint32        // the sweeper's: which of them it has looked at, after which an end would be news

	trusts bool // waiting without having looked: the sweeper may be looking instead
}

// Each calls handle whenever bytes have arrived, which stand in the reader's buffer, until handle returns false or the
// connection ends. While nothing happens the reader holds no buffer. handle must not read from the connection, close it
// or let anything unread stand in the buffer when it returns true; it may write.
//
// A read that did not fill its buffer has emptied the socket, so that the next thing to happen is news; only the end of
// the stream may have come with the last bytes unannounced, which is what the sweeper looks for within a second.
func (b *Reader) Each(handle func() bool) error {
	c := b.Conn
	c.each.reader, c.each.handle = b, handle
	c.in.err = nil
	err := c.raw.Read(c.each.call)
	for c.distrust() && err != nil { // the sweeper has seen the end: read up to it
		err = c.raw.Read(c.each.call)
	}
	c.each.handle = nil
	_, err = c.result(&c.in, err)
	return err
}

// distrust ends a wait on trust. It reports whether the sweeper has looked meanwhile; the deadline by which it may have
// ended the wait is lifted, since a request may have come together with the end.
func (c *Conn) distrust() bool {
	if !c.each.trusts {
		return false
	}
	c.each.trusts = false
	if c.trusted.Swap(false) {
		return false
	}
	c.looking.Lock()
	defer c.looking.Unlock()
	c.Rearm()
	if c.timer.expired.Load() || c.interrupted.Load() {
		c.WakeReader()
	}
	return true
}

func (c *Conn) eachCall(fd uintptr) bool {
	e, l := &c.each, &c.layer
	c.distrust()
	l.short, l.trust = false, e.tried && !e.wary
	for {
		b, short := e.reader, false
		if b.r == b.w {
			b.r, b.w = 0, 0
			room := b.room()
			n, again, err := c.take(fd, room)
			if again {
				b.release()
				if l.guessed {
					c.waitOnTrust()
				}
				return false
			}
			if err != nil {
				c.in.err = err
				return true
			}
			b.w, short = n, n < len(room) && l.over == nil
		}
		if goOn := e.run(fd); !goOn {
			return true
		}
		if short && e.tried && !e.wary {
			b.Release()
			c.waitOnTrust()
			return false
		}
		e.tried, l.trust = true, !e.wary
	}
}

// run calls handle, which may write to the descriptor unless another goroutine does.
func (e *eachState) run(fd uintptr) bool {
	if e.duplex {
		return e.handle()
	}
	e.fd, e.held = fd, true
	goOn := e.handle()
	e.held = false
	return goOn
}

// Duplex says that from now on one goroutine calls Each while another one writes. It must be called before the second one
// begins.
func (c *Conn) Duplex() { c.each.duplex = true }

// Wary says that the end of the stream is likely to come together with bytes, and must be noticed with them: each read is
// made again until nothing is there. It may be called before Each and by what Each calls.
func (c *Conn) Wary() { c.each.wary = true }

// waitOnTrust waits for news without having looked.
func (c *Conn) waitOnTrust() {
	c.layer.guessed, c.each.trusts = false, true
	c.each.waits.Add(1)
	c.trusted.Store(true)
}

// askState is an Ask that runs.
type askState struct {
	call   func(fd uintptr) bool // made once for each connection
	reader *Reader
	p      []byte // clear text for the layer, if there is one
	sent   bool
}

// Ask writes p and reads the first bytes of the answer, of which none can have come before.
func (b *Reader) Ask(p []byte) error {
	c := b.Conn
	b.Enlarge()
	c.ask.reader, c.ask.sent, c.ask.p = b, false, p
	c.in.err = nil
	c.out.p, c.out.n, c.out.err = p, 0, nil
	err := c.raw.Read(c.ask.call)
	_, err = c.result(&c.in, err)
	if err == nil && c.out.err != nil {
		err = c.out.err
	}
	if err == nil && !c.ask.sent { // the socket is full: the rest goes the ordinary way, and so does the answer
		_, err = c.Write(c.out.p[c.out.n:])
	}
	c.out.p, c.ask.p = nil, nil
	return err
}

func (c *Conn) askCall(fd uintptr) bool {
	if l := &c.layer; l.over != nil {
		l.short, l.trust = false, false
		if !c.ask.sent {
			c.ask.sent, c.each.fd, c.each.held = true, fd, true
			_, c.out.err = c.writeOver(c.ask.p)
			c.each.held = false
			return c.out.err != nil
		}
	} else if !c.ask.sent {
		if !c.writeCall(fd) || c.out.err != nil {
			return true
		}
		c.ask.sent = true
		return false
	}
	b := c.ask.reader
	n, again, err := c.take(fd, (*b.buf)[b.w:])
	if again {
		return false
	}
	c.in.err = err
	b.w += n
	return true
}
