package manifest

import "strings"

// block reads the value that starts here, indented deeper than parent.
func (p *parser) block(parent int) int32 {
	p.enter()
	defer p.leave()
	c := p.src[p.pos]
	if c == '-' && p.blank(p.pos+1) {
		return p.blockSequence(p.column())
	}
	p.refuse()
	if c == '|' || c == '>' {
		return p.blockScalar(parent)
	}
	if key, ok := p.key(); ok {
		return p.blockMapping(key)
	}
	return p.inline(parent)
}

func (p *parser) blockSequence(col int) int32 {
	l := list{file: p.file, parent: p.file.add(node{kind: Sequence, pos: int32(p.pos)})}
	for {
		p.pos++ // the dash
		line := p.line
		p.skip(strict)
		if !p.end() && !p.marker() && (p.line == line || p.column() > col) {
			l.append(p.block(col))
		} else {
			l.append(p.null())
		}
		p.skip(strict)
		if p.end() || p.column() < col || p.marker() {
			return l.parent
		}
		if p.column() > col {
			p.fail(p.pos, "bad indentation of a sequence entry")
		}
		if p.src[p.pos] != '-' || !p.blank(p.pos+1) {
			return l.parent // the next key of the mapping around it
		}
	}
}

// blockMapping reads a mapping whose first key has been read.
func (p *parser) blockMapping(key int32) int32 {
	pos := p.file.at(key).pos
	col := int(pos) - p.line
	l := list{file: p.file, parent: p.file.add(node{kind: Mapping, pos: pos})}
	for {
		l.append(key)
		l.append(p.blockValue(col))
		p.skip(strict)
		if p.end() || p.column() < col || p.marker() {
			p.checkKeys(l.parent)
			return l.parent
		}
		if p.column() > col {
			p.fail(p.pos, "bad indentation of a mapping entry")
		}
		p.refuse()
		var ok bool
		if key, ok = p.key(); !ok {
			p.fail(p.pos, "expected a key and ':'")
		}
	}
}

// blockValue reads what follows "key:" in a mapping at col.
func (p *parser) blockValue(col int) int32 {
	line, after := p.line, p.pos
	p.skip(sameLine)
	if p.end() || p.marker() || p.line != line && p.column() < col {
		return p.nullAt(after)
	}
	c := p.src[p.pos]
	dash := c == '-' && p.blank(p.pos+1)
	switch {
	case p.line == line && dash:
		p.fail(p.pos, "a sequence may not start on the line of its key")
	case p.line == line && (c == '|' || c == '>'):
		return p.blockScalar(col)
	case p.line == line:
		p.refuse()
		return p.inline(col)
	case p.column() > col:
		return p.block(col)
	case dash:
		p.enter()
		defer p.leave()
		return p.blockSequence(col)
	}
	return p.nullAt(after)
}

func (p *parser) nullAt(pos int) int32 { return p.slice(pos, pos, pos, true) }

// key reads "key:" if that is what the line starts with; otherwise it moves nothing.
func (p *parser) key() (int32, bool) {
	start := p.pos
	switch c := p.src[start]; c {
	case '"', '\'':
		end := p.closing(start)
		if end < 0 {
			return 0, false
		}
		colon := end + 1
		for colon < len(p.src) && (p.src[colon] == ' ' || p.src[colon] == '\t') {
			colon++
		}
		if colon >= len(p.src) || p.src[colon] != ':' || !p.blank(colon+1) {
			return 0, false
		}
		i := p.quoted()
		p.pos = colon + 1
		return i, true
	case '{', '[', '|', '>':
		return 0, false
	}
	for i := start; i < len(p.src) && p.src[i] != '\n'; i++ {
		switch {
		case p.src[i] == ':' && p.blank(i+1):
			end := start + len(strings.TrimRight(p.src[start:i], " \t"))
			p.pos = i + 1
			return p.slice(start, start, end, true), true
		case p.src[i] == '#' && p.blank(i-1):
			return 0, false
		}
	}
	return 0, false
}

// closing finds the end of a quoted scalar on this line, -1 if it is not there.
func (p *parser) closing(start int) int {
	q := p.src[start]
	for i := start + 1; i < len(p.src) && p.src[i] != '\n'; i++ {
		switch {
		case p.src[i] == '\\' && q == '"':
			i++
		case p.src[i] == q && q == '\'' && i+1 < len(p.src) && p.src[i+1] == q:
			i++
		case p.src[i] == q:
			return i
		}
	}
	return -1
}

// inline reads a flow value, a quoted or a plain scalar.
func (p *parser) inline(parent int) int32 {
	p.refuse()
	var i int32
	switch p.src[p.pos] {
	case '|', '>':
		return p.blockScalar(parent)
	case '{', '[':
		i = p.flow()
	case '"', '\'':
		i = p.quoted()
	default:
		return p.plain(parent)
	}
	at := p.pos
	for !p.end() && (p.src[p.pos] == ' ' || p.src[p.pos] == '\t') {
		p.pos++
	}
	switch {
	case p.end() || p.src[p.pos] == '\n' || p.src[p.pos] == '#' && p.pos > at:
	case p.src[p.pos] == ':':
		p.fail(p.pos, "a mapping may not start here")
	case parent < 0 && p.src[p.pos] == '{': // JSON objects one after another
	default:
		p.fail(p.pos, "unexpected text after a value")
	}
	return i
}

// plain reads a scalar without quotes, over several lines if they are indented
// deeper than parent.
func (p *parser) plain(parent int) int32 {
	start := p.pos
	end, comment := p.plainLine()
	var b *strings.Builder
	for !comment {
		pos, line := p.pos, p.line
		breaks := 0
		for !p.end() && p.blank(p.pos) {
			if p.src[p.pos] == '\n' {
				breaks++
				p.line = p.pos + 1
			} else if p.src[p.pos] == '\t' && breaks > 0 && p.column() <= parent {
				p.fail(p.pos, "a tab may not indent")
			}
			p.pos++
		}
		if p.end() || p.column() <= parent || p.marker() || p.src[p.pos] == '#' {
			p.pos, p.line = pos, line
			break
		}
		if b == nil {
			b = new(strings.Builder)
			b.WriteString(p.src[start:end])
		}
		fold(b, breaks)
		from := p.pos
		end, comment = p.plainLine()
		b.WriteString(p.src[from:end])
	}
	if b != nil {
		return p.build(start, b.String(), true)
	}
	return p.slice(start, start, end, true)
}

// plainLine goes to the end of a plain scalar's text on this line.
func (p *parser) plainLine() (end int, comment bool) {
	start := p.pos
	for !p.end() && p.src[p.pos] != '\n' {
		switch c := p.src[p.pos]; {
		case c == ':' && p.blank(p.pos+1):
			p.fail(p.pos, "a mapping may not start here (quote the value if it is text)")
		case c == '#' && p.pos > start && p.blank(p.pos-1):
			return start + len(strings.TrimRight(p.src[start:p.pos], " \t")), true
		}
		p.pos++
	}
	return start + len(strings.TrimRight(p.src[start:p.pos], " \t")), false
}

// fold joins lines: one break is a space, more are one less.
func fold(b *strings.Builder, breaks int) {
	if breaks == 1 {
		b.WriteByte(' ')
	}
	for ; breaks > 1; breaks-- {
		b.WriteByte('\n')
	}
}

// blockScalar reads a literal (|) or folded (>) scalar.
func (p *parser) blockScalar(parent int) int32 {
	start := p.pos
	folded := p.src[p.pos] == '>'
	chomp, indent := byte(0), 0
	for p.pos++; !p.end() && !p.blank(p.pos); p.pos++ {
		switch c := p.src[p.pos]; {
		case (c == '+' || c == '-') && chomp == 0:
			chomp = c
		case c >= '1' && c <= '9' && indent == 0:
			indent = max(parent, 0) + int(c-'0')
		default:
			p.fail(p.pos, "bad header of a block scalar")
		}
	}
	header := p.pos
	for !p.end() && (p.src[p.pos] == ' ' || p.src[p.pos] == '\t') {
		p.pos++
	}
	if !p.end() && p.src[p.pos] == '#' && p.pos > header {
		if n := strings.IndexByte(p.src[p.pos:], '\n'); n >= 0 {
			p.pos += n
		} else {
			p.pos = len(p.src)
		}
	}
	if !p.end() && p.src[p.pos] != '\n' {
		p.fail(p.pos, "bad header of a block scalar")
	}
	text := blockText{folded: folded}
	deepest := 0      // of the blank lines before the text
	followed := false // by a line of something else
	for !p.end() {
		p.pos++ // the line end before it
		p.line = p.pos
		length := strings.IndexByte(p.src[p.pos:], '\n')
		if length < 0 {
			length = len(p.src) - p.pos
		}
		line := p.src[p.pos : p.pos+length]
		spaces := len(line) - len(strings.TrimLeft(line, " "))
		if spaces < length && (indent == 0 || spaces < indent) && line[spaces] == '\t' {
			p.fail(p.pos+spaces, "a tab may not indent")
		}
		if indent == 0 && spaces < length {
			indent = max(spaces, parent+1, 1)
			if deepest > indent {
				p.fail(start, "a blank line of a block scalar is indented deeper than its text")
			}
		}
		if spaces < length && spaces < indent {
			followed = true
			break
		}
		if indent == 0 {
			deepest = max(deepest, length)
		}
		if indent > 0 && length > indent {
			text.add(line[indent:])
		} else {
			text.add("")
		}
		p.pos += length
	}
	return p.build(start, text.end(chomp, followed), false)
}
