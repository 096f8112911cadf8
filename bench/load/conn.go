package load

import (
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

type state uint8

const (
	stateClosed     state = iota
	stateConnecting       // waiting for the handshake
	stateIdle             // open, no request on it
	stateBusy             // a request was sent, at least in part
)

// conn is one connection and the request on it.
type conn struct {
	fd      int
	index   int32
	state   state
	writing bool // epoll tells when there is room to write
	begun   int64
	out     []byte // of the request, still to be sent
	partial []byte // of the answer's head
	answer  answer
}

func (s *Session) watch(op int, c *conn, events uint32) {
	if err := unix.EpollCtl(s.epoll, op, c.fd, &unix.EpollEvent{Events: events, Fd: c.index}); err != nil {
		s.failed("epoll_ctl: " + err.Error())
	}
}

// connect begins to open a connection.
func (s *Session) connect(c *conn) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.refused(c, err)
		return
	}
	c.fd, c.state, c.writing, c.partial, c.answer = fd, stateConnecting, true, c.partial[:0], answer{}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err == nil {
		err = unix.Connect(fd, &s.to)
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		s.refused(c, err)
		return
	}
	s.watch(unix.EPOLL_CTL_ADD, c, unix.EPOLLOUT)
}

func (s *Session) refused(c *conn, err error) {
	s.result.Refused++
	s.failed("connect: " + err.Error())
	s.drop(c)
	s.retry, s.retryAt = append(s.retry, c), s.now()+int64(reconnectIn)
}

// drop closes a connection and opens no new one.
func (s *Session) drop(c *conn) {
	if c.state == stateBusy {
		s.pending--
	}
	if c.fd >= 0 {
		_ = unix.Close(c.fd) // what it still held is counted already
	}
	c.fd, c.state, c.out = -1, stateClosed, nil
}

// lost counts the request that a connection took with it.
func (s *Session) lost(c *conn, why string) {
	s.result.Lost++
	s.ended(c.begun, 0, false)
	if c.answer.headDone {
		why += " (in the middle of the body)"
	}
	s.failed(why)
}

// free makes an open connection available.
func (s *Session) free(c *conn) {
	c.state = stateIdle
	switch {
	case s.plan.Rate > 0:
		s.idle = append(s.idle, c)
	case !s.stop:
		s.send(c, s.now())
	}
}

// send puts the request in turn on an idle connection; begun is when it was due.
func (s *Session) send(c *conn, begun int64) {
	c.out = s.plan.Requests[s.next]
	if s.next++; s.next == len(s.plan.Requests) {
		s.next = 0
	}
	c.state, c.begun, c.answer = stateBusy, begun, answer{}
	s.pending++
	s.flush(c)
}

func (s *Session) flush(c *conn) {
	for len(c.out) > 0 {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(c.fd), uintptr(unsafe.Pointer(unsafe.SliceData(c.out))), uintptr(len(c.out)))
		switch errno {
		case 0:
			c.out = c.out[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			if !c.writing {
				c.writing = true
				s.watch(unix.EPOLL_CTL_MOD, c, unix.EPOLLIN|unix.EPOLLOUT)
			}
			return
		default:
			// An early answer may explain it: leave it to the read, which finds either that or the end.
			c.out = nil
		}
	}
	if c.writing {
		c.writing = false
		s.watch(unix.EPOLL_CTL_MOD, c, unix.EPOLLIN)
	}
}

// handle does what the kernel says the connection is ready for.
func (s *Session) handle(c *conn, events uint32) {
	switch c.state {
	case stateClosed:
		return // an event of the same batch has closed it
	case stateConnecting:
		if code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			s.refused(c, errors.Join(err, syscall.Errno(code)))
			return
		}
		c.writing = false
		s.watch(unix.EPOLL_CTL_MOD, c, unix.EPOLLIN)
		s.free(c)
		return
	case stateBusy:
		if len(c.out) > 0 && events&unix.EPOLLOUT != 0 {
			s.flush(c)
		}
	}
	if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.read(c)
	}
}

func (s *Session) read(c *conn) {
	kept := copy(s.scratch, c.partial)
	free := s.scratch[kept:]
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(unsafe.SliceData(free))), uintptr(len(free)))
	if errno == syscall.EAGAIN || errno == syscall.EINTR {
		return
	}
	if errno != 0 || n == 0 {
		if c.state == stateBusy {
			s.lost(c, reason(errno))
		}
		s.drop(c) // a gateway may close an idle connection: that is no error
		s.again(c)
		return
	}
	if c.state == stateIdle {
		s.wrong(c, fmt.Sprintf("bytes without a request: %.60q", s.scratch[:n]))
		return
	}
	rest, done, wrong := c.answer.feed(s.scratch[:kept+int(n)], &s.plan.Expect)
	switch {
	case wrong != "":
		s.wrong(c, wrong)
	case done && len(c.out) > 0:
		s.wrong(c, "answered before the request was sent")
	case done && len(rest) > 0:
		s.wrong(c, fmt.Sprintf("bytes behind the answer: %.60q", rest))
	case done:
		s.complete(c)
	case len(rest) == len(s.scratch):
		s.wrong(c, "the answer's head is above 256 KiB")
	default:
		c.partial = append(c.partial[:0], rest...)
	}
}

func reason(errno syscall.Errno) string {
	if errno == 0 {
		return "closed before the answer"
	}
	return "before the answer: " + errno.Error()
}

func (s *Session) wrong(c *conn, why string) {
	s.result.Wrong++
	if c.state == stateBusy {
		s.ended(c.begun, 0, false)
	}
	s.failed(why)
	s.drop(c)
	s.again(c)
}

// again opens a connection in the place of one that ended, unless the run is over: the next run will.
func (s *Session) again(c *conn) {
	if !s.stop || len(s.due) > 0 {
		s.connect(c)
	}
}

func (s *Session) complete(c *conn) {
	if c.answer.status == s.plan.Expect.Status {
		s.result.Completed++
		s.result.Latencies = append(s.result.Latencies, time.Duration(s.now()-c.begun))
	}
	s.ended(c.begun, c.answer.status, c.answer.retryAfter)
	c.partial = c.partial[:0]
	if c.answer.close {
		s.drop(c)
		s.again(c)
		return
	}
	s.pending--
	s.free(c)
}
