package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/config/source"
	"headgate/gateway/upstream"
	"headgate/internal/clock"
)

// node is one running gateway: it reads documents from its source and makes them live.
type node struct {
	*parts
	source  *source.Source
	doors   *doors
	level   slog.LevelVar
	started time.Time

	reloading sync.Mutex
	document  atomic.Pointer[model.Document] // the live one
	refused   atomic.Pointer[refusal]        // the last document, if it was refused
}

// refusal is a document that did not go live.
type refusal struct {
	At       time.Time       `json:"at"`
	Error    string          `json:"error"`
	Problems decode.Problems `json:"problems,omitempty"`
}

// newNode reads the first document. Nothing runs, and no door is open, before start.
func newNode(path string, c clock.Clock, stderr io.Writer) (*node, *decode.Loaded, error) {
	s, err := source.Open(path)
	if err != nil {
		return nil, nil, err
	}
	l, err := load(s)
	if err != nil {
		return nil, nil, err
	}
	n := &node{source: s, started: c.Now()}
	n.level.Set(logLevel(l.Document.Log.Level))
	n.parts = newParts(c, newLogger(stderr, l.Document.Log.Format, &n.level))
	n.doors = newDoors(n.parts)
	return n, l, nil
}

// Reload reads the document again and makes it live. When anything is wrong with it, the old one stays.
func (n *node) Reload() error {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	l, err := load(n.source)
	if err == nil {
		err = n.goLive(l)
	}
	if err != nil {
		n.refuse(err)
		return err
	}
	n.log.Info("reloaded", "version", n.engine.Current().Version)
	return nil
}

// first makes the document that the gateway starts with live.
func (n *node) first(l *decode.Loaded) error {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	return n.goLive(l)
}

func (n *node) refuse(err error) {
	r := &refusal{At: n.clock.Now(), Error: err.Error()}
	errors.As(err, &r.Problems)
	n.refused.Store(r)
	n.record.Reloads().Failed()
	n.log.Error("the document was refused; the one before it stays live", "error", err)
}

// goLive compiles a document and makes it the one that is served.
func (n *node) goLive(l *decode.Loaded) error {
	s, problems := n.compiler.Compile(l)
	if len(problems) > 0 {
		return problems
	}
	fresh, err := n.doors.prepare(s)
	if err == nil {
		if err = n.record.Configure(n.recordSettings(&l.Document)); err != nil {
			for _, d := range fresh {
				err = errors.Join(err, d.listener.Close())
			}
		}
	}
	if err != nil {
		return errors.Join(err, discard(s))
	}
	n.level.Set(logLevel(l.Document.Log.Level))
	if old := n.document.Load(); old != nil && old.Admin != l.Document.Admin {
		n.log.Warn("a change of admin takes effect at the next start")
	}
	n.document.Store(&l.Document)
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
	Upstreams []upstream.Status `json:"upstreams"`
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
}

// Status implements local.Node.
func (n *node) Status() any {
	st := status{Version: buildVersion(), Started: n.started, Ready: "ready", Refused: n.refused.Load(), Listeners: n.doors.status()}
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
	apis := map[string]int{}
	for _, r := range s.Routes {
		i, known := apis[r.Info.API]
		if !known {
			i = len(st.APIs)
			apis[r.Info.API] = i
			st.APIs = append(st.APIs, apiStatus{Name: r.Info.API, Version: r.Info.Version})
		}
		rs := routeStatus{Name: r.Info.Name, Match: r.Match, Upstream: r.Info.Upstream}
		for _, p := range r.Chain.Instances() {
			rs.Policies = append(rs.Policies, fmt.Sprintf("%s: %s", p.Stage, p.Name))
		}
		st.APIs[i].Routes = append(st.APIs[i].Routes, rs)
	}
	return st
}
