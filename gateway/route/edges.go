package route

import (
	"hash/maphash"
	"runtime"
)

// edges leads from nodes by literals to nodes: one table for the whole index, so that a step costs one look into it, one at
// the node and one at its text, however many children there are. In a map for each node a step among 50,000 routes touches
// twice as many cache lines.
type edges struct {
	seed  maphash.Seed
	slots []edge // a power of two, at most half full; filled by freeze
	grown map[edgeKey]*node
	nodes uint32
}

type edge struct {
	hash uint64
	node *node
}

type edgeKey struct {
	from uint32
	text string
}

// add returns the child of n by a literal, creating it if it is not there. It is for building only.
func (e *edges) add(n *node, text string) *node {
	if e.grown == nil {
		e.grown = map[edgeKey]*node{}
	}
	if n.id == 0 { // a root, or a child by a capture
		e.nodes++
		n.id = e.nodes
	}
	key := edgeKey{n.id, text}
	c := e.grown[key]
	if c == nil {
		e.nodes++
		c = &node{text: text, id: e.nodes, from: n.id}
		e.grown[key] = c
		n.literals++
		n.only = c
	}
	return c
}

// freeze prepares for finding.
func (e *edges) freeze() {
	e.seed = maphash.MakeSeed()
	size := 16
	for size < 2*len(e.grown) {
		size *= 2
	}
	e.slots = make([]edge, size)
	done := 0
	for key, c := range e.grown {
		if done++; done%(16*rulesPerTurn) == 0 {
			runtime.Gosched()
		}
		h := e.hash(key.from, key.text)
		i := h & uint64(size-1)
		for e.slots[i].node != nil {
			i = (i + 1) & uint64(size-1)
		}
		e.slots[i] = edge{h, c}
	}
	e.grown = nil
}

// hash depends on the node so that equal texts below different nodes do not crowd in one place.
func (e *edges) hash(from uint32, text string) uint64 {
	h := maphash.String(e.seed, text) ^ uint64(from)*0x9e3779b97f4a7c15
	return h ^ h>>29
}

// find returns the child of n by a literal, or nil.
func (e *edges) find(n *node, text string) *node {
	if n.literals < 2 {
		if c := n.only; c != nil && c.text == text {
			return c
		}
		return nil
	}
	h := e.hash(n.id, text)
	mask := uint64(len(e.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		s := &e.slots[i]
		if s.node == nil {
			return nil
		}
		if s.hash == h && s.node.text == text && s.node.from == n.id {
			return s.node
		}
	}
}
