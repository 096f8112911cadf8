package sticky

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Keyring has the key of the upstreams that name none: made once and kept in a folder, so that a restart knows the clients
// of before. It is safe for concurrent use.
type Keyring struct {
	folder string
	random io.Reader
	mu     sync.Mutex
	key    []byte
}

const (
	ownKeySize = 32
	ownKeyFile = "sticky.key"
)

// NewKeyring returns a keyring that keeps its key in the folder, which is made when a key is; "": only in memory. Nothing
// is read or made before Key.
func NewKeyring(folder string, random io.Reader) *Keyring {
	return &Keyring{folder: folder, random: random}
}

// Key returns this node's own key. The error says why it is not kept beyond this process; there is a key all the same.
func (k *Keyring) Key() ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key != nil {
		return k.key, nil
	}
	fresh := make([]byte, ownKeySize)
	if _, err := io.ReadFull(k.random, fresh); err != nil {
		return nil, err // no key is better than one that can be guessed
	}
	key, err := kept(k.folder, fresh)
	if err != nil {
		key = fresh
	}
	k.key = key
	return key, err
}

// kept returns the folder's key, which is fresh if there was none.
func kept(folder string, fresh []byte) ([]byte, error) {
	if folder == "" {
		return nil, errors.New("there is no folder to keep it in")
	}
	path := filepath.Join(folder, ownKeyFile)
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := makeKey(folder, path, fresh); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return readKey(path) // which is another process's if that was faster
}

func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, 2*ownKeySize+2))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != ownKeySize {
		return nil, fmt.Errorf("%s is no key of %d bytes in hexadecimal digits; remove it, and another one is made", path, ownKeySize)
	}
	return key, nil
}

// makeKey writes the file as a whole, unless it is there.
func makeKey(folder, path string, key []byte) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(folder, ".new-*") // readable by its owner alone
	if err != nil {
		return err
	}
	_, err = f.WriteString(hex.EncodeToString(key) + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if gone := os.Remove(f.Name()); err == nil {
		err = gone
	}
	return err
}
