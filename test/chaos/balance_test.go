package chaos

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// balanceDocument is a gateway in front of three targets, with what a test says of them.
const balanceDocument = `
listeners: {public: {address: "${LISTEN}"}}
upstreams:
  shop:
    targets: [{url: "${A}", weight: %d}, {url: "${B}", weight: %d}, {url: "${C}", weight: %d}]
    balance: %s
apis: {all: {upstream: shop}}
`

// asker asks a gateway over one connection.
type asker struct {
	w  io.Writer
	in *bufio.Reader
}

func newAsker(t *testing.T, g *gateway) *asker {
	t.Helper()
	c := dial(t, g.listen)
	_ = c.SetDeadline(time.Now().Add(4 * patience))
	return &asker{w: c, in: bufio.NewReader(c)}
}

// who returns the name of the origin that answers a request with a key.
func (c *asker) who(t *testing.T, key string) string {
	t.Helper()
	if _, err := fmt.Fprintf(c.w, "GET /who HTTP/1.1\r\nHost: shop\r\nX-Tenant: %s\r\n\r\n", key); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	name, _, _ := strings.Cut(string(body), " ")
	if err != nil || r.StatusCode != 200 || name == "" {
		t.Fatalf("%d %q %v", r.StatusCode, body, err)
	}
	return name
}

// threeOrigins starts origins named a, b and c, and returns the places of a document.
func threeOrigins(t *testing.T) (places []string) {
	t.Helper()
	for _, name := range []string{"a", "b", "c"} {
		_, url := startOrigin(t, name)
		places = append(places, "${"+strings.ToUpper(name)+"}", url)
	}
	return places
}

// Requests of the same key go to the same target over any connection, through reloads and restarts, whatever the order of the
// list; keys are spread over all targets; and when a target goes, its keys move and hardly any others.
func TestAKeyKeepsItsTarget(t *testing.T) {
	t.Parallel()
	const keys = 90
	const hash = "{algorithm: consistent-hash, key: header.x-tenant, slow_start: 0s}"
	document := fmt.Sprintf(balanceDocument, 1, 1, 1, hash)
	places := threeOrigins(t)
	g := startGateway(t, document, places...)
	place := func(g *gateway) (m [keys]string) {
		c := newAsker(t, g)
		for i := range m {
			m[i] = c.who(t, fmt.Sprint("tenant-", i))
		}
		return m
	}
	before := place(g)
	for name, n := range count(before[:]) {
		if n < keys/3/3 {
			t.Errorf("%s has %d of %d keys", name, n, keys)
		}
	}
	if len(count(before[:])) != 3 {
		t.Errorf("only %v are asked", count(before[:]))
	}
	if again := place(g); again != before {
		t.Errorf("over another connection\n%v, not\n%v", again, before)
	}
	turned := strings.NewReplacer("${A}", "${C}", "${C}", "${A}").Replace(document)
	if another := place(startGateway(t, turned, places...)); another != before {
		t.Errorf("another node with the list in another order\n%v, not\n%v", another, before)
	}

	g.reloads(t, fmt.Sprintf(balanceDocument, 1, 1, 0, hash))
	moved := 0
	for i, now := range place(g) {
		if now == "c" {
			t.Errorf("key %d is at c, which takes no requests", i)
		}
		if before[i] != "c" && now != before[i] {
			moved++
		}
	}
	if moved > keys/6 { // the table is another one, in which hardly any other key moves
		t.Errorf("%d keys have moved that were not at c", moved)
	}
}

// reloads gives a running gateway another document.
func (g *gateway) reloads(t *testing.T, document string) {
	t.Helper()
	g.write(t, document)
	if status, body, err := g.ask("POST", "/reload"); err != nil || status != 200 {
		t.Fatalf("%d %s %v", status, body, err)
	}
}

func count(names []string) map[string]int {
	m := map[string]int{}
	for _, n := range names {
		m[n]++
	}
	return m
}

// Round robin gives each target as many turns as its weight, exactly, and spreads them: nobody has all of its turns in a row.
func TestRoundRobinKeepsToWeights(t *testing.T) {
	t.Parallel()
	g := startGateway(t, fmt.Sprintf(balanceDocument, 5, 2, 1, "round-robin"), threeOrigins(t)...)
	c := newAsker(t, g)
	var turns []string
	for range 80 {
		turns = append(turns, c.who(t, ""))
	}
	if got := count(turns); got["a"] != 50 || got["b"] != 20 || got["c"] != 10 {
		t.Errorf("%v, want 50, 20 and 10", got)
	}
	if all := strings.Join(turns, ""); strings.Contains(all, "aaaa") || strings.Contains(all, "bb") {
		t.Errorf("turns in a row: %s", all)
	}

	g.reloads(t, fmt.Sprintf(balanceDocument, 0, 1, 1, "round-robin"))
	turns = turns[:0]
	for range 20 {
		turns = append(turns, c.who(t, ""))
	}
	if got := count(turns); got["a"] != 0 || got["b"] != 10 {
		t.Errorf("%v with weights 0, 1 and 1", got)
	}
}
