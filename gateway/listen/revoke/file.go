package revoke

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"headgate/internal/metric"
)

// file is a file of revocation lists. A newer version takes over when it is good; a bad one leaves the one before it.
type file struct {
	path    string
	uses    int // under Keeper.mu
	content atomic.Pointer[content]

	mu          sync.Mutex // guards what follows
	authorities []*x509.Certificate
	sum         [32]byte // of what was read last, good or bad
	trouble     error
	since       time.Time
}

type content struct {
	lists []*list
	sum   [32]byte
}

// read reads a file without parsing it, which is what costs.
func read(path string) (raw []byte, sum [32]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, sum, err
	}
	defer f.Close()
	raw, err = io.ReadAll(io.LimitReader(f, maxListFile+1))
	if err != nil {
		return nil, sum, err
	}
	if len(raw) > maxListFile {
		return nil, sum, fmt.Errorf("%s has more than %d bytes, which is too much for a revocation list", path, maxListFile)
	}
	return raw, sha256.Sum256(raw), nil
}

// good parses a file's lists and holds them against the authorities that are known.
func good(path string, raw []byte, authorities []*x509.Certificate) ([]*list, error) {
	lists, err := parse(raw)
	if err == nil {
		err = signed(lists, authorities)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return lists, nil
}

func (f *file) lists() []*list { return f.content.Load().lists }

// look takes a newer version over, if there is one and it is good.
func (f *file) look(now time.Time, log *slog.Logger) {
	f.mu.Lock()
	defer f.mu.Unlock()
	raw, sum, err := read(f.path)
	if err == nil {
		if sum == f.sum {
			return
		}
		f.sum = sum
		if sum == f.content.Load().sum {
			f.trouble = nil // it is again what is in use
			return
		}
		var lists []*list
		if lists, err = good(f.path, raw, f.authorities); err == nil {
			f.content.Store(&content{lists, sum})
			f.trouble = nil
			log.Info("revocation lists were read again", "file", f.path, "lists", len(lists))
			return
		}
	} else {
		f.sum = sum // so that what was there before is looked at when it is back
	}
	if f.trouble == nil || f.trouble.Error() != err.Error() {
		log.Error("a file of revocation lists cannot be used; the version before it stays", "file", f.path, "error", err)
		f.trouble, f.since = err, now
	}
}

// Status is what operators see of revocation.
type Status struct {
	Lists   []ListStatus `json:"lists,omitempty"`
	Answers int          `json:"ocsp_answers"` // that are kept
}

// ListStatus is what operators see of a revocation list.
type ListStatus struct {
	File       string     `json:"file"`
	Issuer     string     `json:"issuer"`
	Number     string     `json:"number,omitempty"`
	Revoked    int        `json:"revoked"`
	ThisUpdate time.Time  `json:"this_update"`
	NextUpdate time.Time  `json:"next_update,omitzero"`
	Outdated   bool       `json:"outdated,omitempty"`
	Error      string     `json:"error,omitempty"` // why a newer version of the file is not used
	ErrorAt    *time.Time `json:"error_at,omitempty"`
}

// Status describes lists and answers.
func (k *Keeper) Status() Status {
	s := Status{Answers: k.answers.len()}
	now := k.options.Clock.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.files {
		f.mu.Lock()
		for _, l := range f.lists() {
			ls := ListStatus{File: f.path, Issuer: l.signed.Issuer.String(), Revoked: len(l.revoked), ThisUpdate: l.signed.ThisUpdate,
				NextUpdate: l.signed.NextUpdate, Outdated: !l.current(now)}
			if l.signed.Number != nil {
				ls.Number = l.signed.Number.String()
			}
			if f.trouble != nil {
				since := f.since
				ls.Error, ls.ErrorAt = f.trouble.Error(), &since
			}
			s.Lists = append(s.Lists, ls)
		}
		f.mu.Unlock()
	}
	slices.SortFunc(s.Lists, func(a, b ListStatus) int {
		return bytes.Compare([]byte(a.File+"\x00"+a.Issuer), []byte(b.File+"\x00"+b.Issuer))
	})
	return s
}

// collect tells how long lists are current.
func (k *Keeper) collect(emit metric.Emit) {
	now := k.options.Clock.Now()
	for _, l := range k.Status().Lists {
		if !l.NextUpdate.IsZero() {
			emit("headgate_crl_remaining_seconds", "Time until a revocation list is outdated; negative: since.", metric.TypeGauge,
				l.NextUpdate.Sub(now).Seconds(), metric.Label{Name: "file", Value: l.File},
				metric.Label{Name: "issuer", Value: strings.ToValidUTF8(l.Issuer, "?")})
		}
	}
}
