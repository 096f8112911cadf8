package source

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quiet is how long nothing must happen before the files are compared: an editor truncates, writes and renames.
	quiet = 100 * time.Millisecond
	// patience is how long a comparison may be put off by things that go on happening.
	patience = time.Second
	// pollEvery is how often the files are compared where the system cannot tell of changes.
	pollEvery = 2 * time.Second
	// recheckEvery is how often they are compared although it can: a network file system tells only of its own changes.
	recheckEvery = time.Minute
	// maxLinks stops a chain of links that leads back to itself.
	maxLinks = 40
	// maxWatched bounds what one source takes of the system's watches; beyond it the files are polled.
	maxWatched = 4096
)

// Watch calls onChange after the document, or a file that Also told of, has changed since the last Read: each time its
// content has, whether it was written, renamed over, behind a link that was swapped, added or removed. A touch is no
// change. A document that cannot be read any more is one, so that its reader can say so. Calls come one at a time, from
// this goroutine. Watch returns when ctx is done.
func (s *Source) Watch(ctx context.Context, onChange func()) {
	w := newWatcher()
	defer w.close()
	w.follow(s)
	s.compare(onChange) // whatever changed between Read and now
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
		case <-s.told:
		case <-poll.C:
		}
		waiting, giveUp = nil, nil
		w.follow(s)
		s.compare(onChange)
		poll.Reset(w.interval())
	}
}

func (s *Source) compare(onChange func()) {
	changed := s.changed()
	if changed {
		onChange()
	}
	if s.checked != nil {
		s.checked(changed)
	}
}

// watcher watches the folders in which something that matters may change.
type watcher struct {
	notify  *fsnotify.Watcher // nil where the system has none to give
	events  chan fsnotify.Event
	errors  chan error
	folders map[string]bool // of the document
	files   map[string]bool // of the document, or referenced, or links on the way
	whole   bool            // every folder that should be is watched
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
		w.notify.Close()
	}
}

func (w *watcher) interval() time.Duration {
	if w.whole {
		return recheckEvery
	}
	return pollEvery
}

// matters leaves out what has nothing to do with the document, such as a log that is written beside it.
func (w *watcher) matters(e fsnotify.Event) bool {
	e.Name = filepath.Clean(e.Name) // what happens in "." is told of as ./name
	name := filepath.Base(e.Name)
	if w.files[e.Name] || strings.HasPrefix(name, "..") { // ..data: Kubernetes swaps a link of this name
		return true
	}
	if !w.folders[filepath.Dir(e.Name)] {
		return w.folders[e.Name]
	}
	return isDocument(name) || e.Op&^(fsnotify.Write|fsnotify.Chmod) != 0 // the latter may be a folder
}

// follow watches what has to be watched now, and no more.
func (w *watcher) follow(s *Source) {
	var watched map[string]bool
	watched, w.folders, w.files = s.places()
	if w.notify == nil || len(watched) > maxWatched {
		w.whole = false
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

// places returns the folders to watch, those of them that are the document, and the files that matter in any of them,
// with the links on the way to each.
func (s *Source) places() (watched, folders, files map[string]bool) {
	watched, folders, files = map[string]bool{}, map[string]bool{}, map[string]bool{}
	var t tree
	if info, err := os.Stat(s.path); err == nil && info.IsDir() {
		_ = t.walk(s.path, 0) // what it found before it failed is worth watching
	}
	for _, folder := range t.folders {
		folders[folder], watched[folder] = true, true
	}
	paths := append(t.files, s.path)
	s.mu.Lock()
	for path := range s.refs {
		paths = append(paths, path)
	}
	s.mu.Unlock()
	for _, path := range paths {
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
