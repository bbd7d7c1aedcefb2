package manifest

import (
	"fmt"
	"strings"
)

// Problem is one thing wrong with a text, and where.
type Problem struct {
	File         string
	Line, Column int    // from 1
	Path         string // field path ("spec.ingress[0]"), empty if it is no field
	Why          string
}

func (p Problem) String() string {
	if p.Path == "" {
		return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Why)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Line, p.Column, p.Path, p.Why)
}

// maxProblems bounds what is reported of one text: nobody reads more, and each
// costs memory.
const maxProblems = 32

// Problems collects what is wrong with one text. It is an error.
type Problems struct {
	List []Problem
	More bool // there were more
}

// Add notes a problem.
func (p *Problems) Add(x Problem) {
	if p.Full() {
		p.More = true
		return
	}
	p.List = append(p.List, x)
}

// Full reports whether no more problems will be kept, so that a check may stop.
func (p *Problems) Full() bool { return len(p.List) >= maxProblems }

// Err is p as an error, nil if there is no problem.
func (p *Problems) Err() error {
	if len(p.List) == 0 {
		return nil
	}
	return p
}

// Error lists the problems, one a line.
func (p *Problems) Error() string {
	var b strings.Builder
	for i, x := range p.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(x.String())
	}
	if p.More {
		b.WriteString("\n(and more)")
	}
	return b.String()
}
