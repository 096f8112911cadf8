package h1

import (
	"io"
	"time"

	"headgate/internal/sock"
)

const (
	// relayFrom is the least that is left of a body for the kernel to carry it: below it setting that up costs more.
	relayFrom = 64 << 10
	// relayPiece is the most that is carried between two looks at deadlines and rates.
	relayPiece = 1 << 20
)

// relayable reports whether the kernel can carry the rest of the body from one socket to the other. That of a conversation it
// cannot: the deadlines of both sides hang together there.
func (b *Body) relayable() bool {
	if b.spoken.Load() || b.beside != nil {
		return false
	}
	return b.kind == byLength && b.err == nil && b.left >= relayFrom && len(b.in.Buffered()) == 0 && !b.in.Conn.Encrypted()
}

// relay carries the rest of the body to dst without it passing through this process, or as much of it as comes before the body
// becomes one side of a conversation. patience is how long dst may take no byte. wrote: the error is dst's.
func (b *Body) relay(dst *sock.Conn, patience time.Duration) (sent int64, wrote bool, err error) {
	for b.err == nil && !b.spoken.Load() {
		n, wrote, err := sock.Splice(dst, b.in.Conn, min(b.left, relayPiece), b.patience(), patience)
		sent += n
		b.account(n)
		switch {
		case wrote:
			return sent, true, err
		case b.err == nil:
			b.fail(b.arrived(err))
		}
	}
	if b.err != nil && b.err != io.EOF {
		return sent, false, b.err
	}
	return sent, false, nil
}
