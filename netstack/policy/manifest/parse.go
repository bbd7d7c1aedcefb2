package manifest

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrSize means a text is larger than its reader allows.
var ErrSize = errors.New("too large")

// MaxDepth bounds how deep values nest.
const MaxDepth = 64

// parser reads one text. It gives up by panicking with a [Problem], which
// [Parse] catches: a reader of nested text has no better way to unwind.
type parser struct {
	file  *file
	src   string
	pos   int
	line  int // offset of the current line's start
	depth int
}

// Parse reads all documents of a text of at most limit bytes. Empty documents
// are left out. The error is a *[Problems], or wraps [ErrSize].
func Parse(text []byte, name string, limit int) (docs []*Document, err error) {
	if len(text) > limit {
		return nil, fmt.Errorf("%s:1:1: %d bytes, at most %d are read: %w", name, len(text), limit, ErrSize)
	}
	src := strings.TrimPrefix(string(text), "\ufeff")
	if strings.IndexByte(src, '\r') >= 0 {
		src = strings.ReplaceAll(strings.ReplaceAll(src, "\r\n", "\n"), "\r", "\n")
	}
	p := &parser{file: &file{name: name, src: src, n: 1, chunks: [][]node{make([]node, min(chunk, len(src)+2))}}, src: src}
	if len(p.file.chunks[0]) < chunk {
		p.file.chunks[0] = make([]node, chunk)
	}
	defer func() {
		switch x := recover().(type) {
		case nil:
		case Problem:
			docs, err = nil, &Problems{List: []Problem{x}}
		default:
			panic(x)
		}
	}()
	p.checkCharacters()
	for {
		i, ok := p.document()
		if !ok {
			return docs, nil
		}
		if i != 0 {
			docs = append(docs, &Document{file: p.file, root: i})
		}
	}
}

func (p *parser) fail(pos int, format string, args ...any) {
	line, col := position(p.src, pos)
	panic(Problem{File: p.file.name, Line: line, Column: col, Why: fmt.Sprintf(format, args...)})
}

func (p *parser) checkCharacters() {
	for i := 0; i < len(p.src); {
		c := p.src[i]
		switch {
		case c >= 0x20 && c < 0x7f || c == '\n' || c == '\t':
			i++
			continue
		case c < utf8.RuneSelf:
			p.fail(i, "control character %#02x", c)
		}
		r, n := utf8.DecodeRuneInString(p.src[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			p.fail(i, "not UTF-8")
		case r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffe || r == 0xffff:
			p.fail(i, "character %U is not allowed", r)
		}
		i += n
	}
}

// document reads the next document; i is 0 if it is empty, ok false at the end.
func (p *parser) document() (i int32, ok bool) {
	p.skip(strict)
	if p.end() {
		return 0, false
	}
	if p.src[p.pos] == '%' && p.column() == 0 {
		p.fail(p.pos, "directives are refused")
	}
	inline := false
	if p.marker() {
		begin := p.src[p.pos] == '-'
		p.pos += 3
		if !begin {
			return 0, true
		}
		line := p.line
		p.skip(sameLine)
		if p.end() || p.marker() {
			return 0, true
		}
		inline = p.line == line
	}
	first := p.src[p.pos]
	if inline {
		i = p.inline(-1)
	} else {
		i = p.block(-1)
	}
	p.skip(strict)
	if !p.end() && !p.marker() && (first != '{' || p.src[p.pos] != '{') {
		p.fail(p.pos, "expected the end of the document (check the indentation)")
	}
	return i, true
}

func (p *parser) end() bool   { return p.pos >= len(p.src) }
func (p *parser) column() int { return p.pos - p.line }

// blank reports whether a blank, a line end or the end of the text is at i.
func (p *parser) blank(i int) bool {
	return i >= len(p.src) || p.src[i] == ' ' || p.src[i] == '\t' || p.src[i] == '\n'
}

// marker reports whether a document marker is here.
func (p *parser) marker() bool {
	if p.column() != 0 || p.pos+3 > len(p.src) {
		return false
	}
	m := p.src[p.pos : p.pos+3]
	return (m == "---" || m == "...") && p.blank(p.pos+3)
}

// blanks says where tabs may separate tokens, as the API server's reader has it.
type blanks uint8

const (
	strict   blanks = iota // not where a block's entry could start
	sameLine               // up to the end of the line
	anywhere               // inside braces and brackets
)

// skip goes to the next token, over blanks, comments and line ends.
func (p *parser) skip(tabs blanks) {
	for ; !p.end(); p.pos++ {
		switch p.src[p.pos] {
		case ' ':
		case '\t':
			if tabs == strict {
				p.fail(p.pos, "a tab may not indent")
			}
		case '\n':
			p.line = p.pos + 1
			if tabs == sameLine {
				tabs = strict
			}
		case '#':
			if p.pos > p.line && !p.blank(p.pos-1) {
				return
			}
			if n := strings.IndexByte(p.src[p.pos:], '\n'); n >= 0 {
				p.pos += n - 1
			} else {
				p.pos = len(p.src) - 1
			}
		default:
			return
		}
	}
}

func (p *parser) enter() {
	if p.depth++; p.depth > MaxDepth {
		p.fail(p.pos, "nested more than %d deep", MaxDepth)
	}
}

func (p *parser) leave() { p.depth-- }

func (p *parser) null() int32 {
	return p.file.add(node{kind: Scalar, plain: true, pos: int32(p.pos), start: int32(p.pos), end: int32(p.pos)})
}

func (p *parser) slice(pos, start, end int, plain bool) int32 {
	return p.file.add(node{kind: Scalar, plain: plain, pos: int32(pos), start: int32(start), end: int32(end)})
}

func (p *parser) build(pos int, text string, plain bool) int32 {
	p.file.built = append(p.file.built, text)
	return p.file.add(node{kind: Scalar, plain: plain, pos: int32(pos), start: int32(-len(p.file.built))})
}

// list links children to their parent.
type list struct {
	file         *file
	parent, last int32
}

func (l *list) append(i int32) {
	n := l.file.at(l.parent)
	if l.last == 0 {
		n.first = i
	} else {
		l.file.at(l.last).next = i
	}
	n.count++
	l.last = i
}

// refuse fails on what may not start a value here.
func (p *parser) refuse() {
	switch c := p.src[p.pos]; c {
	case '&':
		p.fail(p.pos, "anchors are refused")
	case '*':
		p.fail(p.pos, "aliases are refused")
	case '!':
		p.fail(p.pos, "tags are refused")
	case '%', '@', '`', ',', ']', '}', '#':
		p.fail(p.pos, "a value may not start with %q", c)
	case '-':
		if p.blank(p.pos + 1) {
			p.fail(p.pos, "a sequence may not start here")
		}
	case '?':
		if p.blank(p.pos + 1) {
			p.fail(p.pos, "complex keys are refused")
		}
	case ':':
		if p.blank(p.pos + 1) {
			p.fail(p.pos, "a key is missing before ':'")
		}
	}
}

// checkKeys refuses duplicate keys, merge keys and keys that are no strings.
func (p *parser) checkKeys(m int32) {
	n := Node{p.file, m}
	seen := make(map[string]struct{}, min(n.Len(), 1<<16))
	for k := range n.Pairs {
		text, ok := k.keyText()
		if !ok {
			p.fail(int(p.file.at(k.i).pos), "key %q is not a string", k.Text())
		}
		if text == "<<" && p.file.at(k.i).plain {
			p.fail(int(p.file.at(k.i).pos), "merge keys are refused")
		}
		if _, dup := seen[text]; dup {
			p.fail(int(p.file.at(k.i).pos), "duplicate field %q", text)
		}
		seen[text] = struct{}{}
	}
}
