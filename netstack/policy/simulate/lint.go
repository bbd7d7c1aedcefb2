package simulate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"patronus/configs"
	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	// Error: what is written cannot be what is meant, or cuts something off.
	Error Severity = "error"
	// Warning: something has no effect, or another one than it seems.
	Warning Severity = "warning"
	// Info: worth knowing.
	Info Severity = "info"
)

// Code names a kind of finding. Codes are stable.
type Code string

// The kinds of findings.
const (
	CutsManagement      Code = "cuts-management"
	PolicySelectsNone   Code = "policy-selects-nothing"
	PeerSelectsNone     Code = "peer-selects-nothing"
	PolicyRedundant     Code = "policy-redundant"
	RuleRedundant       Code = "rule-redundant"
	RuleOverruled       Code = "rule-overruled"
	SamePriority        Code = "same-priority-conflict"
	AllowAllOverDenyAll Code = "allow-all-defeats-deny-all"
	TwoSidedMismatch    Code = "two-sided-mismatch"
	DNSForgotten        Code = "dns-forgotten"
	NamedPortUnknown    Code = "named-port-unknown"
	NamedPortDiffers    Code = "named-port-differs"
	ExceptReallowed     Code = "except-reallowed"
	RulesIgnored        Code = "policy-types-omit-rules"
	EndpointsUncovered  Code = "endpoints-uncovered"
	BlockHasEndpoints   Code = "block-covers-endpoints"
	SitePrefixesOverlap Code = "site-prefixes-overlap"
	EndpointOutsideSite Code = "endpoint-outside-site"
)

// Finding is something that is wrong with, or odd about, a set of policies.
type Finding struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	// Policy is the ID of the policy that it is about; Direction ("egress" or
	// "ingress") and Rule say where in it, Rule is -1 if it is no single rule.
	Policy    string `json:"policy,omitempty"`
	Direction string `json:"direction,omitempty"`
	Rule      int    `json:"rule"`
	Text      string `json:"text"`
	// Other is another policy that has to do with it.
	Other     string `json:"other,omitempty"`
	OtherRule int    `json:"other_rule"`
	// Witness is a flow that shows it, if there is one.
	Witness *Witness `json:"witness,omitempty"`
	// Refused says that the policies should not be applied unless forced.
	Refused bool `json:"refused,omitempty"`
}

// Witness is a flow as proof of a finding.
type Witness struct {
	From     string     `json:"from"` // namespace/name, or the address
	FromAddr netip.Addr `json:"from_address"`
	To       string     `json:"to"`
	ToAddr   netip.Addr `json:"to_address"`
	Protocol string     `json:"protocol"`
	Port     uint16     `json:"port"`
}

func (w *Witness) String() string {
	if w.Protocol == "ICMP" || w.Protocol == "ICMPv6" {
		return fmt.Sprintf("%s -> %s %s", w.From, w.To, w.Protocol)
	}
	return fmt.Sprintf("%s -> %s:%d/%s", w.From, w.To, w.Port, w.Protocol)
}

// LintOptions say what to look at beyond policies and endpoints.
type LintOptions struct {
	Sites []configs.Site
	// Management are addresses that every site must reach: the overlay
	// addresses of the appliances, and with them the dashboard's.
	Management []Management
}

// Management is an address of a site by which it is managed.
type Management struct {
	Site string
	Addr netip.Addr
}

var directions = [2]policy.Direction{policy.Egress, policy.Ingress}

func enforced(p *policy.Policy) bool { return p.Mode == "" || p.Mode == configs.PolicyEnforced }

func addrOf(g *Group) packet.Addr { return packet.AddrFrom(g.Addr) }

// Lint looks for what is wrong with the candidate policies of a world, worst
// first. Findings say the same each time.
func Lint(w *World, o LintOptions) []Finding {
	l := newLinter(w, o)
	l.management()
	l.selectsNothing()
	l.ignoredRules()
	l.redundant()
	l.samePriority()
	l.allowAll()
	l.twoSided()
	l.dns()
	l.portNames()
	l.blocks()
	l.uncovered()
	l.sites()
	rank := map[Severity]int{Error: 0, Warning: 1, Info: 2}
	slices.SortStableFunc(l.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank[a.Severity], rank[b.Severity]), cmp.Compare(a.Policy, b.Policy),
			cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Code, b.Code))
	})
	return l.found
}

// about starts a finding about a policy.
func (l *linter) about(code Code, s Severity, ref policy.PolicyRef, format string, args ...any) *Finding {
	l.found = append(l.found, Finding{
		Code: code, Severity: s, Policy: l.After.PolicyID(ref), Rule: -1, OtherRule: -1, Text: fmt.Sprintf(format, args...),
	})
	return &l.found[len(l.found)-1]
}

// at says where in the policy.
func (f *Finding) at(d policy.Direction, rule int) *Finding {
	f.Direction, f.Rule = d.String(), rule
	return f
}

func (f *Finding) other(id string, rule int) *Finding {
	f.Other, f.OtherRule = id, rule
	return f
}

// witness is a flow of a group and a peer, in a direction of the group.
func (l *linter) witness(d policy.Direction, group, peer, ports int) *Witness {
	from, to := group, peer
	if d == policy.Ingress {
		from, to = peer, group
	}
	k := l.key(from, to, ports)
	return &Witness{
		From: l.groups[from].member(), FromAddr: l.groups[from].Addr, To: l.groups[to].member(), ToAddr: l.groups[to].Addr,
		Protocol: protocolName(k.Proto), Port: k.DstPort,
	}
}

// member is the endpoint that has the group's address, or the address.
func (g *Group) member() string {
	if g.Member != "" {
		return g.Member
	}
	return g.Addr.String()
}

func protocolName(p uint8) string {
	switch p {
	case packet.UDP:
		return "UDP"
	case packet.SCTP:
		return "SCTP"
	case packet.ICMP:
		return "ICMP"
	case packet.ICMPv6:
		return "ICMPv6"
	}
	return "TCP"
}

// some lists at most four names.
func some(names []string) string {
	if len(names) > 4 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:4], ", "), len(names)-4)
	}
	return strings.Join(names, ", ")
}
