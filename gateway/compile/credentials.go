package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// maxBcryptCost bounds how long one verification takes (2^14 rounds are about a second): anybody can ask for one.
const maxBcryptCost = 14

// consumersPerTurn is after how many consumers compiling lets others run.
const consumersPerTurn = 64

// directoryJob reads the consumers of a document.
type directoryJob struct {
	*job
	directory *directory
	owners    map[string][]string // where a credential stands first, by its kind and digest
}

// consumers returns the directory of the document: the one that is looked into already when nothing has changed.
func (j *job) consumers() *directory {
	hash := j.loaded.Hash("consumers")
	if current := j.compiler.consumers.current.Load(); current.hash == hash {
		return current
	}
	j.count.Consumers++
	all := j.loaded.Document.Consumers
	d := directoryJob{job: j, owners: map[string][]string{}, directory: &directory{
		hash: hash, keys: make(map[[sha256.Size]byte]*exchange.Consumer, len(all)),
		passwords: map[string]password{}, subjects: map[string]*exchange.Consumer{}, certs: map[certificateKey]*exchange.Consumer{},
	}}
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if i%consumersPerTurn == 0 {
			runtime.Gosched()
		}
		d.consumer(name, all[name])
	}
	return d.directory
}

func (d *directoryJob) consumer(name string, m model.Consumer) {
	owner := &exchange.Consumer{Name: name, Groups: m.Groups, Labels: m.Labels}
	for i, key := range m.Keys {
		at := []string{"consumers", name, "keys", strconv.Itoa(i)}
		sum, err := keySum(key.Reveal())
		if err != nil {
			d.problem("invalid_value", err.Error(), at...)
			continue
		}
		if d.unique("key", string(sum[:]), at) {
			d.directory.keys[sum] = owner
		}
	}
	for i, b := range m.Basic {
		d.basic(owner, b, []string{"consumers", name, "basic", strconv.Itoa(i)})
	}
	for i, subject := range m.Subjects {
		at := []string{"consumers", name, "subjects", strconv.Itoa(i)}
		if subject == "" {
			d.problem("invalid_value", "the subject is empty", at...)
		} else if d.unique("subject", subject, at) {
			d.directory.subjects[subject] = owner
		}
	}
	for i, property := range m.Certificates {
		at := []string{"consumers", name, "certificates", strconv.Itoa(i)}
		key, err := parseCertificate(property)
		if err != nil {
			d.problem("invalid_value", err.Error(), at...)
		} else if d.unique("certificate's "+key.kind, key.value, at) {
			d.directory.certs[key] = owner
		}
	}
}

// keySum returns the SHA-256 of a key, which is written as sha256:HEX or is the key itself. Messages never quote it.
func keySum(key string) (sum [sha256.Size]byte, err error) {
	digits, hashed := strings.CutPrefix(key, "sha256:")
	switch {
	case key == "":
		return sum, fmt.Errorf("the key is empty")
	case !hashed:
		return sha256.Sum256([]byte(key)), nil
	}
	if len(digits) != 2*sha256.Size {
		return sum, fmt.Errorf("sha256: is followed by %d characters; the SHA-256 of a key is %d hexadecimal digits "+
			"(printf %%s KEY | sha256sum)", len(digits), 2*sha256.Size)
	}
	if _, err := hex.Decode(sum[:], []byte(digits)); err != nil {
		return sum, fmt.Errorf("what follows sha256: is not hexadecimal (printf %%s KEY | sha256sum)")
	}
	return sum, nil
}

func (d *directoryJob) basic(owner *exchange.Consumer, b model.Basic, at []string) {
	below := func(key string) []string { return append(slices.Clip(at), key) }
	if b.Username == "" || strings.ContainsAny(b.Username, ":\x00") {
		// RFC 7617 section 2: what follows the first colon is the password.
		d.problem("invalid_value", fmt.Sprintf("%q cannot be a user name; it is not empty and has no colon", b.Username), below("username")...)
		return
	}
	p := password{owner: owner}
	word := b.Password.Reveal()
	if hash, ok := strings.CutPrefix(word, "bcrypt:"); ok {
		cost, err := bcrypt.Cost([]byte(hash))
		if err != nil || cost > maxBcryptCost {
			d.problem("invalid_value", fmt.Sprintf("what follows bcrypt: is not a bcrypt hash of cost %d to %d, such as $2y$10$... "+
				"(htpasswd -nbB USER PASSWORD)", bcrypt.MinCost, maxBcryptCost), below("password")...)
			return
		}
		p.bcrypt, d.directory.cost = []byte(hash), max(d.directory.cost, cost)
	} else if word == "" || len(word) > maxPassword {
		d.problem("invalid_value", fmt.Sprintf("a password has 1 to %d bytes; this one has %d", maxPassword, len(word)), below("password")...)
		return
	} else {
		p.sum = d.compiler.consumers.sum(b.Username, word)
	}
	if d.unique("user name", b.Username, below("username")) {
		d.directory.passwords[b.Username] = p
	}
}

// unique reports whether a credential stands here first; otherwise it says where it stood, never what it is.
func (d *directoryJob) unique(what, value string, at []string) bool {
	id := what + "\x00" + value
	first, again := d.owners[id]
	if !again {
		d.owners[id] = at
		return true
	}
	d.problem("duplicate_credential", fmt.Sprintf("this %s is already %s's (%s); a %s leads to one consumer",
		what, first[1], d.place(first), what), at...)
	return false
}
