package h1

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// bodyKind is how a body's end is found (RFC 9112 section 6.3).
type bodyKind uint8

const (
	noBody bodyKind = iota
	byLength
	byChunks
	byClose
)

// chunkState is what comes next in a chunked body.
type chunkState uint8

const (
	atSize chunkState = iota
	inData
	atDataEnd
	inTrailer
)

// Body reads a message's body from a connection, pulled: piece by piece without a copy, or as an io.Reader.
type Body struct {
	in      *sock.Reader
	limits  *Limits
	trailer *exchange.Header
	kind    bodyKind
	chunk   chunkState
	left    int64 // of the length, or of the chunk
	got     int64 // bytes delivered
	err     error // io.EOF once complete
	idle    time.Duration
	began   time.Duration        // on the sweeper's coarse clock, for the least rate; moved on while nobody reads
	seen    time.Duration        // when reading last ended, on the same clock
	asks    bool                 // the first byte only comes after 100 (Continue), which is not the client's to hurry
	rate    bool                 // a request's body: it must come fast enough, and must not be larger than allowed
	leisure bool                 // a request's body is made of messages, which come when they come: idle is all that holds
	spoken  atomic.Bool          // the reply to a request that is still coming has begun: this is one side of a conversation
	onEnd   interface{ ended() } // told when the body is complete; may be nil
	beside  *pump                // of a reply: what sends the rest of the request meanwhile, and has the deadline; nil: nothing does
	clock   *sock.Sweeper
}

// begin prepares the body of a message whose head has been read from in.
func (b *Body) begin(in *sock.Reader, head *Head, kind bodyKind, trailer *exchange.Header, l *Limits, idle time.Duration) {
	*b = Body{in: in, limits: l, trailer: trailer, kind: kind, idle: idle, asks: head.Expect}
	switch kind {
	case noBody:
		b.err = io.EOF
	case byLength:
		if b.left = head.Length; b.left == 0 {
			b.kind, b.err = noBody, io.EOF
		}
	}
}

// meter makes the body a request's: bounded in size and, after a while, in slowness.
func (b *Body) meter(clock *sock.Sweeper) {
	b.rate, b.clock, b.began = true, clock, clock.Coarse()
	b.seen = b.began
}

// Done reports whether the body has been read to its end.
func (b *Body) Done() bool { return b.err == io.EOF }

// Whole reports whether all of the body has arrived, as far as that is known ahead.
func (b *Body) Whole() bool {
	return b.Done() || b.kind == byLength && b.err == nil && int64(len(b.in.Buffered())) >= b.left
}

// Size returns the body's length in bytes, or -1 when it is not known ahead.
func (b *Body) Size() int64 {
	switch b.kind {
	case noBody:
		return 0
	case byLength:
		return b.got + b.left
	}
	return -1
}

// AtHand returns the whole rest of the body if it has already arrived, taking it, or nil.
func (b *Body) AtHand() []byte {
	if b.kind != byLength || b.err != nil || int64(len(b.in.Buffered())) < b.left {
		return nil
	}
	p, err := b.Next()
	if err != nil && err != io.EOF {
		return nil
	}
	return p
}

// Next returns the next piece, valid until the following call, and io.EOF at the end.
func (b *Body) Next() ([]byte, error) {
	p, err := b.peek()
	if err != nil {
		return nil, err
	}
	return b.take(p), nil
}

// Ready reports whether the next read returns without waiting for the connection.
func (b *Body) Ready() bool {
	p := b.in.Buffered()
	switch {
	case b.err != nil:
		return true
	case b.kind != byChunks || b.chunk == inData:
		return len(p) > 0
	case b.chunk == atDataEnd && len(p) > 2:
		p = p[2:]
	case b.chunk != atSize:
		return false
	}
	line := bytes.IndexByte(p, '\n') // a chunk's size, and something behind it
	return line >= 0 && line+1 < len(p)
}

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	piece, err := b.peek()
	if err != nil {
		return 0, err
	}
	return len(b.take(piece[:copy(p, piece)])), nil
}

// peek is Next without taking.
func (b *Body) peek() ([]byte, error) {
	for b.err == nil {
		if b.kind == byChunks && b.chunk != inData {
			b.fail(b.framing())
			continue
		}
		if p := b.in.Buffered(); len(p) > 0 {
			return p[:b.within(len(p))], nil
		}
		b.in.Enlarge()
		b.fail(b.fill(sock.LargeBuffer))
	}
	return nil, b.err
}

func (b *Body) within(n int) int {
	if b.kind == byClose {
		return n
	}
	return int(min(int64(n), b.left))
}

// take consumes as much of p, the beginning of what is buffered, as belongs to the body.
func (b *Body) take(p []byte) []byte {
	p = p[:b.within(len(p))]
	b.in.Discard(len(p))
	b.account(int64(len(p)))
	return p
}

// account notes that n bytes of the body were taken.
func (b *Body) account(n int64) {
	b.got += n
	if b.kind == byClose {
		return
	}
	if b.left -= n; b.left > 0 {
		return
	}
	if b.kind == byLength {
		b.finish()
		return
	}
	b.chunk = atDataEnd
	if bytes.HasPrefix(b.in.Buffered(), lastChunk) { // its end is known with its last piece: one write less
		b.in.Discard(len(lastChunk))
		b.finish()
	}
}

// lastChunk is how most chunked bodies end, from the CRLF of the last data on.
var lastChunk = []byte("\r\n0\r\n\r\n")

func (b *Body) finish() {
	b.err = io.EOF
	if b.onEnd != nil {
		b.onEnd.ended()
	}
}

func (b *Body) fail(err error) {
	if err != nil && b.err == nil {
		b.err = err
	}
}

// fill reads more from the connection, with a deadline for its next byte. Only the time spent here counts against a
// client: whoever is not read from cannot send.
func (b *Body) fill(limit int) error {
	c := b.in.Conn
	if b.rate {
		b.began += b.clock.Coarse() - b.seen
	}
	switch {
	case b.beside != nil:
		b.beside.listen(b.idle)
		defer b.beside.heard()
	case !b.spoken.Load(): // else the connection's deadline is the reply's alone
		c.Arm(sock.PhaseRead, b.patience())
		if b.spoken.Load() {
			c.Disarm()
		}
		defer c.DisarmRead() // not what the reply has armed meanwhile
	}
	err := b.in.Fill(limit)
	if b.rate {
		b.seen = b.clock.Coarse()
		if b.asks {
			b.asks, b.began = false, b.seen
		}
	}
	return b.arrived(err)
}

// patience returns how long the next byte may take: until the body has made no progress for too long, or until it is
// slower than the least rate, whichever comes first.
func (b *Body) patience() time.Duration {
	if !b.rate || b.limits.MinBodyRate == 0 || b.asks || b.leisure {
		return b.idle
	}
	elapsed := b.clock.Coarse() - b.began
	due := max(rateGrace.Seconds(), float64(b.got)/float64(b.limits.MinBodyRate)) - elapsed.Seconds()
	if due >= b.idle.Seconds() {
		return b.idle
	}
	return max(time.Duration(due*float64(time.Second)), time.Millisecond)
}

// arrived turns what came of reading from the connection into the body's error.
func (b *Body) arrived(err error) error {
	switch {
	case err == nil:
		return b.tooSlow()
	case errors.Is(err, io.EOF):
		if b.kind == byClose {
			b.finish()
			return nil
		}
		return errShortBody
	case b.in.Conn.Expired():
		return errSlowBody
	}
	return err
}

// tooSlow holds a request's body to the least rate.
func (b *Body) tooSlow() error {
	if !b.rate || b.limits.MinBodyRate == 0 || b.leisure || b.spoken.Load() {
		return nil
	}
	if elapsed := b.clock.Coarse() - b.began; elapsed > rateGrace && b.got < int64(elapsed.Seconds()*float64(b.limits.MinBodyRate)) {
		return errSlowBody
	}
	return nil
}

// framing reads what stands between the data of two chunks, or behind the last one.
func (b *Body) framing() error {
	switch b.chunk {
	case atSize:
		return b.size()
	case atDataEnd:
		return b.dataEnd()
	}
	return b.trailers()
}

// dataEnd reads the CRLF behind a chunk's data. A wrong first byte is enough to know that the chunk is not as long as it says.
func (b *Body) dataEnd() error {
	for {
		p := b.in.Buffered()
		if len(p) > 0 && p[0] != '\r' || len(p) > 1 && p[1] != '\n' {
			return errChunkEnd
		}
		if len(p) > 1 {
			b.in.Discard(2)
			b.chunk = atSize
			return nil
		}
		if err := b.fill(sock.SmallBuffer); err != nil {
			return err
		}
	}
}

// size reads a chunk-size line.
func (b *Body) size() error {
	line, err := b.line()
	if err != nil {
		return err
	}
	n, err := chunkLine(line)
	if err != nil {
		return err
	}
	b.in.Discard(len(line) + 2)
	if b.rate && b.limits.Body > 0 && n > b.limits.Body-b.got {
		return errBodyTooLarge
	}
	b.left, b.chunk = n, inData
	if n == 0 {
		b.chunk = inTrailer
	}
	return nil
}

// line returns the buffered bytes before the next CRLF, which it waits for.
func (b *Body) line() ([]byte, error) {
	for i := 0; ; {
		p := b.in.Buffered()
		for ; i < len(p) && i <= maxChunkLine; i++ {
			switch {
			case p[i] == '\n' && i > 0 && p[i-1] == '\r':
				return p[:i-1], nil
			case p[i] == '\n':
				return nil, errBareLF
			case i > 0 && p[i-1] == '\r':
				return nil, errBareCR
			}
		}
		if i > maxChunkLine {
			return nil, errChunkLine
		}
		if err := b.fill(sock.SmallBuffer); err != nil {
			return nil, err
		}
	}
}

// trailers reads the trailer section and ends the body.
func (b *Body) trailers() error {
	for scanned := 0; ; {
		p := b.in.Buffered()
		end, err := trailerEnd(p, scanned)
		if err != nil {
			return err
		}
		if end > b.limits.Head {
			return errHeadTooLarge
		}
		if end > 0 {
			if err := parseTrailer(p[:end], b.limits, b.trailer); err != nil {
				return err
			}
			b.in.Discard(end)
			b.finish()
			return nil
		}
		scanned = len(p)
		if err := b.fill(b.limits.Head); err != nil {
			if errors.Is(err, sock.ErrFull) {
				err = errHeadTooLarge
			}
			return err
		}
	}
}
