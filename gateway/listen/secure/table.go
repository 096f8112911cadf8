package secure

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"slices"
	"sync/atomic"
)

// table is which certificate is served for which name. It is immutable but for the certificates of sources.
type table struct {
	exact       map[string][]*choice
	wild        map[string][]*choice // by what follows the first label, with its dot
	fallback    []*choice            // for clients that ask for no name, or for an unknown one
	challengers []Challenger
}

// choice is one certificate, or a source to ask for one.
type choice struct {
	file   *served
	source Source
	ask    string                 // what the source is asked for when the client names nothing that it knows
	last   atomic.Pointer[served] // what the source answered last
}

// newTable makes a table of what is in files, in the order of the document, and of what sources have.
func newTable(pairs []*pair, sources []Source) *table {
	t := &table{exact: map[string][]*choice{}, wild: map[string][]*choice{}}
	for i, p := range pairs {
		c := &choice{file: p.served}
		names := namesOf(p.served.certificate.Leaf)
		t.add(c, names)
		if i == 0 {
			t.fallback = []*choice{c}
		}
	}
	if len(pairs) > 0 { // of several kinds for the first one's name, each client gets the one that it can use
		for _, name := range namesOf(pairs[0].served.certificate.Leaf) {
			t.fallback = t.find(name)
			break
		}
	}
	for _, s := range sources {
		c := &choice{source: s}
		names := s.Names()
		t.add(c, names)
		if len(t.fallback) == 0 && len(names) > 0 {
			c.ask = names[0]
			t.fallback = []*choice{c}
		}
		if ch, ok := s.(Challenger); ok {
			t.challengers = append(t.challengers, ch)
		}
	}
	return t
}

// add enters a choice for its names. Of those in files for one name, ECDSA goes first, since it costs less, and RSA last.
func (t *table) add(c *choice, names []string) {
	for _, name := range names {
		name = normal(name)
		where, key := t.exact, name
		if len(name) > 2 && name[:2] == "*." {
			where, key = t.wild, name[1:]
		}
		if slices.Contains(where[key], c) {
			continue
		}
		where[key] = append(where[key], c)
		slices.SortStableFunc(where[key], func(a, b *choice) int { return a.cost() - b.cost() })
	}
}

func (c *choice) cost() int {
	switch {
	case c.file == nil:
		return 3
	case is[*rsa.PublicKey](c.file):
		return 2
	case is[*ecdsa.PublicKey](c.file):
		return 0
	}
	return 1
}

func is[Key any](s *served) bool {
	_, ok := s.certificate.Leaf.PublicKey.(Key)
	return ok
}

// find returns the choices for a name in normal form: by the exact name, or else by a wildcard for its first label.
func (t *table) find(name string) []*choice {
	if found := t.exact[name]; len(found) > 0 {
		return found
	}
	if above := parent(name); above != "" {
		return t.wild[above]
	}
	return nil
}

// knows reports whether there is a certificate for the name that a client asks for, or there is going to be one.
func (t *table) knows(name string) bool { return name != "" && len(t.find(normal(name))) > 0 }

// pick returns what is served to a client; nil: nothing can be.
func (t *table) pick(hello *tls.ClientHelloInfo) (*served, error) {
	if challenged(hello) {
		return t.challenge(hello)
	}
	name := normal(hello.ServerName)
	if name != "" {
		if found := t.find(name); len(found) > 0 {
			return choose(found, hello, name)
		}
	}
	return choose(t.fallback, hello, "")
}

// challenged reports whether it is an authority that calls, to see a proof of control.
func challenged(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ChallengeProtocol
}

func (t *table) challenge(hello *tls.ClientHelloInfo) (*served, error) {
	for _, c := range t.challengers {
		if certificate, err := c.Challenge(hello); certificate != nil || err != nil {
			if err != nil {
				return nil, err
			}
			return &served{certificate: certificate, serves: func(string) bool { return false }}, nil
		}
	}
	return nil, nil
}

// choose returns the first certificate that the client can use, or, when it can use none of them, the first.
func choose(choices []*choice, hello *tls.ClientHelloInfo, name string) (first *served, err error) {
	for _, c := range choices {
		s, failed := c.get(hello, name)
		if failed != nil {
			err = failed
		}
		if s == nil {
			continue
		}
		if len(choices) == 1 {
			return s, nil
		}
		if first == nil {
			first = s
		}
		asked := *hello
		asked.ServerName = "" // that the name fits is known, or does not matter
		if asked.SupportsCertificate(s.certificate) == nil {
			return s, nil
		}
	}
	if first != nil {
		return first, nil
	}
	return nil, err
}

// get returns a choice's certificate. name is what the client asks for, in normal form; "": nothing known.
func (c *choice) get(hello *tls.ClientHelloInfo, name string) (*served, error) {
	if c.file != nil {
		return c.file, nil
	}
	if name == "" {
		name = c.ask
	}
	asked := *hello
	asked.ServerName = name
	certificate, err := c.source.Certificate(&asked)
	if certificate == nil || err != nil {
		return nil, err
	}
	if last := c.last.Load(); last != nil && last.certificate == certificate {
		return last, nil
	}
	s := serve(certificate)
	c.last.Store(s)
	return s, nil
}

// usual is what would be served for a name to a client that could use anything, for connections of which no more is known.
func (t *table) usual(name string) *served {
	found := t.fallback
	if name = normal(name); name != "" {
		if known := t.find(name); len(known) > 0 {
			found = known
		}
	}
	for _, c := range found {
		if c.file != nil {
			return c.file
		}
		if last := c.last.Load(); last != nil {
			return last
		}
	}
	return nil
}
