package h1

import "headgate/internal/sock"

// linger closes the sending side and throws away what still comes, within bounds: closing at once would reset the
// connection, and the client would lose the answer (RFC 9112 section 9.6).
func (c *conn) linger() {
	if c.Conn.CloseWrite() != nil {
		return
	}
	c.Conn.Rearm()
	c.Arm(sock.PhaseRead, lingerTime)
	c.in.Release()
	buf := sock.Get()
	defer sock.Put(buf)
	for total := 0; total < lingerBytes; {
		n, err := c.Conn.Read(*buf)
		if err != nil {
			return
		}
		total += n
	}
}
