package watch

import (
	"context"
	"sync"
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

func (f *Files) scope() Scope {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Scope{Files: f.paths}
}

// Run is Run for the set; onChange is called after every Set, too.
func (f *Files) Run(ctx context.Context, onChange func()) {
	f.mu.Lock()
	told := f.wake()
	f.mu.Unlock()
	Run(ctx, f.scope, told, onChange)
}
