package origin

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// GRPC answers every call over HTTP/2 in clear with the same message and the status OK. It reads frames and nothing in
// them: header fields are not decoded, so that what shares its core is the load generator.
type GRPC struct {
	listener net.Listener
	answered atomic.Int64
}

// ListenGRPC opens the socket.
func ListenGRPC(address string) (*GRPC, error) {
	l, err := net.Listen("tcp4", address)
	return &GRPC{listener: l}, err
}

// Addr returns where the server listens.
func (g *GRPC) Addr() net.Addr { return g.listener.Addr() }

// Serve answers until the listener breaks.
func (g *GRPC) Serve() error {
	for {
		c, err := g.listener.Accept()
		if err != nil {
			return err
		}
		go g.serve(c)
	}
}

const (
	frameHeader = 9
	credit      = 1 << 20 // given back to the peer whenever half of it is used
)

// serve answers one connection; replies are written when nothing more has arrived.
func (g *GRPC) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 64<<10)
	if _, err := io.ReadFull(in, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	out := appendFrame(nil, http2.FrameSettings, 0, 0, setting(nil, http2.SettingMaxConcurrentStreams, 1000))
	out = appendFrame(out, http2.FrameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, credit))
	used := 0
	for {
		if in.Buffered() < frameHeader && len(out) > 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		head, err := in.Peek(frameHeader)
		if err != nil {
			return
		}
		length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		kind, flags, stream := http2.FrameType(head[3]), http2.Flags(head[4]), binary.BigEndian.Uint32(head[5:])
		if kind == http2.FramePing && flags&http2.FlagPingAck == 0 {
			whole, err := in.Peek(frameHeader + length)
			if err != nil {
				return
			}
			out = appendFrame(out, http2.FramePing, http2.FlagPingAck, 0, whole[frameHeader:])
		}
		if _, err := in.Discard(frameHeader + length); err != nil {
			return
		}
		switch kind {
		case http2.FrameSettings:
			if flags&http2.FlagSettingsAck == 0 {
				out = appendFrame(out, http2.FrameSettings, http2.FlagSettingsAck, 0, nil)
			}
		case http2.FrameData:
			if used += length; used >= credit/2 {
				out = appendFrame(out, http2.FrameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, uint32(used)))
				used = 0
			}
			fallthrough
		case http2.FrameHeaders:
			if flags&http2.FlagDataEndStream != 0 {
				out = appendReply(out, stream)
				g.answered.Add(1)
			}
		}
	}
}

func setting(b []byte, id http2.SettingID, value uint32) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(id))
	return binary.BigEndian.AppendUint32(b, value)
}

func appendFrame(b []byte, kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

// The parts of a reply, in HPACK's literals without indexing (RFC 7541 section 6.2.2), which change no table.
var (
	replyHead    = literals("\x88", "content-type", "application/grpc", "x-origin", "bench")
	replyMessage = append([]byte{0, 0, 0, 0, 100}, make([]byte, 100)...)
	replyTrailer = literals("", "grpc-status", "0")
)

func literals(b string, pairs ...string) []byte {
	out := []byte(b)
	for i, s := range pairs {
		if i%2 == 0 {
			out = append(out, 0)
		}
		out = append(append(out, byte(len(s))), s...)
	}
	return out
}

func appendReply(b []byte, stream uint32) []byte {
	b = appendFrame(b, http2.FrameHeaders, http2.FlagHeadersEndHeaders, stream, replyHead)
	b = appendFrame(b, http2.FrameData, 0, stream, replyMessage)
	return appendFrame(b, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, stream, replyTrailer)
}

// Answered returns how many calls were answered.
func (g *GRPC) Answered() int64 { return g.answered.Load() }

// Close makes Serve return.
func (g *GRPC) Close() error {
	if err := g.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
