package grpc

import (
	"errors"
	"io"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// reply is the body of a reply on its way to the client. When it breaks off, the call still ends with a status where the
// client can be given one.
type reply struct {
	call    *Call
	x       *exchange.Exchange
	from    io.Reader
	frames  frames // of gRPC-Web
	scratch *[]byte
	ready   []byte // of gRPC-Web: encoded and not yet read
	ended   bool   // the last frame has been made
}

// guard returns the reply's body, which after a failure of the upstream ends with trailers that say so.
func (b *reply) guard(c *Call, x *exchange.Exchange) io.Reader {
	b.call, b.x, b.from = c, x, x.Reply.Body.Reader
	if p, ok := b.from.(exchange.Piecewise); ok {
		return &pieces{b, p}
	}
	return guarded{b}
}

// guarded is a body that is read.
type guarded struct{ *reply }

// Read implements io.Reader.
func (g guarded) Read(p []byte) (int, error) {
	n, err := g.from.Read(p)
	if err != nil {
		err = g.end(err)
	}
	return n, err
}

// pieces is a body that is handed on without a copy.
type pieces struct {
	*reply
	from exchange.Piecewise
}

// Read implements io.Reader.
func (p *pieces) Read(b []byte) (int, error) { return guarded{p.reply}.Read(b) }

// Next implements exchange.Piecewise.
func (p *pieces) Next() ([]byte, error) {
	b, err := p.from.Next()
	if err != nil {
		err = p.end(err)
	}
	return b, err
}

// end turns a failure into the end of a stream whose trailers say what failed. There is nobody to tell when the client has
// gone.
func (b *reply) end(err error) error {
	x := b.x
	if errors.Is(err, io.EOF) {
		return err
	}
	e := b.call.timely(failure(x, err))
	if e.Code.Name == exchange.ClientGone.Name {
		return err
	}
	x.Err, x.Usage.Aborted = e, true
	status := ofProblem(e.Code.Name, e.Code.Status)
	if !b.call.protocol.isConnect() {
		b.call.note(x, status)
	}
	x.Reply.Trailer.Reset("")
	addStatus(&x.Reply.Trailer, status, e.Code.Title, e.Code.Name)
	return io.EOF
}

// envelope returns the body of a stream that is passed on as it is and says by its last message how it ended, such as
// Connect's and that of a gRPC-Web service: after a failure of the upstream we say it.
func (b *reply) envelope(c *Call, x *exchange.Exchange) io.Reader {
	b.call, b.x, b.from = c, x, x.Reply.Body.Reader
	return enveloped{b}
}

// enveloped is such a body.
type enveloped struct{ *reply }

// Read implements io.Reader.
func (v enveloped) Read(p []byte) (int, error) {
	b := v.reply
	if b.ended {
		n := copy(p, b.ready)
		if b.ready = b.ready[n:]; n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
	n, err := b.from.Read(p)
	b.frames.feed(p[:n])
	if err == nil || errors.Is(err, io.EOF) || !b.frames.whole() {
		return n, err
	}
	if b.frames.head[0]&(trailerFlag|endStreamFlag) != 0 { // it has been said
		return n, io.EOF
	}
	if err = b.end(err); !errors.Is(err, io.EOF) {
		return n, err
	}
	b.ended, b.ready = true, b.farewell()
	return n, nil
}

// farewell is the message that says how a stream ended: what end has put into the trailers.
func (b *reply) farewell() []byte {
	t := &b.x.Reply.Trailer
	defer t.Reset("")
	if !b.call.protocol.isConnect() {
		for _, name := range [...]string{"grpc-status", "grpc-message"} {
			if value, ok := b.x.Reply.Header.Lookup(name); ok && !t.Has(name) { // said ahead of a body
				t.Add(name, value)
			}
		}
		return appendTrailers(nil, t)
	}
	e := b.x.Err
	return endStream(connectError{connectNames[ofProblem(e.Code.Name, e.Code.Status)], e.Code.Title})
}

// failure tells why a reply's body could not be read.
func failure(x *exchange.Exchange, err error) *exchange.Error {
	if x.Cancel != nil {
		if x.Cancel.Expired() {
			return &exchange.Error{Code: exchange.DeadlineExceeded, Source: exchange.FromGateway, Cause: err}
		}
		if x.Cancel.Canceled() {
			return &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: err}
		}
	}
	var known *exchange.Error
	if errors.As(err, &known) {
		return known
	}
	return &exchange.Error{Code: exchange.UpstreamClosed, Source: exchange.FromUpstream, Cause: err}
}

// web returns the reply's body as gRPC-Web: the messages as they come, each piece encoded by itself when the client wants
// text, and the trailers as the last frame.
func (b *reply) web(c *Call, x *exchange.Exchange) io.Reader {
	b.call, b.x, b.from = c, x, x.Reply.Body.Reader
	return webbed{b}
}

// webbed is a body in gRPC-Web.
type webbed struct{ *reply }

// Read implements io.Reader.
func (w webbed) Read(p []byte) (int, error) {
	b := w.reply
	for len(b.ready) == 0 {
		if b.ended {
			return 0, io.EOF
		}
		if err := b.more(p); err != nil {
			return 0, err
		}
		if !b.call.text && !b.ended && len(b.ready) > 0 { // it stands in p already
			n := len(b.ready)
			b.ready = nil
			return n, nil
		}
	}
	n := copy(p, b.ready)
	b.ready = b.ready[n:]
	return n, nil
}

// textPiece is how much is encoded at one time, so that it fits a buffer together with its encoding.
const textPiece = sock.LargeBuffer / 8 * 3

// more makes the next bytes ready: in p itself where they need no encoding.
func (b *reply) more(p []byte) error {
	raw := p
	if b.call.text {
		if b.scratch == nil {
			b.scratch = sock.Get()
		}
		raw = (*b.scratch)[:textPiece]
	}
	n, err := b.from.Read(raw)
	b.frames.feed(raw[:n])
	b.ready = raw[:n]
	if err != nil {
		return b.last(raw[:n], err)
	}
	b.encode()
	return nil
}

// encode makes what is ready text if that is wanted.
func (b *reply) encode() {
	if b.call.text && len(b.ready) > 0 {
		dst := (*b.scratch)[textPiece:]
		b.ready = dst[:encodeText(dst, b.ready)]
	}
}

// last makes the last piece, which came with the stream's end, and the frame with the trailers ready. Behind half a message
// such a frame would be read as part of it, so that there the reply is broken off instead.
func (b *reply) last(piece []byte, err error) error {
	if err = b.end(err); !errors.Is(err, io.EOF) {
		return err
	}
	if !b.frames.whole() {
		if b.x.Err != nil {
			return b.x.Err
		}
		return &exchange.Error{Code: exchange.UpstreamInvalid, Source: exchange.FromUpstream, Cause: errHalfMessage}
	}
	x := b.x
	b.call.noteTrailer(x)
	whole := append(append(make([]byte, 0, len(piece)+256), piece...), b.farewell()...)
	b.ended, b.ready = true, whole
	if b.call.text {
		dst := make([]byte, (len(whole)+2)/3*4)
		b.ready = dst[:encodeText(dst, whole)]
	}
	return nil
}

var errHalfMessage = errors.New("the reply ended inside a gRPC message")

// noteTrailer notes the status before the trailers become part of the body.
func (c *Call) noteTrailer(x *exchange.Exchange) {
	if s, ok := parseStatus(x.Reply.Trailer.Get("Grpc-Status")); ok {
		c.note(x, s)
	}
}

func (b *reply) release() {
	if b.scratch != nil {
		sock.Put(b.scratch)
		b.scratch = nil
	}
}
