package configs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxProblems bounds how many problems one report names; a file with more is
// wrong as a whole, and hostile input must not buy memory with errors.
const maxProblems = 100

// FieldError is one problem of a configuration, at the place where it was found.
type FieldError struct {
	// File, Line and Column say where; Line and Column count from 1 and are 0
	// where they are not known, as in a configuration that came as JSON.
	File         string
	Line, Column int
	// Path names the field, as in "sites[1].uplinks[0].mtu".
	Path string
	// Value is what was given, shortened; empty if nothing was, or if it might
	// be a secret.
	Value string
	// Why says what is wrong and, where it can, how to put it right.
	Why string
}

// Error is "file.yaml:12:5: sites[1].uplinks[0].mtu: 500 is too small".
func (e *FieldError) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		b.WriteByte(':')
	}
	if e.Line > 0 {
		fmt.Fprintf(&b, "%d:", e.Line)
		if e.Column > 0 {
			fmt.Fprintf(&b, "%d:", e.Column)
		}
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if e.Path != "" {
		b.WriteString(e.Path)
		b.WriteString(": ")
	}
	if e.Value != "" {
		b.WriteString(e.Value)
		b.WriteByte(' ')
	}
	b.WriteString(e.Why)
	return b.String()
}

// Problems is every problem of one configuration, in the order of the file.
// It unwraps to its FieldErrors.
type Problems []*FieldError

// Error is one problem a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, e := range p {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As and errors.Is see each problem.
func (p Problems) Unwrap() []error {
	errs := make([]error, len(p))
	for i, e := range p {
		errs[i] = e
	}
	return errs
}

// FieldErrors returns the problems that err holds, nil if it holds none.
func FieldErrors(err error) []*FieldError {
	var all Problems
	if errors.As(err, &all) {
		return all
	}
	var one *FieldError
	if errors.As(err, &one) {
		return []*FieldError{one}
	}
	return nil
}

// report gathers problems up to the limit; the rest is only counted.
type report struct {
	list Problems
	more int
}

func (r *report) full() bool { return len(r.list) == maxProblems }

func (r *report) add(e *FieldError) {
	if r.full() {
		r.more++
		return
	}
	r.list = append(r.list, e)
}

// err returns the problems by place, nil if there are none.
func (r *report) err() error {
	if len(r.list) == 0 {
		return nil
	}
	slices.SortStableFunc(r.list, func(a, b *FieldError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if r.more > 0 {
		r.list = append(r.list, &FieldError{File: r.list[0].File, Why: fmt.Sprintf("and %d more", r.more)})
	}
	return r.list
}

// show renders a given value for a message: short, on one line, quoted where
// it would be misread.
func show(value any) string {
	s := fmt.Sprint(value)
	const most = 60
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	odd := func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) || c == '"' }
	if s != "" && strings.IndexFunc(s, odd) >= 0 {
		return strconv.Quote(s)
	}
	return s
}
