package bodylimit

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"headgate/gateway/exchange"
	"headgate/gateway/policy/policytest"
)

func TestABodyIsRefusedByItsLengthBeforeAnythingIsRead(t *testing.T) {
	for _, c := range []struct {
		options string
		length  int64
		refused bool
	}{
		{`10`, 9, false}, {`10`, 10, false}, {`10`, 11, true}, {`{max: 1KiB}`, 1024, false}, {`1KiB`, 1025, true}, {`0`, 0, false}, {`0`, 1, true},
	} {
		b := policytest.Open(t, Kind, c.options)
		x := b.Exchange("POST /")
		x.Request.Body = exchange.Body{Reader: iotest.ErrReader(errors.New("the body was read")), Length: c.length}
		if refused := b.Hooks.Request.Now(x).Answers(); refused != c.refused {
			t.Errorf("max %s, Content-Length %d: refused %v, want %v", c.options, c.length, refused, c.refused)
		}
		if c.refused && (x.Reply.Status != 413 || x.Err.Code != exchange.BodyTooLarge || x.Err.Source != exchange.FromClient) {
			t.Errorf("max %s, Content-Length %d: %d %+v", c.options, c.length, x.Reply.Status, x.Err)
		}
	}
}

// pieces hands a body out in pieces, in both ways of reading.
type pieces []string

func (p *pieces) Next() ([]byte, error) {
	if len(*p) == 0 {
		return nil, io.EOF
	}
	piece := (*p)[0]
	*p = (*p)[1:]
	return []byte(piece), nil
}

func (p *pieces) Read(b []byte) (int, error) {
	piece, err := p.Next()
	if n := copy(b, piece); n < len(piece) {
		*p = append(pieces{string(piece[n:])}, *p...)
		return n, nil
	}
	return len(piece), err
}

func all(r exchange.Piecewise) (body string, err error) {
	for {
		piece, err := r.Next()
		body += string(piece)
		if err != nil {
			return body, err
		}
	}
}

func TestAStreamIsCutAtTheLimitWithAnErrorOfTheClient(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		parts := rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,20}`), 0, 8).Draw(rt, "parts")
		whole := strings.Join(parts, "")
		max := rapid.IntRange(0, 80).Draw(rt, "max")
		b := policytest.Open(t, Kind, fmt.Sprint(max))
		want := whole[:min(max, len(whole))]
		for _, piecewise := range []bool{true, false} {
			source := pieces(parts)
			x := b.Exchange("POST /")
			x.Request.Body = exchange.Body{Reader: &source, Length: -1}
			if !b.Hooks.Request.Now(x).Continues() {
				rt.Fatal("a body of unknown length was refused before it was read")
			}
			r := b.Hooks.RequestBody(x, x.Request.Body.Reader)
			var got string
			var err error
			if piecewise {
				got, err = all(r.(exchange.Piecewise))
			} else {
				var bytes []byte
				bytes, err = io.ReadAll(iotest.OneByteReader(r))
				got = string(bytes)
			}
			var failure *exchange.Error
			cut := errors.As(err, &failure) && failure.Code == exchange.BodyTooLarge && failure.Source == exchange.FromClient
			if got != want || cut != (len(whole) > max) {
				rt.Errorf("max %d, %d bytes, piecewise %v: got %q and %v", max, len(whole), piecewise, got, err)
			}
		}
	})
}

func TestABodyOfKnownLengthIsHandedOnUntouched(t *testing.T) {
	b := policytest.Open(t, Kind, `1KiB`)
	x := b.Exchange("POST /")
	x.Request.Body = exchange.Text("hello")
	if r := b.Hooks.RequestBody(x, x.Request.Body.Reader); r != x.Request.Body.Reader {
		t.Error("it was wrapped")
	}
	if n := testing.AllocsPerRun(100, func() { b.Hooks.Request.Now(x); b.Hooks.RequestBody(x, x.Request.Body.Reader) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ options, want string }{
		{`{}`, "max is missing"}, {`{max: lots}`, "lots"}, {`{max: -1}`, "-1"}, {`many`, "many"},
	} {
		if got := policytest.Wrong(t, Kind, c.options); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want something with %q", c.options, got, c.want)
		}
	}
}
