package decode

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"headgate/internal/text"
)

// Tags that mark scalars whose references were dealt with. Written by a user they only make a text literal or masked.
const (
	referenceTag = "!headgate/reference" // the value came from outside: never show it
	literalTag   = "!headgate/literal"   // the value had $${ in it and is final
	brokenTag    = "!headgate/broken"    // a reference could not be resolved, which is already reported
)

const (
	// maxReference keeps a reference to a device or a huge file from filling memory.
	maxReference = 1 << 20
	// maxReferences keeps one scalar from naming a file of that size again and again.
	maxReferences = 16
)

var (
	scheme      = regexp.MustCompile(`^\$\{([a-z][a-z0-9_-]*):([^}]*)\}`)
	schemeStart = regexp.MustCompile(`^\$\{[a-z][a-z0-9_-]*:`)
	shellStyle  = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)
	variable    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// references resolves ${env:NAME} and ${file:PATH}; each file is read once, so that one document sees one content.
type references struct {
	dir   string // where relative paths begin
	env   func(string) (string, bool)
	read  func(path string) (string, error)
	files map[string]fileContent
}

type fileContent struct {
	text string
	err  error
}

func newReferences(dir string) *references {
	return &references{dir: dir, env: os.LookupEnv, read: readReference, files: map[string]fileContent{}}
}

// text returns the text of a scalar with its references replaced; false where that failed, which is then reported.
func (d *decoder) text(n *yaml.Node) (scalarText, bool) {
	switch n.Tag {
	case referenceTag:
		return scalarText{value: n.Value, secret: true}, true
	case literalTag:
		return scalarText{value: n.Value}, true
	case brokenTag:
		return scalarText{}, false
	}
	if !d.knownTag(n) {
		return scalarText{}, false
	}
	if !strings.Contains(n.Value, "${") {
		return scalarText{value: n.Value, plain: n.Style&^yaml.FlowStyle == 0}, true
	}
	value, secret, err := d.refs.expand(n.Value)
	var failed *referenceError
	if errors.As(err, &failed) {
		d.problem(n, failed.code, "%s", failed.message)
		return scalarText{}, false
	}
	return scalarText{value: value, secret: secret}, true
}

// knownTag refuses tags that would change what a scalar means.
func (d *decoder) knownTag(n *yaml.Node) bool {
	if n.Tag == "!!binary" || n.Tag != "" && !strings.HasPrefix(n.Tag, "!!") && n.Tag != "!" {
		d.problem(n, "unknown_tag", "the tag %s has no meaning here; remove it", n.Tag)
		return false
	}
	return true
}

type referenceError struct{ code, message string }

func (e *referenceError) Error() string { return e.message }

// expand replaces the references of s; secret reports whether there were any.
func (r *references) expand(s string) (value string, secret bool, err error) {
	var b strings.Builder
	count := 0
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			b.WriteString(s)
			return b.String(), secret, nil
		}
		if i > 0 && s[i-1] == '$' { // $${ is a literal ${
			b.WriteString(s[:i-1])
			b.WriteString("${")
			s = s[i+2:]
			continue
		}
		b.WriteString(s[:i])
		s = s[i:]
		m := scheme.FindStringSubmatch(s)
		if m == nil {
			if err := malformed(s); err != nil {
				return "", false, err
			}
			b.WriteString("${")
			s = s[2:]
			continue
		}
		if count++; count > maxReferences {
			return "", false, &referenceError{"bad_reference", fmt.Sprintf("more than %d references in one value", maxReferences)}
		}
		resolved, err := r.resolve(m[1], m[2])
		if err != nil {
			return "", false, err
		}
		b.WriteString(resolved)
		secret, s = true, s[len(m[0]):]
	}
}

// malformed explains what looks like a reference and is none.
func malformed(s string) error {
	if schemeStart.MatchString(s) {
		return &referenceError{"bad_reference", "the reference " + quote(s) + " has no closing }"}
	}
	if m := shellStyle.FindStringSubmatch(s); m != nil && m[1] == strings.ToUpper(m[1]) {
		return &referenceError{"bad_reference", m[0] + " is not a reference; write ${env:" + m[1] + "}, or $" + m[0] + " for the text itself"}
	}
	return nil
}

func (r *references) resolve(kind, name string) (string, error) {
	switch kind {
	case "env":
		if !variable.MatchString(name) {
			return "", &referenceError{"bad_reference", quote(name) + " is not the name of an environment variable"}
		}
		value, ok := r.env(name)
		if !ok {
			return "", &referenceError{"missing_reference", "the environment variable " + name + " is not set"}
		}
		return value, nil
	case "file":
		return r.file(name)
	}
	known := []string{"env", "file"}
	return "", &referenceError{"bad_reference", "unknown kind of reference " + quote(kind) + text.DidYouMean(kind, known) +
		"; write ${env:NAME} or ${file:PATH}, or $${ for the text itself"}
}

func (r *references) file(path string) (string, error) {
	if path == "" {
		return "", &referenceError{"bad_reference", "${file:} names no file"}
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.dir, path)
	}
	path = filepath.Clean(path)
	content, ok := r.files[path]
	if !ok {
		content.text, content.err = r.read(path)
		r.files[path] = content
	}
	if content.err == nil {
		return content.text, nil
	}
	reason := content.err.Error()
	var pe *fs.PathError
	if errors.As(content.err, &pe) {
		reason = pe.Err.Error()
	}
	return "", &referenceError{"missing_reference", "the file " + path + " cannot be read: " + reason}
}

// names returns the files that were asked for, found or not.
func (r *references) names() []string {
	var list []string
	for path := range r.files {
		list = append(list, path)
	}
	slices.Sort(list)
	return list
}

// readReference reads a regular file and takes one newline from its end.
func readReference(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxReference+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxReference {
		return "", fmt.Errorf("it is larger than %d bytes", maxReference)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
}
