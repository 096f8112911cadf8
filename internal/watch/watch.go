// Package watch notices that files may have changed: written, renamed over, or behind a link that was swapped.
package watch

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quiet is how long nothing must happen before it is told: a certificate and its key are written one after the other.
	quiet = 100 * time.Millisecond
	// patience is how long telling may be put off by things that go on happening.
	patience = time.Second
	// pollEvery is how often it is told that files may have changed where the system cannot tell.
	pollEvery = 2 * time.Second
	// recheckEvery is how often although it can: a network file system tells only of its own changes.
	recheckEvery = time.Minute
	// maxLinks stops a chain of links that leads back to itself.
	maxLinks = 40
	// maxWatched bounds what one watcher takes of the system's watches; beyond it is polled.
	maxWatched = 4096
)

// Scope is what is to be watched at a moment. Nothing of it needs to exist.
type Scope struct {
	Files   []string // and the links on the way to each
	Folders []string // whose entries matter, too
	// Entry reports whether what happened to an entry of a folder matters; nil: it always does.
	Entry func(e fsnotify.Event) bool
}

// Run calls onChange at the start, when something of the scope may have changed, once in a while in any case, and whenever
// it is told to: whoever is called compares contents. The scope is asked for before each call. Calls come one at a time,
// from this goroutine. Run returns when ctx is done.
func Run(ctx context.Context, scope func() Scope, told <-chan struct{}, onChange func()) {
	w := newWatcher()
	defer w.close()
	w.follow(scope())
	onChange() // whatever has changed until now
	poll := time.NewTimer(w.interval())
	defer poll.Stop()
	var waiting, giveUp <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.events:
			if w.matters(e) {
				waiting = time.After(quiet)
				if giveUp == nil {
					giveUp = time.After(patience)
				}
			}
			continue
		case <-w.errors: // an overflow: something happened that we were not told of
		case <-waiting:
		case <-giveUp:
		case <-told:
		case <-poll.C:
		}
		waiting, giveUp = nil, nil
		w.follow(scope())
		onChange()
		poll.Reset(w.interval())
	}
}

// watcher watches the folders in which something that matters may change.
type watcher struct {
	notify  *fsnotify.Watcher // nil where the system has none to give
	events  chan fsnotify.Event
	errors  chan error
	files   map[string]bool // of the scope, and the links on the way to each
	folders map[string]bool // of the scope
	entry   func(fsnotify.Event) bool
	whole   bool // every folder that should be is watched
}

func newWatcher() *watcher {
	w := &watcher{}
	if n, err := fsnotify.NewWatcher(); err == nil {
		w.notify, w.events, w.errors = n, n.Events, n.Errors
	}
	return w
}

func (w *watcher) close() {
	if w.notify != nil {
		_ = w.notify.Close() // nothing is lost with it
	}
}

func (w *watcher) interval() time.Duration {
	if w.whole {
		return recheckEvery
	}
	return pollEvery
}

// matters leaves out what has nothing to do with the scope, such as a log that is written beside it.
func (w *watcher) matters(e fsnotify.Event) bool {
	e.Name = filepath.Clean(e.Name)                                        // what happens in "." is told of as ./name
	if w.files[e.Name] || strings.HasPrefix(filepath.Base(e.Name), "..") { // ..data: Kubernetes swaps a link of this name
		return true
	}
	if !w.folders[filepath.Dir(e.Name)] {
		return w.folders[e.Name]
	}
	return w.entry == nil || w.entry(e)
}

// follow watches what has to be watched now, and no more.
func (w *watcher) follow(s Scope) {
	var watched map[string]bool
	watched, w.folders, w.files = places(s)
	w.entry = s.Entry
	if w.notify == nil || len(watched) > maxWatched {
		w.whole = len(watched) == 0
		return
	}
	for _, path := range w.notify.WatchList() {
		if !watched[path] {
			_ = w.notify.Remove(path) // it may be gone already
		}
	}
	w.whole = true
	for path := range watched {
		if err := w.notify.Add(path); err != nil {
			w.whole = false
		}
	}
}

// places returns the folders to watch, those of them that are the scope's own, and the files that matter in any of them.
func places(s Scope) (watched, folders, files map[string]bool) {
	watched, folders, files = map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, folder := range s.Folders {
		folders[folder], watched[folder] = true, true
	}
	for _, path := range s.Files {
		path = filepath.Clean(path)
		for range maxLinks {
			watched[filepath.Dir(path)], files[path] = true, true
			target, err := os.Readlink(path)
			if err != nil {
				break
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(path), target)
			}
			path = target
		}
	}
	return watched, folders, files
}
