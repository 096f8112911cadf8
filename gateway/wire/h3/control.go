package h3

import (
	"errors"
	"io"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
)

// The settings that we send or look at (RFC 9114 section 7.2.4.1, RFC 9220). QPACK's stay at their default of 0: no dynamic
// table, and so no stream that waits for one, and nothing that a client could fill.
const (
	settingMaxFieldSection = 0x6
	settingExtendedConnect = 0x8
)

func appendSetting(b []byte, id, value uint64) []byte {
	return quicvarint.Append(quicvarint.Append(b, id), value)
}

// acceptUni takes the client's unidirectional streams.
func (c *conn) acceptUni() {
	for {
		str, err := c.quic.AcceptUniStream(c.quic.Context())
		if err != nil {
			return
		}
		str.ReleaseStreamCredit()
		c.streams.Go(func() { c.unidirectional(str) })
	}
}

// unidirectional reads a unidirectional stream for as long as it is there.
func (c *conn) unidirectional(str *quic.ReceiveStream) {
	r := &reader{from: str, buf: make([]byte, controlBuffer)}
	kind, err := r.varint()
	if err != nil {
		return // it ended before it said what it is, which it may (RFC 9114 section 6.2)
	}
	var broken *violation
	if err = c.first(kind); err == nil {
		switch kind {
		case streamControl:
			err = readControl(r)
		case streamEncoder:
			err = readEncoder(r)
		case streamDecoder:
			err = readDecoder(r)
		default:
			str.CancelRead(streamCode(http3.ErrCodeStreamCreationError))
			return
		}
	}
	var reset *quic.StreamError
	if errors.Is(err, io.EOF) || errors.As(err, &reset) {
		err = errCritical
	}
	if errors.As(err, &broken) {
		c.violated(broken)
	}
}

// first notes a stream by its type; of those that have to stay there is one.
func (c *conn) first(kind uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case kind == streamPush:
		return errPushStream
	case kind >= uint64(len(c.uni)):
		if c.odd++; c.odd > maxOddStreams {
			return errOddStreams
		}
		return nil
	case c.uni[kind]:
		return errStreamTwice
	}
	c.uni[kind] = true
	return nil
}

// readControl reads the control stream (RFC 9114 section 6.2.1).
func readControl(r *reader) error {
	kind, n, err := r.frame()
	switch {
	case err != nil:
		return err
	case kind != frameSettings:
		return errNoSettings
	}
	if err := readSettings(r, n); err != nil {
		return err
	}
	var pushes uint64 // of MAX_PUSH_ID, which may only grow
	var goAway uint64 = quicvarint.Max
	for frames := 0; ; frames++ {
		kind, n, err := r.frame()
		if err != nil {
			return err
		}
		if frames == maxControlFrames {
			return errControlFlood
		}
		switch {
		case kind == frameGoAway:
			id, err := readID(r, n)
			if err != nil {
				return err
			}
			if id > goAway {
				return errID
			}
			goAway = id
		case kind == frameMaxPushID:
			id, err := readID(r, n)
			if err != nil {
				return err
			}
			if id < pushes {
				return errID
			}
			pushes = id
		case kind == frameCancelPush:
			if _, err := readID(r, n); err != nil {
				return err
			}
			return errID // of a push that was never promised
		case known(kind):
			return errFrameUnexpected
		default:
			if err := r.skip(n); err != nil {
				return err
			}
		}
	}
}

// readID reads the payload of a frame that is one identifier.
func readID(r *reader, n uint64) (uint64, error) {
	if n == 0 || n > 8 {
		return 0, errFrameForm
	}
	b, err := r.payload(int(n))
	if err != nil {
		return 0, err
	}
	id, used, err := quicvarint.Parse(b)
	if err != nil || used != len(b) {
		return 0, errFrameForm
	}
	return id, nil
}

// readSettings reads the payload of SETTINGS. Nothing in it changes what we do: we push nothing, and send field sections
// that are no larger than what upstreams and policies make them.
func readSettings(r *reader, n uint64) error {
	if n > maxSettings {
		return errControlFlood
	}
	b, err := r.payload(int(n))
	if err != nil {
		return err
	}
	seen := map[uint64]bool{}
	for len(b) > 0 {
		id, used, err := quicvarint.Parse(b)
		if err != nil {
			return errFrameForm
		}
		b = b[used:]
		value, used, err := quicvarint.Parse(b)
		if err != nil {
			return errFrameForm
		}
		b = b[used:]
		if seen[id] || id == 0 || id >= 0x2 && id <= 0x5 || id == settingExtendedConnect && value > 1 {
			return errSettings
		}
		seen[id] = true
	}
	return nil
}

// readEncoder reads instructions for a dynamic table that we do not have: it may be told to have no room, and nothing else
// (RFC 9204 section 4.3.1).
func readEncoder(r *reader) error {
	for {
		for _, b := range r.buffered() {
			if b != 0x20 {
				return errEncoder
			}
		}
		if err := r.next(); err != nil {
			return err
		}
	}
}

// readDecoder reads what a client has done with insertions, of which there were none: it may cancel streams, and nothing
// else (RFC 9204 section 4.4).
func readDecoder(r *reader) error {
	inside := false // an integer that goes on
	for {
		for _, b := range r.buffered() {
			switch {
			case inside:
				inside = b&0x80 != 0
			case b&0xc0 != 0x40:
				return errDecoder
			default:
				inside = b&0x3f == 0x3f
			}
		}
		if err := r.next(); err != nil {
			return err
		}
	}
}

// next throws away what is buffered, up to a limit for all of the stream, and waits for more.
func (r *reader) next() error {
	if r.thrown += r.w - r.r; r.thrown > maxQPACKBytes {
		return errControlFlood
	}
	r.r = r.w
	return r.fill()
}
