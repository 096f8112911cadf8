package grpc

import (
	"encoding/binary"

	"headgate/gateway/exchange"
)

const (
	// frameHead is how long what stands before each message is: a byte of flags and four of length.
	frameHead = 5
	// trailerFlag marks the frame with the trailers of a gRPC-Web reply.
	trailerFlag = 0x80
	// endStreamFlag marks the last frame of a Connect stream.
	endStreamFlag = 0x02
)

// frames follows a stream of messages and knows where one ends.
type frames struct {
	head [frameHead]byte
	have int    // bytes of the next head
	left uint32 // bytes of the message
}

// feed takes the next bytes of the stream.
func (f *frames) feed(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(uint64(len(p)), uint64(f.left))
			f.left -= uint32(n)
			p = p[n:]
			continue
		}
		n := copy(f.head[f.have:], p)
		p = p[n:]
		if f.have += n; f.have == frameHead {
			f.left, f.have = binary.BigEndian.Uint32(f.head[1:]), 0
		}
	}
}

// whole reports whether the last message is complete.
func (f *frames) whole() bool { return f.left == 0 && f.have == 0 }

// appendFrame appends a frame with the given flags.
func appendFrame(b []byte, flags byte, content []byte) []byte {
	b = append(b, flags)
	b = binary.BigEndian.AppendUint32(b, uint32(len(content)))
	return append(b, content...)
}

// appendTrailers appends trailers as the last frame of a gRPC-Web reply: HTTP/1.1 lines with names in lower case, without
// the empty line at their end (PROTOCOL-WEB.md).
func appendTrailers(b []byte, h *exchange.Header) []byte {
	at := len(b)
	b = append(b, trailerFlag, 0, 0, 0, 0)
	for name, value := range h.All() {
		for i := range len(name) {
			c := name[i]
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			b = append(b, c)
		}
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	binary.BigEndian.PutUint32(b[at+1:], uint32(len(b)-at-frameHead))
	return b
}
