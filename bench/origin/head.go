package origin

import (
	"bytes"
	"fmt"
	"strconv"
	"syscall"
	"unsafe"
)

// head reads a request's head, which ends with the CRLF of its last line, and decides the reply.
func (s *Server) head(c *conn, head []byte) {
	line, fields, _ := bytes.Cut(head, []byte("\r\n"))
	method, rest, _ := bytes.Cut(line, []byte(" "))
	path, version, _ := bytes.Cut(rest, []byte(" "))
	c.reply, c.wrong, c.need, c.at = s.small, "", 0, 0
	if string(version) != "HTTP/1.1" {
		c.wrong = fmt.Sprintf("the request line is %q", line)
		return
	}
	f := readFields(fields)
	switch {
	case f.wrong != "":
		c.wrong = f.wrong
	case bytes.HasPrefix(path, []byte("/guarded/")) && (!f.requestID || f.key):
		c.wrong = fmt.Sprintf("request id there: %v; key there: %v", f.requestID, f.key)
	case string(method) == "POST":
		c.need = f.length
		if f.length == 0 {
			c.wrong = "a POST without a body"
		}
	case string(method) != "GET" || f.length != 0:
		c.wrong = fmt.Sprintf("%s with %d bytes of body", method, f.length)
	case string(path) == "/big":
		c.reply = s.large
	case string(path) == "/count":
		c.reply = reply("200 OK", "text/plain", strconv.AppendInt(nil, s.answered, 10))
		s.answered--
	}
}

// fields is what the upstream wants to know of a request's header section.
type fields struct {
	length         int
	requestID, key bool
	wrong          string
}

func readFields(section []byte) (f fields) {
	for len(section) > 0 {
		end := bytes.IndexByte(section, '\r')
		if end < 0 || end+1 == len(section) || section[end+1] != '\n' {
			f.wrong = "a line does not end in CRLF"
			return f
		}
		line := section[:end]
		section = section[end+2:]
		colon := bytes.IndexByte(line, ':')
		switch name := line[:max(colon, 0)]; {
		case colon <= 0:
			f.wrong = fmt.Sprintf("%q is not a header line", line)
		case len(name) == 14 && bytes.EqualFold(name, []byte("content-length")):
			n, err := strconv.Atoi(string(bytes.TrimSpace(line[colon+1:])))
			if err != nil || n < 0 {
				f.wrong = fmt.Sprintf("Content-Length is %q", line[colon+1:])
			}
			f.length = n
		case len(name) == 17 && bytes.EqualFold(name, []byte("transfer-encoding")):
			f.wrong = "the client sent a Content-Length and the gateway a Transfer-Encoding"
		case len(name) == 12 && bytes.EqualFold(name, []byte("x-request-id")):
			f.requestID = len(bytes.TrimSpace(line[colon+1:])) >= 16
		case len(name) == 9 && bytes.EqualFold(name, []byte("x-api-key")):
			f.key = true
		}
	}
	return f
}

// read and write go past the scheduler: the sockets never block, so there is nothing that it would have to know.

func read(fd int32, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

func write(fd int32, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}
