package discover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/internal/watch"
)

// maxFile bounds a list of targets: MaxTargets of them have less.
const maxFile = 4 << 20

// maxTold bounds how many of a file's problems are told: a file of another kind has thousands.
const maxTold = 3

// file is a list of targets in a file, JSON or YAML. It implements Source.
type file struct{ path string }

// item is a target as it stands in a file: its address alone, or all of it.
type item struct {
	Address  string `yaml:"address" required:"true"`
	Host     string `yaml:"host"`
	Weight   int    `yaml:"weight" min:"0" max:"1000"`
	Priority int    `yaml:"priority" min:"0" max:"65535"`
	Zone     string `yaml:"zone"`
	Draining bool   `yaml:"draining"`
}

// SetDefaults gives a target weight 1.
func (i *item) SetDefaults() { i.Weight = 1 }

// FromScalar reads an address alone.
func (i *item) FromScalar(s string) error {
	i.Address, i.Weight = s, 1
	return nil
}

// Watch implements Source.
func (f file) Watch(ctx context.Context, found func([]Target, error)) {
	var files watch.Files
	files.Set([]string{f.path})
	var last []byte
	read := false
	files.Run(ctx, func() {
		content, err := f.read()
		if err != nil {
			read = false
			found(nil, err)
			return
		}
		if read && bytes.Equal(content, last) {
			return
		}
		last, read = content, true
		found(parse(f.path, content))
	})
}

func (f file) read() ([]byte, error) {
	r, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes, which is no list of targets", f.path, maxFile)
	}
	return content, nil
}

// parse reads a list of targets. A file with anything wrong in it is no answer.
func parse(path string, content []byte) ([]Target, error) {
	if bytes.Contains(content, []byte("${")) { // whoever may write the list need not be one who may read our secrets
		return nil, fmt.Errorf("%s has a reference, ${...}; a list of targets has none", path)
	}
	var node yaml.Node
	if err := yaml.Unmarshal(content, &node); err != nil {
		return nil, fmt.Errorf("%s is neither JSON nor YAML: %w", path, err)
	}
	if len(node.Content) == 0 {
		return nil, errEmpty
	}
	var items []item
	if problems := decode.Value(node.Content[0], &items).In(path); len(problems) > 0 {
		return nil, problems[:min(len(problems), maxTold)]
	}
	list := make([]Target, len(items))
	for i, t := range items {
		list[i] = Target(t)
	}
	return list, nil
}
