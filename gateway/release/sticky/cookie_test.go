package sticky

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func cookie(upstream, key string, change func(*model.Sticky)) *Cookie {
	var m model.Sticky
	m.SetDefaults()
	if change != nil {
		change(&m)
	}
	c := New(upstream, &m)
	c.Use([]byte(key))
	return c
}

const key = "a key of thirty-two characters !!"

// given returns the Set-Cookie field for a pin.
func given(c *Cookie, p Pin, secure bool) string {
	x := &exchange.Exchange{Start: noon}
	x.Client.Secure = secure
	c.Set(x, p)
	return x.Reply.Header.Get("Set-Cookie")
}

// valueOf returns the value that the field gives.
func valueOf(field string) string {
	_, value, _ := strings.Cut(field, "=")
	value, _, _ = strings.Cut(value, ";")
	return value
}

// taken sends a value back.
func taken(c *Cookie, value string, at time.Time) (Pin, bool) {
	x := &exchange.Exchange{Start: at}
	x.Request.Header.Add("Cookie", c.Name()+"="+value)
	return c.Take(x)
}

func TestTheFieldSaysHowLongAndToWhomTheCookieIsSent(t *testing.T) {
	for _, tt := range []struct {
		change func(*model.Sticky)
		secure bool
		name   string
		want   string
	}{
		{nil, false, "headgate", "; Path=/; HttpOnly; SameSite=Lax"},
		{nil, true, "headgate", "; Path=/; HttpOnly; SameSite=Lax; Secure"},
		{func(m *model.Sticky) { m.Cookie, m.SameSite, m.MaxAge = "s", "strict", time.Hour }, false, "s",
			"; Path=/; HttpOnly; SameSite=Strict; Max-Age=3600"},
		{func(m *model.Sticky) { m.SameSite, m.MaxAge = "none", time.Millisecond }, true, "headgate",
			"; Path=/; HttpOnly; SameSite=None; Max-Age=1; Secure"},
	} {
		field := given(cookie("shop", key, tt.change), Pin{Number: 1, Target: 2}, tt.secure)
		value := valueOf(field)
		if field != tt.name+"="+value+tt.want || len(value) != valueSize {
			t.Errorf("%s with a value of %d characters, want %s...%s with %d", field, len(value), tt.name, tt.want, valueSize)
		}
	}
}

func TestWhatWasSetIsRead(t *testing.T) {
	c := cookie("shop", key, nil)
	rapid.Check(t, func(t *rapid.T) {
		want := Pin{Number: rapid.Uint16().Draw(t, "number"), Target: rapid.Uint64().Draw(t, "target")}
		value := valueOf(given(c, want, false))
		if got, ok := taken(c, value, noon.Add(1000*time.Hour)); !ok || got != want {
			t.Fatalf("%+v, %v of %+v", got, ok, want)
		}
		// One character else, and it is nothing any more.
		at := rapid.IntRange(0, len(value)-1).Draw(t, "at")
		other := rapid.StringMatching("[A-Za-z0-9_-]").Draw(t, "other")
		if forged := value[:at] + other + value[at+1:]; forged != value {
			if got, ok := taken(c, forged, noon); ok {
				t.Fatalf("%s was believed: %+v", forged, got)
			}
		}
	})
}

func TestWhatIsNotOursIsNotBelieved(t *testing.T) {
	ours := cookie("shop", key, func(m *model.Sticky) { m.MaxAge = time.Hour })
	value := valueOf(given(ours, Pin{Number: 1, Target: 2}, false))
	for name, read := range map[string]func() (Pin, bool){
		"of another upstream":   func() (Pin, bool) { return taken(cookie("stock", key, nil), value, noon) },
		"of another key":        func() (Pin, bool) { return taken(cookie("shop", key+"x", nil), value, noon) },
		"expired":               func() (Pin, bool) { return taken(ours, value, noon.Add(time.Hour+time.Minute)) },
		"of another version":    func() (Pin, bool) { return taken(ours, "2"+value[1:], noon) },
		"cut off":               func() (Pin, bool) { return taken(ours, value[:len(value)-1], noon) },
		"longer":                func() (Pin, bool) { return taken(ours, value+"A", noon) },
		"empty":                 func() (Pin, bool) { return taken(ours, "", noon) },
		"of another alphabet":   func() (Pin, bool) { return taken(ours, value[:len(value)-1]+"+", noon) },
		"while there is no key": func() (Pin, bool) { return taken(New("shop", &model.Sticky{Cookie: "headgate"}), value, noon) },
		"of another name": func() (Pin, bool) {
			return taken(cookie("shop", key, func(m *model.Sticky) { m.Cookie = "b" }), "", noon)
		},
		"with bits that say none": func() (Pin, bool) { return taken(ours, value[:len(value)-1]+next(value[len(value)-1]), noon) },
	} {
		if p, ok := read(); ok || p != (Pin{}) {
			t.Errorf("a cookie %s was believed: %+v", name, p)
		}
	}
	if _, ok := taken(ours, value, noon.Add(time.Hour-time.Second)); !ok {
		t.Error("it had not expired yet")
	}
}

// next is the character of base64url behind c.
func next(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[(strings.IndexByte(alphabet, c)+1)%len(alphabet)])
}

func TestTheServiceGetsTheOtherCookiesOnly(t *testing.T) {
	c := cookie("shop", key, nil)
	value := valueOf(given(c, Pin{Number: 7, Target: 8}, false))
	for _, tt := range []struct{ sent, want string }{
		{"headgate=" + value, ""},
		{"a=1; headgate=" + value + "; b=2", "a=1; b=2"},
		{`headgate="` + value + `"`, ""},
		{"headgate=" + value + "; headgate=older", ""},
	} {
		x := &exchange.Exchange{Start: noon}
		x.Request.Header.Add("Cookie", tt.sent)
		p, ok := c.Take(x)
		if got := x.Request.Header.Get("Cookie"); !ok || p != (Pin{Number: 7, Target: 8}) || got != tt.want {
			t.Errorf("of %q the service gets %q, want %q; the pin is %+v, %v", tt.sent, got, tt.want, p, ok)
		}
	}
}

func TestTheValueTellsNothing(t *testing.T) {
	c := cookie("shop", key, nil)
	a, b := valueOf(given(c, Pin{Number: 1, Target: 2}, false)), valueOf(given(c, Pin{Number: 1, Target: 3}, false))
	same := 0
	for i := range a {
		if a[i] == b[i] {
			same++
		}
	}
	if same > valueSize/2 {
		t.Errorf("%s and %s are for two targets and alike in %d characters", a, b, same)
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	if raced {
		t.Skip("the race detector makes pools forget")
	}
	c := cookie("shop", key, nil)
	value := valueOf(given(c, Pin{Number: 1, Target: 2}, false))
	x := &exchange.Exchange{Start: noon}
	if n := testing.AllocsPerRun(200, func() {
		x.Request.Header.Reset("")
		x.Request.Header.Add("Cookie", "headgate="+value)
		if _, ok := c.Take(x); !ok {
			t.Fatal("not read")
		}
	}); n > 1 { // the field that the test makes
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTake(b *testing.B) {
	c := cookie("shop", key, nil)
	field := "headgate=" + valueOf(given(c, Pin{Number: 1, Target: 2}, false))
	x := &exchange.Exchange{Start: noon}
	b.ReportAllocs()
	for b.Loop() {
		x.Request.Header.Reset("")
		x.Request.Header.Add("Cookie", field)
		c.Take(x)
	}
}

func FuzzRead(f *testing.F) {
	c := cookie("shop", key, func(m *model.Sticky) { m.MaxAge = time.Hour })
	good := valueOf(given(c, Pin{Number: 1, Target: 2}, false))
	for _, seed := range []string{good, "", "1", good[:20], strings.Repeat("A", valueSize), "1" + strings.Repeat("_", valueSize-1)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		p, ok := c.read(value, noon)
		if ok != (value == good) { // of this key, only this value exists
			t.Errorf("%q: %+v, %v", value, p, ok)
		}
	})
}

func TestTheOwnKeyIsMadeOnce(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "state")
	first, err := NewKeyring(folder, rand.Reader).Key()
	if err != nil || len(first) != ownKeySize {
		t.Fatal(first, err)
	}
	info, err := os.Stat(filepath.Join(folder, ownKeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: only the gateway may read it", info.Mode(), err)
	}
	again, err := NewKeyring(folder, rand.Reader).Key()
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("after a restart it is another one (%v)", err)
	}
	left, err := os.ReadDir(folder)
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v: more than the key is left", left, err)
	}
}

func TestOfTwoThatMakeTheKeyAtOnceBothHaveTheSame(t *testing.T) {
	folder := t.TempDir()
	keys := make(chan []byte)
	for range 8 {
		go func() {
			k, err := NewKeyring(folder, rand.Reader).Key()
			if err != nil {
				t.Error(err)
			}
			keys <- k
		}()
	}
	first := <-keys
	for range 7 {
		if !bytes.Equal(<-keys, first) {
			t.Error("there are two keys")
		}
	}
}

func TestAKeyThatCannotBeKeptIsUsedAllTheSame(t *testing.T) {
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, ownKeyFile), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, folder := range map[string]string{"no folder": "", "a file that is no key": broken, "a folder that is a file": file} {
		k := NewKeyring(folder, rand.Reader)
		one, err := k.Key()
		if err == nil || len(one) != ownKeySize {
			t.Errorf("%s: %d bytes, and %v", name, len(one), err)
		}
		if two, err := k.Key(); !bytes.Equal(one, two) || err != nil {
			t.Errorf("%s: it is another one, or told again: %v", name, err)
		}
	}
	if k, err := NewKeyring("", iotest.ErrReader(errors.New("none left"))).Key(); k != nil || err == nil {
		t.Errorf("without randomness there is no key, and not %x", k)
	}
}

// While one key takes the place of another, every node believes both: first the new one is added behind the old one, then the
// two change places, then the old one goes. Nobody loses a pin between two of these steps, whatever node it meets.
func TestAKeyTakesThePlaceOfAnother(t *testing.T) {
	const before, after = "the key of thirty-two characters", "another one, that is to replace it"
	using := func(keys ...string) *Cookie {
		c := cookie("shop", key, nil)
		var list [][]byte
		for _, k := range keys {
			list = append(list, []byte(k))
		}
		c.Use(list...)
		return c
	}
	steps := []*Cookie{using(before), using(before, after), using(after, before), using(after)}
	for i, signs := range steps {
		value := valueOf(given(signs, Pin{Number: 7, Target: 9}, false))
		for j := max(i-1, 0); j <= min(i+1, len(steps)-1); j++ { // nodes are a step apart at most
			got, ok := taken(steps[j], value, noon)
			if old := i/2 != j/2; !ok || got != (Pin{Number: 7, Target: 9, Old: old}) {
				t.Errorf("signed in step %d, read in step %d: %+v, %v", i, j, got, ok)
			}
		}
	}
	if _, ok := taken(steps[3], valueOf(given(steps[1], Pin{}, false)), noon); ok {
		t.Error("a key that is gone is believed")
	}
	many := using("1", "2", "3", "4", "5")
	for i, want := range []bool{true, true, true, true, false} {
		if _, ok := taken(many, valueOf(given(using(string(rune('1'+i))), Pin{}, false)), noon); ok != want {
			t.Errorf("key %d: %v", i+1, ok)
		}
	}
}
