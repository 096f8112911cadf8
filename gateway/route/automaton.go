package route

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// maxStates bounds the comparison of two expressions: determinising one can take exponentially many states. Pairs that need
// more count as undecided.
const maxStates = 4096

// maxSymbols bounds the classes of characters that two expressions tell apart, for the same reason.
const maxSymbols = 512

// comparison is what the languages of two expressions have in common.
type comparison struct {
	overlap bool   // some text fits both
	witness string // the first such text found, one of the shortest
	covered bool   // whatever fits the second fits the first
	empty   bool   // nothing fits the second
	decided bool   // the above could be found out; otherwise nothing of it counts
}

// domain is the set of texts that is looked at.
type domain struct {
	path     bool // a slash comes first, unless the text is empty
	nonEmpty bool
}

// compare runs both expressions side by side over all texts of the domain, without control characters.
func compare(a, b string, in domain) comparison {
	first, second := compileProg(a), compileProg(b)
	if first == nil || second == nil {
		return comparison{}
	}
	symbols := alphabet(first, second)
	if len(symbols) > maxSymbols {
		return comparison{}
	}
	return explore(first, second, symbols, in)
}

func compileProg(expr string) *syntax.Prog {
	re, err := syntax.Parse(anchored(expr), syntax.Perl)
	if err != nil {
		return nil
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil
	}
	return prog
}

// pair is a state of both automata: the instructions before which each stands, and the character before (-1: none).
type pair struct {
	a, b []uint32
	prev rune
	from int // the pair before, for the witness
}

func explore(first, second *syntax.Prog, symbols []rune, in domain) comparison {
	result := comparison{covered: true, empty: true, decided: true}
	queue := []pair{{[]uint32{uint32(first.Start)}, []uint32{uint32(second.Start)}, -1, -1}}
	seen := map[string]bool{}
	for at := 0; at < len(queue); at++ {
		p := queue[at]
		if at > 0 || !in.nonEmpty {
			inA, inB := accepting(first, p.a, p.prev), accepting(second, p.b, p.prev)
			if inA && inB && !result.overlap {
				result.overlap, result.witness = true, spell(queue, at)
			}
			result.covered = result.covered && (inA || !inB)
			result.empty = result.empty && !inB
		}
		for _, r := range symbols {
			if at == 0 && in.path && r != '/' {
				continue
			}
			next := pair{step(first, p.a, p.prev, r), step(second, p.b, p.prev, r), r, at}
			if len(next.b) == 0 { // neither overlap nor a text of the second's can follow
				continue
			}
			if key := next.key(); !seen[key] {
				seen[key] = true
				queue = append(queue, next)
			}
		}
		if len(queue) > maxStates {
			return comparison{}
		}
	}
	return result
}

// key tells states apart. Of the character before only what assertions ask about it matters.
func (p pair) key() string {
	b := []byte{0}
	if syntax.IsWordChar(p.prev) {
		b[0] = 1
	}
	for _, set := range [][]uint32{p.a, p.b} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(set)))
		for _, pc := range set {
			b = binary.BigEndian.AppendUint32(b, pc)
		}
	}
	return string(b)
}

func spell(queue []pair, at int) string {
	var runes []rune
	for ; at > 0; at = queue[at].from {
		runes = append(runes, queue[at].prev)
	}
	slices.Reverse(runes)
	return string(runes)
}

// closure calls visit for every instruction that is reached from the set without a character, between prev and next.
func closure(prog *syntax.Prog, set []uint32, prev, next rune, visit func(*syntax.Inst)) {
	holds := syntax.EmptyOpContext(prev, next)
	seen := make([]bool, len(prog.Inst))
	var walk func(pc uint32)
	walk = func(pc uint32) {
		if seen[pc] {
			return
		}
		seen[pc] = true
		switch inst := &prog.Inst[pc]; inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			walk(inst.Out)
			walk(inst.Arg)
		case syntax.InstCapture, syntax.InstNop:
			walk(inst.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(inst.Arg)&^holds == 0 {
				walk(inst.Out)
			}
		default:
			visit(inst)
		}
	}
	for _, pc := range set {
		walk(pc)
	}
}

func accepting(prog *syntax.Prog, set []uint32, prev rune) (found bool) {
	closure(prog, set, prev, -1, func(inst *syntax.Inst) { found = found || inst.Op == syntax.InstMatch })
	return found
}

func step(prog *syntax.Prog, set []uint32, prev, r rune) (next []uint32) {
	if len(set) == 0 {
		return nil
	}
	closure(prog, set, prev, r, func(inst *syntax.Inst) {
		if inst.Op != syntax.InstMatch && inst.Op != syntax.InstFail && inst.MatchRune(r) {
			next = append(next, inst.Out)
		}
	})
	slices.Sort(next)
	return slices.Compact(next)
}

// alphabet returns one character for each class that the programs tell apart.
func alphabet(progs ...*syntax.Prog) []rune {
	bounds := []rune{' ', '/', '/' + 1, 0x7f, 0x80, unicode.MaxRune + 1}
	for _, prog := range progs {
		for i := range prog.Inst {
			bounds = appendBounds(bounds, &prog.Inst[i])
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	var symbols []rune
	for i := range len(bounds) - 1 {
		if bounds[i] >= ' ' && bounds[i] != 0x7f {
			symbols = append(symbols, representative(bounds[i], bounds[i+1]-1))
		}
	}
	// The readable ones first: they make the witness.
	slices.SortStableFunc(symbols, func(a, b rune) int { return ugliness(a) - ugliness(b) })
	return symbols
}

func appendBounds(bounds []rune, inst *syntax.Inst) []rune {
	switch inst.Op {
	case syntax.InstRune, syntax.InstRune1:
		if len(inst.Rune) == 1 {
			bounds = append(bounds, inst.Rune[0], inst.Rune[0]+1)
			if syntax.Flags(inst.Arg)&syntax.FoldCase != 0 {
				for f := unicode.SimpleFold(inst.Rune[0]); f != inst.Rune[0]; f = unicode.SimpleFold(f) {
					bounds = append(bounds, f, f+1)
				}
			}
			break
		}
		for i := 0; i+1 < len(inst.Rune); i += 2 {
			bounds = append(bounds, inst.Rune[i], inst.Rune[i+1]+1)
		}
	case syntax.InstEmptyWidth:
		if syntax.EmptyOp(inst.Arg)&(syntax.EmptyWordBoundary|syntax.EmptyNoWordBoundary) != 0 {
			bounds = append(bounds, '0', '9'+1, 'A', 'Z'+1, '_', '_'+1, 'a', 'z'+1)
		}
	}
	return bounds
}

func representative(lo, hi rune) rune {
	for _, r := range "xa1" {
		if lo <= r && r <= hi {
			return r
		}
	}
	if lo <= utf8.RuneError && utf8.RuneError <= hi || !utf8.ValidRune(lo) {
		return min(hi, max(lo, utf8.RuneError+1))
	}
	return lo
}

func ugliness(r rune) int {
	switch {
	case 'a' <= r && r <= 'z':
		return 0
	case r < 0x7f && ('0' <= r && r <= '9' || r == '-' || r == '.' || r == '_' || r == '/' || 'A' <= r && r <= 'Z'):
		return 1
	}
	return 2
}
