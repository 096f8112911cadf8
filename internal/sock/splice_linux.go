package sock

import (
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pipeSize is how much the kernel may carry at once. Where it is not allowed, a pipe stays at its 64 KiB.
const pipeSize = 1 << 20

// pipe holds bytes on their way from one socket to another without leaving the kernel.
type pipe struct {
	r, w    int
	held    int // bytes inside
	cleanup runtime.Cleanup
}

var pipes = sync.Pool{New: func() any { return newPipe() }}

func newPipe() *pipe {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return nil
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize) // a smaller one works too
	p := &pipe{r: fds[0], w: fds[1]}
	p.cleanup = runtime.AddCleanup(p, closePipe, fds) // for pipes that the pool lets go
	return p
}

// drop closes a pipe that still holds bytes of somebody's body.
func (p *pipe) drop() {
	p.cleanup.Stop()
	closePipe([2]int{p.r, p.w})
}

func closePipe(fds [2]int) {
	_ = syscall.Close(fds[0]) // nobody uses it any more
	_ = syscall.Close(fds[1])
}

// Splice moves what can be read from src, at least one byte and at most limit, to dst inside the kernel. It waits for at
// most patience for the first byte, and as long for dst to take each. wrote: the error is dst's.
func Splice(dst, src *Conn, limit int64, patience, dstPatience time.Duration) (n int64, wrote bool, err error) {
	if dst.layer.over != nil || src.layer.over != nil || len(src.layer.ahead) > 0 {
		return copyThrough(dst, src, limit, patience, dstPatience)
	}
	p, ok := pipes.Get().(*pipe)
	if !ok || p == nil {
		return copyThrough(dst, src, limit, patience, dstPatience)
	}
	src.Arm(PhaseRead, patience)
	err = src.move(src.raw.Read, func(fd uintptr) (int64, error) {
		return unix.Splice(int(fd), nil, p.w, nil, int(min(limit, pipeSize)), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	}, &p.held)
	src.DisarmRead() // a conversation's other side may be written meanwhile
	if err != nil {
		pipes.Put(p)
		return 0, false, err
	}
	for total := p.held; p.held > 0; n = int64(total - p.held) {
		sent := 0
		dst.Arm(PhaseWrite, dstPatience)
		err = dst.move(dst.raw.Write, func(fd uintptr) (int64, error) {
			return unix.Splice(p.r, nil, int(fd), nil, p.held, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		}, &sent)
		dst.Disarm()
		if err != nil {
			p.drop()
			return n, true, err
		}
		p.held -= sent
		dst.wrote()
	}
	pipes.Put(p)
	return n, false, nil
}

// move makes one splice inside the runtime's wait loop and stores how much it moved.
func (c *Conn) move(wait func(func(uintptr) bool) error, splice func(uintptr) (int64, error), moved *int) error {
	var result error
	err := wait(func(fd uintptr) bool {
		for {
			n, err := splice(fd)
			switch err {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return false
			case nil:
				if *moved = int(n); n == 0 {
					result = io.EOF
				}
			default:
				result = os.NewSyscallError("splice", err)
			}
			return true
		}
	})
	if err == nil {
		err = result
	}
	return c.name(err)
}
