package manifest

import (
	"math"
	"strconv"
	"strings"
)

// Type is what a scalar stands for.
type Type uint8

// The types of scalars.
const (
	Null Type = iota
	Bool
	Int
	Float
	String
)

func (t Type) String() string {
	return [...]string{"null", "a boolean", "a number", "a number", "a string"}[t]
}

// Type resolves a scalar as the API server's YAML 1.1 reader does: a plain
// "yes" is a boolean, 0x10 and 010 are numbers. It departs from it in one
// point: a lone y or n is text, see DESIGN.md.
func (n Node) Type() Type {
	if !n.file.at(n.i).plain {
		return String
	}
	s := n.Text()
	switch s {
	case "", "~", "null", "Null", "NULL":
		return Null
	case "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON",
		"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
		return Bool
	case ".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF":
		return Float
	}
	switch c := s[0]; {
	case c == '.':
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			return Float
		}
	case c == '+' || c == '-' || c >= '0' && c <= '9':
		digits := strings.ReplaceAll(s, "_", "")
		if _, _, ok := integer(digits); ok {
			return Int
		}
		if decimal(digits) {
			if _, err := strconv.ParseFloat(digits, 64); err == nil {
				return Float
			}
		}
	}
	return String
}

// integer parses what YAML 1.1 takes for one; big means above MaxInt64.
func integer(s string) (v int64, big, ok bool) {
	if !whole(s) { // strconv's errors cost memory
		return 0, false, false
	}
	if v, err := strconv.ParseInt(s, 0, 64); err == nil {
		return v, false, true
	}
	if _, err := strconv.ParseUint(s, 0, 64); err == nil {
		return 0, true, true
	}
	return 0, false, false
}

// whole reports whether s is written as an integer: 10, 0x1f, 0b1, 0o17, 017.
func whole(s string) bool {
	s = strings.TrimLeft(s[:1], "+-") + s[1:]
	digits := "0123456789"
	if len(s) > 1 && s[0] == '0' {
		switch s[1] {
		case 'x', 'X':
			s, digits = s[2:], "0123456789abcdefABCDEF"
		case 'b', 'B':
			s, digits = s[2:], "01"
		case 'o', 'O':
			s, digits = s[2:], "01234567"
		default:
			s, digits = s[1:], "01234567"
		}
	}
	return s != "" && strings.Trim(s, digits) == ""
}

// decimal reports whether s matches [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?
func decimal(s string) bool {
	s = strings.TrimLeft(s[:1], "+-") + s[1:]
	whole := len(s) - len(strings.TrimLeft(s, "0123456789"))
	s = s[whole:]
	if strings.HasPrefix(s, ".") {
		s = s[1:]
		frac := len(s) - len(strings.TrimLeft(s, "0123456789"))
		if whole+frac == 0 {
			return false
		}
		s = s[frac:]
	} else if whole == 0 {
		return false
	}
	if s == "" {
		return true
	}
	if s[0] != 'e' && s[0] != 'E' {
		return false
	}
	s = s[1:]
	if s != "" && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	return s != "" && strings.TrimLeft(s, "0123456789") == ""
}

// truth is the value of a Bool.
func (n Node) truth() bool {
	switch n.Text()[0] {
	case 'y', 'Y', 't', 'T':
		return true
	case 'o', 'O':
		return len(n.Text()) == 2 // on
	}
	return false
}

// Int is the value of a number without a fraction; ok is false for anything
// else and for what int64 does not hold. Like the API server's reader, 80.0 is 80.
func (n Node) Int() (v int64, ok bool) {
	digits := strings.ReplaceAll(n.Text(), "_", "")
	switch n.Type() {
	case Int:
		v, big, _ := integer(digits)
		return v, !big
	case Float:
		f, err := strconv.ParseFloat(digits, 64)
		if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
			return 0, false
		}
		return int64(f), true
	}
	return 0, false
}

// keyText is a mapping key as JSON has it: always a string.
func (n Node) keyText() (string, bool) {
	switch n.Type() {
	case Null:
		return "", false
	case Bool:
		return strconv.FormatBool(n.truth()), true
	case Int:
		if v, ok := n.Int(); ok {
			return strconv.FormatInt(v, 10), true
		}
		return "", false
	case Float:
		f, err := strconv.ParseFloat(strings.ReplaceAll(n.Text(), "_", ""), 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return "", false
		}
		return strconv.FormatFloat(f, 'g', -1, 32), true // as the API server's reader has it
	}
	return n.Text(), true
}
