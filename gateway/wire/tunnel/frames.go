package tunnel

import (
	"encoding/binary"
	"math"
)

// frames follows the frames of one direction of a WebSocket (RFC 6455 section 5.2): where each ends, and what the first
// close frame says. It judges nothing: what is not valid is for the endpoints to refuse.
type frames struct {
	left   uint64 // of the payload that passes now
	head   [maxFrameHead + statusBytes]byte
	have   uint8  // bytes of the head that have passed
	lost   bool   // what passes is no frame: from then on nothing is known
	closed bool   // a close frame has passed
	status uint16 // its status; 0: it had none
}

const (
	maxFrameHead = 14 // two bytes, a length of eight, a mask of four
	statusBytes  = 2  // a close frame's status, which is looked at with its head

	finBit      = 0x80
	maskBit     = 0x80
	lengthBits  = 0x7f
	opcodeBits  = 0x0f
	controlBit  = 0x8
	opcodeClose = 0x8
	maxControl  = 125 // bytes of a control frame's payload
)

// between reports whether the next byte is the first of a frame.
func (f *frames) between() bool { return f.left == 0 && f.have == 0 && !f.lost }

// pass follows what has passed.
func (f *frames) pass(p []byte) {
	for len(p) > 0 && !f.lost {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		n := copy(f.head[f.have:f.needs()], p)
		f.have += uint8(n)
		p = p[n:]
		if int(f.have) == f.needs() {
			f.begin()
		}
	}
}

// needs returns how long the head is, as far as is known; it grows as the head passes.
func (f *frames) needs() int {
	if f.have < 2 {
		return 2
	}
	n := 2
	switch f.head[1] & lengthBits {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.head[1]&maskBit != 0 {
		n += 4
	}
	if f.isClose() && f.head[1]&lengthBits >= statusBytes {
		n += statusBytes
	}
	return n
}

func (f *frames) isClose() bool { return f.head[0]&opcodeBits == opcodeClose }

// begin is called when a head has passed.
func (f *frames) begin() {
	f.have = 0
	rest := f.head[2:]
	switch n := f.head[1] & lengthBits; n {
	case 126:
		f.left, rest = uint64(binary.BigEndian.Uint16(rest)), rest[2:]
	case 127:
		f.left, rest = binary.BigEndian.Uint64(rest), rest[8:]
		f.lost = f.left > math.MaxInt64 // the most significant bit must be 0
	default:
		f.left = uint64(n)
	}
	if f.head[0]&controlBit != 0 && f.head[1]&lengthBits > maxControl {
		f.lost = true
	}
	if !f.isClose() || f.lost {
		return
	}
	if f.head[1]&lengthBits >= statusBytes {
		f.left -= min(f.left, statusBytes)
		f.readStatus(rest)
	}
	f.closed = true
}

// readStatus takes the status of the first close frame; rest is what stands behind the length.
func (f *frames) readStatus(rest []byte) {
	var mask [4]byte
	if f.head[1]&maskBit != 0 {
		copy(mask[:], rest)
		rest = rest[4:]
	}
	if !f.closed {
		f.status = binary.BigEndian.Uint16([]byte{rest[0] ^ mask[0], rest[1] ^ mask[1]})
	}
}

// goingAway is the status of an endpoint that goes away (RFC 6455 section 7.4.1).
const goingAway = 1001

// closeFrame returns a close frame. A client's is masked, as all of its frames are (section 5.3); the mask may be any,
// since it protects those who see chosen text, of which there is none here.
func closeFrame(status uint16, masked bool) []byte {
	payload := binary.BigEndian.AppendUint16(nil, status)
	if !masked {
		return append([]byte{finBit | opcodeClose, statusBytes}, payload...)
	}
	mask := [4]byte{0x9e, 0x1d, 0x5a, 0xc7}
	return append([]byte{finBit | opcodeClose, maskBit | statusBytes, mask[0], mask[1], mask[2], mask[3]},
		payload[0]^mask[0], payload[1]^mask[1])
}
