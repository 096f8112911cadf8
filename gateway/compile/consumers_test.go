package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

const people = `
apis: {a: {routes: {r: {match: /, respond: {body: x}}}}}
consumers:
  ann:
    groups: [partners]
    keys: ["${env:COMPILE_TEST_KEY}", "SUM2"]
    basic: [{username: ann, password: "bcrypt:HASH"}, {username: ann2, password: "${env:COMPILE_TEST_PASSWORD}"}]
    subjects: [sub-ann]
  bob: {keys: ["SUM3"]}
`

// hashed is a key as a document has it.
func hashed(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func peopleDocument(t *testing.T) string {
	t.Helper()
	t.Setenv("COMPILE_TEST_KEY", "one")
	t.Setenv("COMPILE_TEST_PASSWORD", "plain")
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return replace(people, "SUM2", hashed("two"), "SUM3", hashed("three"), "HASH", string(hash))
}

func TestConsumersAreFoundByWhatTheyProveThemselvesWith(t *testing.T) {
	w := newWorld(t)
	c := w.Consumers()
	if c.ByKey(sha256.Sum256([]byte("one"))) != nil || c.BySubject("sub-ann") != nil {
		t.Error("somebody is known before there is a document")
	}
	w.load(peopleDocument(t))
	for key, want := range map[string]string{"one": "ann", "two": "ann", "three": "bob", "four": ""} {
		got := ""
		if owner := c.ByKey(sha256.Sum256([]byte(key))); owner != nil {
			got = owner.Name
		}
		if got != want {
			t.Errorf("key %s is %q's, want %q", key, got, want)
		}
	}
	if owner := c.BySubject("sub-ann"); owner == nil || !owner.InGroup("partners") {
		t.Errorf("subject: %+v", owner)
	}
}

func TestPasswordsAreVerifiedSlowlyOnceAndRememberedUntilConsumersChange(t *testing.T) {
	w := newWorld(t)
	doc := peopleDocument(t)
	w.load(doc)
	c := w.Consumers()
	steps := []struct {
		user, password string
		slow           bool
		owner          string
		ready          bool
	}{
		{"ann", "secret", false, "", false},
		{"ann", "wrong", true, "", true},
		{"ann", "secret", true, "ann", true},
		{"ann", "secret", false, "ann", true},
		{"ann", "wrong", false, "", false},
		{"ann2", "plain", false, "ann", true},
		{"ann2", "secret", false, "", true},
		{"nobody", "secret", false, "", false}, // as slow as for somebody
		{"nobody", "secret", true, "", true},
		{"ann", string(make([]byte, maxPassword+1)), false, "", true},
	}
	for _, s := range steps {
		owner, ready := c.ByPassword(s.user, s.password, s.slow)
		got := ""
		if owner != nil {
			got = owner.Name
		}
		if got != s.owner || ready != s.ready {
			t.Errorf("%s, %.8s, slow %v: %q, ready %v, want %q, %v", s.user, s.password, s.slow, got, ready, s.owner, s.ready)
		}
	}
	w.load(doc + "# nothing new\n")
	if owner, ready := c.ByPassword("ann", "secret", false); owner == nil || !ready || c.Generation() != 1 {
		t.Errorf("a reload without a change forgets: %v %v, generation %d", owner, ready, c.Generation())
	}
	w.load(doc + "  cyd: {keys: ['" + hashed("four") + "']}\n")
	if _, ready := c.ByPassword("ann", "secret", false); ready || c.Generation() != 2 {
		t.Errorf("changed consumers are remembered: generation %d", c.Generation())
	}
}

func TestConsumersAreReadAndChangedAtOneTime(t *testing.T) {
	w := newWorld(t)
	doc := peopleDocument(t)
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					w.Consumers().ByKey(sha256.Sum256([]byte("one")))
					w.Consumers().ByPassword("ann", "secret", true)
				}
			}
		})
	}
	for i := range 10 {
		w.load(replace(doc, hashed("three"), hashed(string(rune('a'+i)))))
	}
	close(stop)
	readers.Wait()
	if w.Consumers().Generation() != 10 {
		t.Errorf("generation %d", w.Consumers().Generation())
	}
}
