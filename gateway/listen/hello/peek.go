package hello

import (
	"errors"
	"fmt"
	"io"
	"time"

	"headgate/internal/sock"
)

// ErrTimeout says that a ClientHello was not whole in time.
var ErrTimeout = errors.New("the ClientHello did not come in time")

// Peek reads the ClientHello of a connection, which must be whole within the time, and puts everything that it has read
// back in front. After ErrTimeout the connection can be written to, but no more read from.
func Peek(c *sock.Conn, within time.Duration) (Hello, error) {
	buf := sock.Get()
	defer sock.Put(buf)
	c.Arm(sock.PhaseRead, within)
	defer c.Disarm()
	for have := 0; ; {
		n, err := c.Read((*buf)[have:MaxHello])
		have += n
		switch {
		case err != nil && c.Expired():
			return Hello{}, ErrTimeout
		case errors.Is(err, io.EOF) && have > 0:
			return Hello{}, fmt.Errorf("%w, and the connection ended", ErrShort)
		case err != nil:
			return Hello{}, err
		}
		h, err := Parse((*buf)[:have])
		if errors.Is(err, ErrShort) {
			continue
		}
		c.Unread(append([]byte(nil), (*buf)[:have]...)) // a copy: the buffer is somebody else's soon
		return h, err
	}
}
