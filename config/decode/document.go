package decode

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"headgate/config/model"
)

// extension begins the names of top-level keys that the decoder leaves alone: a place for anchors.
const extension = "x-"

// File is one file of a document: a name for messages (its path; relative ${file:} references begin in its folder), and
// its content, one or several YAML documents. JSON is YAML.
type File struct {
	Name string
	Data []byte
}

// Loaded is a document that was read, and where everything in it stands. It is immutable.
type Loaded struct {
	Document model.Document
	files    []string
	objects  map[string]map[string]object // by section and name
	sections map[string]object            // where a section stands first
	refs     []string
}

// object is one named thing of a document.
type object struct {
	file       int
	key, value *yaml.Node
}

// Document reads a document from one or several files, each of which may hold several YAML documents. Sections that map
// names to objects (apis, upstreams, ...) are merged over all files; a name given twice is a problem, and so is any
// other section that stands in two places. Top-level keys that begin with x- are left alone.
//
// ${env:NAME} and ${file:PATH} are replaced inside every value, before its type is read; one newline is taken from the
// end of a file; $${ stands for ${. Each file is read once. What came from a reference is masked in messages.
//
// All problems of all files are returned, sorted by place. Loaded is never nil: with problems it holds what could be read.
func Document(files []File) (*Loaded, Problems) {
	return document(files, newReferences(""))
}

func document(files []File, refs *references) (*Loaded, Problems) {
	l := &Loaded{objects: map[string]map[string]object{}, sections: map[string]object{}}
	d := newDecoder(refs)
	target := reflect.ValueOf(&l.Document).Elem()
	d.defaults(target)
	for i, f := range files {
		l.files = append(l.files, f.Name)
		d.file, refs.dir = f.Name, filepath.Dir(f.Name)
		for _, root := range d.parse(f.Data) {
			if d.prepare(root) {
				d.sections(l, i, root, target)
			}
		}
	}
	l.refs = refs.names()
	return l, d.problems.Sort()
}

// sections decodes the top level of one YAML document into the whole.
func (d *decoder) sections(l *Loaded, file int, root *yaml.Node, target reflect.Value) {
	root = d.enter(root)
	if root == nil {
		return
	}
	defer d.leave(root)
	info := d.info(target.Type())
	if root.Kind != yaml.MappingNode && !isEmpty(root) && !isNull(root) {
		d.problem(root, "wrong_type", "expected a mapping with the keys %s, found %s", allowed(info), d.describe(root))
		return
	}
	entries, _ := d.entries(root)
	for _, e := range entries {
		name := e.key.Value
		f := info.find(name)
		switch {
		case f == nil && strings.HasPrefix(name, extension):
			continue
		case f == nil:
			d.unknownKey(e.key, info)
			continue
		case isNull(e.value) || isEmpty(e.value):
			continue
		}
		d.push(name)
		first, again := l.sections[name]
		if !again {
			l.sections[name] = object{file, e.key, e.value}
		}
		switch v := target.FieldByIndex(f.index); {
		case v.Kind() == reflect.Map:
			d.objects(l, file, name, e.value, v)
		case again:
			d.problem(e.key, "duplicate_key", "%s is already written at %s; keep it in one place", name, l.place(first))
		default:
			d.value(e.value, v, f.tag)
		}
		d.pop()
	}
}

// objects decodes the named objects of one section of one file, and lets others run between them.
func (d *decoder) objects(l *Loaded, file int, section string, start *yaml.Node, v reflect.Value) {
	n := d.enter(start)
	if n == nil {
		return
	}
	defer d.leave(start)
	entries, _ := d.entries(n)
	if v.IsNil() {
		v.Set(reflect.MakeMapWithSize(v.Type(), len(entries)))
		l.objects[section] = make(map[string]object, len(entries))
	}
	for _, e := range entries {
		name := e.key.Value
		d.push(name)
		if first, again := l.objects[section][name]; again {
			d.problem(e.key, "duplicate_object", "%s is already written at %s", quote(name), l.place(first))
		} else {
			l.objects[section][name] = object{file, e.key, e.value}
			item := reflect.New(v.Type().Elem()).Elem()
			d.element(e.value, item, "")
			v.SetMapIndex(reflect.ValueOf(name), item)
		}
		d.pop()
		runtime.Gosched() // a reload must not hold up the requests of a gateway on one core
	}
}

func (l *Loaded) place(o object) string {
	return Problem{File: l.files[o.file], Line: o.key.Line, Col: o.key.Column}.Place()
}

// At returns where something of the document is written, given its path, such as apis, shop, routes, list orders, match.
// What is not written there (a default, a policy without options) is placed at the nearest thing above it that is; a
// document without anything at its first file.
func (l *Loaded) At(path []string) (file string, line, col int) {
	if len(path) == 0 {
		return l.start()
	}
	o, rest := l.sections[path[0]], path[1:]
	if objects := l.objects[path[0]]; objects != nil && len(rest) > 0 {
		if named, ok := objects[rest[0]]; ok {
			o, rest = named, rest[1:]
		} else {
			rest = nil
		}
	}
	if o.key == nil {
		return l.start()
	}
	place, steps := find(o.value, rest)
	if steps == 0 {
		place = pointAt(o.key, o.value)
	}
	return l.files[o.file], place.Line, place.Column
}

// Has reports whether something is written at a path of the document: whether it is not a default.
func (l *Loaded) Has(path ...string) bool {
	if len(path) == 0 {
		return false
	}
	if objects := l.objects[path[0]]; objects != nil && len(path) > 1 {
		named, ok := objects[path[1]]
		if !ok || len(path) == 2 {
			return ok
		}
		_, steps := find(named.value, path[2:])
		return steps == len(path)-2
	}
	o, ok := l.sections[path[0]]
	if !ok {
		return false
	}
	_, steps := find(o.value, path[1:])
	return steps == len(path)-1
}

func (l *Loaded) start() (file string, line, col int) {
	if len(l.files) == 0 {
		return "", 0, 0
	}
	return l.files[0], 1, 1
}

// Problem returns a problem at a path of the document, in its place.
func (l *Loaded) Problem(code, message string, path ...string) Problem {
	file, line, col := l.At(path)
	return Problem{File: file, Line: line, Col: col, Path: FormatPath(path), Code: code, Message: message}
}

// References returns the paths of the files that ${file:} references asked for, found or not, sorted.
func (l *Loaded) References() []string { return l.refs }

// Objects returns the names of a section's objects, sorted.
func (l *Loaded) Objects(section string) []string {
	return slices.Sorted(maps.Keys(l.objects[section]))
}

// Hash is a fingerprint of a part of a document. It covers secrets, so it must not be published.
type Hash [sha256.Size]byte

// Hash returns the fingerprint of a section (policies, admin, apis) or of one object (apis, shop): of what is written
// there with aliases followed and references replaced. Places, comments and layout do not count. What is not written
// has the zero Hash.
func (l *Loaded) Hash(section string, name ...string) Hash {
	objects := l.objects[section]
	if len(name) > 0 {
		return hashNode(objects[name[0]].value)
	}
	if objects == nil {
		return hashNode(l.sections[section].value)
	}
	h := sha256.New()
	for _, name := range l.Objects(section) {
		sum := hashNode(objects[name].value)
		writeText(h, name)
		h.Write(sum[:])
	}
	return Hash(h.Sum(nil))
}

func hashNode(n *yaml.Node) (sum Hash) {
	if n == nil {
		return sum
	}
	h := sha256.New()
	hashInto(h, n, 0)
	h.Sum(sum[:0])
	return sum
}

// hashInto writes a node without ambiguity: kind, number of children, tag and text, each with its length.
func hashInto(h hash.Hash, n *yaml.Node, depth int) {
	if n = behind(n); depth > maxDepth {
		return
	}
	var head [9]byte
	head[0] = byte(n.Kind)
	binary.LittleEndian.PutUint64(head[1:], uint64(len(n.Content)))
	h.Write(head[:])
	writeText(h, n.Tag)
	writeText(h, n.Value)
	for _, c := range n.Content {
		hashInto(h, c, depth+1)
	}
}

func writeText(h hash.Hash, s string) {
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(s)))
	h.Write(length[:])
	h.Write([]byte(s))
}
