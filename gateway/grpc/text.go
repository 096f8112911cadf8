package grpc

import (
	"encoding/base64"
	"errors"
	"io"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// The errors of a request's body in gRPC-Web's text form.
const (
	badText   = "The gRPC-Web text of the request's body is not base64."
	shortText = "The gRPC-Web text of the request's body ends inside a group of four characters."
)

func textError(detail string) error {
	return &exchange.Error{Code: exchange.BadRequest, Source: exchange.FromClient, Detail: detail}
}

// sextets are the values of base64's characters (RFC 4648 section 4), and bad for others.
var sextets = func() (t [256]byte) {
	for i := range t {
		t[i] = bad
	}
	for v, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = byte(v)
	}
	return t
}()

const bad = 0xff

// decoder reads a body in gRPC-Web's text form as the bytes that it stands for. The text is any number of base64 texts in a
// row, each with its padding (PROTOCOL-WEB.md); a piece may end anywhere, also inside a group of four.
type decoder struct {
	from  io.Reader
	buf   *[]byte // what was read and not yet decoded: (*buf)[r:w]
	r, w  int
	spare []byte // of a group that did not fit where it was wanted
	room  [3]byte
	err   error
}

// Read implements io.Reader.
func (d *decoder) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n := copy(p, d.spare)
		d.spare = d.spare[n:]
		if n < len(p) {
			n += d.groups(p[n:])
		}
		if n > 0 {
			return n, nil
		}
		if d.err != nil {
			return 0, d.err
		}
		d.fill()
	}
}

// fill reads more text behind what is left of the last.
func (d *decoder) fill() {
	if d.buf == nil {
		d.buf = sock.Get()
	}
	d.w = copy(*d.buf, (*d.buf)[d.r:d.w])
	d.r = 0
	n, err := d.from.Read((*d.buf)[d.w:])
	d.w += n
	if err != nil {
		d.fail(err)
	}
}

// fail ends the stream. What has been read before is still decoded.
func (d *decoder) fail(err error) {
	if errors.Is(err, io.EOF) && (d.w-d.r)%4 != 0 {
		err = textError(shortText)
	}
	d.err = err
}

// groups decodes whole groups into p and returns how many bytes they are.
func (d *decoder) groups(p []byte) (n int) {
	for d.w-d.r >= 4 && n < len(p) {
		var out [3]byte
		size := group((*d.buf)[d.r:d.r+4], &out)
		if size == 0 {
			d.err, d.w = textError(badText), d.r
			return n
		}
		d.r += 4
		m := copy(p[n:], out[:size])
		n += m
		if m < size {
			d.room = out
			d.spare = d.room[m:size]
		}
	}
	return n
}

// group decodes four characters and returns how many bytes they are; 0: they are not base64.
func group(c []byte, out *[3]byte) int {
	a, b, x, y := sextets[c[0]], sextets[c[1]], sextets[c[2]], sextets[c[3]]
	if a|b >= 64 {
		return 0
	}
	out[0] = a<<2 | b>>4
	if c[2] == '=' {
		if c[3] != '=' {
			return 0
		}
		return 1
	}
	if x >= 64 {
		return 0
	}
	out[1] = b<<4 | x>>2
	if c[3] == '=' {
		return 2
	}
	if y >= 64 {
		return 0
	}
	out[2] = x<<6 | y
	return 3
}

// release gives the memory back.
func (d *decoder) release() {
	if d.buf != nil {
		sock.Put(d.buf)
		d.buf = nil
	}
}

// encodeText encodes into dst, which is long enough, and returns the length. Every piece has its own padding, so that it
// can be sent at once.
func encodeText(dst, src []byte) int {
	base64.StdEncoding.Encode(dst, src)
	return base64.StdEncoding.EncodedLen(len(src))
}
