package source

import (
	"context"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"

	"headgate/internal/watch"
)

// Watch calls onChange after the document, or a file that Also told of, has changed since the last Read: each time its
// content has, whether it was written, renamed over, behind a link that was swapped, added or removed. A touch is no
// change. A document that cannot be read any more is one, so that its reader can say so. Calls come one at a time, from
// this goroutine. Watch returns when ctx is done.
func (s *Source) Watch(ctx context.Context, onChange func()) {
	watch.Run(ctx, s.scope, s.told, func() { s.compare(onChange) })
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

// scope is where the document is now, and what it refers to.
func (s *Source) scope() watch.Scope {
	var t tree
	if info, err := os.Stat(s.path); err == nil && info.IsDir() {
		_ = t.walk(s.path, 0) // what it found before it failed is worth watching
	}
	scope := watch.Scope{Folders: t.folders, Files: append(t.files, s.path), Entry: mayBeDocument}
	s.mu.Lock()
	defer s.mu.Unlock()
	for path := range s.refs {
		scope.Files = append(scope.Files, path)
	}
	return scope
}

// mayBeDocument reports whether what happened to an entry of the document's folder concerns the document.
func mayBeDocument(e fsnotify.Event) bool {
	return isDocument(filepath.Base(e.Name)) || e.Op&^(fsnotify.Write|fsnotify.Chmod) != 0 // the latter may be a folder
}
