package h2

import (
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

// conversing answers at once and echoes what comes, as far as a pump towards a target would.
func conversing(x *exchange.Exchange) {
	x.Answer(200, "", "")
	x.Request.Streaming = x.Request.Path == "/converse"
	from, to := io.Pipe()
	var pump sync.WaitGroup
	pump.Go(func() {
		_, err := io.Copy(to, x.Request.Body.Reader)
		_ = to.CloseWithError(err) // it never fails
	})
	x.Reply.Body = exchange.Body{Reader: from, Length: -1}
	err := x.Wire.Reply(x)
	var e *exchange.Error
	if errors.As(err, &e) {
		x.Err = e
	}
	_ = from.Close() // nor does this
	pump.Wait()
}

// A request's body that stands still is given up; once it is one side of a conversation it is not, not even one that was waited
// for when the reply began.
func TestAConversationMayBeSilent(t *testing.T) {
	t.Parallel()
	const most = 200 * time.Millisecond
	p := dial(t, begin(t, conversing, func(l *h1.Limits) { l.BodyTime = most }))
	p.head(1, false, get(":method", "POST", ":path", "/converse"))
	for _, text := range []string{"one", "two"} {
		time.Sleep(3 * most) // silence is what is tested
		p.data(1, text == "two", text)
		if got := p.until("DATA 1", "RST_STREAM 1", "closed"); got != "DATA 1" {
			t.Fatal(got)
		}
	}
	if a := p.answer(1); string(a.body) != "onetwo" || a.reset != "" {
		t.Errorf("%q %s", a.body, a.reset)
	}
	p.head(3, false, get(":method", "POST", ":path", "/upload"))
	if a := p.answer(3); a.reset == "" {
		t.Errorf("an upload that stands still is waited for: %+v", a)
	}
}

// What is said to be made of messages may come at any rate, and may be silent for as long as is said and no longer, whatever the
// listener allows: also where somebody waits for it already.
func TestMessagesNeedNotHurry(t *testing.T) {
	t.Parallel()
	const most, short, long = 2 * time.Second, 3 * time.Second, 30 * time.Second
	for _, test := range []struct {
		name string
		idle time.Duration // without a byte
		late bool          // it is said when the body is waited for
		ends string
	}{
		{"before", long, false, "200"},
		{"while it is waited for", long, true, "200"},
		{"silent for too long", short, false, "408"},
		{"silent for too long, while it is waited for", short, true, "408"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := dial(t, begin(t, func(x *exchange.Exchange) {
				unhurried := func() { x.Wire.(exchange.Patient).Unhurried(test.idle) }
				if !test.late {
					unhurried()
					echo(x)
					return
				}
				said := time.AfterFunc(10*time.Millisecond, unhurried)
				echo(x)
				said.Stop()
			}, func(l *h1.Limits) { l.BodyTime, l.MinBodyRate = most, 1<<20 }))
			p.head(1, false, get(":method", "POST"))
			if test.ends == "200" {
				time.Sleep(short) // silence is what is tested
				p.data(1, true, "x")
			}
			a := p.answer(1)
			if a.status != test.ends || test.ends == "200" && string(a.body) != "x" {
				t.Errorf("%s %.100q", a.status, a.body)
			}
		})
	}
}

// Neither does the least rate hold for them.
func TestMessagesMayTrickle(t *testing.T) {
	t.Parallel()
	p := dial(t, begin(t, func(x *exchange.Exchange) {
		x.Wire.(exchange.Patient).Unhurried(10 * time.Second)
		echo(x)
	}, func(l *h1.Limits) { l.BodyTime, l.MinBodyRate = time.Second, 1<<20 }))
	p.head(1, false, get(":method", "POST"))
	sent := ""
	for began := time.Now(); time.Since(began) < rateGrace+2*time.Second; time.Sleep(time.Second) {
		p.data(1, false, "x")
		sent += "x"
	}
	p.data(1, true, "")
	if a := p.answer(1); a.status != "200" || string(a.body) != sent {
		t.Errorf("%s %.100q", a.status, a.body)
	}
}
