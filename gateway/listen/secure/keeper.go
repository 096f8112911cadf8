package secure

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/watch"
)

// Options is what a Keeper stands on.
type Options struct {
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics *metric.Registry
	Random  io.Reader // of the keys of tickets
	Extend  []Extend  // asked, in this order, for what else belongs to a listener's terms
}

// Keeper holds what all listeners share and what outlives a reload: certificates from files, bundles of authorities, and
// the keys of tickets. It is safe for concurrent use.
type Keeper struct {
	options Options
	watched watch.Files
	taken   *metric.Counter
	refused *metric.Counter

	mu      sync.Mutex
	pairs   map[files]*pair
	bundles map[string]*bundle
	terms   map[*Terms]bool // true: of the live document
	tickets ring
}

// New returns a Keeper that holds nothing yet.
func New(o Options) *Keeper {
	k := &Keeper{options: o, pairs: map[files]*pair{}, bundles: map[string]*bundle{}, terms: map[*Terms]bool{}}
	changes := func(result string) *metric.Counter {
		return o.Metrics.Counter("headgate_certificate_changes_total",
			"Changes of the files of certificates and authorities, by whether they are used (taken) or the old ones stay (refused).",
			metric.Label{Name: "result", Value: result})
	}
	k.taken, k.refused = changes("taken"), changes("refused")
	o.Metrics.Collect("certificates", k.collect)
	return k
}

// turnEvery is how often it is asked whether the keys of tickets are old.
const turnEvery = time.Second

// Run follows changes of files, and makes new keys for tickets when it is time, until ctx is done.
func (k *Keeper) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	watching.Go(func() { k.watched.Run(ctx, k.Look) })
	defer watching.Wait()
	t := time.NewTicker(turnEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			k.turn()
		}
	}
}

// turn makes a new key for tickets when the current one is old enough.
func (k *Keeper) turn() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.terms) == 0 {
		return
	}
	turned, err := k.tickets.turn(k.options.Clock.Now(), k.rotation(), k.options.Random)
	if err != nil {
		k.options.Log.Error("no new key for session tickets could be made; the old one stays in use", "error", err)
	}
	if turned {
		for t := range k.terms {
			t.state.Load().setKeys(&k.tickets)
		}
	}
}

// rotation is the shortest that a live listener wants; the keys are everybody's. It is called with the lock held.
func (k *Keeper) rotation() time.Duration {
	least := time.Duration(0)
	for t, live := range k.terms {
		if d := t.config.Tickets.Rotation; live && d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	if least == 0 {
		return defaultRotation
	}
	return least
}

// defaultRotation is the model's, for a listener whose document was made without it.
const defaultRotation = 12 * time.Hour

// Look reads the files that have changed. What is wrong with them is logged, and what was read before stays in use.
func (k *Keeper) Look() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.options.Clock.Now()
	changed := map[any]bool{}
	for _, p := range k.pairs {
		if p.read(now) {
			k.tell(p.fault, "certificate", p.Cert, "names", namesOf(p.chain[0]), "not_after", p.chain[0].NotAfter)
			changed[p] = p.fault == nil
		}
	}
	for _, b := range k.bundles {
		if b.read(now) {
			k.tell(b.fault, "authorities", b.path, "count", len(b.authorities))
			changed[b] = b.fault == nil
		}
	}
	for t := range k.terms {
		if slices.ContainsFunc(t.pairs, func(p *pair) bool { return changed[p] }) ||
			slices.ContainsFunc(t.bundles, func(b *bundle) bool { return changed[b] }) {
			t.rebuild()
		}
	}
}

// tell reports a change.
func (k *Keeper) tell(f *fault, what ...any) {
	if f != nil {
		k.refused.Inc(0)
		k.options.Log.Error("a changed file is not used; what it held before stays in use", append(what[:2:2], "error", f.message)...)
		return
	}
	k.taken.Inc(0)
	k.options.Log.Info("a changed file is used from now on", what...)
}

// pair returns the certificate in the files, read now unless somebody uses it already. It is called with the lock held.
func (k *Keeper) pair(f files) (*pair, *fault) {
	if p := k.pairs[f]; p != nil {
		p.users++
		return p, nil
	}
	p := &pair{files: f, users: 1}
	p.read(k.options.Clock.Now())
	if p.fault != nil {
		return nil, p.fault
	}
	k.pairs[f] = p
	return p, nil
}

// bundle returns the authorities in the file, likewise.
func (k *Keeper) bundle(path string) (*bundle, *fault) {
	if b := k.bundles[path]; b != nil {
		b.users++
		return b, nil
	}
	b := &bundle{path: path, users: 1}
	b.read(k.options.Clock.Now())
	if b.fault != nil {
		return nil, b.fault
	}
	k.bundles[path] = b
	return b, nil
}

// release gives up what terms use. It is called with the lock held.
func (k *Keeper) release(t *Terms) {
	for _, p := range t.pairs {
		if p.users--; p.users == 0 {
			delete(k.pairs, p.files)
		}
	}
	for _, b := range t.bundles {
		if b.users--; b.users == 0 {
			delete(k.bundles, b.path)
		}
	}
	delete(k.terms, t)
	k.follow()
}

// follow tells which files are to be watched. It is called with the lock held.
func (k *Keeper) follow() {
	paths := slices.Collect(maps.Keys(k.bundles))
	for f := range k.pairs {
		paths = append(paths, f.Cert, f.Key)
	}
	k.watched.Set(paths)
}

// Status describes every certificate of the live document, those in files first.
func (k *Keeper) Status() []Status {
	list, live := k.ofFiles()
	for _, t := range live {
		for _, source := range t.sources {
			for _, s := range source.Status() {
				s.Listeners = []string{t.listener}
				list = append(list, s)
			}
		}
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(sortKey(a), sortKey(b)) })
	return list
}

// ofFiles describes the certificates in files, and returns the live terms.
func (k *Keeper) ofFiles() (list []Status, live []*Terms) {
	k.mu.Lock()
	defer k.mu.Unlock()
	users := map[*pair][]string{}
	for t, isLive := range k.terms {
		if !isLive {
			continue
		}
		live = append(live, t)
		for _, p := range t.pairs {
			if !slices.Contains(users[p], t.listener) {
				users[p] = append(users[p], t.listener)
			}
		}
	}
	list = []Status{}
	for p, listeners := range users {
		s := p.status(k.options.Clock.Now())
		s.Listeners = slices.Sorted(slices.Values(listeners))
		list = append(list, s)
	}
	return list, live
}

func sortKey(s Status) string {
	kind := "1"
	if s.Source == "file" {
		kind = "0"
	}
	return strings.Join(append([]string{kind, s.Source, s.Cert}, append(s.Listeners, s.Names...)...), "\x00")
}

// collect tells when certificates expire, and whether a newer one could not be used.
func (k *Keeper) collect(emit metric.Emit) {
	for _, s := range k.Status() {
		if s.NotAfter.IsZero() {
			continue // a source has none yet
		}
		name := s.Cert
		if name == "" && len(s.Names) > 0 {
			name = s.Names[0]
		}
		failing := 0.0
		if s.Error != "" {
			failing = 1
		}
		for _, l := range s.Listeners {
			labels := []metric.Label{{Name: "listener", Value: l}, {Name: "source", Value: s.Source}, {Name: "certificate", Value: name}}
			emit("headgate_certificate_expiry_timestamp_seconds", "When a served certificate expires, in seconds since 1970.", metric.TypeGauge,
				float64(s.NotAfter.Unix()), labels...)
			emit("headgate_certificate_failing", "1: a newer certificate could not be used, or not be got; /status says why.", metric.TypeGauge,
				failing, labels...)
		}
	}
}

// identityOf is a fingerprint of what is asked of clients' certificates.
func identityOf(parts ...[]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, p := range parts {
		sum := sha256.Sum256(p)
		h.Write(sum[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// closeAll calls every function that is there.
func closeAll(extensions []Extension) (err error) {
	for _, e := range extensions {
		if e.Close != nil {
			err = errors.Join(err, e.Close())
		}
	}
	return err
}
