package h2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// client is one made of frames.
type client struct {
	t      testing.TB
	net    net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	fields *hpack.Encoder
	reply  map[uint32]*answer
	mute   bool // SETTINGS and PING are not answered
	held   *bytes.Buffer
}

// answer is what came on one stream.
type answer struct {
	status  string
	header  map[string]string
	body    []byte
	trailer map[string]string
	ended   bool
	reset   string
	informs []string
}

// dial opens a connection and makes the handshake.
func dial(t testing.TB, r *rig, settings ...http2.Setting) *client {
	t.Helper()
	p := dialRaw(t, r)
	p.write(http2.ClientPreface)
	p.must(p.framer.WriteSettings(settings...))
	return p
}

func dialRaw(t testing.TB, r *rig) *client {
	t.Helper()
	nc, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	p := &client{t: t, net: nc, reply: map[uint32]*answer{}}
	p.framer = http2.NewFramer(p, nc)
	p.framer.AllowIllegalWrites = true
	p.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.framer.MaxHeaderListSize = 1 << 20
	p.fields = hpack.NewEncoder(&p.block)
	return p
}

// Write implements io.Writer for the framer.
func (p *client) Write(b []byte) (int, error) {
	if p.held != nil {
		return p.held.Write(b)
	}
	return p.net.Write(b)
}

// together sends all that do does in one piece.
func (p *client) together(do func()) {
	p.t.Helper()
	p.held = new(bytes.Buffer)
	do()
	all := p.held.String()
	p.held = nil
	p.write(all)
}

// must fails the test unless the server has ended the connection, which the test will see when it reads.
func (p *client) must(err error) {
	p.t.Helper()
	var op *net.OpError
	if err != nil && !errors.As(err, &op) {
		p.t.Fatal(err)
	}
}

func (p *client) write(s string) {
	p.t.Helper()
	_, err := io.WriteString(p.net, s)
	p.must(err)
}

// section encodes fields: "name", "value" in turn.
func (p *client) section(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		p.must(p.fields.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(p.block.Bytes())
}

// get is the head of a request, with changes: a name with "-" in front is left out, others are added or, if they are
// pseudo-header fields, replaced.
func get(changes ...string) []string {
	f := []string{":method", "GET", ":scheme", "http", ":authority", "a.example", ":path", "/"}
	for i := 0; i+1 < len(changes); i += 2 {
		name, drop := strings.CutPrefix(changes[i], "-")
		replaced := false
		for j := 0; j < len(f); j += 2 {
			if f[j] == name && drop {
				f = append(f[:j:j], f[j+2:]...)
				break
			}
			if f[j] == name && name[0] == ':' && !replaced {
				f[j+1], replaced = changes[i+1], true
			}
		}
		if !drop && !replaced {
			f = append(f, name, changes[i+1])
		}
	}
	return f
}

func post(changes ...string) []string { return get(append([]string{":method", "POST"}, changes...)...) }

// head sends a request's head; ends: without a body.
func (p *client) head(id uint32, ends bool, fields []string) {
	p.t.Helper()
	p.must(p.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: p.section(fields...), EndStream: ends, EndHeaders: true,
	}))
}

func (p *client) data(id uint32, ends bool, data string) {
	p.t.Helper()
	p.must(p.framer.WriteData(id, ends, []byte(data)))
}

func (p *client) trailers(id uint32, fields ...string) { p.head(id, true, fields) }

// of returns what has come on a stream.
func (p *client) of(id uint32) *answer {
	a := p.reply[id]
	if a == nil {
		a = &answer{}
		p.reply[id] = a
	}
	return a
}

// next reads one frame, and says what it was in a word or two.
func (p *client) next() string {
	p.t.Helper()
	if err := p.net.SetReadDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	f, err := p.framer.ReadFrame()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		p.t.Fatal("nothing comes")
	case err != nil:
		return "closed"
	}
	id := f.Header().StreamID
	a := p.of(id)
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		fields := map[string]string{}
		for _, h := range f.RegularFields() {
			if h.Name != strings.ToLower(h.Name) {
				p.t.Errorf("a field %q", h.Name)
			}
			fields[h.Name] += h.Value
		}
		switch status := f.PseudoValue("status"); {
		case status != "" && status[0] == '1':
			a.informs = append(a.informs, status)
		case status != "":
			a.status, a.header = status, fields
		default:
			a.trailer = fields
		}
		a.ended = a.ended || f.StreamEnded()
		return fmt.Sprintf("HEADERS %d", id)
	case *http2.DataFrame:
		a.body = append(a.body, f.Data()...)
		a.ended = a.ended || f.StreamEnded()
		return fmt.Sprintf("DATA %d", id)
	case *http2.RSTStreamFrame:
		a.reset = f.ErrCode.String()
		return fmt.Sprintf("RST_STREAM %d %s", id, f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %s", f.ErrCode)
	case *http2.SettingsFrame:
		if f.IsAck() {
			return "SETTINGS ACK"
		}
		if !p.mute {
			p.must(p.framer.WriteSettingsAck())
		}
		return "SETTINGS"
	case *http2.PingFrame:
		if f.IsAck() {
			return "PING ACK"
		}
		if !p.mute {
			p.must(p.framer.WritePing(true, f.Data))
		}
		return "PING"
	case *http2.WindowUpdateFrame:
		return fmt.Sprintf("WINDOW_UPDATE %d %d", id, f.Increment)
	}
	return f.Header().Type.String()
}

// until reads until a frame begins with one of the words, and returns it. The end of the connection is "closed".
func (p *client) until(words ...string) string {
	p.t.Helper()
	for {
		got := p.next()
		for _, w := range words {
			if strings.HasPrefix(got, w) {
				return got
			}
		}
		if got == "closed" {
			return got
		}
	}
}

// answer reads until the stream has ended, one way or the other.
func (p *client) answer(id uint32) *answer {
	p.t.Helper()
	a := p.of(id)
	for !a.ended && a.reset == "" {
		if got := p.next(); got == "closed" {
			a.reset = "closed"
		} else if strings.HasPrefix(got, "GOAWAY") && got != "GOAWAY NO_ERROR" {
			a.reset = got
		}
	}
	return a
}

// outcome is what a stream's end looks like: its status, the code it was reset with, or how the connection ended.
func (p *client) outcome(id uint32) string {
	p.t.Helper()
	a := p.answer(id)
	if a.ended {
		return a.status
	}
	if strings.HasPrefix(a.reset, "GOAWAY") || a.reset == "closed" {
		return a.reset
	}
	return "RST_STREAM " + a.reset
}

func scan(s, format string, to ...any) bool {
	n, err := fmt.Sscanf(s, format, to...)
	return err == nil && n == len(to)
}

func http2Window(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingInitialWindowSize, Val: n}
}
