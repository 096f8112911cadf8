package client

import "io"

// Ready reports whether the next piece of the reply's body, or its end, has arrived, so that Next does not wait. Who writes
// the reply on lets what it has written leave when it has to wait.
func (c *Call) Ready() bool {
	if len(c.read.rest) > 0 || c.read.done != nil {
		return true
	}
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	return len(c.in.filled) > 0 || c.in.ended || c.in.err != nil
}

// Done reports whether the body has been read to its end, so that who writes it on knows which piece is the last one.
func (c *Call) Done() bool { return c.read.done == io.EOF && len(c.read.rest) == 0 }
