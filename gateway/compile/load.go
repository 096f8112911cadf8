package compile

import (
	"slices"
	"strings"

	"headgate/config/decode"
	"headgate/gateway/engine"
)

// Load reads and compiles a document. The problems of both steps come together; what the second finds is left out where it
// only follows from the first. Loaded is never nil.
func (c *Compiler) Load(files []decode.File) (*engine.Snapshot, *decode.Loaded, decode.Problems) {
	loaded, problems := decode.Document(files)
	s, more := c.Compile(loaded)
	if len(problems) == 0 {
		return s, loaded, more
	}
	if s != nil { // a document that reads badly must not go live, even where the rest would do
		for _, f := range s.OnClose {
			if err := f(); err != nil {
				c.options.Log.Warn("what was compiled of a refused document did not close cleanly", "error", err)
			}
		}
	}
	all := problems
	for _, p := range more {
		if !slices.ContainsFunc(problems, func(q decode.Problem) bool { return within(p.Path, q.Path) || within(q.Path, p.Path) }) {
			all = append(all, p)
		}
	}
	return nil, loaded, all.Sort()
}

// within reports whether path is outer or something inside it. Everything is within a document that cannot be read.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (outer == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}
