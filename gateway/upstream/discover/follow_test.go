package discover

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"headgate/internal/clock"
)

// told is a source that says what the test says.
type told chan func(found func([]Target, error))

func (s told) Watch(ctx context.Context, found func([]Target, error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case say := <-s:
			say(found)
		}
	}
}

func (s told) answer(letters string) {
	s <- func(found func([]Target, error)) { found(these(letters), nil) }
	synctest.Wait()
}

func (s told) fail(why string) {
	s <- func(found func([]Target, error)) { found(nil, errors.New(why)) }
	synctest.Wait()
}

// following runs a follower in a bubble.
func following(t *testing.T, store *Store, run func(source told, f *Follower, used func() string, log *bytes.Buffer)) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		source := make(told)
		f := &Follower{
			Upstream: "shop", Source: source, About: "told", Rules: Rules{50, time.Minute}, Clock: clock.System{},
			Log: slog.New(slog.NewTextHandler(&log, nil)), Store: store,
		}
		used := letters(f.Recall())
		f.Start(func(list []Target) { used = letters(list) })
		f.Start(func([]Target) { t.Error("started twice") })
		run(source, f, func() string { return used }, &log)
		f.Stop()
		f.Stop()
	})
}

func TestFailedAndEmptyAnswersRemoveNothing(t *testing.T) {
	following(t, nil, func(source told, f *Follower, used func() string, log *bytes.Buffer) {
		if s := f.Status(); s.State != "waiting" || s.Source != "told" {
			t.Errorf("%+v", s)
		}
		source.answer("abc")
		source.fail("no route")
		source.fail("no route")
		source.answer("")
		s := f.Status()
		if used() != "abc" || s.State != "last_good" || s.Error != errEmpty.Error() || s.ErrorAt == nil || s.Errors != 3 || s.Changes != 1 {
			t.Errorf("%s, %+v", used(), s)
		}
		if n := strings.Count(log.String(), "no route"); n != 1 {
			t.Errorf("told %d times:\n%s", n, log)
		}
		time.Sleep(3 * time.Second)
		source.answer("abcd")
		if s := f.Status(); used() != "abcd" || s.State != "current" || s.Error != "" || s.AgeSeconds != 0 {
			t.Errorf("%s, %+v", used(), s)
		}
	})
}

func TestAnAnswerThatIsWrongInPartIsFollowedAndTold(t *testing.T) {
	following(t, nil, func(source told, f *Follower, used func() string, log *bytes.Buffer) {
		say := func(list string, why ...error) {
			source <- func(found func([]Target, error)) { found(these(list), incomplete(why)) }
			synctest.Wait()
		}
		say("ab", errors.New("c has no port"))
		say("ab", errors.New("c has no port"))
		if s := f.Status(); used() != "ab" || s.State != "current" || s.LeftOut != "c has no port" || s.Error != "" {
			t.Errorf("%s, %+v", used(), s)
		}
		if n := strings.Count(log.String(), "c has no port"); n != 1 {
			t.Errorf("told %d times:\n%s", n, log)
		}
		say("", errors.New("c has no port"))
		if s := f.Status(); used() != "ab" || s.State != "last_good" || s.Error != "c has no port" {
			t.Errorf("%s, %+v", used(), s)
		}
		say("abc")
		if s := f.Status(); used() != "abc" || s.State != "current" || s.LeftOut != "" {
			t.Errorf("%s, %+v", used(), s)
		}
	})
}

func TestAMassRemovalIsHeldAndReported(t *testing.T) {
	following(t, nil, func(source told, f *Follower, used func() string, log *bytes.Buffer) {
		source.answer("abcdef")
		source.answer("a")
		if s := f.Status(); used() != "abcdef" || s.State != "held" || s.Held != 5 {
			t.Errorf("%s, %+v", used(), s)
		}
		source.answer("a")
		if n := strings.Count(log.String(), "held; they go"); n != 1 {
			t.Errorf("told %d times:\n%s", n, log)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := f.Status(); used() != "a" || s.State != "current" || s.Held != 0 {
			t.Errorf("%s, %+v", used(), s)
		}
	})
}

func TestTheLastGoodAnswerSurvivesARestart(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "discovery")
	following(t, NewStore(folder), func(source told, _ *Follower, _ func() string, _ *bytes.Buffer) { source.answer("abc") })
	following(t, NewStore(folder), func(source told, f *Follower, used func() string, _ *bytes.Buffer) {
		source.fail("down")
		if s := f.Status(); used() != "abc" || s.State != "last_good" || s.Answered == nil {
			t.Errorf("%s, %+v", used(), s)
		}
		source.answer("d")
		if used() != "abcd" {
			t.Errorf("%s: what was kept is as good as an answer", used())
		}
	})
	if list, _, err := NewStore(folder).Load("shop", "another source"); list != nil || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	following(t, NewStore(folder), func(source told, _ *Follower, used func() string, log *bytes.Buffer) {
		if used() != "" || !strings.Contains(log.String(), "cannot be read") {
			t.Errorf("%s\n%s", used(), log)
		}
		source.answer("x")
	})
	if list, _, err := NewStore(folder).Load("shop", "told"); letters(list) != "x" || err != nil {
		t.Errorf("%v, %v", list, err)
	}
}

func TestAFolderThatCannotBeWrittenIsToldOnce(t *testing.T) {
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	store := NewStore(blocked)
	following(t, store, func(source told, _ *Follower, used func() string, log *bytes.Buffer) {
		source.answer("a")
		source.answer("b")
		if n := strings.Count(log.String(), "cannot be kept"); used() != "b" || n != 1 {
			t.Errorf("%s, told %d times:\n%s", used(), n, log)
		}
	})
	if list, _, err := store.Load("shop", "told"); letters(list) != "b" || err != nil {
		t.Errorf("%v, %v: it is remembered all the same", list, err)
	}
}

func TestBackoffGrowsToItsBoundAndIsSpread(t *testing.T) {
	pauses := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, maxPause, maxPause}
	for _, random := range []float64{0, 1} {
		b := backoff{random: func() float64 { return random }}
		share := 0.5 + random/2
		for i, want := range pauses {
			if got := b.next(); got != time.Duration(float64(want)*share) {
				t.Errorf("pause %d: %v", i, got)
			}
		}
	}
}
