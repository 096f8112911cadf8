//go:build !linux

package sock

import "time"

// Splice moves what can be read from src, at least one byte and at most limit, to dst. It waits for at most patience for
// the first byte, and as long for dst to take each. wrote: the error is dst's.
func Splice(dst, src *Conn, limit int64, patience, dstPatience time.Duration) (n int64, wrote bool, err error) {
	return copyThrough(dst, src, limit, patience, dstPatience)
}
