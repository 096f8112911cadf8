// Package watch notices that files may have changed: written, renamed over, or behind a link that was swapped.
package watch

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	// maxWatched bounds what is taken of the system's watches; beyond it is polled.
	maxWatched = 1024
)

// Files is a set of files to watch. The zero value is an empty one. It is safe for concurrent use.
type Files struct {
	mu    sync.Mutex
	paths []string
	told  chan struct{}
}

// Set replaces the set. The files need not exist.
func (f *Files) Set(paths []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paths = paths
	select {
	case f.wake() <- struct{}{}:
	default: // it will be woken already
	}
}

// wake is called with the lock held.
func (f *Files) wake() chan struct{} {
	if f.told == nil {
		f.told = make(chan struct{}, 1)
	}
	return f.told
}

// Run calls onChange when one of the files may have changed, once in a while in any case, and after every Set: whoever is
// called compares contents. Calls come one at a time, from this goroutine. Run returns when ctx is done.
func (f *Files) Run(ctx context.Context, onChange func()) {
	f.mu.Lock()
	told := f.wake()
	f.mu.Unlock()
	w := newWatcher()
	defer w.close()
	w.follow(f)
	poll := time.NewTimer(w.interval())
	defer poll.Stop()
	var waiting, giveUp <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.events:
			if w.matters(e.Name) {
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
		w.follow(f)
		onChange()
		poll.Reset(w.interval())
	}
}

// watcher watches the folders in which something that matters may change.
type watcher struct {
	notify *fsnotify.Watcher // nil where the system has none to give
	events chan fsnotify.Event
	errors chan error
	files  map[string]bool // the set, and the links on the way to each
	whole  bool            // every folder that should be is watched
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

// matters leaves out what has nothing to do with the set, such as a log that is written beside it.
func (w *watcher) matters(path string) bool {
	path = filepath.Clean(path)
	return w.files[path] || strings.HasPrefix(filepath.Base(path), "..") // ..data: Kubernetes swaps a link of this name
}

// follow watches what has to be watched now, and no more.
func (w *watcher) follow(f *Files) {
	f.mu.Lock()
	paths := f.paths
	f.mu.Unlock()
	var folders map[string]bool
	folders, w.files = places(paths)
	if w.notify == nil || len(folders) > maxWatched {
		w.whole = len(paths) == 0
		return
	}
	for _, path := range w.notify.WatchList() {
		if !folders[path] {
			_ = w.notify.Remove(path) // it may be gone already
		}
	}
	w.whole = true
	for path := range maps.Keys(folders) {
		if err := w.notify.Add(path); err != nil {
			w.whole = false
		}
	}
}

// places returns the folders to watch, and the files in them that matter.
func places(paths []string) (folders, files map[string]bool) {
	folders, files = map[string]bool{}, map[string]bool{}
	for _, path := range paths {
		path = filepath.Clean(path)
		for range maxLinks {
			folders[filepath.Dir(path)], files[path] = true, true
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
	return folders, files
}
