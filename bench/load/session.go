package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Session holds connections over several runs, so that warming up and measuring use the same ones. It is used by one
// goroutine.
type Session struct {
	plan    Plan
	to      unix.SockaddrInet4
	epoll   int
	conns   []*conn
	scratch []byte
	next    int // request in turn
	began   time.Time
	start   int64 // of the run that is going on

	canceled atomic.Bool // the runs' context has ended

	// of the run that is going on
	result  Result
	idle    []*conn // connections without a request, the one idle for longest first
	retry   []*conn // connections that were refused, to be opened again at retryAt
	retryAt int64
	due     []int64 // open loop: when the waiting requests should have been sent
	pending int     // requests without an answer yet
	stop    bool    // no new requests
	aborted bool    // too many errors
}

// Open connects.
func Open(plan Plan) (*Session, error) {
	tcp, err := net.ResolveTCPAddr("tcp4", plan.Address)
	if err != nil {
		return nil, err
	}
	if len(plan.Requests) == 0 || plan.Connections < 1 || len(plan.Expect.Fields) > 64 {
		return nil, errors.New("a plan needs requests, connections, and at most 64 expected fields")
	}
	plan.Grace = cmp.Or(plan.Grace, 10*time.Second)
	plan.Expect.others = plan.Outcomes
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	s := &Session{plan: plan, epoll: epoll, scratch: make([]byte, readSize), to: unix.SockaddrInet4{Port: tcp.Port}, began: time.Now()}
	copy(s.to.Addr[:], tcp.IP.To4())
	for range plan.Connections {
		c := &conn{index: int32(len(s.conns)), fd: -1}
		s.conns = append(s.conns, c)
	}
	return s, nil
}

// Close closes every connection.
func (s *Session) Close() {
	for _, c := range s.conns {
		if c.fd >= 0 {
			_ = unix.Close(c.fd)
		}
	}
	_ = unix.Close(s.epoll) // nothing was written to it that could be lost
}

func (s *Session) now() int64 { return int64(time.Since(s.began)) }

// Run sends for the duration, waits for the answers that are missing then, and reports. An error means that the run
// itself could not be made; what the gateway did wrong is in the result. A canceled context ends the run at once.
func (s *Session) Run(ctx context.Context, d time.Duration) (*Result, error) {
	defer context.AfterFunc(ctx, func() { s.canceled.Store(true) })()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Otherwise the kernel may add 50 µs to every wait of an open loop (PR_SET_TIMERSLACK, prctl(2)).
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	s.result = Result{Errors: map[string]int{}, Latencies: make([]time.Duration, 0, s.room(d))}
	s.idle, s.retry, s.due, s.stop, s.aborted, s.pending = s.idle[:0], nil, nil, false, false, 0
	start := s.now()
	s.start = start
	for _, c := range s.conns {
		switch c.state {
		case stateClosed:
			s.connect(c)
		case stateIdle:
			s.free(c)
		}
	}
	last, err := s.loop(start, start+int64(d))
	if err = cmp.Or(err, ctx.Err()); err != nil {
		return nil, err
	}
	r := s.result
	r.Elapsed = time.Duration(last - start)
	slices.SortFunc(r.Latencies, cmp.Compare[time.Duration])
	return &r, nil
}

// room is how many latencies to make room for at once, so that a run does not stop to copy them.
func (s *Session) room(d time.Duration) int {
	if s.plan.Rate > 0 {
		return int(d.Seconds()*float64(s.plan.Rate)) + 1
	}
	return min(int(d.Seconds()*150_000), 4<<20)
}

// loop runs until the deadline and then until nothing is pending; it returns when the last answer came.
func (s *Session) loop(start, deadline int64) (last int64, err error) {
	events := make([]unix.EpollEvent, 256)
	last = start
	sent := 0 // open loop: how many requests have become due
	for {
		now := s.now()
		wake := deadline
		// Those due before the end are sent although the loop was kept from it until after the end.
		for s.plan.Rate > 0 && !s.aborted && dueAt(start, sent, s.plan.Rate) <= min(now, deadline-1) {
			s.due = append(s.due, dueAt(start, sent, s.plan.Rate))
			sent++
		}
		if s.stop = s.stop || now >= deadline || s.canceled.Load(); s.stop {
			wake = deadline + int64(s.plan.Grace)
			if s.pending == 0 && len(s.due) == 0 || s.aborted || now >= wake || s.canceled.Load() {
				s.giveUp()
				return last, nil
			}
		}
		if s.plan.Rate > 0 {
			s.sendDue()
			if !s.stop {
				wake = min(wake, dueAt(start, sent, s.plan.Rate))
			}
		}
		if len(s.retry) > 0 {
			wake = min(wake, s.retryAt)
		}
		n, err := wait(s.epoll, events, wake-s.now())
		if err != nil {
			return last, err
		}
		before := s.result.Completed
		for _, e := range events[:n] {
			s.handle(s.conns[e.Fd], e.Events)
		}
		if s.result.Completed > before {
			last = s.now()
		}
		if len(s.retry) > 0 && s.now() >= s.retryAt {
			s.reconnect()
		}
	}
}

func (s *Session) reconnect() {
	again := s.retry
	s.retry = nil
	for _, c := range again {
		s.connect(c)
	}
}

// dueAt is when the request with this number is due.
func dueAt(start int64, number, rate int) int64 {
	return start + int64(float64(number)*float64(time.Second)/float64(rate))
}

// sendDue sends what is due as long as a connection is idle.
func (s *Session) sendDue() {
	for len(s.due) > 0 && len(s.idle) > 0 {
		c := s.idle[0]
		s.idle = s.idle[1:]
		if c.state != stateIdle || s.closed(c) {
			continue
		}
		at := s.due[0]
		s.due = s.due[1:]
		s.send(c, at)
	}
}

// closed looks whether an idle connection was closed since epoll was last asked, as a careful client does before it uses
// one again (RFC 9112, section 9.3.1), and opens another in its place.
func (s *Session) closed(c *conn) bool {
	var b [1]byte
	if _, _, err := unix.Recvfrom(c.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT); errors.Is(err, unix.EAGAIN) {
		return false
	}
	s.read(c)
	return true
}

// ended keeps how a request that was due then has ended, when the plan asks for it.
func (s *Session) ended(due int64, status int, retryAfter bool) {
	if s.plan.Outcomes {
		took := time.Duration(s.now() - due)
		s.result.Outcomes = append(s.result.Outcomes, Outcome{time.Duration(due - s.start), took, status, retryAfter})
	}
}

// giveUp counts what never got an answer.
func (s *Session) giveUp() {
	for _, c := range s.conns {
		if c.state == stateBusy {
			s.lost(c, "no answer when the run was over")
			s.drop(c)
		}
	}
	for _, at := range s.due {
		s.ended(at, 0, false)
	}
	if len(s.due) > 0 {
		s.result.Lost += len(s.due)
		s.result.Errors["never sent: no connection was free"] += len(s.due)
	}
}

// failed counts an error under its text, within bounds.
func (s *Session) failed(text string) {
	if _, known := s.result.Errors[text]; !known && len(s.result.Errors) >= maxKinds {
		text = "other errors"
	}
	s.result.Errors[text]++
	if s.result.Failed() >= maxErrors {
		s.stop, s.aborted = true, true
	}
}

// wait is epoll_pwait2(2): a deadline in nanoseconds, where epoll_wait knows milliseconds only.
func wait(epoll int, events []unix.EpollEvent, d int64) (int, error) {
	t := unix.NsecToTimespec(max(d, 0))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(unsafe.Pointer(&t)), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case syscall.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("epoll_pwait2 (Linux 5.11 or newer): %w", errno)
}
