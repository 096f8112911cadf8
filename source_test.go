// Package headgate_test holds the rules of the house as tests: who may import whom (deps_test.go) and how the code is
// kept (tidy_test.go). It has no code of its own.
package headgate_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// source is one Go file of ours, parsed.
type source struct {
	path, folder string // from the root, with slashes; the root's folder is "."
	text         string
	test         bool
	ast          *ast.File
	fset         *token.FileSet
}

// at returns file:line of a node.
func (s source) at(n ast.Node) string { return fmt.Sprintf("%s:%d", s.path, s.line(n.Pos())) }

func (s source) line(p token.Pos) int { return s.fset.Position(p).Line }

// span returns how many lines a node takes.
func (s source) span(n ast.Node) int { return s.line(n.End()) - s.line(n.Pos()) + 1 }

// under reports whether the file lies in the folder or below it.
func (s source) under(folder string) bool { return fits(folder+"/...", s.folder) }

// skipped are folders that hold nothing that we wrote.
var skipped = []string{".git", "bin", "node_modules", ".work", "vendor"}

// textSuffixes are the files, besides Go, whose words are ours to answer for.
var textSuffixes = []string{".go", ".md", ".yaml", ".yml", ".sh", ".txt", ".mk", "Makefile", ".ci/run", "Dockerfile", ".service"}

// textFiles lists the paths of all text files of ours.
func textFiles(t *testing.T) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(skipped, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		path = filepath.ToSlash(path)
		if slices.ContainsFunc(textSuffixes, func(s string) bool { return strings.HasSuffix(path, s) }) {
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// parsed reads the tree once for all tests.
var parsed = sync.OnceValues(func() (files []source, err error) {
	fset := token.NewFileSet()
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (slices.Contains(skipped, d.Name()) || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		path = filepath.ToSlash(path)
		files = append(files, source{
			path: path, folder: filepath.ToSlash(filepath.Dir(path)), text: string(text),
			test: strings.HasSuffix(path, "_test.go"), ast: tree, fset: fset,
		})
		return nil
	})
	return files, err
})

// sources returns every Go file of ours.
func sources(t *testing.T) []source {
	t.Helper()
	files, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("found no Go files: these tests look at the tree from its root")
	}
	return files
}

// code returns every Go file that is not a test.
func code(t *testing.T) []source {
	return slices.DeleteFunc(slices.Clone(sources(t)), func(f source) bool { return f.test })
}
