package configs

import (
	"fmt"
	"unicode/utf8"
)

// Limits on configuration text. They keep the parser under 32 MB and 100 ms
// whatever the text is; a fabric of a thousand sites stays far below them.
const (
	maxText  = 1 << 20 // bytes
	maxDepth = 64      // nested mappings and sequences
	maxMarks = 65_536  // places where a YAML node may begin; a site takes about 30
	maxList  = 16_384  // entries of one list
)

// guard refuses text that is not worth giving to the YAML parser: too long,
// not text, or so dense that the tree of it would cost far more than the text.
// What it cannot see without parsing (depth, aliases, duplicate keys) is
// checked on the tree; the parser itself is linear and bounds its depth.
func guard(text []byte) *FieldError {
	if len(text) > maxText {
		return &FieldError{Why: fmt.Sprintf("the text has %d bytes; the most is %d", len(text), maxText)}
	}
	line, column, marks := 1, 1, 0
	for rest := text; len(rest) > 0; {
		c, size := rune(rest[0]), 1
		if c >= utf8.RuneSelf {
			c, size = utf8.DecodeRune(rest)
		}
		switch {
		case c == utf8.RuneError && size == 1:
			return &FieldError{Line: line, Column: column, Why: "the text is not UTF-8"}
		case c < ' ' && c != '\n' && c != '\t' && c != '\r', c == 0x7f:
			return &FieldError{Line: line, Column: column, Why: fmt.Sprintf("control character %#02x in the text", c)}
		case opensNode(rest):
			if marks++; marks > maxMarks {
				return &FieldError{Line: line, Column: column, Why: fmt.Sprintf("the text has more than %d entries", maxMarks)}
			}
		}
		column++
		if c == '\n' {
			line, column = line+1, 1
		}
		rest = rest[size:]
	}
	return nil
}

// opensNode reports whether a YAML node may begin after text[0].
func opensNode(text []byte) bool {
	switch text[0] {
	case '\n', ',', '[', '{':
		return true
	case ':', '-', '?':
		return len(text) == 1 || text[1] == ' ' || text[1] == '\t' || text[1] == '\n' || text[1] == '\r'
	}
	return false
}
