package capture

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"patronus/netstack/packet"
)

// Filter selects packets. The zero value selects all. It is immutable and safe
// to share.
type Filter struct {
	terms []term
}

// maxTerms bounds a filter; each costs time on the packet path.
const maxTerms = 16

type side uint8

const (
	either side = iota
	source
	destination
)

type what uint8

const (
	isNet what = iota
	isPort
	isProto
	isVersion
)

type term struct {
	not    bool
	side   side
	what   what
	net    netip.Prefix
	number uint16
}

// FilterError says which word of a filter was not understood.
type FilterError struct {
	Word string // as given, "" at the end
	At   int    // which word, from 1 on
	Why  string
}

func (e *FilterError) Error() string {
	if e.Word == "" {
		return fmt.Sprintf("filter: after word %d: %s", e.At-1, e.Why)
	}
	return fmt.Sprintf("filter: word %d, %q: %s", e.At, e.Word, e.Why)
}

var protocols = map[string]uint16{
	"tcp": packet.TCP, "udp": packet.UDP, "icmp": packet.ICMP, "icmp6": packet.ICMPv6, "sctp": packet.SCTP,
}

// ParseFilter reads terms that are joined by "and", all of which must hold:
//
//	[not] [src|dst] host ADDRESS
//	[not] [src|dst] net PREFIX
//	[not] [src|dst] port NUMBER
//	[not] tcp | udp | sctp | icmp | icmp6 | ip | ip6 | proto NUMBER
//
// They mean what they do in pcap-filter(7). Problems are *FilterError.
func ParseFilter(text string) (*Filter, error) {
	words := strings.Fields(text)
	f := &Filter{}
	for at := 0; at < len(words); {
		if len(f.terms) == maxTerms {
			return nil, &FilterError{words[at], at + 1, fmt.Sprintf("a filter has at most %d terms", maxTerms)}
		}
		if at > 0 {
			if words[at] != "and" {
				return nil, &FilterError{words[at], at + 1, `terms are joined by "and"`}
			}
			at++
		}
		t, n, err := parseTerm(words, at)
		if err != nil {
			return nil, err
		}
		f.terms, at = append(f.terms, t), at+n
	}
	return f, nil
}

func parseTerm(words []string, at int) (t term, n int, err error) {
	word := func() string {
		if at+n < len(words) {
			return words[at+n]
		}
		return ""
	}
	fail := func(why string) (term, int, error) { return t, n, &FilterError{word(), at + n + 1, why} }
	if word() == "not" {
		t.not = true
		n++
	}
	switch word() {
	case "src":
		t.side = source
		n++
	case "dst":
		t.side = destination
		n++
	}
	if number, ok := protocols[word()]; ok && t.side == either {
		t.what, t.number = isProto, number
		return t, n + 1, nil
	}
	kind := word()
	switch {
	case t.side == either && (kind == "ip" || kind == "ip6"):
		t.what, t.number = isVersion, 4
		if kind == "ip6" {
			t.number = 6
		}
		return t, n + 1, nil
	case kind == "host" || kind == "net":
		n++
		p, err := netip.ParsePrefix(word())
		if a, errAddr := netip.ParseAddr(word()); errAddr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		} else if kind == "host" {
			return fail("is not an IP address")
		}
		if err != nil {
			return fail("is not a prefix such as 10.1.0.0/16")
		}
		if a := p.Addr().Unmap(); p.Addr().Is4In6() {
			if p.Bits() < 96 {
				return fail("is not a prefix such as 10.1.0.0/16")
			}
			p = netip.PrefixFrom(a, p.Bits()-96)
		}
		t.what, t.net = isNet, p.Masked()
		return t, n + 1, nil
	case kind == "port" || kind == "proto" && t.side == either:
		n++
		bits := 16
		if t.what = isPort; kind == "proto" {
			t.what, bits = isProto, 8
		}
		v, err := strconv.ParseUint(word(), 10, bits)
		if err != nil {
			return fail(fmt.Sprintf("is not a number from 0 to %d", 1<<bits-1))
		}
		t.number = uint16(v)
		return t, n + 1, nil
	}
	return fail("is none of host, net, port, proto, tcp, udp, sctp, icmp, icmp6, ip, ip6")
}

// String is a filter that [ParseFilter] reads as f.
func (f *Filter) String() string {
	var b strings.Builder
	for i, t := range f.terms {
		if i > 0 {
			b.WriteString(" and ")
		}
		if t.not {
			b.WriteString("not ")
		}
		b.WriteString([...]string{"", "src ", "dst "}[t.side])
		switch t.what {
		case isNet:
			b.WriteString("net " + t.net.String())
		case isPort:
			fmt.Fprintf(&b, "port %d", t.number)
		case isProto:
			fmt.Fprintf(&b, "proto %d", t.number)
		case isVersion:
			b.WriteString([...]string{4: "ip", 6: "ip6"}[t.number])
		}
	}
	return b.String()
}

// Match reports whether f selects a packet. It does not allocate.
func (f *Filter) Match(in *packet.Info) bool {
	for i := range f.terms {
		if t := &f.terms[i]; t.match(in) == t.not {
			return false
		}
	}
	return true
}

func (t *term) match(in *packet.Info) bool {
	switch t.what {
	case isNet:
		return t.side != destination && t.net.Contains(in.Key.Src.Netip()) ||
			t.side != source && t.net.Contains(in.Key.Dst.Netip())
	case isPort:
		switch in.Key.Proto {
		case packet.TCP, packet.UDP, packet.SCTP:
		default:
			return false
		}
		return in.Fragment != packet.LaterFragment &&
			(t.side != destination && in.Key.SrcPort == t.number || t.side != source && in.Key.DstPort == t.number)
	case isProto:
		return uint16(in.Key.Proto) == t.number
	default:
		return uint16(in.Version) == t.number
	}
}
