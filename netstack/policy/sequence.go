package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"patronus/netstack/packet"
)

// TCP flags (RFC 9293, 3.1).
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
	flagURG
	flagECE
	flagCWR
)

func parseFlags(s string) (uint8, error) {
	var out uint8
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == '|' || r == ' ' }) {
		i := strings.Index("FIN SYN RST PSH ACK URG ECE CWR ", strings.ToUpper(f)+" ")
		if i < 0 || len(f) != 3 {
			return 0, fmt.Errorf("unknown TCP flag %q", f)
		}
		out |= 1 << (i / 4)
	}
	return out, nil
}

// tracker is the state of the flows that a case's packets make: what the
// engine keeps in its flow table.
type tracker interface {
	// lookup is the decision that a packet's flow was admitted by.
	lookup(k *packet.Key, flags uint8) (d Decision, ok bool)
	admit(k *packet.Key, d Decision)
	observe(k *packet.Key, flags uint8)
}

// judgePackets passes packets in order through flow state and rules: packets
// of an admitted flow pass in both directions until the flow ends; any other
// packet is judged as a new flow, whatever its flags (a flow whose state was
// lost must be able to go on).
func (c *caseFile) judgePackets(rules *Ruleset, out *Verdicts) {
	list := c.node.Key("packets")
	var flows tracker = sequence{}
	for i, p := range c.packets {
		k, flags, err := c.packet(&p)
		if err != nil {
			if c.problems.Full() {
				return
			}
			c.fail(list.Index(i), fmt.Sprintf("packets[%d]", i), err.Error())
			continue
		}
		d, known := flows.lookup(&k, flags)
		if !known {
			if d = rules.Evaluate(&k); d.Allowed {
				flows.admit(&k, d)
			}
		}
		if d.Allowed {
			flows.observe(&k, flags)
		}
		out.Packets = append(out.Packets, PacketVerdict{Allowed: d.Allowed, Reason: d.Reason.String()})
	}
}

func (c *caseFile) packet(p *casePacket) (packet.Key, uint8, error) {
	proto, err := ParseProtocol(p.Protocol)
	if err != nil {
		return packet.Key{}, 0, err
	}
	flags, err := parseFlags(p.Flags)
	if err != nil {
		return packet.Key{}, 0, err
	}
	a, b, err := c.pair(p.From, p.To)
	if err != nil {
		return packet.Key{}, 0, err
	}
	k := packet.NewKey(proto, netip.AddrPortFrom(a, p.FromPort), netip.AddrPortFrom(b, p.ToPort))
	if proto == packet.ICMP || proto == packet.ICMPv6 { // both are the identifier
		k.SrcPort = max(p.FromPort, p.ToPort)
		k.DstPort = k.SrcPort
	}
	return k, flags, nil
}

// sequence tracks flows in memory without time.
type sequence map[packet.Key]*tracked

type tracked struct {
	Decision
	fins  uint8 // bit 0: the opener's, bit 1: the answerer's
	reset bool
}

func (s sequence) find(k *packet.Key) (f *tracked, forward bool) {
	if f := s[*k]; f != nil {
		return f, true
	}
	return s[k.Reverse()], false
}

func (s sequence) lookup(k *packet.Key, flags uint8) (Decision, bool) {
	f, _ := s.find(k)
	over := f != nil && (f.reset || f.fins == 3 && k.Proto == packet.TCP && flags&(flagSYN|flagACK) == flagSYN)
	if f == nil || over {
		return Decision{}, false
	}
	return f.Decision, true
}

func (s sequence) admit(k *packet.Key, d Decision) {
	delete(s, k.Reverse())
	s[*k] = &tracked{Decision: d}
}

func (s sequence) observe(k *packet.Key, flags uint8) {
	f, forward := s.find(k)
	if f == nil || k.Proto != packet.TCP {
		return
	}
	f.reset = f.reset || flags&flagRST != 0
	switch {
	case flags&flagFIN == 0:
	case forward:
		f.fins |= 1
	default:
		f.fins |= 2
	}
}
