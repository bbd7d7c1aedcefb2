package simulate

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	networking "k8s.io/api/networking/v1"

	"patronus/configs"
	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

func (l *linter) selectsAny(ref policy.PolicyRef) bool {
	return slices.ContainsFunc(l.groups, func(g Group) bool { return len(g.Endpoints) > 0 && l.After.Selects(ref, g.after) })
}

// selectsNothing finds policies without endpoints, and rules without peers.
func (l *linter) selectsNothing() {
	for _, ref := range l.refs {
		if !l.selectsAny(ref) {
			l.about(PolicySelectsNone, Warning, ref, "selects no endpoint")
		}
		for _, d := range directions {
			for i := range l.After.Rules(ref, d) {
				if r := l.rules[ruleAt{ref, d, i}]; r.peers.empty() {
					l.about(PeerSelectsNone, Warning, ref, "its peers select no endpoint and contain no address").at(d, i)
				}
			}
		}
	}
	l.deadPeers()
}

// deadPeers finds single peers without endpoints among others that have some:
// each peer is compiled as a rule of its own.
func (l *linter) deadPeers() {
	in := l.input
	in.Policies = nil
	type place struct {
		ref  policy.PolicyRef
		rule [2][]int // by direction: of which rule each peer is
		peer [2][]int
	}
	var places []place
	for _, ref := range l.refs {
		p := l.policies[ref]
		if p.Network == nil {
			continue
		}
		split, at := p.Network.DeepCopy(), place{ref: ref}
		split.Name = fmt.Sprintf("p%d", len(places))
		split.Spec.Ingress, split.Spec.Egress = nil, nil
		for i, r := range p.Network.Spec.Ingress {
			for j := range r.From {
				split.Spec.Ingress = append(split.Spec.Ingress, networking.NetworkPolicyIngressRule{From: r.From[j : j+1]})
				at.rule[policy.Ingress], at.peer[policy.Ingress] = append(at.rule[policy.Ingress], i), append(at.peer[policy.Ingress], j)
			}
		}
		for i, r := range p.Network.Spec.Egress {
			for j := range r.To {
				split.Spec.Egress = append(split.Spec.Egress, networking.NetworkPolicyEgressRule{To: r.To[j : j+1]})
				at.rule[policy.Egress], at.peer[policy.Egress] = append(at.rule[policy.Egress], i), append(at.peer[policy.Egress], j)
			}
		}
		in.Policies = append(in.Policies, policy.Policy{Object: policy.Object{Network: split}})
		places = append(places, at)
	}
	rules, err := policy.Compile(in)
	if err != nil {
		return // the same input has compiled before
	}
	byID := map[string]policy.PolicyRef{}
	for i := range rules.Policies() {
		byID[rules.PolicyID(policy.PolicyRef(i))] = policy.PolicyRef(i)
	}
	subjects := make([]policy.Subject, len(l.groups))
	for i := range l.groups {
		subjects[i] = rules.SubjectOf(l.groups[i].Addr)
	}
	for n, at := range places {
		ref := byID[in.Policies[n].ID()]
		for _, d := range directions {
			for j := range rules.Rules(ref, d) {
				if l.rules[ruleAt{at.ref, d, at.rule[d][j]}].peers.empty() {
					continue // said for the whole rule
				}
				if !l.anyPeer(rules, ref, d, j, subjects) {
					l.about(PeerSelectsNone, Warning, at.ref, "peer %d selects no endpoint", at.peer[d][j]).at(d, at.rule[d][j])
				}
			}
		}
	}
}

func (l *linter) anyPeer(rules *policy.Ruleset, ref policy.PolicyRef, d policy.Direction, rule int, subjects []policy.Subject) bool {
	for i := range subjects {
		a := addrOf(&l.groups[i])
		if rules.RulePeer(ref, d, rule, subjects[i], &a) {
			return true
		}
	}
	return false
}

// ignoredRules finds rules of a direction that policyTypes leaves out.
func (l *linter) ignoredRules() {
	for _, ref := range l.refs {
		p := l.policies[ref].Network
		if p == nil {
			continue
		}
		for _, d := range directions {
			n, kind := len(p.Spec.Egress), networking.PolicyTypeEgress
			if d == policy.Ingress {
				n, kind = len(p.Spec.Ingress), networking.PolicyTypeIngress
			}
			if n > 0 && !slices.Contains(p.Spec.PolicyTypes, kind) {
				l.about(RulesIgnored, Error, ref, "has %d %s rules, but policyTypes omits %s: they are ignored, and %s is not restricted", n, d, kind, d).at(d, 0)
			}
		}
	}
}

// allowAll finds rules that allow every peer and port where another policy of
// the namespace denies everything.
func (l *linter) allowAll() {
	for _, d := range directions {
		for _, deny := range l.refs {
			p := l.policies[deny]
			if p.Network == nil || !l.After.Applies(deny, d) || l.After.Rules(deny, d) > 0 {
				continue
			}
			for _, ref := range l.refs {
				q := l.policies[ref]
				if ref == deny || q.Network == nil || q.Namespace() != p.Namespace() || !l.After.Applies(ref, d) {
					continue
				}
				l.allowAllRule(d, deny, ref)
			}
		}
	}
}

func (l *linter) allowAllRule(d policy.Direction, deny, ref policy.PolicyRef) {
	group := slices.IndexFunc(l.groups, func(g Group) bool {
		return len(g.Endpoints) > 0 && l.After.Selects(deny, g.after) && l.After.Selects(ref, g.after)
	})
	if group < 0 {
		return
	}
	for i := range l.After.Rules(ref, d) {
		r := l.rules[ruleAt{ref, d, i}]
		peer := slices.IndexFunc(l.groups, func(g Group) bool { return g.Addr.Is4() == l.groups[group].Addr.Is4() })
		all := !slices.Contains(r.ports, false)
		for j := range l.groups {
			all = all && r.peers.has(j)
		}
		if all && peer >= 0 {
			f := l.about(AllowAllOverDenyAll, Warning, ref, "allows everything to endpoints for which another policy denies everything: rules add up, the denial has no effect").
				at(d, i).other(l.After.PolicyID(deny), -1)
			f.Witness = l.witness(d, group, peer, 0)
			return
		}
	}
}

// dns finds endpoints that may send something, but ask no name server.
func (l *linter) dns() {
	said := map[policy.PolicyRef]bool{}
	udp := slices.IndexFunc(l.ports, func(p Ports) bool { return p.Protocol == packet.UDP && p.First <= 53 && 53 <= p.Last })
	for _, c := range l.chains {
		if c.dir != policy.Egress || !slices.ContainsFunc(c.rules, func(r *linkedRule) bool { return r.action == policy.Accept && r.tier == policy.NetworkTier }) {
			continue
		}
		tier, _ := l.After.Rank(c.refs[0])
		first := c.refs[0]
		for _, ref := range c.refs {
			if tier, _ = l.After.Rank(ref); tier == policy.NetworkTier {
				first = ref
				break
			}
		}
		if tier != policy.NetworkTier || said[first] {
			continue
		}
		if j := l.judge(c, l.matched(c, udp), noRule); !j.allowed.empty() {
			continue
		}
		said[first] = true
		f := l.about(DNSForgotten, Warning, first, "%s may open connections, but ask no name server: nothing allows port 53", l.groups[c.group].Name()).at(policy.Egress, -1)
		f.Witness = l.witness(policy.Egress, c.group, c.family.first(), udp)
		f.Witness.Port = 53
	}
}

// portNames finds names of ports that no endpoint concerned has, or that mean
// different ports.
func (l *linter) portNames() {
	ports := map[string][]configs.NamedPort{}
	for _, e := range l.input.Endpoints {
		ports[e.Namespace+"/"+e.Name] = e.Ports
	}
	for _, ref := range l.refs {
		for _, d := range directions {
			names := portNames(l.policies[ref].Object, d)
			for _, name := range slices.Sorted(maps.Keys(names)) {
				for _, rule := range slices.Compact(names[name]) {
					if l.After.Applies(ref, d) {
						l.portName(ref, d, rule, name, ports)
					}
				}
			}
		}
	}
}

func (l *linter) portName(ref policy.PolicyRef, d policy.Direction, rule int, name string, ports map[string][]configs.NamedPort) {
	numbers := map[string]bool{}
	any := false
	for i := range l.groups {
		g := &l.groups[i]
		if d == policy.Ingress && !l.After.Selects(ref, g.after) || d == policy.Egress && !l.rules[ruleAt{ref, d, rule}].peers.has(i) {
			continue
		}
		any = any || len(g.Endpoints) > 0
		for _, e := range g.Endpoints {
			for _, p := range ports[e] {
				if p.Name == name {
					protocol := strings.ToUpper(p.Protocol)
					if protocol == "" {
						protocol = "TCP"
					}
					numbers[fmt.Sprintf("%d/%s", p.Port, protocol)] = true
				}
			}
		}
	}
	whose := "endpoint that it selects"
	if d == policy.Egress {
		whose = "endpoint among its peers"
	}
	switch {
	case any && len(numbers) == 0:
		l.about(NamedPortUnknown, Warning, ref, "port %q is unknown on every %s", name, whose).at(d, rule)
	case len(numbers) > 1:
		l.about(NamedPortDiffers, Info, ref, "port %q means %s", name, some(slices.Sorted(maps.Keys(numbers)))).at(d, rule)
	}
}

// blocks finds exceptions that something else allows again, and blocks through
// which endpoints are reached.
func (l *linter) blocks() {
	for _, c := range l.chains {
		for p := range l.ports {
			matched := l.matched(c, p)
			j := l.judge(c, matched, noRule)
			for i, r := range c.rules {
				if n := l.policies[r.ref].Network; n != nil && !matched[i].empty() {
					l.reallowed(c, r, p, &j)
				}
			}
		}
	}
	for _, ref := range l.refs {
		for _, d := range directions {
			for i := range l.After.Rules(ref, d) {
				l.blockEndpoints(ruleAt{ref, d, i})
			}
		}
	}
}

func (l *linter) ruleBlocks(at ruleAt) []*networking.IPBlock {
	n := l.policies[at.ref].Network
	if n == nil {
		return nil
	}
	var peers []networking.NetworkPolicyPeer
	if at.dir == policy.Ingress {
		peers = n.Spec.Ingress[at.index].From
	} else {
		peers = n.Spec.Egress[at.index].To
	}
	var out []*networking.IPBlock
	for i := range peers {
		if peers[i].IPBlock != nil {
			out = append(out, peers[i].IPBlock)
		}
	}
	return out
}

func (l *linter) reallowed(c *chain, r *linkedRule, p int, j *judgement) {
	if !r.ports[p] || slices.ContainsFunc(l.found, func(f Finding) bool {
		return f.Code == ExceptReallowed && f.Policy == l.After.PolicyID(r.ref) && f.Rule == r.index && f.Direction == r.dir.String()
	}) {
		return
	}
	for _, b := range l.ruleBlocks(r.ruleAt) {
		for _, text := range b.Except {
			hole, err := netip.ParsePrefix(text)
			if err != nil {
				continue
			}
			for i := range l.groups {
				if !hole.Contains(l.groups[i].Addr) || !j.allowed.has(i) || j.decided.has(i) {
					continue
				}
				w := l.witness(c.dir, c.group, i, p)
				by, index := l.decider(c, i, p)
				f := l.about(ExceptReallowed, Warning, r.ref, "excepts %s, but another peer or rule allows it again", text).at(r.dir, r.index).other(by, index)
				f.Witness = w
				return
			}
		}
	}
}

// decider asks the evaluator which rule decides a flow of a chain.
func (l *linter) decider(c *chain, peer, p int) (string, int) {
	from, to := c.group, peer
	if c.dir == policy.Ingress {
		from, to = peer, c.group
	}
	k := l.key(from, to, p)
	d := l.After.EvaluateSubjects(l.groups[from].after, l.groups[to].after, &k, c.dir == policy.Egress, c.dir == policy.Ingress)
	return l.After.PolicyID(d.Policy), int(d.Rule)
}

// blockEndpoints finds blocks, other than a whole family, that endpoints are in.
func (l *linter) blockEndpoints(at ruleAt) {
	var names []string
	for _, b := range l.ruleBlocks(at) {
		block, err := netip.ParsePrefix(b.CIDR)
		if err != nil || block.Bits() == 0 {
			continue
		}
		for i := range l.groups {
			if block.Contains(l.groups[i].Addr) && l.rules[at].peers.has(i) {
				names = append(names, l.groups[i].Endpoints...)
			}
		}
	}
	if len(names) > 0 {
		slices.Sort(names)
		l.about(BlockHasEndpoints, Info, at.ref, "an ipBlock contains %s: they are reached by address, whatever their labels", some(slices.Compact(names))).at(at.dir, at.index)
	}
}
