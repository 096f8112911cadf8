package main

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/config/source"
	"headgate/gateway/guard"
	"headgate/gateway/listen/revoke"
	"headgate/gateway/listen/secure"
	"headgate/gateway/release"
	"headgate/gateway/upstream"
	"headgate/internal/clock"
)

// node is one running gateway: it reads documents from its source and makes them live.
type node struct {
	*parts
	source  *source.Source
	doors   *doors
	own     ownLog
	started time.Time

	reloading sync.Mutex
	good      []decode.File                  // what the live document was made of; under reloading
	document  atomic.Pointer[model.Document] // the live one
	refused   atomic.Pointer[refusal]        // the last document, if it was refused
}

// refusal is a document that did not go live, or not all of it.
type refusal struct {
	At       time.Time       `json:"at"`
	Error    string          `json:"error"`
	Problems decode.Problems `json:"problems,omitempty"`
}

// newNode reads and compiles the first document. Nothing runs, and no door is open, before start.
func newNode(path string, c clock.Clock, stderr io.Writer) (*node, *compiled, error) {
	s, err := source.Open(path)
	if err != nil {
		return nil, nil, err
	}
	n := &node{source: s, started: c.Now()}
	n.parts = newParts(c, n.own.logger(stderr))
	n.doors = newDoors(n.parts)
	first, err := n.load(s)
	if err != nil {
		return nil, nil, err
	}
	n.own.configure(&first.document.Log)
	return n, first, nil
}

// Reload reads the document again and makes it live. When anything is wrong with it, the old one stays; of a folder, which
// may have many authors, only the files in which something is wrong keep their last good version.
func (n *node) Reload() error {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	if err := n.Ready(); err != nil {
		return fmt.Errorf("no document can go live now: the gateway is %w", err)
	}
	c, err := n.reload()
	if err != nil {
		n.refuse(err)
		n.log.Error("the document was refused; the one before it stays live", "error", err)
		return err
	}
	if len(c.held) > 0 {
		n.refuse(c.held)
		n.log.Error("files were refused; their last good versions stay live beside the others", "version", c.snapshot.Version, "error", c.held)
		return c.held
	}
	n.log.Info("reloaded", "version", c.snapshot.Version)
	return nil
}

func (n *node) reload() (*compiled, error) {
	files, err := n.source.Read()
	if err != nil {
		return nil, err
	}
	c, references, problems := n.compile(files)
	n.source.Also(references)
	if len(problems) > 0 {
		if c = n.holdBack(files, problems); c == nil {
			return nil, problems
		}
	}
	return c, n.goLive(c)
}

// holdBack compiles the document with the last good version of every file that has a problem, and without those that
// never had a good one. nil: that would not help.
func (n *node) holdBack(files []decode.File, problems decode.Problems) *compiled {
	if len(files) < 2 {
		return nil
	}
	bad, good := map[string]bool{}, map[string]decode.File{}
	for _, p := range problems {
		bad[p.File] = true
	}
	for _, f := range n.good {
		good[f.Name] = f
	}
	var mixed []decode.File
	for _, f := range files {
		if last, had := good[f.Name]; had && bad[f.Name] {
			mixed = append(mixed, last)
		} else if !bad[f.Name] {
			mixed = append(mixed, f)
		}
	}
	c, _, still := n.compile(mixed)
	if len(still) > 0 || len(mixed) == 0 {
		return nil
	}
	c.held = problems
	return c
}

// first makes the document that the gateway starts with live.
func (n *node) first(c *compiled) error {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	return n.goLive(c)
}

func (n *node) refuse(err error) {
	r := &refusal{At: n.clock.Now(), Error: err.Error()}
	errors.As(err, &r.Problems)
	n.refused.Store(r)
	n.record.Reloads().Failed()
}

// goLive makes a compiled document the one that is served.
func (n *node) goLive(c *compiled) error {
	s := c.snapshot
	fresh, err := n.doors.prepare(s)
	if err == nil {
		if failed := n.record.Configure(n.recordSettings(c.document)); failed != nil {
			err = located(c.loaded, failed)
			err = errors.Join(err, fresh.discard())
		}
	}
	if err != nil {
		n.discard(s)
		return err
	}
	n.good = c.files
	n.own.configure(&c.document.Log)
	if old := n.document.Load(); old != nil && old.Admin != c.document.Admin {
		n.log.Warn("a change of admin takes effect at the next start")
	}
	n.document.Store(c.document)
	n.guard.Configure(c.document.Limits)
	n.engine.Swap(s)
	n.doors.commit(s, fresh)
	n.refused.Store(nil)
	n.record.Reloads().Succeeded(s.Version, n.clock.Now())
	return nil
}

// Ready implements local.Node.
func (n *node) Ready() error {
	switch {
	case n.doors.draining.Load():
		return errors.New("draining")
	case n.engine.Current() == nil:
		return errors.New("starting")
	}
	return nil
}

// status is what operators see of a node.
type status struct {
	Version   string            `json:"version"`
	Started   time.Time         `json:"started"`
	Ready     string            `json:"ready"`
	Document  documentStatus    `json:"document"`
	Refused   *refusal          `json:"refused_document,omitempty"`
	Listeners []doorStatus      `json:"listeners"`
	Certs     []secure.Status   `json:"certificates"`
	Revoked   revoke.Status     `json:"revocation"`
	Overload  guard.Status      `json:"overload"`
	Upstreams []upstream.Status `json:"upstreams"`
	Releases  []release.Status  `json:"releases"` // splits, sticky cookies and mirrors, by their upstreams
	APIs      []apiStatus       `json:"apis"`
	Consumers int               `json:"consumers"`
}

type documentStatus struct {
	Path    string    `json:"path"`
	Version string    `json:"version"`
	Live    time.Time `json:"compiled"`
}

type apiStatus struct {
	Name    string        `json:"name"`
	Version string        `json:"version,omitempty"`
	Routes  []routeStatus `json:"routes"`
}

type routeStatus struct {
	Name     string   `json:"name"`
	Match    string   `json:"match"`
	Upstream string   `json:"upstream,omitempty"`
	Policies []string `json:"policies,omitempty"`
	Upgrades int64    `json:"upgrades_open,omitempty"`
}

// Status implements local.Node.
func (n *node) Status() any {
	st := status{
		Version: buildVersion(), Started: n.started, Ready: "ready", Refused: n.refused.Load(),
		Listeners: n.doors.status(), Certs: n.secure.Status(), Revoked: n.trust.revoke.Status(), Overload: n.guard.Status(),
	}
	if err := n.Ready(); err != nil {
		st.Ready = err.Error()
	}
	s := n.engine.Current()
	if s == nil {
		return st
	}
	st.Document = documentStatus{n.source.Path(), s.Version, s.Compiled}
	st.Consumers = len(n.document.Load().Consumers)
	st.Upstreams = []upstream.Status{}
	for _, u := range s.Upstreams() {
		st.Upstreams = append(st.Upstreams, u.Status())
	}
	st.Releases = []release.Status{}
	for _, f := range s.Fronts {
		st.Releases = append(st.Releases, f.Status(n.clock.Now()))
	}
	apis := map[string]int{}
	for _, r := range s.Routes {
		i, known := apis[r.Info.API]
		if !known {
			i = len(st.APIs)
			apis[r.Info.API] = i
			st.APIs = append(st.APIs, apiStatus{Name: r.Info.API, Version: r.Info.Version})
		}
		rs := routeStatus{Name: r.Info.Name, Match: r.Match, Upstream: r.Info.Upstream}
		if r.Upgrades != nil {
			rs.Upgrades = r.Upgrades.Group.Open()
		}
		for _, p := range r.Chain.Instances() {
			rs.Policies = append(rs.Policies, fmt.Sprintf("%s: %s", p.Stage, p.Name))
		}
		st.APIs[i].Routes = append(st.APIs[i].Routes, rs)
	}
	return st
}
