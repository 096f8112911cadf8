package load

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headgate/bench/origin"
	"headgate/bench/payload"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const get = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"

var small = Expect{Status: 200, Body: payload.Small(), Fields: []Field{{"x-origin", "bench"}}}

func upstream(t *testing.T) string {
	t.Helper()
	s, err := origin.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-served); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return s.Addr().String()
}

// run makes one run of the plan.
func run(t *testing.T, plan Plan, d time.Duration) *Result {
	t.Helper()
	s, err := Open(plan)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := s.Run(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAClosedLoopCountsWhatTheUpstreamAnswered(t *testing.T) {
	addr := upstream(t)
	r := run(t, Plan{Address: addr, Connections: 16, Requests: [][]byte{[]byte(get)}, Expect: small}, 500*time.Millisecond)
	if r.Failed() != 0 || r.Completed == 0 || len(r.Latencies) != r.Completed {
		t.Fatalf("%d completed, %d latencies, %s", r.Completed, len(r.Latencies), r.Complaint())
	}
	reply, err := http.Get("http://" + addr + "/count")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	if counted, _ := io.ReadAll(reply.Body); string(counted) != itoa(r.Completed) {
		t.Fatalf("%d completed, the upstream counted %s", r.Completed, counted)
	}
}

func TestTwoRunsUseTheSameConnections(t *testing.T) {
	s, err := Open(Plan{Address: upstream(t), Connections: 4, Requests: [][]byte{[]byte(get)}, Expect: small})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var before [4]int
	for round := range 2 {
		r, err := s.Run(t.Context(), 20*time.Millisecond)
		if err != nil || r.Failed() != 0 || r.Completed == 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		for i, c := range s.conns {
			if round == 1 && c.fd != before[i] {
				t.Fatalf("connection %d was opened again", i)
			}
			before[i] = c.fd
		}
	}
}

func TestACanceledRunEndsAtOnce(t *testing.T) {
	s, err := Open(Plan{Address: upstream(t), Connections: 1, Requests: [][]byte{[]byte(get)}, Expect: small})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := s.Run(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 10*time.Second {
		t.Fatalf("%v after %v", err, time.Since(start))
	}
}

func TestLargeBodiesGoBothWays(t *testing.T) {
	addr := upstream(t)
	post := append([]byte("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: "+itoa(payload.BigSize)+"\r\n\r\n"), payload.Big()...)
	big := Expect{Status: 200, Body: payload.Big(), Fields: small.Fields}
	for name, plan := range map[string]Plan{
		"answer":  {Requests: [][]byte{[]byte("GET /big HTTP/1.1\r\nHost: a\r\n\r\n")}, Expect: big},
		"request": {Requests: [][]byte{post}, Expect: small},
	} {
		plan.Address, plan.Connections = addr, 3
		if r := run(t, plan, 300*time.Millisecond); r.Failed() != 0 || r.Completed == 0 {
			t.Errorf("%s: %d completed, %s", name, r.Completed, r.Complaint())
		}
	}
}

func TestWhatWasDueIsSentAlsoWhenTheLoopCameTooLate(t *testing.T) {
	addr := answering(t, func(conn net.Conn) { _, _ = io.WriteString(conn, ok) })
	for _, d := range []time.Duration{time.Microsecond, 10 * time.Millisecond} { // the first has ended before the connection is open
		plan := Plan{Address: addr, Connections: 1, Requests: [][]byte{[]byte(get)}, Expect: two, Rate: 2_000_000, Outcomes: true}
		if d > time.Microsecond {
			plan.Rate = 1000
		}
		want := int(d.Seconds() * float64(plan.Rate))
		if r := run(t, plan, d); r.Completed != want || len(r.Outcomes) != want {
			t.Errorf("%v: %d completed of %d, %s", d, r.Completed, want, r.Complaint())
		}
	}
}

func TestOutcomesTellHowEachRequestEnded(t *testing.T) {
	var n atomic.Int64
	addr := answering(t, func(conn net.Conn) { // one request after the other, on one connection at a time
		switch n.Add(1) % 3 {
		case 0:
			_, _ = io.WriteString(conn, "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 5\r\n\r\nbusy\n")
		case 1:
			_, _ = io.WriteString(conn, ok)
		default:
			_ = conn.Close()
		}
	})
	plan := Plan{Address: addr, Connections: 1, Requests: [][]byte{[]byte(get)}, Expect: two, Rate: 100, Outcomes: true}
	r := run(t, plan, 120*time.Millisecond)
	counts := map[int]int{}
	for _, one := range r.Outcomes {
		counts[one.Status]++
		if one.Due < 0 || one.Due >= 120*time.Millisecond || one.Took <= 0 || one.RetryAfter != (one.Status == 503) {
			t.Errorf("%+v", one)
		}
	}
	if counts[200] != 4 || counts[503] != 4 || counts[0] != 4 || r.Completed != 4 || r.Lost != 4 || r.Wrong != 0 {
		t.Errorf("%v, %d completed, %d lost, %d wrong; want four of each kind and no wrong one: %s",
			counts, r.Completed, r.Lost, r.Wrong, r.Complaint())
	}
}

func TestAnOpenLoopSendsItsRateAndMeasuresFromWhenARequestWasDue(t *testing.T) {
	// One connection and an upstream that takes 20 ms for each: of 100 requests per second every one waits for those before.
	addr := answering(t, func(conn net.Conn) {
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(conn, ok)
	})
	plan := Plan{Address: addr, Connections: 1, Requests: [][]byte{[]byte(get)}, Expect: two, Rate: 100}
	r := run(t, plan, 200*time.Millisecond)
	if r.Completed != 20 || r.Failed() != 0 {
		t.Fatalf("%d completed of 20, %s", r.Completed, r.Complaint())
	}
	if last := r.Percentile(1); last < 150*time.Millisecond {
		t.Fatalf("the last of them waited %v; it was due 200 ms before its answer", last)
	}
}

var two = Expect{Status: 200, Body: []byte("ok"), Fields: []Field{{"x-origin", "bench"}, {"x-id", ""}}}

const ok = "HTTP/1.1 200 OK\r\nX-Origin: bench\r\nX-Id: 1\r\nContent-Length: 2\r\n\r\nok"

func TestEveryWrongAnswerIsNamed(t *testing.T) {
	for name, c := range map[string]struct{ answer, want string }{
		"status":         {"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", `status line "HTTP/1.1 502 Bad Gateway"`},
		"no field":       {strings.Replace(ok, "X-Origin", "X-Other", 1), "no header field x-origin: bench"},
		"field's value":  {strings.Replace(ok, "bench", "cache", 1), "no header field x-origin: bench"},
		"empty field":    {strings.Replace(ok, "X-Id: 1", "X-Id: ", 1), "no header field x-id: "},
		"length":         {strings.Replace(ok, "2\r\n\r\n", "3\r\n\r\n", 1), "Content-Length 3 instead of 2"},
		"no length":      {strings.Replace(ok, "Content-Length", "X-Length", 1), "Content-Length -1 instead of 2"},
		"body":           {strings.Replace(ok, "\r\n\r\nok", "\r\n\r\nno", 1), "the body differs from the upstream's"},
		"too much":       {ok + "HTTP", `bytes behind the answer: "HTTP"`},
		"not HTTP":       {"SSH-2.0-x\r\n\r\n", `status line "SSH-2.0-x"`},
		"end in a head":  {"HTTP/1.1 200 OK\r\nX-Or", "closed before the answer"},
		"end in a body":  {strings.TrimSuffix(ok, "k"), "closed before the answer (in the middle of the body)"},
		"nothing at all": {"", "closed before the answer"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := answering(t, func(conn net.Conn) {
				_, _ = io.WriteString(conn, c.answer)
				_ = conn.Close()
			})
			// One request, due at once, and so sent however late the connection is open.
			plan := Plan{Address: addr, Connections: 1, Requests: [][]byte{[]byte(get)}, Expect: two, Rate: 200}
			r := run(t, plan, 5*time.Millisecond)
			if r.Completed != 0 || r.Errors[c.want] == 0 {
				t.Fatalf("%d completed; errors %q, want %q", r.Completed, r.Complaint(), c.want)
			}
		})
	}
}

func TestAnAnswerMayComeByteByByteAndCloseItsConnection(t *testing.T) {
	addr := answering(t, func(conn net.Conn) {
		for _, b := range []byte(strings.Replace(ok, "X-Id: 1", "X-Id: 1\r\nConnection: close", 1)) {
			_, _ = conn.Write([]byte{b})
		}
		_ = conn.Close()
	})
	r := run(t, Plan{Address: addr, Connections: 2, Requests: [][]byte{[]byte(get)}, Expect: two}, 30*time.Millisecond)
	if r.Failed() != 0 || r.Completed < 2 {
		t.Fatalf("%d completed, %s", r.Completed, r.Complaint())
	}
}

func TestAConnectionThatWasClosedWhileIdleIsReplacedAndNothingIsLost(t *testing.T) {
	closed := make(chan struct{}, 100)
	addr := answering(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, ok)
		_ = conn.Close() // without a word of it in the answer
		closed <- struct{}{}
	})
	s, err := Open(Plan{Address: addr, Connections: 10, Requests: [][]byte{[]byte(get)}, Expect: two, Rate: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		r, err := s.Run(t.Context(), 100*time.Millisecond)
		if err != nil || r.Completed != 10 || r.Failed() != 0 {
			t.Fatalf("%d completed of 10, %s, %v", r.Completed, r.Complaint(), err)
		}
		for range r.Completed { // now all that were used are closed
			<-closed
		}
	}
}

func TestAClosedDoorIsReportedAsRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	for _, rate := range []int{0, 100} {
		plan := Plan{Address: addr, Connections: 1, Requests: [][]byte{[]byte(get)}, Expect: two, Rate: rate, Grace: 10 * time.Millisecond}
		r := run(t, plan, 20*time.Millisecond)
		if r.Refused == 0 || r.Completed != 0 || rate > 0 && r.Lost != 2 {
			t.Fatalf("rate %d: %+v", rate, r)
		}
	}
}

// answering serves every request with what answer does; the connection's end is up to it.
func answering(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(conn)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					answer(conn)
				}
			}()
		}
	}()
	return l.Addr().String()
}

func itoa(n int) string { return strconv.Itoa(n) }
