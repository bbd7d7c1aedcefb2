package syslog

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Facility is where a message comes from (RFC 5424, table 1).
type Facility uint8

// The facilities that a network appliance may want.
const (
	Daemon Facility = 3
	Local0 Facility = 16 // to Local7 = 23
)

// Severity is how bad it is (RFC 5424, table 2).
type Severity uint8

// The severities.
const (
	Emergency Severity = iota
	Alert
	Critical
	Error
	Warning
	Notice
	Informational
	Debug
)

// Limits of header fields and names, octets (RFC 5424, 6).
const (
	maxHost  = 255
	maxApp   = 48
	maxProc  = 128
	maxMsgID = 32
	maxName  = 32
)

// Message is one syslog message. Empty header fields are sent as the nil value,
// "-". Characters that a field cannot hold are replaced, never refused: a
// message about an attack must not be lost for what the attacker put into it.
type Message struct {
	Facility Facility
	Severity Severity
	At       time.Time
	Host     string
	App      string
	Proc     string
	ID       string // MSGID: the type of the message
	Data     []Element
	Text     string
}

// Element is one element of structured data. ID has the form "name@number",
// where number is a private enterprise number (RFC 5424, 7.2.2), or is
// registered with IANA.
type Element struct {
	ID     string
	Params []Param
}

// Param is a named value. Names should be unique within an element.
type Param struct{ Name, Value string }

// Append adds the message to b, in at most limit octets if limit is positive:
// text is shortened, and parameters that do not fit are left out. The
// header always fits in 480 octets, which every receiver takes (6.1).
func (m *Message) Append(b []byte, limit int) []byte {
	start := len(b)
	pri := min(int(m.Facility), 23)*8 + int(min(m.Severity, Debug))
	b = append(b, '<')
	b = strconv.AppendInt(b, int64(pri), 10)
	b = append(b, ">1 "...)
	if m.At.IsZero() || m.At.Year() < 0 || m.At.Year() > 9999 {
		b = append(b, '-')
	} else {
		b = m.At.UTC().AppendFormat(b, "2006-01-02T15:04:05.999999Z07:00")
	}
	b = appendField(append(b, ' '), m.Host, maxHost)
	b = appendField(append(b, ' '), m.App, maxApp)
	b = appendField(append(b, ' '), m.Proc, maxProc)
	b = appendField(append(b, ' '), m.ID, maxMsgID)
	b = append(b, ' ')
	end := 1 << 30
	if limit > 0 {
		end = start + limit
	}
	b = m.appendData(b, end)
	return appendText(b, m.Text, end)
}

// appendField adds a header field: printable US-ASCII, no spaces.
func appendField(b []byte, s string, most int) []byte {
	if s == "" {
		return append(b, '-')
	}
	for n, r := range s {
		if n >= most {
			break
		}
		b = append(b, printable(r, ""))
	}
	return b
}

// printable replaces what is not printable US-ASCII or is refused.
func printable(r rune, refused string) byte {
	if r <= ' ' || r >= 0x7f || strings.ContainsRune(refused, r) {
		return '?'
	}
	return byte(r)
}

// appendData adds the structured data, as far as it fits before end.
func (m *Message) appendData(b []byte, end int) []byte {
	any := false
	for i := range m.Data {
		e := &m.Data[i]
		if e.ID == "" {
			continue
		}
		mark := len(b)
		b = append(b, '[')
		b = appendName(b, e.ID)
		for _, p := range e.Params {
			before := len(b)
			if b = appendParam(b, p); len(b)+1 > end {
				b = b[:before]
			}
		}
		b = append(b, ']')
		if len(b) > end {
			b = b[:mark]
			break
		}
		any = true
	}
	if !any {
		b = append(b, '-')
	}
	return b
}

// appendName adds an SD-NAME (6.3.3).
func appendName(b []byte, s string) []byte {
	if s == "" {
		s = "_"
	}
	n := 0
	for _, r := range s {
		if n == maxName {
			break
		}
		b = append(b, printable(r, `=]"`))
		n++
	}
	return b
}

// appendParam adds ` name="value"`, escaping what 6.3.3 says must be.
func appendParam(b []byte, p Param) []byte {
	b = appendName(append(b, ' '), p.Name)
	b = append(b, '=', '"')
	for _, r := range p.Value {
		switch r {
		case '"', '\\', ']':
			b = append(b, '\\', byte(r))
		default:
			b = utf8.AppendRune(b, plain(r))
		}
	}
	return append(b, '"')
}

// plain turns control characters into spaces: a line break would forge a
// message at receivers that write lines. Ranging over a string has made
// U+FFFD of what is not UTF-8.
func plain(r rune) rune {
	if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
		return ' '
	}
	return r
}

// byteOrderMark begins a text that is UTF-8 (6.4); US-ASCII needs none.
const byteOrderMark = "\ufeff"

// appendText adds a space and the text, as much of it as fits before end.
func appendText(b []byte, s string, end int) []byte {
	mark := " "
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			mark += byteOrderMark
			break
		}
	}
	if s == "" || len(b)+len(mark) >= end {
		return b
	}
	b = append(b, mark...)
	for _, r := range s {
		r = plain(r)
		if len(b)+utf8.RuneLen(r) > end {
			break
		}
		b = utf8.AppendRune(b, r)
	}
	return b
}
