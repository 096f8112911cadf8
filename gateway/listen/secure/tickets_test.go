package secure

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"headgate/config/model"
)

// returning is a client that comes back with its tickets.
func (w *world) returning(name string, version uint16) *tls.Config {
	c := w.client(name)
	c.ClientSessionCache, c.MinVersion, c.MaxVersion = tls.NewLRUClientSessionCache(4), version, version
	return c
}

// resumes makes a handshake and reports whether a session was resumed.
func (d *door) resumes(c *tls.Config) bool {
	d.Helper()
	_, state, err := d.call(c)
	if err != nil {
		d.Fatal(err)
	}
	return state.DidResume
}

func TestSessionsAreResumedAcrossReloadsAndListeners(t *testing.T) {
	w := newWorld(t)
	l := settings(nil, w.issue("a", "a.example"))
	first := w.compile(l)
	d := w.open(first)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := w.returning("a.example", version)
		d.terms.Store(first)
		d.resumes(c)
		if !d.resumes(c) {
			t.Errorf("%s: not resumed without a reload", tls.VersionName(version))
		}
		d.terms.Store(w.compile(l))
		if !d.resumes(c) {
			t.Errorf("%s: not resumed after a reload", tls.VersionName(version))
		}
		other := w.open(w.compile(settings(nil, l.TLS.Certificates...)))
		if !other.resumes(c) {
			t.Errorf("%s: not resumed on another listener", tls.VersionName(version))
		}
		w.issue("a", "a.example")
		w.Look()
		if !d.resumes(c) {
			t.Errorf("%s: not resumed after the certificate was renewed", tls.VersionName(version))
		}
	}
}

func TestTicketsAreReadForTwoRotationsAndNoLonger(t *testing.T) {
	w := newWorld(t)
	d := w.open(w.compile(settings(func(t *model.ListenerTLS) { t.Tickets.Rotation = time.Hour }, w.issue("a", "a.example"))))
	once := func() *tls.Config { // with a ticket of now, and never a newer one
		c := w.returning("a.example", tls.VersionTLS13)
		d.resumes(c)
		session, ok := c.ClientSessionCache.Get("a.example")
		if !ok {
			t.Fatal("no ticket came")
		}
		c.ClientSessionCache = fixed{session}
		return c
	}
	c := once()
	for hours, want := range []bool{true, true, true, false} {
		if got := d.resumes(c); got != want {
			t.Errorf("after %d rotations: resumed %v", hours, got)
		}
		w.clock.Advance(time.Hour)
		w.turn()
	}
	c = once()
	w.clock.Advance(30 * time.Hour) // as after a long sleep
	w.turn()
	if d.resumes(c) {
		t.Error("a key of before a long sleep is still used")
	}
	if n := len(w.tickets.secrets); n != 1 {
		t.Errorf("%d keys", n)
	}
}

// fixed is a cache with one session that stays.
type fixed struct{ session *tls.ClientSessionState }

func (f fixed) Get(string) (*tls.ClientSessionState, bool) { return f.session, true }
func (fixed) Put(string, *tls.ClientSessionState)          {}

func TestTheShortestRotationOfTheLiveListenersCounts(t *testing.T) {
	w := newWorld(t)
	for _, d := range []time.Duration{5 * time.Hour, 2 * time.Hour, 3 * time.Hour} {
		w.compile(settings(func(t *model.ListenerTLS) { t.Tickets.Rotation = d }, w.issue("a", "a.example")))
	}
	if got := w.rotation(); got != 2*time.Hour {
		t.Errorf("%v", got)
	}
}

func TestTicketsMayBeOff(t *testing.T) {
	w := newWorld(t)
	d := w.open(w.compile(settings(func(t *model.ListenerTLS) { t.Tickets.Off = true }, w.issue("a", "a.example"))))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := w.returning("a.example", version)
		for range 2 {
			if d.resumes(c) {
				t.Error("resumed")
			}
		}
	}
}

func TestASessionDoesNotOutliveTheTermsOfItsClientsCertificate(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		w := newWorld(t)
		write(t, w.dir+"/ca.pem", certPEM(w.ca.Raw))
		write(t, w.dir+"/both.pem", certPEM(authority(t, "another").Raw, w.ca.Raw))
		certificate := w.issue("a", "a.example")
		terms := func(mode string, ca ...string) *Terms {
			return w.compile(settings(func(t *model.ListenerTLS) {
				if mode != "" {
					t.ClientAuth = &model.ClientAuth{}
					t.ClientAuth.SetDefaults()
					t.ClientAuth.Mode, t.ClientAuth.CA = mode, ca
				}
			}, certificate))
		}
		none, request, require := terms(""), terms("request", "ca.pem"), terms("require", "ca.pem")
		more, hard := terms("require", "both.pem"), terms("require", "ca.pem")
		hard.config.ClientAuth.OCSP = "hard"
		w.mu.Lock()
		hard.rebuild()
		w.mu.Unlock()
		d := w.open(none)
		mine := *w.ca.leaf(t, ecKey(t), client, "me")
		for _, test := range []struct {
			name     string
			from, to *Terms
			want     bool
		}{
			{"the same terms", require, terms("require", "ca.pem"), true},
			{"none and then required", none, require, false},
			{"none and then requested", none, request, false},
			{"requested and then required", request, require, false},
			{"required and then requested", require, request, false},
			{"required and then none", require, none, false},
			{"other authorities", require, more, false},
			{"a stricter check", require, hard, false},
		} {
			c := w.returning("a.example", version)
			c.Certificates = []tls.Certificate{mine}
			d.terms.Store(test.from)
			d.resumes(c)
			d.terms.Store(test.to)
			if got := d.resumes(c); got != test.want {
				t.Errorf("%s, %s: resumed %v", tls.VersionName(version), test.name, got)
			}
		}
		c := w.returning("a.example", version)
		c.Certificates = []tls.Certificate{mine}
		d.terms.Store(require)
		d.resumes(c)
		write(t, w.dir+"/ca.pem", certPEM(authority(t, "another").Raw))
		w.Look()
		if _, _, err := d.call(c); err == nil {
			t.Errorf("%s: resumed after the file of authorities has changed", tls.VersionName(version))
		}
	}
}

func TestKeysAreDifferentForEveryIdentityAndSecret(t *testing.T) {
	var r ring
	for i := range 5 {
		if turned, err := r.turn(time.Unix(int64(i)*100, 0), 100*time.Second, rand.Reader); !turned || err != nil {
			t.Fatal(turned, err)
		}
	}
	seen := map[[32]byte]bool{}
	for _, identity := range [][sha256.Size]byte{identityOf([]byte("a")), identityOf([]byte("b")), identityOf([]byte("a"), nil)} {
		for _, k := range r.keys(identity) {
			seen[k] = true
		}
	}
	if len(seen) != 3*keptKeys {
		t.Errorf("%d keys", len(seen))
	}
}

// Whatever the clock does: there is a key, there are no more than three, and none is older than three rotations.
func TestTheRingHoldsFewAndYoungKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const rotation = time.Minute
		var r ring
		now := time.Unix(1e9, 0)
		born := map[[sha256.Size]byte]time.Time{}
		for _, step := range rapid.SliceOfN(rapid.IntRange(-100, 400), 1, 30).Draw(t, "seconds") {
			now = now.Add(time.Duration(step) * time.Second)
			if step < 0 {
				for k, b := range born {
					if b.After(now) {
						born[k] = now
					}
				}
			}
			if _, err := r.turn(now, rotation, rand.Reader); err != nil {
				t.Fatal(err)
			}
			for _, s := range r.secrets {
				if _, known := born[s]; !known {
					born[s] = now
				}
				if now.Sub(born[s]) >= keptKeys*rotation {
					t.Fatalf("a key is %v old", now.Sub(born[s]))
				}
			}
			if n := len(r.secrets); n == 0 || n > keptKeys || len(slices.Compact(slices.Clone(r.secrets))) != n {
				t.Fatalf("%d keys", n)
			}
		}
	})
}

func TestWithoutRandomnessTheOldKeyStays(t *testing.T) {
	w := newWorld(t)
	w.compile(settings(nil, w.issue("a", "a.example")))
	old := slices.Clone(w.tickets.secrets)
	w.options.Random = iotest.ErrReader(errors.New("dry"))
	w.clock.Advance(13 * time.Hour)
	w.turn()
	if !slices.Equal(w.tickets.secrets, old) {
		t.Error("it is gone")
	}
	if w.log.Len() == 0 {
		t.Error("nobody is told")
	}
}
