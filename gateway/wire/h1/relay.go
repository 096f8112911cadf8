package h1

import (
	"io"
	"time"

	"headgate/internal/sock"
)

const (
	// relayFrom is the least that is left of a body for the kernel to carry it: below it setting that up costs more.
	relayFrom = 64 << 10
	// relayPiece is carried between two looks at deadlines and rates.
	relayPiece = 1 << 20
)

// relayable reports whether the kernel can carry the rest of the body from one socket to the other.
func (b *Body) relayable() bool {
	return b.kind == byLength && b.err == nil && b.left >= relayFrom && len(b.in.Buffered()) == 0
}

// relay carries the rest of the body to dst without it passing through this process. patience is how long dst may take
// no byte.
func (b *Body) relay(dst *sock.Conn, patience time.Duration) (sent int64, err error) {
	src := b.in.Conn
	patience = max(patience, b.idle) // one call waits now for the one side and now for the other
	for b.err == nil {
		src.Arm(sock.PhaseRead, patience)
		dst.Arm(sock.PhaseWrite, patience)
		want := min(b.left, relayPiece)
		n, err := dst.TCP().ReadFrom(&io.LimitedReader{R: src.TCP(), N: want})
		src.Disarm()
		dst.Disarm()
		sent += n
		b.account(n)
		if err == nil && n < want {
			err = io.EOF
		}
		if err != nil {
			b.fail(b.arrived(err))
			return sent, b.err
		}
		b.fail(b.tooSlow())
	}
	if b.err != io.EOF {
		return sent, b.err
	}
	return sent, nil
}
