package manifest

import "strings"

// flow reads {...} or [...], which is also how JSON is read.
func (p *parser) flow() int32 {
	p.enter()
	defer p.leave()
	open := p.pos
	kind, closer := Mapping, byte('}')
	if p.src[open] == '[' {
		kind, closer = Sequence, ']'
	}
	l := list{file: p.file, parent: p.file.add(node{kind: kind, pos: int32(open)})}
	p.pos++
	for p.more(open) != closer {
		if kind == Mapping {
			p.flowPair(&l, open)
		} else {
			l.append(p.flowValue())
		}
		switch c := p.more(open); {
		case c == ',':
			p.pos++
		case c == ':' && kind == Sequence:
			p.fail(p.pos, "a key may not stand in a sequence without braces")
		case c != closer:
			p.fail(p.pos, "expected ',' or %q", closer)
		}
	}
	p.pos++
	if kind == Mapping {
		p.checkKeys(l.parent)
	}
	return l.parent
}

// more goes to the next token of a flow value and returns its first character.
func (p *parser) more(open int) byte {
	p.skip(anywhere)
	if p.end() || p.marker() {
		p.fail(open, "%q is not closed", p.src[open])
	}
	return p.src[p.pos]
}

func (p *parser) flowPair(l *list, open int) {
	if c := p.src[p.pos]; c == '{' || c == '[' {
		p.fail(p.pos, "complex keys are refused")
	}
	key, line := p.pos, p.line
	l.append(p.flowValue())
	if p.more(open) != ':' {
		l.append(p.null())
		return
	}
	if p.line != line {
		p.fail(key, "a key and its ':' must be on one line")
	}
	p.pos++
	if c := p.more(open); c == ',' || c == '}' {
		l.append(p.null())
		return
	}
	l.append(p.flowValue())
}

func (p *parser) flowValue() int32 {
	p.refuse()
	switch c := p.src[p.pos]; c {
	case '{', '[':
		return p.flow()
	case '"', '\'':
		return p.quoted()
	case ':', '|', '>', '?':
		p.fail(p.pos, "a value that starts with %q needs quotes here", c)
	}
	start := p.pos
	end, comment := p.flowLine()
	var b *strings.Builder
	for !comment && !p.end() && p.src[p.pos] == '\n' {
		pos, line, breaks := p.pos, p.line, 0
		for !p.end() && p.blank(p.pos) {
			if p.src[p.pos] == '\n' {
				breaks++
				p.line = p.pos + 1
			}
			p.pos++
		}
		if p.end() || p.marker() || strings.IndexByte("#,[]{}", p.src[p.pos]) >= 0 || p.src[p.pos] == ':' && p.blank(p.pos+1) {
			p.pos, p.line = pos, line
			break
		}
		if b == nil {
			b = new(strings.Builder)
			b.WriteString(p.src[start:end])
		}
		fold(b, breaks)
		from := p.pos
		end, comment = p.flowLine()
		b.WriteString(p.src[from:end])
	}
	if b != nil {
		return p.build(start, b.String(), true)
	}
	return p.slice(start, start, end, true)
}

// flowLine goes to the end of a plain scalar's text on this line.
func (p *parser) flowLine() (end int, comment bool) {
	start := p.pos
	for ; !p.end(); p.pos++ {
		c := p.src[p.pos]
		comment = c == '#' && p.pos > start && p.blank(p.pos-1)
		if comment || c == '\n' || strings.IndexByte(",[]{}", c) >= 0 || c == ':' && p.blank(p.pos+1) {
			break
		}
		if c == '?' {
			p.fail(p.pos, "quote a value with '?' here")
		}
	}
	return start + len(strings.TrimRight(p.src[start:p.pos], " \t")), comment
}
