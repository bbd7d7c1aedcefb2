package manifest

import (
	"strings"
	"unicode/utf8"
)

// Kind is the shape of a node.
type Kind uint8

// The kinds. A missing value ("key:") is a plain scalar without text.
const (
	Scalar Kind = iota
	Mapping
	Sequence
)

// node is kept small and free of pointers: a hostile megabyte has half a
// million of them.
type node struct {
	kind       Kind
	plain      bool  // a scalar without quotes, whose text decides its type
	pos        int32 // where it starts in the text
	start, end int32 // its text, or start = -1-i for the i-th built string
	first      int32 // first child, 0 if none; a mapping's are key, value, key, value
	next       int32 // next sibling, 0 if none
	count      int32 // number of children
}

const chunk = 4096

// Document is one document of a file.
type Document struct {
	file *file
	root int32
}

// file is the text and the nodes that its documents share. Node 0 is unused.
type file struct {
	name   string
	src    string
	chunks [][]node
	n      int32
	built  []string // scalars whose text differs from what is written
}

func (f *file) at(i int32) *node { return &f.chunks[i/chunk][i%chunk] }

func (f *file) add(n node) int32 {
	if f.n%chunk == 0 && int(f.n/chunk) == len(f.chunks) {
		f.chunks = append(f.chunks, make([]node, chunk))
	}
	i := f.n
	f.n++
	*f.at(i) = n
	return i
}

// Root is the document's top node.
func (d *Document) Root() Node { return Node{d.file, d.root} }

// Node is a place in a document. The zero Node is absent.
type Node struct {
	file *file
	i    int32
}

// Present reports whether the node exists.
func (n Node) Present() bool { return n.file != nil }

// Kind is the node's shape.
func (n Node) Kind() Kind { return n.file.at(n.i).kind }

// Len is the number of entries of a sequence or of keys of a mapping.
func (n Node) Len() int {
	r := n.file.at(n.i)
	if r.kind == Mapping {
		return int(r.count) / 2
	}
	return int(r.count)
}

// Text is a scalar's text, unquoted and folded.
func (n Node) Text() string {
	r := n.file.at(n.i)
	if r.start < 0 {
		return n.file.built[-1-r.start]
	}
	return n.file.src[r.start:r.end]
}

// Key looks a key of a mapping up; it is absent if there is none.
func (n Node) Key(key string) Node {
	if !n.Present() || n.Kind() != Mapping {
		return Node{}
	}
	for k, v := range n.Pairs {
		if k.Text() == key {
			return v
		}
	}
	return Node{}
}

// Index is the i-th entry of a sequence, absent if there is none.
func (n Node) Index(i int) Node {
	if !n.Present() || n.Kind() != Sequence {
		return Node{}
	}
	for e := range n.Entries {
		if i == 0 {
			return e
		}
		i--
	}
	return Node{}
}

// Pairs yields the keys and values of a mapping in written order.
func (n Node) Pairs(yield func(key, value Node) bool) {
	for i := n.file.at(n.i).first; i != 0; {
		v := n.file.at(i).next
		if !yield(Node{n.file, i}, Node{n.file, v}) {
			return
		}
		i = n.file.at(v).next
	}
}

// Entries yields the entries of a sequence in order.
func (n Node) Entries(yield func(Node) bool) {
	for i := n.file.at(n.i).first; i != 0; i = n.file.at(i).next {
		if !yield(Node{n.file, i}) {
			return
		}
	}
}

// Null reports whether the node is written as null, or is absent.
func (n Node) Null() bool { return !n.Present() || n.Kind() == Scalar && n.Type() == Null }

// Find follows a field path as the API server writes it
// ("spec.ingress[0].ports") as far as it exists.
func (n Node) Find(path string) Node {
	for path != "" {
		var next Node
		if path[0] == '[' {
			end := strings.IndexByte(path, ']')
			if end < 0 {
				return n
			}
			i, ok := 0, end > 1
			for _, c := range []byte(path[1:end]) {
				if c < '0' || c > '9' || i > len(n.file.src) {
					ok = false
					break
				}
				i = 10*i + int(c-'0')
			}
			if ok {
				next = n.Index(i)
			} else {
				next = n.Key(path[1:end])
			}
			path = path[end+1:]
		} else {
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			if end > 0 {
				next = n.Key(path[:end])
			} else {
				next = n
			}
			path = path[end:]
		}
		path = strings.TrimPrefix(path, ".")
		if !next.Present() {
			return n
		}
		n = next
	}
	return n
}

// Position is the node's line and column, from 1; columns count characters.
func (n Node) Position() (line, column int) { return position(n.file.src, int(n.file.at(n.i).pos)) }

func position(src string, pos int) (line, column int) {
	pos = min(pos, len(src))
	head := src[:pos]
	start := strings.LastIndexByte(head, '\n') + 1
	return 1 + strings.Count(head, "\n"), 1 + utf8.RuneCountInString(head[start:])
}

// Problemf is a problem at the node.
func (n Node) Problemf(path, why string) Problem {
	line, col := n.Position()
	return Problem{File: n.file.name, Line: line, Column: col, Path: path, Why: why}
}
