// Package origin is the upstream of the benchmark: one thread, one epoll loop, raw system calls, so that what shares its
// core is the load generator and not its own overhead. It speaks just enough HTTP/1.1 for what gateways send, and refuses
// the rest with a reason instead of guessing.
//
//	GET  /big        1 MiB of text
//	POST             the body must be payload.Big, byte for byte; then the small answer
//	GET  /guarded/   X-Request-Id must be there and X-Api-Key must not; then the small answer
//	GET  /count      how many requests were answered with 200 so far, without this kind
//	GET  anything    200 bytes of JSON
package origin

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"headgate/bench/payload"
)

const (
	maxHead       = 64 << 10 // a request head above this is refused: it bounds what one connection may hold
	readSize      = 256 << 10
	eventsAtATime = 256
)

// Server answers on one listening socket.
type Server struct {
	listener, epoll int
	addr            *net.TCPAddr
	conns           map[int32]*conn
	scratch         []byte
	answered        int64
	small, large    []byte // whole replies
	big             []byte // what POST must bring
}

// conn is one connection: what was read of an unfinished head, what is missing of a body, what is still to be written.
type conn struct {
	fd      int32
	partial []byte
	need    int // bytes of the request's body still to come
	at      int // bytes of it that came
	wrong   string
	reply   []byte // to be sent when the body has come
	out     []byte
	waiting bool // for room to write
}

// Listen opens the socket; address may end in ":0" for any free port.
func Listen(address string) (*Server, error) {
	tcp, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	to := unix.SockaddrInet4{Port: tcp.Port}
	copy(to.Addr[:], tcp.IP.To4())
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, &to), unix.Listen(fd, 4096))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, errors.Join(err, unix.Close(fd)))
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	s := &Server{
		listener: fd, epoll: epoll, conns: map[int32]*conn{}, scratch: make([]byte, readSize), big: payload.Big(),
		addr: &net.TCPAddr{IP: tcp.IP, Port: name.(*unix.SockaddrInet4).Port},
	}
	s.small = reply("200 OK", "application/json", payload.Small())
	s.large = reply("200 OK", "text/plain", s.big)
	return s, s.watch(unix.EPOLL_CTL_ADD, int32(fd), unix.EPOLLIN)
}

// reply builds a whole answer. X-Origin is what the client checks to know that the answer came from here.
func reply(status, kind string, body []byte) []byte {
	head := "HTTP/1.1 " + status + "\r\nDate: Sat, 21 Nov 2026 04:00:00 GMT\r\nContent-Type: " + kind +
		"\r\nCache-Control: no-store\r\nX-Origin: bench\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"
	return append([]byte(head), body...)
}

// Addr returns where the server listens.
func (s *Server) Addr() *net.TCPAddr { return s.addr }

func (s *Server) watch(op int, fd int32, events uint32) error {
	return unix.EpollCtl(s.epoll, op, int(fd), &unix.EpollEvent{Events: events, Fd: fd})
}

// Close makes Serve return. Nobody is waited for: those who still ask lose their connections.
func (s *Server) Close() error { return unix.Shutdown(s.listener, unix.SHUT_RDWR) }

// Serve answers until Close or until the poll itself fails.
func (s *Server) Serve() error {
	events := make([]unix.EpollEvent, eventsAtATime)
	for {
		n, err := unix.EpollWait(s.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == int32(s.listener) {
				if e.Events&unix.EPOLLHUP != 0 {
					return s.end()
				}
				s.accept()
			} else if c := s.conns[e.Fd]; c != nil {
				s.serve(c, e.Events)
			}
		}
	}
}

func (s *Server) end() error {
	for _, c := range s.conns {
		s.close(c)
	}
	return errors.Join(unix.Close(s.listener), unix.Close(s.epoll))
}

func (s *Server) accept() {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return // nobody waits any more, or no descriptor is free: epoll will say so again
		}
		c := &conn{fd: int32(fd)}
		if unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) != nil || s.watch(unix.EPOLL_CTL_ADD, c.fd, unix.EPOLLIN) != nil {
			_ = unix.Close(fd) // it died before it began
			continue
		}
		s.conns[c.fd] = c
	}
}

func (s *Server) close(c *conn) {
	delete(s.conns, c.fd)
	_ = unix.Close(int(c.fd)) // nothing is left that could be saved
}

// serve does what the connection is ready for: writing first, since nothing new is read while an answer is stuck.
func (s *Server) serve(c *conn, events uint32) {
	if c.waiting {
		if !s.flush(c) {
			return
		}
	}
	if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) == 0 || c.waiting {
		return
	}
	kept := copy(s.scratch, c.partial)
	n, errno := read(c.fd, s.scratch[kept:])
	if errno == syscall.EAGAIN || errno == syscall.EINTR {
		return
	}
	if errno != 0 || n == 0 {
		s.close(c)
		return
	}
	rest := s.consume(c, s.scratch[:kept+n])
	c.partial = append(c.partial[:0], rest...)
	s.flush(c)
}

// consume takes whole heads and bodies out of the bytes and returns what is left: the beginning of a head.
func (s *Server) consume(c *conn, data []byte) []byte {
	for len(data) > 0 {
		if c.need > 0 {
			n := min(c.need, len(data))
			if c.at+n > len(s.big) || !bytes.Equal(data[:n], s.big[c.at:c.at+n]) {
				c.wrong = "the body is not what the client sent"
			}
			c.at, c.need, data = c.at+n, c.need-n, data[n:]
			if c.need == 0 {
				if c.at != len(s.big) {
					c.wrong = "the body has another length than the client's"
				}
				s.answer(c)
			}
			continue
		}
		end := bytes.Index(data, []byte("\r\n\r\n"))
		if end < 0 {
			if len(data) > maxHead {
				c.wrong = "the head is above 64 KiB"
				s.answer(c)
				return nil
			}
			return data
		}
		s.head(c, data[:end+2])
		data = data[end+4:]
		if c.need == 0 {
			s.answer(c)
		}
	}
	return nil
}

// answer queues the reply of the request that has come to its end.
func (s *Server) answer(c *conn) {
	switch {
	case c.wrong != "":
		c.out = append(c.out, reply("500 Internal Server Error", "text/plain", []byte(c.wrong+"\n"))...)
	case len(c.out) == 0:
		c.out = c.reply // shared and never written to: flush only moves its beginning
		s.answered++
	default:
		c.out = append(c.out[:len(c.out):len(c.out)], c.reply...)
		s.answered++
	}
	c.wrong, c.at = "", 0
}

// flush writes what is queued and reports whether all of it went out.
func (s *Server) flush(c *conn) bool {
	for len(c.out) > 0 {
		n, errno := write(c.fd, c.out)
		if errno == syscall.EINTR {
			continue
		}
		if errno == syscall.EAGAIN {
			if !c.waiting {
				c.waiting = s.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLOUT) == nil
			}
			return false
		}
		if errno != 0 {
			s.close(c)
			return false
		}
		c.out = c.out[n:]
	}
	c.out = nil
	if c.waiting {
		c.waiting = s.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN) != nil
	}
	return true
}
