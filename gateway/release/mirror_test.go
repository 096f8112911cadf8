package release

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/size"
	"headgate/internal/sock"
)

// stage is a mirror between two real services.
type stage struct {
	t       *testing.T
	mirror  *Mirror
	metrics *metric.Registry
	log     *safeBuffer
}

// safeBuffer is a log that may be written and read at the same time.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func open(t *testing.T, first, second http.HandlerFunc, change func(*model.Mirror)) *stage {
	t.Helper()
	return openOver(t, "h1", first, second, change)
}

// openOver is open with services that speak a protocol.
func openOver(t *testing.T, protocol string, first, second http.HandlerFunc, change func(*model.Mirror)) *stage {
	t.Helper()
	s := &stage{t: t, metrics: metric.NewRegistry(), log: new(safeBuffer)}
	sweeper := sock.NewSweeper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sweeper.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	e, _ := newEnv()
	e.Clock, e.Log, e.Metrics = clock.System{}, slog.New(slog.NewTextHandler(s.log, nil)), s.metrics
	connect := func(name string, h http.HandlerFunc) *upstream.Upstream {
		server := httptest.NewUnstartedServer(h)
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP1(true)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
		t.Cleanup(server.Close)
		var m model.Upstream
		m.SetDefaults()
		m.Targets, m.Protocol = []model.Target{{URL: server.URL, Weight: 1}}, protocol
		u, err := upstream.New(name, m, upstream.Env{Sweeper: sweeper, Clock: clock.System{}, Log: e.Log, Metrics: s.metrics, Expr: e.Expr})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := u.Close(); err != nil {
				t.Error(err)
			}
		})
		return u
	}
	m := model.Mirror{Upstream: "shadow"}
	m.SetDefaults()
	m.Timeout = time.Minute
	if change != nil {
		change(&m)
	}
	var err error
	if s.mirror, err = NewMirror("shop", &m, connect("shop", first), connect("shadow", second), "headgate", e); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.mirror.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// compared makes a mirror compare with the defaults, changed by change.
func compared(change func(*model.MirrorCompare)) func(*model.Mirror) {
	return func(m *model.Mirror) {
		m.Compare = new(model.MirrorCompare)
		m.Compare.SetDefaults()
		if change != nil {
			change(m.Compare)
		}
	}
}

// client is the wire of one that sees nothing.
type client struct{ nobody }

func request(method, path string, body io.Reader, length int64) *exchange.Exchange {
	x := &exchange.Exchange{ID: "id-1", Start: time.Now(), Wire: client{}, Cancel: new(exchange.Canceler)}
	x.Request = exchange.Request{Method: method, Path: path, Host: "shop.example", Scheme: "http"}
	x.Request.Body = exchange.Body{Reader: body, Length: length}
	return x
}

// ask sends an exchange through the mirror and reads its reply.
func (s *stage) ask(x *exchange.Exchange) string {
	s.t.Helper()
	call, err := s.mirror.Send(x)
	if err != nil {
		return err.Error()
	}
	defer call.Close()
	if x.Reply.Body.Reader == nil {
		return ""
	}
	b, err := io.ReadAll(x.Reply.Body.Reader)
	if err != nil {
		s.t.Error(err)
	}
	return string(b)
}

func (s *stage) count(family, label, value string) uint64 {
	return s.metrics.Counter("headgate_mirror_"+family+"_total", "", metric.Label{Name: "upstream", Value: "shop"},
		metric.Label{Name: label, Value: value}).Value()
}

// awaitCount waits until something was counted n times.
func (s *stage) awaitCount(family, label, value string, n uint64) {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); s.count(family, label, value) != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s %s was counted %d times, want %d; the log says\n%s", family, value, s.count(family, label, value), n, s.log)
		}
	}
}

func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, body)
	}
}

// hears passes on what it is sent.
func hears(to chan<- string) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		to <- r.Method + " " + r.URL.String() + " host=" + r.Host + " key=" + r.Header.Get("X-Key") +
			" mark=" + r.Header.Get(exchange.MirrorMark) +
			" cookie=" + r.Header.Get("Cookie") + " body=" + string(b)
	}
}

func TestACopyIsTheSameRequest(t *testing.T) {
	first, second := make(chan string, 1), make(chan string, 1)
	s := open(t, hears(first), hears(second), nil)
	for _, body := range []struct {
		reader io.Reader
		length int64
		text   string
	}{
		{nil, 0, ""},
		{bytes.NewReader([]byte("in memory")), 9, "in memory"},
		{io.MultiReader(strings.NewReader("as it "), strings.NewReader("comes")), 11, "as it comes"},
		{io.MultiReader(strings.NewReader("without "), strings.NewReader("a length")), -1, "without a length"},
	} {
		x := request("POST", "/orders", body.reader, body.length)
		x.Request.Query, x.Request.HasQuery = "a=b", true
		x.Request.Header.Add("X-Key", "secret")
		x.Request.Header.Add(exchange.MirrorMark, "forged")
		x.Request.Header.Add("Cookie", "a=b; headgate=pin")
		s.ask(x)
		const head = "POST /orders?a=b host=shop.example key=secret mark="
		if got, want := <-first, head+" cookie=a=b; headgate=pin body="+body.text; got != want {
			t.Errorf("the service was asked\n%s\nwant\n%s", got, want)
		}
		if got, want := <-second, head+"1 cookie=a=b body="+body.text; got != want {
			t.Errorf("the copy was\n%s\nwant\n%s", got, want)
		}
	}
	s.awaitCount("copies", "outcome", outcomeAnswered, 4)
}

func TestTheClientNeverWaitsForACopy(t *testing.T) {
	release, asked := make(chan bool), make(chan bool, 3)
	s := open(t, says("here"), func(http.ResponseWriter, *http.Request) { asked <- true; <-release },
		func(m *model.Mirror) { compared(nil)(m); m.Limit = 2 })
	for range 2 {
		if got := s.ask(request("GET", "/", nil, 0)); got != "here" {
			t.Error(got)
		}
		<-asked
	}
	// Both places are taken: the third request is answered and not copied.
	if got := s.ask(request("GET", "/", nil, 0)); got != "here" || s.count("left_out", "reason", reasonBusy) != 1 {
		t.Errorf("%s, and %d were left out", got, s.count("left_out", "reason", reasonBusy))
	}
	close(release)
	s.awaitCount("compared", "result", resultDifferent, 2)
	s.awaitPlaces()
	if s.ask(request("GET", "/", nil, 0)); s.count("left_out", "reason", reasonBusy) != 1 {
		t.Error("the places were not given back")
	}
	<-asked
}

// awaitPlaces waits until no copy is under way.
func (s *stage) awaitPlaces() {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mirror.mu.Lock()
		n := len(s.mirror.running) + s.mirror.held
		s.mirror.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%d places are not given back", n)
		}
	}
}

func TestWhatGoesWrongWithACopyStaysWithIt(t *testing.T) {
	for _, tt := range []struct {
		name    string
		second  http.HandlerFunc
		timeout time.Duration
		outcome string
	}{
		{"it breaks off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, time.Minute, outcomeFailed},
		{"it never answers", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 300 * time.Millisecond, outcomeLate},
		{"it never ends", func(w http.ResponseWriter, _ *http.Request) {
			for f := w.(http.Flusher); ; f.Flush() {
				if _, err := io.WriteString(w, "more"); err != nil {
					return
				}
			}
		}, 300 * time.Millisecond, outcomeLate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, says("here"), tt.second, func(m *model.Mirror) { compared(nil)(m); m.Timeout = tt.timeout })
			if got := s.ask(request("GET", "/", nil, 0)); got != "here" {
				t.Error(got)
			}
			s.awaitCount("copies", "outcome", tt.outcome, 1)
			s.awaitPlaces()
		})
	}
}

// panics is a service with a mistake in it.
type panics struct{}

func (panics) Send(*exchange.Exchange) (upstream.Call, error) { panic("a mistake") }

func TestAPanicStaysWithTheCopy(t *testing.T) {
	s := open(t, says("here"), says(""), nil)
	s.mirror.other = panics{}
	if got := s.ask(request("GET", "/", nil, 0)); got != "here" {
		t.Error(got)
	}
	s.awaitCount("copies", "outcome", outcomePanicked, 1)
	s.awaitPlaces()
	s.mirror.to = panics{}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the exchange's own is not the mirror's business")
			}
		}()
		s.ask(request("GET", "/", nil, 0))
	}()
	s.awaitPlaces()
}

func TestWhatIsNotCopied(t *testing.T) {
	var asked sync.Map
	s := open(t, says("here"), func(_ http.ResponseWriter, r *http.Request) { asked.Store(r.URL.Path, true) }, func(m *model.Mirror) {
		m.Body, m.When = 10, `request.path != "/not"`
	})
	for _, x := range []*exchange.Exchange{
		request("POST", "/large", strings.NewReader("eleven byte"), 11),
		request("POST", "/endless", strings.NewReader("more than ten bytes"), -1),
		request("GET", "/not", nil, 0),
	} {
		if got := s.ask(x); got != "here" {
			t.Errorf("%s: %s", x.Request.Path, got)
		}
	}
	x := request("GET", "/switch", nil, 0)
	x.Request.Upgrade = "websocket"
	x.Request.Header.Add("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	s.ask(x)
	for reason, n := range map[string]uint64{reasonTooLarge: 1, reasonIncomplete: 1, reasonUpgrade: 1, reasonBusy: 0} {
		if got := s.count("left_out", "reason", reason); got != n {
			t.Errorf("%d are left out for %s, want %d", got, reason, n)
		}
	}
	s.awaitPlaces()
	asked.Range(func(path, _ any) bool { t.Errorf("%s was copied", path); return true })
	none := open(t, says("here"), func(_ http.ResponseWriter, r *http.Request) { t.Error("copied") }, func(m *model.Mirror) { m.Percent = 0 })
	for range 20 {
		none.ask(request("GET", "/", nil, 0))
	}
}

// A copy keeps its mark and is not copied again, whoever made it: another gateway that is trusted, or another mirror here.
func TestACopyIsNotCopiedAgain(t *testing.T) {
	first, second := make(chan string, 1), make(chan string, 1)
	s := open(t, hears(first), hears(second), nil)
	ask := func(change func(*exchange.Exchange)) (heard string) {
		x := request("GET", "/", nil, 0)
		x.Request.Header.Add(exchange.MirrorMark, "1")
		change(x)
		s.ask(x)
		return <-first
	}
	for i, change := range []func(*exchange.Exchange){
		func(x *exchange.Exchange) { x.Client.Trusted = true }, func(x *exchange.Exchange) { x.Wire = nobody{} },
	} {
		if got := ask(change); !strings.Contains(got, "mark=1") {
			t.Errorf("the service does not know that it is a copy: %s", got)
		}
		s.awaitCount("left_out", "reason", reasonCopy, uint64(i+1))
	}
	s.awaitPlaces()
	if n := len(second); n != 0 || s.count("copies", "outcome", outcomeAnswered) != 0 {
		t.Errorf("%d copies of copies", n)
	}
	if got := ask(func(*exchange.Exchange) {}); strings.Contains(got, "mark=1") {
		t.Errorf("a mark that nobody trusted has set is believed: %s", got)
	}
	<-second
}

func TestACopyIsSentWhenTheServiceFails(t *testing.T) {
	s := open(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, says("there"), compared(nil))
	if got := s.ask(request("POST", "/", nil, 0)); !strings.Contains(got, "upstream_closed") {
		t.Error(got)
	}
	s.awaitCount("copies", "outcome", outcomeAnswered, 1)
	if n := s.count("compared", "result", resultDifferent); n != 0 {
		t.Error("there is nothing to compare with")
	}
}

func TestAnswersAreCompared(t *testing.T) {
	answer := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("X-Secret", body)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const js = "application/json"
	for _, tt := range []struct {
		name          string
		first, second http.HandlerFunc
		change        func(*model.MirrorCompare)
		result        string
		kinds         []string
		told          string
	}{
		{"alike", answer(200, js, `{"a":1,"b":[1,2]}`), answer(200, js, `{"b": [1, 2.0], "a": 1}`), nil, resultSame, nil, ""},
		{"status", answer(200, js, `{}`), answer(404, js, `{}`), nil, resultDifferent, []string{inStatus}, `status="200 and 404"`},
		{"status that does not count", answer(200, js, `{}`), answer(404, js, `{}`), func(m *model.MirrorCompare) { m.Status = false },
			resultSame, nil, ""},
		{"a field", answer(200, js, `{}`), answer(200, "text/plain", `{}`), func(m *model.MirrorCompare) { m.Headers = []string{"content-type"} },
			resultDifferent, []string{inHeader}, "header=content-type"},
		{"a place in the body", answer(200, js, `{"a":{"b":[1,"hidden"]}}`), answer(200, js, `{"a":{"b":[1,"other"]}}`), nil,
			resultDifferent, []string{inBody}, "body=a.b.1"},
		{"a place that may differ", answer(200, js, `{"t":1,"l":[{"id":1,"v":2}]}`), answer(200, js, `{"l":[{"id":2,"v":2}]}`),
			func(m *model.MirrorCompare) { m.Ignore = []string{"t", "l.*.id"} }, resultSame, nil, ""},
		{"more in a list", answer(200, js, `[1]`), answer(200, js, `[1,2]`), nil, resultDifferent, []string{inBody}, "body=1"},
		{"bytes", answer(200, js, `{"a":1}`), answer(200, js, `{"a": 1}`), func(m *model.MirrorCompare) { m.Body = "bytes" },
			resultDifferent, []string{inBody}, "answered otherwise"},
		{"no JSON", answer(200, "text/html", "<p>"), answer(200, "text/html", "<b>"), nil, resultDifferent, []string{inBody}, ""},
		{"too large", answer(200, js, `"0123456789"`), answer(200, js, `"012345678"`), func(m *model.MirrorCompare) { m.MaxBody = 10 },
			resultUnknown, nil, ""},
		{"status and body", answer(200, js, `1`), answer(500, js, `2`), nil, resultDifferent, []string{inStatus, inBody}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, tt.first, tt.second, compared(tt.change))
			s.ask(request("GET", "/orders", nil, 0))
			s.awaitCount("compared", "result", tt.result, 1)
			s.awaitPlaces()
			for _, kind := range []string{inStatus, inHeader, inBody} {
				want := uint64(strings.Count(strings.Join(tt.kinds, " "), kind))
				if got := s.count("differences", "kind", kind); got != want {
					t.Errorf("%d differences in the %s, want %d", got, kind, want)
				}
			}
			if !strings.Contains(s.log.String(), tt.told) || strings.Contains(s.log.String(), "hidden") {
				t.Errorf("the log has %q, want %q and nothing hidden", s.log, tt.told)
			}
		})
	}
}

func TestCompressedJSONIsCompared(t *testing.T) {
	c, err := newComparison(&model.MirrorCompare{Status: true, Body: "json", MaxBody: size.KiB})
	if err != nil {
		t.Fatal(err)
	}
	packed := func(s string) *answer { return &answer{encoding: "gzip", body: gzipped(s), known: true} }
	for _, tt := range []struct {
		a, b            *answer
		alike, compared bool
	}{
		{packed(`{"a":1}`), packed(`{ "a":1}`), true, true},
		{packed(`{"a":1}`), &answer{body: []byte(`{"a":1}`), known: true}, true, true},
		{packed(`{"a":1}`), packed(`{"a":2}`), false, true},
		{packed(strings.Repeat(" ", 2000) + "1"), packed("1"), false, false},
		{&answer{encoding: "br", body: []byte("x"), known: true}, packed("1"), false, false},
		{&answer{encoding: "gzip", body: []byte("x"), known: true}, packed("1"), false, false},
		{&answer{body: []byte(`9007199254740993`), known: true}, &answer{body: []byte(`9007199254740992`), known: true}, false, true},
		{&answer{body: []byte(`1 2`), known: true}, &answer{body: []byte(`1`), known: true}, false, true},
		{&answer{body: []byte(strings.Repeat("[", 500)), known: true}, &answer{body: []byte(`1`), known: true}, false, true},
	} {
		if _, alike, compared := c.compareBodies(tt.a, tt.b); alike != tt.alike || compared != tt.compared {
			t.Errorf("%.40q and %.40q: alike %v, compared %v", tt.a.body, tt.b.body, alike, compared)
		}
	}
}

func TestAMirrorThatIsClosedWaitsForItsCopies(t *testing.T) {
	asked, release := make(chan bool), make(chan bool)
	s := open(t, says("here"), func(http.ResponseWriter, *http.Request) { asked <- true; <-release }, nil)
	s.ask(request("GET", "/", nil, 0))
	<-asked
	closed := make(chan error)
	go func() { closed <- s.mirror.Close() }()
	select {
	case <-closed:
		t.Error("a copy was under way")
	default:
	}
	close(release)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if s.count("copies", "outcome", outcomeAnswered) != 1 {
		t.Error("it was not answered")
	}
}

func TestMistakesOfAMirrorAreToldAtTheirPlace(t *testing.T) {
	e, _ := newEnv()
	for want, change := range map[string]func(*model.Mirror){
		"when":              func(m *model.Mirror) { m.When = "consumr" },
		"compare":           compared(func(c *model.MirrorCompare) { c.Status, c.Body = false, "off" }),
		"compare.headers.1": compared(func(c *model.MirrorCompare) { c.Headers = []string{"A", "B C"} }),
		"compare.ignore":    compared(func(c *model.MirrorCompare) { c.Body, c.Ignore = "bytes", []string{"a"} }),
		"compare.ignore.0":  compared(func(c *model.MirrorCompare) { c.Ignore = []string{"a..b"} }),
	} {
		m := model.Mirror{Upstream: "shadow"}
		m.SetDefaults()
		change(&m)
		_, err := NewMirror("shop", &m, fixed{}, fixed{}, "", e)
		var at *decode.PathError
		if !errors.As(err, &at) || strings.Join(at.Path, ".") != want {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func FuzzComparing(f *testing.F) {
	c, err := newComparison(&model.MirrorCompare{Body: "json", MaxBody: size.KiB, Ignore: []string{"a.*.b", "t"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"a":[{"b":1}],"t":null}`), []byte(`{"a":[{"b":2}]}`))
	f.Add([]byte(`[1e5,"x",true]`), []byte(`[100000,"x",false]`))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		a, b := &answer{body: one, known: true}, &answer{body: two, known: true}
		_, ab, okAB := c.compareBodies(a, b)
		_, ba, okBA := c.compareBodies(b, a)
		if ab != ba || okAB != okBA {
			t.Errorf("%q and %q are alike one way only", one, two)
		}
		if _, same, ok := c.compareBodies(a, a); !same || !ok {
			t.Errorf("%q is not like itself", one)
		}
	})
}
