package manifest

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// blockText puts a block scalar's text together line by line (YAML 1.1, 9.3).
type blockText struct {
	b      strings.Builder
	folded bool
	last   string // the last line with text
	breaks int    // line ends since then
	lines  int
}

func (t *blockText) add(line string) {
	if t.lines++; t.lines > 1 {
		t.breaks++
	}
	if line == "" {
		return
	}
	if t.folded && t.last != "" && !spaced(t.last) && !spaced(line) {
		fold(&t.b, t.breaks)
	} else {
		t.newlines(t.breaks)
	}
	t.b.WriteString(line)
	t.last, t.breaks = line, 0
}

// end is the text. Unless another line followed, what was added last is what
// comes after the last line end, and ends no line.
func (t *blockText) end(chomp byte, followed bool) string {
	trailing := t.breaks
	if t.last == "" {
		trailing = t.lines
	}
	if followed {
		trailing++
	}
	switch {
	case t.last == "" && chomp == '+':
		t.newlines(trailing - 1)
	case t.last == "" || chomp == '-':
	case chomp == '+':
		t.newlines(trailing)
	case trailing > 0:
		t.newlines(1)
	}
	return t.b.String()
}

func (t *blockText) newlines(n int) {
	for ; n > 0; n-- {
		t.b.WriteByte('\n')
	}
}

func spaced(line string) bool { return line[0] == ' ' || line[0] == '\t' }

// quoted reads a quoted scalar.
func (p *parser) quoted() int32 {
	start := p.pos
	q := p.src[start]
	if end := p.closing(start); end >= 0 && strings.IndexByte(p.src[start+1:end], special(q)) < 0 {
		p.pos = end + 1
		return p.slice(start, start+1, end, false)
	}
	var b strings.Builder
	p.pos++
	for {
		if p.end() {
			p.fail(start, "a quote is not closed")
		}
		switch c := p.src[p.pos]; {
		case c == q && q == '\'' && p.pos+1 < len(p.src) && p.src[p.pos+1] == q:
			b.WriteByte(q)
			p.pos += 2
		case c == q:
			p.pos++
			return p.build(start, b.String(), false)
		case c == '\\' && q == '"':
			p.escape(&b)
		case c == ' ' || c == '\t' || c == '\n':
			p.quotedBlanks(&b, start)
		default:
			b.WriteByte(c)
			p.pos++
		}
	}
}

func special(q byte) byte {
	if q == '"' {
		return '\\'
	}
	return '\''
}

// quotedBlanks reads blanks inside quotes and folds line ends among them.
func (p *parser) quotedBlanks(b *strings.Builder, start int) {
	from, breaks := p.pos, 0
	for !p.end() && p.blank(p.pos) {
		if p.src[p.pos] == '\n' {
			breaks++
			p.line = p.pos + 1
		}
		p.pos++
		if breaks > 0 && p.marker() {
			p.fail(start, "a quote is not closed before the end of the document")
		}
	}
	if breaks == 0 {
		b.WriteString(p.src[from:p.pos])
		return
	}
	fold(b, breaks)
}

// escape reads one escape of a double-quoted scalar (YAML 1.1, 5.6).
func (p *parser) escape(b *strings.Builder) {
	at := p.pos
	if p.pos+1 >= len(p.src) {
		p.fail(at, "a quote is not closed")
	}
	c := p.src[p.pos+1]
	p.pos += 2
	const simple = "0\x00a\ab\bt\t\t\tn\nv\vf\fr\re\x1b  \"\"//\\\\"
	for i := 0; i < len(simple); i += 2 {
		if simple[i] == c {
			b.WriteByte(simple[i+1])
			return
		}
	}
	switch c {
	case 'N':
		b.WriteRune(0x85)
	case '_':
		b.WriteRune(0xa0)
	case 'L':
		b.WriteRune(0x2028)
	case 'P':
		b.WriteRune(0x2029)
	case 'x':
		b.WriteRune(p.hex(at, 2))
	case 'u':
		r := p.hex(at, 4)
		if utf16.IsSurrogate(r) && strings.HasPrefix(p.src[p.pos:], `\u`) { // as JSON writes it
			p.pos += 2
			r = utf16.DecodeRune(r, p.hex(at, 4))
		}
		if utf16.IsSurrogate(r) || r == utf8.RuneError {
			p.fail(at, "not a character")
		}
		b.WriteRune(r)
	case 'U':
		r := p.hex(at, 8)
		if !utf8.ValidRune(r) {
			p.fail(at, "not a character")
		}
		b.WriteRune(r)
	case '\n':
		p.line = p.pos
		for !p.end() && p.blank(p.pos) {
			if p.src[p.pos] == '\n' {
				p.line = p.pos + 1
				b.WriteByte('\n')
			}
			p.pos++
			if p.marker() {
				p.fail(at, "a quote is not closed before the end of the document")
			}
		}
	default:
		p.fail(at, "unknown escape")
	}
}

func (p *parser) hex(at, n int) rune {
	if p.pos+n > len(p.src) {
		p.fail(at, "bad escape")
	}
	var r rune
	for _, c := range []byte(p.src[p.pos : p.pos+n]) {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			p.fail(at, "bad escape")
		}
	}
	p.pos += n
	return r
}
