package compress

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// pieceSize is how much of the upstream's body is taken at a time.
	pieceSize = 16 << 10
	// window bounds what an encoder remembers, and with it the memory of each reply that is being compressed: a few times
	// as much. Browsers must accept 8 MiB of zstd (RFC 9659), which would be too much for us times many clients.
	window       = 256 << 10
	brotliWindow = 18 // 2^18 bytes
)

// encoder is a compressor that writes into what it was last reset to.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// offer is one content coding and the workers that are not in use.
type offer struct {
	name string
	idle sync.Pool // of *worker
}

// worker is an encoder and its buffers, which go from reply to reply together.
type worker struct {
	enc   encoder
	piece [pieceSize]byte
	out   bytes.Buffer // no more than what one piece, or the end, makes the encoder give out
}

func newOffers(names []string, level string) []*offer {
	step := map[string]int{"fast": 0, "balanced": 1, "best": 2}[level]
	var list []*offer
	for _, name := range names {
		o := &offer{name: name}
		o.idle.New = func() any { return &worker{enc: newEncoder(name, step)} }
		list = append(list, o)
	}
	return list
}

// newEncoder makes an encoder; step is 0 for the fastest, 1 or 2. The options are constant, so that there is no error.
func newEncoder(name string, step int) encoder {
	switch name {
	case "br":
		return brotli.NewWriterOptions(nil, brotli.WriterOptions{Quality: [...]int{3, 5, 9}[step], LGWin: brotliWindow})
	case "zstd":
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true),
			zstd.WithEncoderLevel([...]zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression}[step]))
		if err == nil {
			return e
		}
	}
	e, err := gzip.NewWriterLevel(nil, [...]int{gzip.BestSpeed, 5, gzip.BestCompression}[step])
	if err != nil {
		return gzip.NewWriter(nil)
	}
	return e
}

// errEnded is what reading a stream gives after the exchange's end.
var errEnded = errors.New("compress: the exchange has ended")

// stream compresses a body as it is pulled. Whatever the upstream has sent is flushed before the next byte of it is waited
// for, so that events reach the client when they happen.
type stream struct {
	offer *offer
	*worker
	body  io.Reader
	left  int64       // bytes of the body still to come; below 0: not known
	ready func() bool // whether the body can be read without waiting; nil: not known
	err   error       // of the body or the encoder; io.EOF once everything is in out
}

// begin takes a body whose length may be known.
func (s *stream) begin(body io.Reader) {
	s.body, s.worker = body, s.offer.idle.Get().(*worker)
	if r, ok := body.(interface{ Ready() bool }); ok {
		s.ready = r.Ready
	}
	s.out.Reset()
	s.enc.Reset(&s.out)
}

// end gives the worker back. A second call, and reading afterwards, are harmless.
func (s *stream) end() {
	if s.worker == nil {
		return
	}
	w := s.worker
	s.worker, s.err = nil, errEnded
	w.enc.Reset(nil)
	s.offer.idle.Put(w)
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if s.worker == nil {
		return 0, errEnded
	}
	for s.out.Len() == 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.fill()
	}
	return s.out.Read(p)
}

// Ready reports whether something is at hand for the client, or may be made of what is at hand.
func (s *stream) Ready() bool {
	return s.worker == nil || s.err != nil || s.out.Len() > 0 || (s.ready != nil && s.ready())
}

// fill takes the next piece of the body. It keeps what the encoder may still hold only while more is at hand.
func (s *stream) fill() {
	s.out.Reset()
	n, err := s.body.Read(s.piece[:])
	if n > 0 {
		if _, werr := s.enc.Write(s.piece[:n]); werr != nil {
			s.err = werr
			return
		}
	}
	if s.left >= 0 {
		if s.left -= int64(n); s.left <= 0 && err == nil {
			err = io.EOF // the wire holds bodies to their length
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		if s.err = s.enc.Close(); s.err == nil {
			s.err = io.EOF
		}
	case err != nil:
		s.err = err
	case n > 0 && (s.ready == nil || !s.ready()):
		s.err = s.enc.Flush()
	}
}
