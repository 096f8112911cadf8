// Package compile turns a document and the catalogue of policies into an engine.Snapshot: all of it, or every problem at
// once with its place.
//
// What did not change since the current snapshot is taken over as it is: upstreams with their connections and health, splits
// and mirrors, the
// policies of every request, each API with its policies, and the consumers. Each is a unit that lives as long as a snapshot
// holds it. Only the table of routes is built anew every time, because any two APIs may conflict in it.
package compile

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"sync"

	"headgate/config/decode"
	"headgate/gateway/engine"
	"headgate/gateway/listen/secure"
	"headgate/gateway/policy"
	"headgate/gateway/record"
	"headgate/gateway/release/sticky"
	"headgate/gateway/upstream"
	"headgate/gateway/wire/tunnel"
	"headgate/internal/clock"
	"headgate/internal/counter"
	"headgate/internal/metric"
)

// Options is what compiled documents stand on.
type Options struct {
	Kinds    []policy.Kind // the catalogue of policies
	Clock    clock.Clock
	Log      *slog.Logger
	Metrics  *metric.Registry
	Counters counter.Store
	HTTP     *http.Client // for policies that call somebody
	Expr     policy.Compiler
	Record   *record.Recorder // gives routes their meters; nil: they have none, which does for checking and explaining
	Upstream upstream.Env
	Tunnels  *tunnel.Registry // of connections that are switched to another protocol; nil: none is
	Sticky   *sticky.Keyring  // has the key of sticky cookies that are given none; nil: one of this process alone
	Secure   *secure.Keeper   // of certificates; nil: one of the compiler's own, which follows no changes of files
}

// Compiler compiles one document after the other. It is safe for concurrent use.
type Compiler struct {
	options   Options
	kinds     map[string]policy.Kind
	keeper    *policy.Keeper
	consumers *Consumers

	compiling sync.Mutex // held by Compile

	mu    sync.Mutex // guards what follows and the uses of every unit
	live  live       // of the snapshot that was swapped in last
	built Built
}

// live is what the next document may take over.
type live struct {
	upstreams map[string]*service
	fronts    map[string]*front
	global    *global
	apis      map[string]*api
	terms     []*secure.Terms
}

// Built counts the units that were built and not taken over from the snapshot before.
type Built struct {
	Upstreams, APIs int
	Policies        int
	Consumers       int // whole directories
	Fronts          int // what is asked in place of upstreams: splits, sticky cookies and mirrors
}

// New returns a compiler that has compiled nothing yet.
func New(o Options) *Compiler {
	c := &Compiler{options: o, kinds: map[string]policy.Kind{}, keeper: policy.NewKeeper()}
	if c.options.Secure == nil {
		c.options.Secure = secure.New(secure.Options{Clock: o.Clock, Log: o.Log, Metrics: o.Metrics, Random: rand.Reader})
	}
	if c.options.Sticky == nil {
		c.options.Sticky = newKeyring()
	}
	for _, k := range o.Kinds {
		c.kinds[k.Name] = k
	}
	c.consumers = newConsumers(func(b []byte) { _, _ = rand.Read(b) }) // never fails: crypto/rand.Read
	return c
}

// Consumers returns the index of known callers, which follows the snapshots as they are swapped in.
func (c *Compiler) Consumers() *Consumers { return c.consumers }

// Built returns how many units have been built so far.
func (c *Compiler) Built() Built {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.built
}

// job is the compiling of one document.
type job struct {
	compiler *Compiler
	loaded   *decode.Loaded
	problems decode.Problems
	held     []*unit // by the snapshot that is being made
	next     live
	count    Built
}

// Compile makes a snapshot of the document, or returns every problem. A snapshot must be given to engine.Swap or, instead,
// its OnClose be called: it holds units. Swapping must follow the order of compiling.
func (c *Compiler) Compile(l *decode.Loaded) (*engine.Snapshot, decode.Problems) {
	c.compiling.Lock()
	defer c.compiling.Unlock()
	j := &job{compiler: c, loaded: l, next: live{upstreams: map[string]*service{}, fronts: map[string]*front{}, apis: map[string]*api{}}}
	s := engine.NewSnapshot()
	s.Doors = j.doors()
	j.settings()
	j.upstreams()
	j.mentions()
	fronts := j.releases()
	directory := j.consumers()
	j.global()
	for _, name := range slices.Sorted(maps.Keys(l.Document.APIs)) {
		j.api(name)
		runtime.Gosched() // a reload must not hold up the requests of a gateway on one core
	}
	j.routes(s, fronts)
	j.checkRoutes()
	j.tcpDoors(s.Doors)
	if len(j.problems) > 0 {
		if err := errors.Join(c.release(j.held), j.closeTerms()); err != nil {
			c.options.Log.Warn("what was compiled of a refused document did not close cleanly", "error", err)
		}
		return nil, j.problems.Sort()
	}
	s.Version, s.Compiled = j.version(), c.options.Clock.Now()
	s.Behind, s.Fronts = j.behind(), j.next.sortedFronts()
	s.OnSwap = append(s.OnSwap, func() { c.consumers.publish(directory) }, func() { c.goLive(j) })
	s.OnSwap = append(s.OnSwap, fronts.live...)
	s.OnClose = append(s.OnClose, func() error { return errors.Join(c.release(j.held), j.closeTerms()) })
	return s, nil
}

// version is a short fingerprint of what the document says. The APIs have been hashed before, and they are most of it.
func (j *job) version() string {
	h := sha256.New()
	for _, section := range []string{"listeners", "upstreams", "consumers", "policies", "admin", "log", "tracing", "drain"} {
		sum := j.loaded.Hash(section)
		h.Write(sum[:])
	}
	for _, name := range j.loaded.Objects("apis") {
		key := sha256.Sum256([]byte(name))
		h.Write(key[:])
		h.Write(j.next.apis[name].hash[:])
	}
	// Ten digits tell documents apart and are too few to search for a secret that went into them.
	return hex.EncodeToString(h.Sum(nil))[:10]
}

// goLive makes what a snapshot is made of available to the next document.
func (c *Compiler) goLive(j *job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.live.terms {
		t.Retire()
	}
	c.live = j.next
	for _, t := range c.live.terms {
		t.Live()
	}
	c.built.Upstreams += j.count.Upstreams
	c.built.Fronts += j.count.Fronts
	c.built.APIs += j.count.APIs
	c.built.Policies += j.count.Policies
	c.built.Consumers += j.count.Consumers
	c.options.Metrics.Collect("fronts", collectFronts(c.options.Clock, c.live.sortedFronts()))
	for _, s := range c.live.upstreams {
		s.upstream.Bind(c.live.place)
	}
	for _, s := range c.live.upstreams {
		s.upstream.Start()
	}
}

func (j *job) problem(code, message string, path ...string) {
	j.problems = append(j.problems, j.loaded.Problem(code, message, path...))
}

// place returns file:line:col of something in the document.
func (j *job) place(path []string) string {
	file, line, col := j.loaded.At(path)
	return decode.Problem{File: file, Line: line, Col: col}.Place()
}
