package discover

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Store keeps the last good answer for each upstream: in memory for the next document, and in a folder for the next start.
// It is safe for concurrent use. A nil one keeps nothing.
type Store struct {
	folder string // "": memory alone
	mu     sync.Mutex
	memory map[string]saved
}

// saved is an answer as it is kept, for one source.
type saved struct {
	Upstream string    `json:"upstream"`
	Source   string    `json:"source"`
	At       time.Time `json:"at"`
	Targets  []Target  `json:"targets"`
}

const (
	// maxSaved bounds a file that is read back: MaxTargets of them have less.
	maxSaved = 8 << 20
	// maxRemembered bounds the memory when documents name ever new upstreams.
	maxRemembered = 4096
)

// NewStore returns a store that keeps answers in the folder, which is made when there is something to keep; "": it only
// remembers them.
func NewStore(folder string) *Store {
	return &Store{folder: folder, memory: map[string]saved{}}
}

// Load returns the last good answer of the upstream's source and when it was given. There is none if another source is
// asked now.
func (s *Store) Load(upstream, source string) ([]Target, time.Time, error) {
	if s == nil {
		return nil, time.Time{}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, known := s.memory[upstream]
	if !known && s.folder != "" {
		var err error
		if k, err = read(s.path(upstream)); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			return nil, time.Time{}, err
		}
	}
	if k.Upstream != upstream || k.Source != source {
		return nil, time.Time{}, nil
	}
	list, err := inspect(k.Targets)
	if err != nil {
		return nil, time.Time{}, err
	}
	return list, k.At, nil
}

// Save keeps an answer. What cannot be written is remembered all the same.
func (s *Store) Save(upstream, source string, at time.Time, targets []Target) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.memory {
		if len(s.memory) < maxRemembered {
			break
		}
		delete(s.memory, name)
	}
	k := saved{upstream, source, at, targets}
	s.memory[upstream] = k
	if s.folder == "" {
		return nil
	}
	return write(s.path(upstream), k)
}

// path is where an upstream's answer is: names may have any characters, and files may not.
func (s *Store) path(upstream string) string {
	sum := sha256.Sum256([]byte(upstream))
	return filepath.Join(s.folder, hex.EncodeToString(sum[:16])+".json")
}

func read(path string) (k saved, err error) {
	f, err := os.Open(path)
	if err != nil {
		return k, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxSaved+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return k, err
	}
	if len(content) > maxSaved {
		return k, fmt.Errorf("%s has more than %d bytes", path, maxSaved)
	}
	if err := json.Unmarshal(content, &k); err != nil {
		return k, fmt.Errorf("%s is not what was written there: %w", path, err)
	}
	return k, nil
}

// write replaces the file as a whole: whoever reads finds the old answer or the new one.
func write(path string, k saved) error {
	content, err := json.Marshal(k)
	if err != nil {
		return err
	}
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(folder, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
