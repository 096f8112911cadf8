package revoke

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"headgate/internal/metric"
)

const (
	// maxAnswers bounds the answers that are kept: clients with many certificates must not fill the memory (each takes
	// about 5 KiB with its certificate).
	maxAnswers = 1 << 13
	// maxQueries bounds the questions at one time, so that a slow responder does not hold a connection for every client.
	maxQueries = 32
	// failurePause is how long a responder is not asked again about a certificate after it did not answer: every
	// handshake would wait for it.
	failurePause = 10 * time.Second
	// complaintPause is the least time between two lines in the log about responders that do not answer.
	complaintPause = time.Minute
	// evictionSample is of how many answers the oldest is dropped when there is no room.
	evictionSample = 8
)

// answer is what a responder said, or that it did not.
type answer struct {
	status int // ocsp.Good, ocsp.Revoked or ocsp.Unknown
	at     time.Time
	next   time.Time // when the responder will know more; zero: it does not say
	err    error     // it did not answer
}

// until returns when the answer is no longer believed by those who believe one for refresh.
func (a *answer) until(refresh time.Duration) time.Time {
	if a.err != nil {
		return a.at.Add(min(failurePause, refresh))
	}
	if end := a.at.Add(refresh); a.next.IsZero() || end.Before(a.next) {
		return end
	}
	return a.next
}

// subject is a certificate that is asked about. What changes is guarded by answers.mu.
type subject struct {
	cert, issuer *x509.Certificate
	where        string
	refresh      time.Duration
	answer       *answer
	used         bool          // since the answer came
	asking       chan struct{} // closed when the question that runs is answered; nil: none runs
}

// answers keeps what responders said, by certificate and issuer.
type answers struct {
	options  Options
	client   *http.Client
	queries  chan struct{}
	ctx      context.Context // of the questions
	cancel   context.CancelFunc
	running  sync.WaitGroup
	answered *metric.Counter
	failed   *metric.Counter

	mu         sync.Mutex // never held while somebody is asked
	subjects   map[[64]byte]*subject
	complained time.Time
}

func newAnswers(o Options) *answers {
	count := func(outcome string) *metric.Counter {
		return o.Metrics.Counter("headgate_ocsp_queries_total",
			"Questions to OCSP responders about certificates of clients, by outcome: answered or failed.",
			metric.Label{Name: "outcome", Value: outcome})
	}
	a := &answers{
		options: o, queries: make(chan struct{}, maxQueries), subjects: map[[64]byte]*subject{},
		answered: count("answered"), failed: count("failed"), client: &http.Client{Transport: o.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

func (s *answers) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.subjects)
}

// close ends the questions that run.
func (s *answers) close() {
	s.cancel()
	s.running.Wait()
	s.client.CloseIdleConnections()
}

// get returns what the responder says of a certificate. Whoever needs an answer that is being asked for waits for that.
func (s *answers) get(cert, issuer *x509.Certificate, where string, refresh time.Duration) *answer {
	key := identity(cert, issuer)
	s.mu.Lock()
	b := s.subjects[key]
	if b == nil {
		s.makeRoom()
		b = &subject{cert: cert, issuer: issuer, where: where, refresh: refresh}
		s.subjects[key] = b
	}
	b.used, b.refresh = true, min(b.refresh, refresh)
	if a := b.answer; a != nil && s.options.Clock.Now().Before(a.until(refresh)) {
		s.mu.Unlock()
		return a
	}
	asking := s.ask(b)
	s.mu.Unlock()
	<-asking
	s.mu.Lock()
	defer s.mu.Unlock()
	return b.answer
}

// identity is what tells certificates apart: two authorities may use one serial number.
func identity(cert, issuer *x509.Certificate) (key [64]byte) {
	c, i := sha256.Sum256(cert.Raw), sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	copy(key[:32], c[:])
	copy(key[32:], i[:])
	return key
}

// ask starts a question, unless one runs, and returns what is closed at its end. It is called with mu held.
func (s *answers) ask(b *subject) <-chan struct{} {
	if b.asking != nil {
		return b.asking
	}
	done := make(chan struct{})
	b.asking = done
	where, cert, issuer := b.where, b.cert, b.issuer
	s.running.Go(func() {
		defer close(done)
		a := s.query(where, cert, issuer)
		s.mu.Lock()
		defer s.mu.Unlock()
		b.asking, b.used = nil, false
		if old := b.answer; a.err == nil || old == nil || old.err != nil || !a.at.Before(old.until(b.refresh)) {
			b.answer = a // an answer that is still good is not given up for a failure
		}
	})
	return done
}

// query asks as soon as there is room.
func (s *answers) query(where string, cert, issuer *x509.Certificate) *answer {
	now := s.options.Clock.Now
	wait, cancel := context.WithTimeout(s.ctx, queryTimeout)
	defer cancel()
	select {
	case s.queries <- struct{}{}:
		defer func() { <-s.queries }()
	case <-wait.Done():
		s.failed.Inc(0)
		return &answer{at: now(), err: fmt.Errorf("%s: %d questions are waiting for answers already", where, maxQueries)}
	}
	r, err := query(s.ctx, s.client, where, cert, issuer, now)
	if err != nil {
		s.failed.Inc(0)
		s.complain(where, err)
		return &answer{at: now(), err: err}
	}
	s.answered.Inc(0)
	return &answer{status: r.Status, at: now(), next: r.NextUpdate}
}

// complain tells operators, now and then, that a responder does not answer.
func (s *answers) complain(where string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	s.mu.Lock()
	now := s.options.Clock.Now()
	quiet := now.Sub(s.complained) < complaintPause
	if !quiet {
		s.complained = now
	}
	s.mu.Unlock()
	if !quiet {
		s.options.Log.Warn("an OCSP responder does not answer; ocsp: soft lets its certificates pass, hard refuses them",
			"responder", where, "error", err)
	}
}

// renew asks again for answers that are in use and have lived three quarters of their time, and drops those that have
// ended and are not.
func (s *answers) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.options.Clock.Now()
	for key, b := range s.subjects {
		if b.answer == nil || b.asking != nil {
			continue
		}
		end := b.answer.until(b.refresh)
		if !b.used && !now.Before(end) {
			delete(s.subjects, key)
		} else if b.used && b.answer.err == nil && now.After(b.answer.at.Add(end.Sub(b.answer.at)*3/4)) {
			s.ask(b)
		}
	}
}

// makeRoom drops the oldest of a few answers when there are too many. Maps are walked in random order.
func (s *answers) makeRoom() {
	if len(s.subjects) < maxAnswers {
		return
	}
	var oldest [64]byte
	var at time.Time
	seen := 0
	for key, b := range s.subjects {
		if b.asking != nil {
			continue
		}
		if seen == 0 || b.answer.at.Before(at) {
			oldest, at = key, b.answer.at
		}
		if seen++; seen == evictionSample {
			break
		}
	}
	if seen > 0 {
		delete(s.subjects, oldest)
	}
}
