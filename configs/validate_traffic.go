package configs

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultClass is the class of everything that no other class matched.
const DefaultClass = "default"

// maxClasses leaves room for the built-in classes in the eight bits that a
// packet's class has.
const maxClasses = 200

func (v *validator) classes() {
	if len(v.c.Classes) > maxClasses {
		v.bad(len(v.c.Classes), fmt.Sprintf("are too many: at most %d", maxClasses), "classes")
	}
	names := make(map[string]bool)
	for i := range v.c.Classes {
		c := &v.c.Classes[i]
		path := fmt.Sprintf("classes[%d]", i)
		v.name(c.Name, names, "%s.name", path)
		switch {
		case c.Name == DefaultClass && len(c.Match) > 0:
			v.bad(nil, "means nothing: default takes what no other class matched", "%s.match", path)
		case c.Name != DefaultClass && len(c.Match) == 0:
			v.bad(nil, "is missing: the class would match nothing", "%s.match", path)
		}
		for j := range c.Match {
			v.match(&c.Match[j], fmt.Sprintf("%s.match[%d]", path, j))
		}
		named := make(map[string]bool)
		for j, group := range c.Prefer {
			if len(group) == 0 {
				v.bad(nil, "is an empty group", "%s.prefer[%d]", path, j)
			}
			for k, uplink := range group {
				switch {
				case v.self != nil && !v.hasUplink(uplink):
					v.bad(uplink, "is no uplink of site "+v.c.Site, "%s.prefer[%d][%d]", path, j, k)
				case named[uplink]:
					v.bad(uplink, "is named twice", "%s.prefer[%d][%d]", path, j, k)
				}
				named[uplink] = true
			}
		}
		v.sla(&c.SLA, path+".sla")
		if c.Strict && c.SLA == (SLA{}) {
			v.bad(nil, "means nothing without an sla", "%s.strict", path)
		}
	}
}

func (v *validator) match(m *Match, path string) {
	var has [2]struct{ four, six bool }
	for side, list := range [][]netip.Prefix{m.Source, m.Destination} {
		field := [2]string{"source", "destination"}[side]
		for k, p := range list {
			if v.prefix(p, "%s.%s[%d]", path, field, k) {
				has[side].four = has[side].four || p.Addr().Is4()
				has[side].six = has[side].six || p.Addr().Is6()
			}
		}
	}
	if s, d := has[0], has[1]; (s.four || s.six) && (d.four || d.six) && !(s.four && d.four) && !(s.six && d.six) {
		v.bad(nil, "can never match: source and destination are of different families", "%s", path)
	}
	if !isProtocol(m.Protocol) {
		v.bad(m.Protocol, "is not a protocol: tcp, udp, sctp, icmp, icmpv6 or a number from 0 to 255", "%s.protocol", path)
	}
	if len(m.Ports) > 0 && !hasPorts(m.Protocol) {
		why := "need a protocol that has ports: tcp, udp or sctp"
		v.bad(nil, why, "%s.ports", path)
	}
	for k, r := range m.Ports {
		if r.First == 0 || r.First > r.Last {
			v.bad(r, "is not a range of ports", "%s.ports[%d]", path, k)
		}
	}
	for k, d := range m.DSCP {
		if d > maxDSCP {
			v.bad(uint8(d), "is not a DSCP: 0 to 63", "%s.dscp[%d]", path, k)
		}
	}
}

// ProtocolNumber is the IANA number of a protocol as [Match] writes it, by
// name or by number; false for anything else, and for "", which means all.
func ProtocolNumber(name string) (uint8, bool) {
	switch name {
	case "icmp":
		return 1, true
	case "tcp":
		return 6, true
	case "udp":
		return 17, true
	case "icmpv6":
		return 58, true
	case "sctp":
		return 132, true
	}
	n, err := strconv.ParseUint(name, 10, 8)
	return uint8(n), err == nil
}

func isProtocol(name string) bool {
	_, ok := ProtocolNumber(name)
	return ok || name == ""
}

func hasPorts(name string) bool {
	n, ok := ProtocolNumber(name)
	return ok && (n == 6 || n == 17 || n == 132)
}

func (v *validator) sla(s *SLA, path string) {
	v.threshold(float64(s.DelayGood), float64(s.Delay), s.DelayGood, s.Delay, path+".delay")
	v.threshold(float64(s.PDVGood), float64(s.PDV), s.PDVGood, s.PDV, path+".pdv")
	v.threshold(s.LossGood, s.Loss, s.LossGood, s.Loss, path+".loss")
	if s.Loss > 100 {
		v.bad(s.Loss, "is more than 100 percent", "%s.loss", path)
	}
}

// threshold checks a pair of values, the good one and the one that violates;
// showGood and showBad are how to print them.
func (v *validator) threshold(good, bad float64, showGood, showBad any, path string) {
	switch {
	case good < 0 || math.IsNaN(good) || math.IsInf(good, 0):
		v.bad(showGood, "is negative or not a number", "%s_good", path)
	case bad < 0 || math.IsNaN(bad) || math.IsInf(bad, 0):
		v.bad(showBad, "is negative or not a number", "%s", path)
	case good > 0 && bad == 0:
		v.bad(showGood, "needs the value that violates beside it", "%s_good", path)
	case bad > 0 && good >= bad:
		v.bad(showGood, fmt.Sprintf("is not better than the value that violates, %v", showBad), "%s_good", path)
	}
}

func (v *validator) probe() {
	p := &v.c.Probe
	const least, most = Duration(10 * time.Millisecond), Duration(24 * time.Hour)
	steps := []struct {
		name string
		d    Duration
	}{{"active", p.Active}, {"warm", p.Warm}, {"idle", p.Idle}, {"cold", p.Cold}}
	for i, s := range steps {
		if s.d < least || s.d > most {
			v.bad(s.d, fmt.Sprintf("is not from %s to %s", least, most), "probe.%s", s.name)
		} else if i > 0 && s.d < steps[i-1].d {
			v.bad(s.d, fmt.Sprintf("is shorter than %s (%s): the order is active, warm, idle, cold", steps[i-1].name, steps[i-1].d), "probe.%s", s.name)
		}
	}
	if p.Lost < 1 || p.Lost > 100 {
		v.bad(p.Lost, "is not from 1 to 100", "probe.lost")
	}
	if p.Budget < 1 || p.Budget > 1_000_000 {
		v.bad(p.Budget, "is not from 1 to 1000000 kbit/s", "probe.budget_kbps")
	}
}

func (v *validator) flows() {
	f := &v.c.Flows
	const fewest, most = 1024, 1 << 24
	if f.Max < fewest || f.Max > most {
		v.bad(f.Max, fmt.Sprintf("is not from %d to %d", fewest, most), "flows.max")
	}
	for _, t := range []struct {
		name        string
		d, lo, high Duration
	}{
		{"tcp_idle", f.TCPIdle, Duration(10 * time.Second), Duration(7 * 24 * time.Hour)},
		{"udp_idle", f.UDPIdle, Duration(time.Second), Duration(24 * time.Hour)},
		{"adopt_window", f.AdoptWindow, Duration(time.Second), Duration(time.Hour)},
	} {
		if t.d < t.lo || t.d > t.high {
			v.bad(t.d, fmt.Sprintf("is not from %s to %s", t.lo, t.high), "flows.%s", t.name)
		}
	}
}

func (v *validator) hosts() {
	names := make(map[string]bool)
	addresses := make(map[netip.Prefix]string)
	for i := range v.c.Hosts {
		h := &v.c.Hosts[i]
		path := fmt.Sprintf("endpoints[%d]", i)
		v.name(h.Namespace, nil, "%s.namespace", path)
		v.name(h.Name, nil, "%s.name", path)
		full := h.Namespace + "/" + h.Name
		if names[full] {
			v.bad(full, "is taken: names must differ within a namespace", "%s.name", path)
		}
		names[full] = true
		if h.Site != "" && v.c.SiteByName(h.Site) == nil {
			v.bad(h.Site, "is none of sites", "%s.site", path)
		}
		if len(h.Addresses) == 0 {
			v.bad(nil, "is missing: at least one address or prefix", "%s.addresses", path)
		}
		for j, p := range h.Addresses {
			if !v.prefix(p, "%s.addresses[%d]", path, j) {
				continue
			}
			if first, taken := addresses[p]; taken {
				v.bad(p, "is also an address of "+first, "%s.addresses[%d]", path, j)
			}
			addresses[p] = full
			owner, ok := v.owners.of(p)
			if h.Site != "" && v.c.SiteByName(h.Site) != nil && (!ok || v.c.Sites[owner].Name != h.Site) {
				v.bad(p, "is outside the prefixes of site "+h.Site, "%s.addresses[%d]", path, j)
			}
		}
		v.labels(h.Labels, path)
		v.ports(h.Ports, path)
	}
	spaces := make(map[string]bool)
	for i := range v.c.Namespaces {
		v.name(v.c.Namespaces[i].Name, spaces, "namespaces[%d].name", i)
		v.labels(v.c.Namespaces[i].Labels, fmt.Sprintf("namespaces[%d]", i))
	}
}

func (v *validator) ports(ports []NamedPort, path string) {
	type name struct{ name, protocol string }
	seen := make(map[name]bool)
	for j, p := range ports {
		if !isPortName(p.Name) {
			v.bad(p.Name, "is not a port name: at most 15 lower-case letters, digits and single inner dashes, one letter at least", "%s.ports[%d].name", path, j)
		}
		if p.Port == 0 {
			v.bad(nil, "is missing: 1 to 65535", "%s.ports[%d].port", path, j)
		}
		if !slices.Contains([]string{"TCP", "UDP", "SCTP"}, p.Protocol) {
			v.bad(p.Protocol, "is not a protocol with ports: TCP, UDP or SCTP", "%s.ports[%d].protocol", path, j)
		}
		if n := (name{p.Name, p.Protocol}); seen[n] {
			v.bad(p.Name, "is given twice for "+p.Protocol, "%s.ports[%d].name", path, j)
		} else {
			seen[n] = true
		}
	}
}

// isPortName reports whether s is a service name (RFC 6335, 5.1) in lower case.
func isPortName(s string) bool {
	return len(s) <= 15 && isLabel(s) && !strings.Contains(s, "--") && strings.ContainsFunc(s, func(c rune) bool { return 'a' <= c && c <= 'z' })
}

// labels checks labels by the rules of Kubernetes, since policies select by them.
func (v *validator) labels(labels map[string]string, path string) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value := labels[key]
		prefix, name, hasPrefix := strings.Cut(key, "/")
		if !hasPrefix {
			prefix, name = "", key
		}
		if !isQualified(name) || hasPrefix && !isDomain(prefix) {
			v.bad(key, "is not a label key, such as app or example.com/app", "%s.labels", path)
		}
		if value != "" && !isQualified(value) {
			v.bad(value, "is not a label value: at most 63 letters, digits and inner '-', '_', '.'", "%s.labels.%s", path, key)
		}
	}
}

// isQualified: letters, digits, and inner dashes, underscores and dots, 1 to 63.
func isQualified(s string) bool {
	alnum := func(c byte) bool { return isLower(c) || isUpper(c) || isDigit(c) }
	if s == "" || len(s) > 63 || !alnum(s[0]) || !alnum(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alnum(c) && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// isDomain reports whether s is an RFC 1123 subdomain in lower case.
func isDomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

func (v *validator) policies() {
	for i := range v.c.Policies {
		p := &v.c.Policies[i]
		switch p.Mode {
		case PolicyEnforced, PolicyStaged, PolicyDisabled:
		default:
			v.bad(p.Mode, "is not a mode: enforced, staged or disabled", "policies[%d].mode", i)
		}
		if p.Answer != AnswerDrop && p.Answer != AnswerReject {
			v.bad(p.Answer, "is not an answer: drop or reject", "policies[%d].answer", i)
		}
		if strings.TrimSpace(p.Spec) == "" {
			v.bad(nil, "is missing: the NetworkPolicy as YAML", "policies[%d].spec", i)
		}
	}
}
