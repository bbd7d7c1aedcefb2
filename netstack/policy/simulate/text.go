package simulate

import (
	"fmt"
	"strings"
)

// Text says a set of ports as short as it can: "all", "none", "TCP 80, 443",
// "all but TCP 22". ICMP stands for all protocols without ports.
func (u *universe) Text(s PortSet) string {
	var out PortSet
	n := 0
	for i := range u.ports {
		if s.Has(i) {
			n++
			continue
		}
		if out == nil {
			out = newPortSet(len(u.ports))
		}
		out.add(i)
	}
	switch n {
	case 0:
		return "none"
	case len(u.ports):
		return "all"
	}
	has, hasNot := u.ranges(s), u.ranges(out)
	if len(hasNot) < len(has) {
		return "all but " + join(hasNot)
	}
	return join(has)
}

// Ranges is a set of ports with neighbours put together.
func (u *universe) ranges(s PortSet) []Ports {
	var out []Ports
	for i := range u.ports {
		if !s.Has(i) {
			continue
		}
		p := u.ports[i]
		if n := len(out); n > 0 && out[n-1].Protocol == p.Protocol && int(out[n-1].Last)+1 == int(p.First) {
			out[n-1].Last = p.Last
			continue
		}
		out = append(out, p)
	}
	return out
}

func join(list []Ports) string {
	var b strings.Builder
	proto := uint8(0)
	for i, p := range list {
		switch {
		case i == 0:
			b.WriteString(protocolName(p.Protocol))
		case p.Protocol != proto:
			b.WriteString("; " + protocolName(p.Protocol))
		default:
			b.WriteString(",")
		}
		proto = p.Protocol
		if text := p.numbers(); text != "" {
			b.WriteString(" " + text)
		}
	}
	return b.String()
}

// numbers is "80", "80-90", or "" for all ports and where there are none.
func (p *Ports) numbers() string {
	switch {
	case !hasPorts(p.Protocol) || p.First == 0 && p.Last == 65535:
		return ""
	case p.First == p.Last:
		return fmt.Sprint(p.First)
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// PortRange is a range of ports as scripts read it.
type PortRange struct {
	Protocol string `json:"protocol"` // ICMP stands for all without ports
	First    uint16 `json:"first"`
	Last     uint16 `json:"last"`
}

// Ranges is a set of ports as scripts read it.
func (u *universe) Ranges(s PortSet) []PortRange {
	out := []PortRange{}
	for _, p := range u.ranges(s) {
		out = append(out, PortRange{protocolName(p.Protocol), p.First, p.Last})
	}
	return out
}

// Pair is a cell of a matrix, or a difference, with names.
type Pair struct {
	From   string      `json:"from"`
	To     string      `json:"to"`
	Allows []PortRange `json:"allows,omitempty"` // of a matrix
	Lost   []PortRange `json:"lost,omitempty"`   // of a difference
	Gained []PortRange `json:"gained,omitempty"`
}

// Pairs are the cells of a matrix, with names.
func (w *World) Pairs(m *Matrix) []Pair {
	out := []Pair{}
	for from, row := range m.Cells {
		for to, cell := range row {
			if cell != nil {
				out = append(out, Pair{From: w.groups[from].Name(), To: w.groups[to].Name(), Allows: w.Ranges(cell)})
			}
		}
	}
	return out
}

// DifferencePairs are differences, with names.
func (w *World) DifferencePairs(list []Difference) []Pair {
	out := []Pair{}
	for _, d := range list {
		out = append(out, Pair{From: w.groups[d.From].Name(), To: w.groups[d.To].Name(), Lost: w.Ranges(d.Lost), Gained: w.Ranges(d.Gained)})
	}
	return out
}
