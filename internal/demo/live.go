package demo

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	// maxMessage bounds a frame that is sent back.
	maxMessage = 64 << 10
	// liveTime is how long a WebSocket may say nothing.
	liveTime = time.Hour
)

// The opcodes that live knows (RFC 6455 section 5.2).
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa
	final   = 0x80
)

// live is a WebSocket that greets and then sends every frame back.
func live(w http.ResponseWriter, r *http.Request, service string) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || key == "" {
		w.Header().Set("Upgrade", "websocket")
		problem(w, http.StatusUpgradeRequired, "this path is a WebSocket")
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	defer c.Close()
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	out := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n"
	if c.SetDeadline(time.Now().Add(liveTime)) != nil {
		return
	}
	if _, err := c.Write(appendFrame([]byte(out), opText, []byte("hello from "+service))); err != nil {
		return
	}
	for {
		op, payload, err := readFrame(rw.Reader)
		if err != nil || c.SetDeadline(time.Now().Add(liveTime)) != nil {
			return
		}
		switch op {
		case opPong:
			continue
		case opPing:
			op = opPong
		}
		if _, err := c.Write(appendFrame(nil, op, payload)); err != nil || op == opClose {
			return
		}
	}
}

var errFrame = errors.New("demo: not a frame of a client, or too large a one")

// readFrame reads a frame that is not fragmented, and unmasks it.
func readFrame(in *bufio.Reader) (op byte, payload []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:2]); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1] &^ 0x80)
	if head[0]&final == 0 || head[1]&0x80 == 0 {
		return 0, nil, errFrame
	}
	op = head[0] & 0xf
	switch n {
	case 126:
		_, err = io.ReadFull(in, head[6:])
		n = uint64(binary.BigEndian.Uint16(head[6:]))
	case 127:
		_, err = io.ReadFull(in, head[:])
		n = binary.BigEndian.Uint64(head[:])
	}
	if err != nil || n > maxMessage {
		return 0, nil, errors.Join(err, errFrame)
	}
	masked := make([]byte, 4+n)
	if _, err := io.ReadFull(in, masked); err != nil {
		return 0, nil, err
	}
	payload = masked[4:]
	for i := range payload {
		payload[i] ^= masked[i%4]
	}
	return op, payload, nil
}

// appendFrame appends a frame as a server sends it: not masked.
func appendFrame(b []byte, op byte, payload []byte) []byte {
	switch n := len(payload); {
	case n < 126:
		b = append(b, final|op, byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, final|op, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, final|op, 127), uint64(n))
	}
	return append(b, payload...)
}
