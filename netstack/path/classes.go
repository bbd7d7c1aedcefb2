package path

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"patronus/configs"
	"patronus/netstack/packet"
)

// ClassID is an index into a [Classes].
type ClassID uint8

// MaxClasses bounds the classes of a configuration, built-in ones included.
const MaxClasses = 32

// NoGroup is the preference group of an uplink that a class does not list.
const NoGroup = 255

// Class is one compiled traffic class. It is immutable.
type Class struct {
	ID     ClassID
	Name   string
	SLA    configs.SLA
	Strict bool
	prefer [][]string
}

// Group is the place of one of this site's uplinks in the class's order of
// preference, 0 the best. An uplink that is not listed gets [NoGroup]: the last
// choice, or none for a strict class. Without any preference all are in group 0.
func (c *Class) Group(uplink string) uint8 {
	if len(c.prefer) == 0 {
		return 0
	}
	for i, g := range c.prefer {
		if slices.Contains(g, uplink) {
			return uint8(min(i, NoGroup-1))
		}
	}
	return NoGroup
}

// Classes tells the class of a packet. It is immutable and safe for
// concurrent use; the class named "default" is the last one and matches
// everything.
type Classes struct {
	list []Class
	// The rules by the protocols that have most of the traffic; each set has
	// all that can match, in order.
	tcp, udp, other []rule
}

// rule is one configs.Match, cheapest test first.
type rule struct {
	dscp     uint64              // set of code points
	ports    []configs.PortRange // of the destination
	dst, src []prefix
	proto    uint8
	anyProto bool
	class    ClassID
}

// prefix is compared as two masked words of a (mapped) address; family keeps
// short IPv6 prefixes from taking in mapped IPv4.
type prefix struct {
	hi, lo, maskHi, maskLo, family uint64
}

// NewClasses compiles the configured classes in their order, followed by the
// built-in ones that are not configured by the same name, and default. The
// first match wins.
func NewClasses(configured []configs.Class) (*Classes, error) {
	all := make([]configs.Class, 0, len(configured)+8)
	var fallback *configs.Class
	seen := make(map[string]bool)
	for i := range configured {
		c := &configured[i]
		if seen[c.Name] {
			return nil, fmt.Errorf("class %q is given twice", c.Name)
		}
		seen[c.Name] = true
		if c.Name == DefaultClass {
			fallback = c
			continue
		}
		all = append(all, *c)
	}
	for _, c := range BuiltinClasses() {
		switch {
		case seen[c.Name]:
		case c.Name == DefaultClass:
			fallback = &c
		default:
			all = append(all, c)
		}
	}
	all = append(all, *fallback)
	if len(all) > MaxClasses {
		return nil, fmt.Errorf("%d classes, at most %d", len(all), MaxClasses)
	}
	cs := &Classes{list: make([]Class, 0, len(all))}
	for i, c := range all {
		id := ClassID(i)
		cs.list = append(cs.list, Class{ID: id, Name: c.Name, SLA: c.SLA, Strict: c.Strict, prefer: c.Prefer})
		if c.Name == DefaultClass {
			continue // it takes the rest whatever it says
		}
		for j := range c.Match {
			r, err := compile(&c.Match[j], id)
			if err != nil {
				return nil, fmt.Errorf("class %q: match %d: %w", c.Name, j+1, err)
			}
			if r.anyProto || r.proto == packet.TCP {
				cs.tcp = append(cs.tcp, r)
			}
			if r.anyProto || r.proto == packet.UDP {
				cs.udp = append(cs.udp, r)
			}
			if r.anyProto || r.proto != packet.TCP && r.proto != packet.UDP {
				cs.other = append(cs.other, r)
			}
		}
	}
	return cs, nil
}

// Len is the number of classes.
func (cs *Classes) Len() int { return len(cs.list) }

// Class returns a compiled class; an id that does not exist gives the default.
func (cs *Classes) Class(id ClassID) *Class {
	if int(id) >= len(cs.list) {
		return &cs.list[len(cs.list)-1]
	}
	return &cs.list[id]
}

// Name is the class's name.
func (cs *Classes) Name(id ClassID) string { return cs.Class(id).Name }

// Lookup finds a class by name.
func (cs *Classes) Lookup(name string) (*Class, bool) {
	for i := range cs.list {
		if cs.list[i].Name == name {
			return &cs.list[i], true
		}
	}
	return nil, false
}

// Default is the id of the class that takes the rest.
func (cs *Classes) Default() ClassID { return ClassID(len(cs.list) - 1) }

// Match tells the class of a flow by its first packet: k is the flow's key in
// that packet's direction (ports in rules are destination ports), tos its whole
// TOS or traffic class octet. It does not allocate.
func (cs *Classes) Match(k *packet.Key, tos uint8) ClassID {
	dscp := uint64(1) << (tos >> 2)
	rules := cs.other
	switch k.Proto {
	case packet.TCP:
		rules = cs.tcp
	case packet.UDP:
		rules = cs.udp
	}
	src, dst := load(&k.Src), load(&k.Dst)
	for i := range rules {
		r := &rules[i]
		if r.dscp&dscp != 0 && (r.anyProto || r.proto == k.Proto) &&
			(len(r.ports) == 0 || inPorts(r.ports, k.DstPort)) &&
			(len(r.dst) == 0 || inPrefixes(r.dst, &dst)) &&
			(len(r.src) == 0 || inPrefixes(r.src, &src)) {
			return r.class
		}
	}
	return ClassID(len(cs.list) - 1)
}

type words struct {
	hi, lo, family uint64
}

func load(a *packet.Addr) words {
	w := words{hi: binary.BigEndian.Uint64(a[:8]), lo: binary.BigEndian.Uint64(a[8:])}
	if w.hi == 0 && w.lo>>32 == 0xffff {
		w.family = 4
	}
	return w
}

func inPorts(rs []configs.PortRange, p uint16) bool {
	for i := range rs {
		if rs[i].First <= p && p <= rs[i].Last {
			return true
		}
	}
	return false
}

func inPrefixes(ps []prefix, w *words) bool {
	for i := range ps {
		p := &ps[i]
		if (w.hi^p.hi)&p.maskHi|(w.lo^p.lo)&p.maskLo|w.family^p.family == 0 {
			return true
		}
	}
	return false
}

func compile(m *configs.Match, id ClassID) (rule, error) {
	r := rule{class: id, ports: slices.Clone(m.Ports), src: prefixes(m.Source), dst: prefixes(m.Destination)}
	for _, p := range r.ports {
		if p.First > p.Last {
			return r, fmt.Errorf("port range %d-%d is empty", p.First, p.Last)
		}
	}
	var err error
	if r.proto, r.anyProto, err = protocol(m.Protocol); err != nil {
		return r, err
	}
	for _, d := range m.DSCP {
		if d > 63 {
			return r, fmt.Errorf("dscp %d is over 63", d)
		}
		r.dscp |= 1 << d
	}
	if len(m.DSCP) == 0 {
		r.dscp = ^uint64(0)
	}
	return r, nil
}

func prefixes(ps []netip.Prefix) []prefix {
	var out []prefix
	for _, p := range ps {
		a, bits := p.Addr(), p.Bits()
		if a.Is4() {
			bits += 96
		}
		b := a.As16()
		w := prefix{
			hi: binary.BigEndian.Uint64(b[:8]), lo: binary.BigEndian.Uint64(b[8:]),
			maskHi: mask(bits), maskLo: mask(bits - 64),
		}
		if a.Is4() || a.Is4In6() {
			w.family = 4
		}
		out = append(out, w)
	}
	return out
}

// mask has the first n of 64 bits set, for any n.
func mask(n int) uint64 {
	switch {
	case n <= 0:
		return 0
	case n >= 64:
		return ^uint64(0)
	}
	return ^uint64(0) << (64 - n)
}

func protocol(s string) (proto uint8, anyProto bool, err error) {
	switch s {
	case "", "any":
		return 0, true, nil
	case "tcp", "TCP":
		return packet.TCP, false, nil
	case "udp", "UDP":
		return packet.UDP, false, nil
	case "icmp", "ICMP":
		return packet.ICMP, false, nil
	case "icmpv6", "ICMPv6":
		return packet.ICMPv6, false, nil
	case "sctp", "SCTP":
		return packet.SCTP, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, false, fmt.Errorf("no such protocol: %.20q", s)
	}
	return uint8(n), false, nil
}

// Names of the built-in classes.
const (
	VoiceClass         = "voice"
	VideoClass         = "video"
	TransactionalClass = "transactional"
	BulkClass          = "bulk"
	DefaultClass       = "default"
)

// BuiltinClasses are the classes that exist without being configured, matched
// by the code points of RFC 4594 and RFC 8622, with the SLAs of the preset
// [PresetPatronus].
func BuiltinClasses() []configs.Class {
	build := func(name string, points ...configs.DSCP) configs.Class {
		sla, _ := PresetSLA(PresetPatronus, name)
		c := configs.Class{Name: name, SLA: sla}
		if len(points) > 0 {
			c.Match = []configs.Match{{DSCP: points}}
		}
		return c
	}
	return []configs.Class{
		build(VoiceClass, 46, 44, 40),                     // EF, VOICE-ADMIT, CS5
		build(VideoClass, 34, 36, 38, 32, 26, 28, 30, 24), // AF4x, CS4, AF3x, CS3
		build(TransactionalClass, 18, 20, 22, 16),         // AF2x, CS2
		build(BulkClass, 10, 12, 14, 8, 1),                // AF1x, CS1, LE
		build(DefaultClass),
	}
}

// The SLA presets.
const (
	PresetPatronus = "patronus"
	// PresetVQS has the thresholds that VeloCloud publishes for its quality
	// score (Broadcom KB 312376). Their latency is one-way; ours is the round
	// trip, so the figures are doubled.
	PresetVQS = "velocloud-vqs"
)

// PresetSLA is the SLA that a preset gives a built-in class; ok is false if
// the preset does not know the class.
func PresetSLA(preset, class string) (sla configs.SLA, ok bool) {
	ms := func(n int) configs.Duration { return configs.Duration(time.Duration(n) * time.Millisecond) }
	build := func(delayGood, delay, pdvGood, pdv int, lossGood, loss float64) (configs.SLA, bool) {
		return configs.SLA{
			DelayGood: ms(delayGood), Delay: ms(delay), PDVGood: ms(pdvGood), PDV: ms(pdv),
			LossGood: lossGood, Loss: loss,
		}, true
	}
	switch preset + "/" + class {
	case PresetPatronus + "/" + VoiceClass:
		return build(80, 250, 10, 50, 0.3, 3)
	case PresetPatronus + "/" + VideoClass:
		return build(100, 300, 20, 60, 0.5, 3)
	case PresetPatronus + "/" + TransactionalClass:
		return build(100, 400, 50, 200, 1, 5)
	case PresetPatronus + "/" + BulkClass:
		return build(0, 0, 0, 0, 1, 10)
	case PresetPatronus + "/" + DefaultClass:
		return build(150, 600, 50, 250, 1, 5)
	case PresetVQS + "/" + VoiceClass:
		return build(50, 130, 7, 30, 0.3, 1)
	case PresetVQS + "/" + VideoClass:
		return build(50, 130, 5, 10, 0.05, 0.1)
	case PresetVQS + "/" + TransactionalClass:
		return build(100, 160, 0, 200, 1, 3)
	}
	return configs.SLA{}, false
}
