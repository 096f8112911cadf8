package decode

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

const (
	// maxFile stops a file that would take minutes to parse and a hundred times its size in memory.
	maxFile = 32 << 20
	// chunk is how much is parsed before others may run: about a quarter of a millisecond of work.
	chunk = 4 << 10
)

// polite hands out a document in chunks and lets others run between them, so that parsing a large document does not
// hold up the requests of a gateway on one core.
type polite struct{ rest []byte }

func (p *polite) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	runtime.Gosched()
	n := copy(b[:min(len(b), chunk)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// parse returns the YAML documents of a file, up to its first syntax error, which is noted.
func (d *decoder) parse(data []byte) (roots []*yaml.Node) {
	if len(data) > maxFile {
		d.problem(nil, "too_large", "the file has %d bytes; allowed up to %d; split it into a folder", len(data), maxFile)
		return nil
	}
	parser := yaml.NewDecoder(&polite{data})
	for {
		var root yaml.Node
		switch err := parser.Decode(&root); {
		case errors.Is(err, io.EOF):
			return roots
		case err != nil:
			d.syntax(data, err)
			return roots
		}
		roots = append(roots, &root)
	}
}

// syntax explains why a file cannot be parsed.
func (d *decoder) syntax(data []byte, err error) {
	place, message := &yaml.Node{}, err.Error()
	var le *yaml.LoadError
	if errors.As(err, &le) {
		place.Line, place.Column = le.Mark.Line, le.Mark.Column
		if message = le.Message; le.ContextMsg != "" {
			message += " " + le.ContextMsg
		}
	}
	if place.Line == 0 {
		place.Line, place.Column = position(data, badCharacter(data))
	}
	d.problem(place, "syntax", "%s%s", message, syntaxHint(data, place, message))
}

// syntaxHint says what to do about the commonest mistakes.
func syntaxHint(data []byte, at *yaml.Node, message string) string {
	lines := bytes.SplitN(data, []byte("\n"), at.Line+1)
	var line []byte
	if at.Line > 0 && at.Line <= len(lines) {
		line = lines[at.Line-1]
	}
	indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
	switch {
	case bytes.Contains(indent, []byte("\t")):
		return "; indent with spaces, not with tabs"
	case strings.Contains(message, "mapping values are not allowed"):
		return "; quote a value that has a colon followed by a space in it, or check the brackets and the indentation here and above"
	case strings.Contains(message, "unknown anchor"):
		return "; an alias must stand after its anchor, in the same file and YAML document"
	case strings.Contains(message, "cannot start any token"):
		return "; quote a value that begins with @, ` or %"
	case strings.Contains(message, "did not find expected"):
		return "; check the indentation, the brackets and the quotes here and in the lines above"
	}
	return ""
}

// badCharacter returns the offset of the first byte that cannot stand in YAML.
func badCharacter(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 || r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f {
			return i
		}
		i += n
	}
	return 0
}

func position(data []byte, offset int) (line, col int) {
	before := data[:offset]
	return 1 + bytes.Count(before, []byte("\n")), offset - bytes.LastIndexByte(before, '\n')
}

// prepare makes one YAML document ready for decoding: its references are replaced in place, so that options which are
// decoded later need no environment, and aliases that stand for too much are refused.
func (d *decoder) prepare(root *yaml.Node) bool {
	aliases := expansion{sizes: map[*yaml.Node]int{}}
	total := aliases.size(root)
	switch {
	case aliases.loop != nil:
		d.problem(aliases.loop, "alias_loop", "the alias *%s stands inside what it stands for", aliases.loop.Value)
		return false
	case aliases.deep != nil:
		d.problem(aliases.deep, "too_deep", "nested more than %d levels deep", maxDepth)
		return false
	case total-aliases.written > maxAliased:
		d.problem(root, "too_many_aliases", "aliases stand for more than %d values; write fewer, or split the document", maxAliased)
		return false
	}
	d.replace(root)
	return true
}

// expansion counts what a tree would be with its aliases written out.
type expansion struct {
	sizes   map[*yaml.Node]int // of anchored nodes; 0 while being counted
	written int
	depth   int
	loop    *yaml.Node
	deep    *yaml.Node
}

func (x *expansion) size(n *yaml.Node) int {
	if x.depth++; x.depth > maxDepth {
		x.deep = n
	}
	defer func() { x.depth-- }()
	if x.loop != nil || x.deep != nil {
		return 0
	}
	if n.Kind == yaml.AliasNode {
		x.written++
		size, known := x.sizes[n.Alias]
		if !known || size == 0 {
			x.loop = n
		}
		return size
	}
	x.written++
	if n.Anchor != "" {
		x.sizes[n] = 0
	}
	size := 1
	for _, c := range n.Content {
		size = min(size+x.size(c), maxAliased*100)
	}
	if n.Anchor != "" {
		x.sizes[n] = size
	}
	return size
}

// replace resolves the references below n. What fails is reported and marked, so that it is not reported again.
func (d *decoder) replace(n *yaml.Node) {
	switch n.Kind {
	case yaml.DocumentNode:
		for _, c := range n.Content {
			d.replace(c)
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			d.push(strconv.Itoa(i))
			d.replace(c)
			d.pop()
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			d.push(n.Content[i].Value)
			d.replace(n.Content[i+1])
			d.pop()
		}
	case yaml.ScalarNode:
		if strings.HasPrefix(n.Tag, "!headgate/") {
			d.problem(n, "unknown_tag", "the tag %s has no meaning here; remove it", n.Tag)
			n.Tag = brokenTag
		}
		if strings.Contains(n.Value, "${") && n.Tag != brokenTag {
			d.replaceScalar(n)
		}
	}
}

func (d *decoder) replaceScalar(n *yaml.Node) {
	t, ok := d.text(n)
	switch {
	case !ok:
		n.Tag = brokenTag
	case t.secret:
		n.Value, n.Tag = t.value, referenceTag
	default:
		n.Value, n.Tag = t.value, literalTag
	}
}
