package sock

import "time"

// copyThrough is Splice through a buffer of ours, for systems and moments that have no pipe.
func copyThrough(dst, src *Conn, limit int64, patience, dstPatience time.Duration) (n int64, wrote bool, err error) {
	buf := Get()
	defer Put(buf)
	src.Arm(PhaseRead, patience)
	got, err := src.Read((*buf)[:min(limit, LargeBuffer)])
	src.DisarmRead()
	if got > 0 {
		dst.Arm(PhaseWrite, dstPatience)
		sent, werr := dst.Write((*buf)[:got])
		dst.Disarm()
		if werr != nil {
			return int64(sent), true, werr
		}
	}
	return int64(got), false, err
}
