// Package source is where documents come from: a file, or a folder of files.
package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"headgate/config/decode"
)

const (
	// maxFiles stops a folder that is not a document (such as a home directory) from being read whole.
	maxFiles = 20_000
	// maxEntries stops the walk through such a folder before it has found that many files.
	maxEntries = 200_000
	// maxTotal bounds the memory that all files of a document take.
	maxTotal = 256 << 20
	// maxDepth stops folders that contain links to themselves.
	maxDepth = 32
)

// Source is a document on disk. Its methods may be called at the same time.
type Source struct {
	path    string
	checked func(changed bool) // told of every comparison, by tests

	mu   sync.Mutex
	seen digest            // of the document that Read returned last
	refs map[string]digest // of the referenced files, as they were then
	told chan struct{}     // wakes Watch when refs change
}

type digest [sha256.Size]byte

// Open returns the source at path: a file, or a folder whose *.yaml, *.yml and *.json files, at any depth, are one
// document. Names that begin with a dot are left out, and so are the other files.
func Open(path string) (*Source, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s does not exist; name a file or a folder", path)
	case err != nil:
		return nil, fmt.Errorf("%s cannot be read: %w", path, err)
	case !info.Mode().IsRegular() && !info.IsDir():
		return nil, fmt.Errorf("%s is neither a file nor a folder", path)
	}
	return &Source{path: filepath.Clean(path), refs: map[string]digest{}, told: make(chan struct{}, 1)}, nil
}

// Path returns the file or folder that the source was opened with.
func (s *Source) Path() string { return s.path }

// Read returns the files of the document as they are now, sorted by name. Watch reports changes since the last Read.
func (s *Source) Read() ([]decode.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path := range s.refs {
		s.refs[path] = digestFile(path)
	}
	files, err := read(s.path)
	s.seen = digestDocument(files, err)
	return files, err
}

// Also tells which other files the document depends on (see decode.Loaded.References), so that Watch reports their
// changes too. It replaces what was told before.
func (s *Source) Also(paths []string) {
	s.mu.Lock()
	refs := make(map[string]digest, len(paths))
	for _, path := range paths {
		path = filepath.Clean(path)
		known, ok := s.refs[path]
		if !ok {
			known = digestFile(path)
		}
		refs[path] = known
	}
	s.refs = refs
	s.mu.Unlock()
	select {
	case s.told <- struct{}{}:
	default: // it will be woken already
	}
}

// changed compares what is on disk with what was read last, and remembers what it finds.
func (s *Source) changed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	files, err := read(s.path)
	now := digestDocument(files, err)
	changed := now != s.seen
	s.seen = now
	for path, before := range s.refs {
		if now := digestFile(path); now != before {
			s.refs[path], changed = now, true
		}
	}
	return changed
}

// digestDocument covers the names and contents of all files, or the reason why they cannot be read.
func digestDocument(files []decode.File, err error) (sum digest) {
	h := sha256.New()
	if err != nil {
		fmt.Fprintf(h, "error %s", err)
	}
	for _, f := range files {
		fmt.Fprintf(h, "%d %s %d ", len(f.Name), f.Name, len(f.Data))
		h.Write(f.Data)
	}
	h.Sum(sum[:0])
	return sum
}

// digestFile covers a referenced file's content, or the reason why it cannot be read.
func digestFile(path string) digest {
	f := []decode.File{{Name: path}}
	var err error
	f[0].Data, err = readFile(path, maxTotal)
	return digestDocument(f, err)
}

// isDocument reports whether a file of this name belongs to the document of a folder.
func isDocument(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

// read returns the file, or the files of the folder, at path.
func read(path string) ([]decode.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	names := []string{path}
	if info.IsDir() {
		t := tree{}
		if err := t.walk(path, 0); err != nil {
			return nil, err
		}
		if len(t.files) == 0 {
			return nil, fmt.Errorf("there is no *.yaml, *.yml or *.json file in %s", path)
		}
		names = t.files
	}
	files := make([]decode.File, 0, len(names))
	left := int64(maxTotal)
	for _, name := range names {
		data, err := readFile(name, left)
		if err != nil {
			return nil, err
		}
		left -= int64(len(data))
		files = append(files, decode.File{Name: name, Data: data})
	}
	return files, nil
}

func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path) // opening a pipe would wait for its writer
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: a document may have %d bytes in all", path, int64(maxTotal))
	}
	return data, err
}

// tree is what a walk through a folder finds. Links are followed, except hidden ones: Kubernetes keeps each version of
// a ConfigMap in a hidden folder behind the link ..data, and the visible files are links through it.
type tree struct {
	folders []string
	files   []string // sorted
	entries int
}

func (t *tree) walk(folder string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: folders nested more than %d deep", folder, maxDepth)
	}
	t.folders = append(t.folders, folder)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	if t.entries += len(entries); t.entries > maxEntries {
		return fmt.Errorf("%s has more than %d entries; is it the folder that was meant?", folder, maxEntries)
	}
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		isFolder := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			info, err := os.Stat(path)
			if err != nil && isDocument(e.Name()) {
				return err
			}
			isFolder = err == nil && info.IsDir()
		}
		switch {
		case isFolder:
			if err := t.walk(path, depth+1); err != nil {
				return err
			}
		case isDocument(e.Name()):
			if t.files = append(t.files, path); len(t.files) > maxFiles {
				return fmt.Errorf("%s has more than %d files; is it the folder that was meant?", folder, maxFiles)
			}
		}
	}
	if depth == 0 {
		slices.Sort(t.files)
	}
	return nil
}
