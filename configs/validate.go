package configs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Validate checks a configuration with its defaults filled in and returns
// every problem as [Problems], nil if there is none. The problems name no file
// and no line. It looks at nothing but c: whether files and interfaces exist is
// found out by whoever opens them.
func (c *Config) Validate() error { return c.problems().err() }

func (c *Config) problems() *report {
	v := validator{c: c, self: c.Self()}
	v.fabric()
	v.sites()
	v.lan()
	v.devices()
	v.classes()
	v.probe()
	v.flows()
	v.hosts()
	v.policies()
	v.export()
	return &v.report
}

// validator walks a configuration once. Its methods are in the order of the
// fields of Config; what one finds, the later ones may use.
type validator struct {
	c      *Config
	self   *Site // nil if Site names none of Sites
	owners owners
	keys   map[Key]string // public key -> path of the uplink or device that has it
	report report
}

// bad records a problem of the field at path (a format of args) that has value,
// nil if it was not given.
func (v *validator) bad(value any, why, path string, args ...any) {
	if v.report.full() {
		v.report.more++
		return
	}
	e := &FieldError{Path: fmt.Sprintf(path, args...), Why: why}
	if value != nil {
		e.Value = show(value)
	}
	v.report.add(e)
}

// name checks a name that becomes part of ids and addresses, and that it is
// the first of its kind. It reports whether the name can be used.
func (v *validator) name(name string, seen map[string]bool, path string, args ...any) {
	switch {
	case name == "":
		v.bad(nil, "is missing", path, args...)
	case !isLabel(name):
		v.bad(name, "is not a name: lower-case letters, digits and inner dashes, at most 63", path, args...)
	case seen[name]:
		v.bad(name, "is taken: names must differ", path, args...)
	}
	if seen != nil {
		seen[name] = true
	}
}

// isLabel reports whether s is an RFC 1123 label in lower case.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if !isLower(s[i]) && !isDigit(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isInterface reports whether s can name a network interface: the kernel keeps
// 15 bytes (IFNAMSIZ with its NUL) and refuses these characters.
func isInterface(s string) bool {
	return s != "" && len(s) <= 15 && s != "." && s != ".." &&
		!strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == '/' || c == ':' || c == 0x7f })
}

const notInterface = "is not an interface name: at most 15 bytes without spaces, slashes and colons"

func (v *validator) fabric() {
	v.name(v.c.Fabric, nil, "fabric")
	switch {
	case v.c.Site == "":
		v.bad(nil, "is missing: say which of sites this appliance is", "site")
	case v.self == nil:
		v.bad(v.c.Site, "is none of sites", "site")
	}
	t := &v.c.Topology
	switch t.Mode {
	case FullMesh:
		if len(t.Hubs) > 0 {
			v.bad(nil, "hubs mean nothing in a full mesh: leave them out or set mode: hub-and-spoke", "topology.hubs")
		}
	case HubAndSpoke:
		if len(t.Hubs) == 0 {
			v.bad(nil, "is missing: hub-and-spoke needs at least one hub", "topology.hubs")
		}
	default:
		v.bad(t.Mode, "is not a topology: full-mesh or hub-and-spoke", "topology.mode")
	}
	for i, hub := range t.Hubs {
		switch {
		case v.c.SiteByName(hub) == nil:
			v.bad(hub, "is none of sites", "topology.hubs[%d]", i)
		case slices.Index(t.Hubs, hub) < i:
			v.bad(hub, "is listed twice", "topology.hubs[%d]", i)
		}
	}
}

// prefix checks a prefix that traffic is matched against and reports whether
// it can be used.
func (v *validator) prefix(p netip.Prefix, path string, args ...any) bool {
	switch {
	case !p.IsValid():
		v.bad(nil, "is missing or not a prefix", path, args...)
	case p.Addr().Is4In6():
		v.bad(p, "is an IPv4 address in IPv6 form: write it as IPv4", path, args...)
	case p != p.Masked():
		v.bad(p, fmt.Sprintf("has host bits: write %s", p.Masked()), path, args...)
	default:
		return true
	}
	return false
}

// reserved says why nobody's hosts can live in a prefix, "" if they can.
func reserved(p netip.Prefix) string {
	a := p.Addr()
	switch {
	case p.Bits() == 0:
		return ""
	case a.IsMulticast():
		return "is multicast"
	case a.IsLoopback():
		return "is loopback"
	case a.IsLinkLocalUnicast():
		return "is link-local, which does not leave its link"
	case p.Overlaps(PathPrefix()):
		return "is where path addresses live"
	case p.Overlaps(OverlayPrefix()):
		return "is where overlay addresses live"
	}
	return ""
}

// owners says which site owns a prefix, by its index in Sites.
type owners map[netip.Prefix]int

// of finds the site whose prefix holds all of p, by the longest match.
func (o owners) of(p netip.Prefix) (site int, ok bool) {
	for bits := p.Bits(); bits >= 0; bits-- {
		q, err := p.Addr().Prefix(bits)
		if err != nil {
			return 0, false
		}
		if site, ok := o[q]; ok {
			return site, true
		}
	}
	return 0, false
}

// inOwn checks that p belongs to this appliance's own site.
func (v *validator) inOwn(p netip.Prefix, path string, args ...any) {
	if v.self == nil {
		return // reported already
	}
	owner, ok := v.owners.of(p.Masked())
	switch {
	case !ok:
		v.bad(p, fmt.Sprintf("is outside the prefixes of site %s: add it there, or nobody can answer", v.c.Site), path, args...)
	case v.c.Sites[owner].Name != v.c.Site:
		v.bad(p, fmt.Sprintf("belongs to site %s", v.c.Sites[owner].Name), path, args...)
	}
}

// claim is one prefix that must not meet those of another owner.
type claim struct {
	prefix netip.Prefix
	owner  string
	path   string
	order  int // place in the configuration: the later of two is the one to blame
}

// overlaps reports claims of different owners that meet, and equal ones of the
// same owner. It costs a sort: in order of address, then length, the
// claims that hold a prefix are the ones left open by those before it.
func (v *validator) overlaps(claims []claim) {
	slices.SortStableFunc(claims, func(a, b claim) int { return a.prefix.Compare(b.prefix) })
	var open []claim
	for _, c := range claims {
		for len(open) > 0 && !open[len(open)-1].prefix.Overlaps(c.prefix) {
			open = open[:len(open)-1]
		}
		if len(open) > 0 {
			held := open[len(open)-1]
			if held.owner != c.owner || held.prefix == c.prefix {
				a, b := held, c
				if a.order > b.order {
					a, b = b, a
				}
				v.bad(b.prefix, fmt.Sprintf("overlaps %s of %s", a.prefix, a.owner), "%s", b.path)
			}
		}
		open = append(open, c)
	}
}
