package release

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream"
)

// standIn answers as an upstream does whose fallback is a reply of its own: there is no call.
type standIn struct{}

func (standIn) Send(x *exchange.Exchange) (upstream.Call, error) {
	x.Reply.Status, x.Usage.Fallback = 200, "no_target"
	x.Reply.Body = exchange.Body{Reader: strings.NewReader("closed today"), Length: 12}
	return nil, nil
}

func TestACopyOfWhatAFallbackAnswered(t *testing.T) {
	s := open(t, says("never asked"), says("closed today"), compared(func(c *model.MirrorCompare) { c.Body = "bytes" }))
	s.mirror.to = standIn{}
	call, err := s.mirror.Send(request("GET", "/", nil, 0))
	if err != nil || call == nil {
		t.Fatal(call, err)
	}
	call.Close() // which has nothing to close
	s.awaitCount("compared", "result", resultUnknown, 1)
}

func TestACopyThatAFallbackAnswers(t *testing.T) {
	s := open(t, says("closed today"), says("never asked"), compared(func(c *model.MirrorCompare) { c.Body = "bytes" }))
	s.mirror.other = standIn{}
	if got := s.ask(request("GET", "/", nil, 0)); got != "closed today" {
		t.Error(got)
	}
	s.awaitCount("copies", "outcome", outcomeAnswered, 1)
	s.awaitCount("compared", "result", resultSame, 1)
}

// What is kept of an answer is not held for as long as a slow client reads, once its copy has failed.
func TestNothingIsKeptForACopyThatHasFailed(t *testing.T) {
	s := open(t, says("a long answer"), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, compared(nil))
	x := request("POST", "/", nil, 0)
	call, err := s.mirror.Send(x)
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	s.awaitCount("copies", "outcome", outcomeFailed, 1)
	s.awaitPlaces()
	if b, err := io.ReadAll(x.Reply.Body.Reader); string(b) != "a long answer" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	o := call.(*original)
	o.body.mu.Lock()
	defer o.body.mu.Unlock()
	if len(o.body.kept) > 0 || !o.body.off {
		t.Errorf("%d bytes are kept, and nobody will look at them", len(o.body.kept))
	}
}

func TestStreamsAreNotCopied(t *testing.T) {
	s := open(t, says("one"), says("two"), nil)
	for i, field := range [][2]string{
		{"Content-Type", "application/grpc"}, {"Content-Type", "Application/gRPC+proto"}, {"Content-Type", "application/grpc-web"},
		{"Accept", "text/event-stream"}, {"Accept", "Text/Event-Stream;q=1"},
	} {
		x := request("POST", "/", nil, 0)
		x.Request.Header.Add(field[0], field[1])
		s.ask(x)
		if n := s.count("left_out", "reason", reasonStream); n != uint64(i+1) {
			t.Errorf("%s: %s was copied (%d were left out)", field[0], field[1], n)
		}
	}
	x := request("POST", "/", nil, 0)
	x.Request.Header.Add("Accept", "application/json, text/event-stream") // either will do
	s.ask(x)
	s.awaitCount("copies", "outcome", outcomeAnswered, 1)
}

// While a fallback answers for a client's target the client keeps its pin, or it would lose what the target remembers of it.
func TestAFallbackUnpinsNobody(t *testing.T) {
	shop, _ := shops(t, "shop", 3)
	p := pinned(shop)
	b := &browser{t: t}
	before, _ := b.ask(p)
	cookie := b.cookie
	for range 5 {
		p.to = standIn{}
		b.ask(p)
		if b.cookie != cookie {
			t.Fatal("the client was pinned anew by who stands in for its target")
		}
		p.to = shop
		if again, _ := b.ask(p); again != before || b.cookie != cookie {
			t.Fatalf("came back to %s instead of %s", again, before)
		}
	}
}

// A mirror between a sticky split and one of its variants, which is a split again, passes the client's number on.
func TestAMirroredSplitInASplitKeepsItsClients(t *testing.T) {
	a, _ := shops(t, "a", 1)
	c, _ := shops(t, "c", 1)
	e, _ := newEnv()
	inner, err := NewSplit("inner", &model.Split{Variants: variants("a=1 c=1")}, map[string]Service{"a": a, "c": c}, e)
	if err != nil {
		t.Fatal(err)
	}
	m := model.Mirror{Upstream: "shadow", Limit: 1} // of 0 percent
	mirror, err := NewMirror("inner", &m, inner, fixed{status: 200}, "", e)
	if err != nil {
		t.Fatal(err)
	}
	outer, err := NewSplit("outer", &model.Split{Variants: variants("inner=1")}, map[string]Service{"inner": mirror}, e)
	if err != nil {
		t.Fatal(err)
	}
	p := pinned(outer)
	seen := map[string]bool{}
	for range 20 {
		b := &browser{t: t}
		first, _ := b.ask(p)
		cookie := b.cookie
		seen[first] = true
		for range 10 {
			if again, _ := b.ask(p); again != first || b.cookie != cookie {
				t.Fatalf("came to %s first, then to %s", first, again)
			}
		}
	}
	if len(seen) != 2 {
		t.Errorf("20 clients came to %v", seen)
	}
}

// A service may answer while its body is still being sent, which somebody else reads then: what is recorded of it has two
// who look at it.
func TestABodyThatIsStillOnItsWayIsNotCopied(t *testing.T) {
	for _, protocol := range []string{"h1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			read := make(chan string, 1)
			s := openOver(t, protocol, func(w http.ResponseWriter, r *http.Request) {
				c := http.NewResponseController(w)
				if err := errors.Join(c.EnableFullDuplex(), c.Flush()); err != nil { // of HTTP/2 it is always so
					t.Error(err)
				}
				b, _ := io.ReadAll(r.Body)
				read <- string(b)
			}, says("two"), compared(nil))
			body, client := io.Pipe()
			x := request("POST", "/", body, 60_000)
			piece := strings.Repeat("0123456789", 100)
			sent := make(chan error, 1)
			answered := make(chan bool)
			go func() {
				for i := range 60 {
					if i == 30 {
						<-answered
					}
					if _, err := io.WriteString(client, piece); err != nil {
						sent <- err
						return
					}
				}
				sent <- client.Close()
			}()
			call, err := s.mirror.Send(x)
			if err != nil {
				t.Fatal(err)
			}
			close(answered)
			if err := <-sent; err != nil {
				t.Error(err)
			}
			if got := <-read; got != strings.Repeat(piece, 60) {
				t.Errorf("the service has read %d bytes", len(got))
			}
			if b := x.Reply.Body.Reader; b != nil {
				if _, err := io.Copy(io.Discard, b); err != nil {
					t.Error(err)
				}
			}
			call.Close()
			if n := s.count("left_out", "reason", reasonIncomplete); n != 1 {
				t.Errorf("%d were left out", n)
			}
		})
	}
}

func TestACopyIsTheSameRequestOverHTTP2(t *testing.T) {
	second := make(chan string, 1)
	s := openOver(t, "h2", says("one"), hears(second), nil)
	for _, text := range []string{"short", strings.Repeat("0123456789", 5000)} {
		x := request("POST", "/orders", io.MultiReader(strings.NewReader(text[:3]), strings.NewReader(text[3:])), int64(len(text)))
		if got := s.ask(x); got != "one" {
			t.Error(got)
		}
		if got := <-second; got != "POST /orders host=shop.example key= mark=1 cookie= body="+text {
			t.Errorf("%.100s", got)
		}
	}
}
