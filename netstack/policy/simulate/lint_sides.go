package simulate

import (
	"net/netip"
	"slices"

	"patronus/configs"
	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

// twoSided finds rules that allow on one side what the other side denies.
func (l *linter) twoSided() {
	type outcome struct {
		passes bool
		denied *Witness
		by     policy.Decision
	}
	rules := map[ruleAt]*outcome{}
	for g := range l.groups {
		for _, d := range directions {
			c := l.byGroup[d][g]
			if c == nil {
				continue
			}
			for p := range l.ports {
				for _, r := range c.rules {
					if r.action != policy.Accept || r.tier != policy.NetworkTier {
						continue
					}
					o := rules[r.ruleAt]
					if o == nil {
						o = new(outcome)
						rules[r.ruleAt] = o
					}
					if o.passes {
						continue
					}
					m := l.matches(c, r, p)
					for peer := range l.groups {
						if !m.has(peer) {
							continue
						}
						if by, ok := l.otherSide(d, g, peer, p); ok {
							o.passes = true
							break
						} else if o.denied == nil {
							o.denied, o.by = l.witness(d, g, peer, p), by
						}
					}
				}
			}
		}
	}
	for _, ref := range l.refs {
		for _, d := range directions {
			for i := range l.After.Rules(ref, d) {
				o := rules[ruleAt{ref, d, i}]
				if o == nil || o.passes || o.denied == nil {
					continue
				}
				text := "allows what the destination's ingress denies: nothing that it matches gets through"
				if d == policy.Ingress {
					text = "allows what the source's egress denies: nothing that it matches gets through"
				}
				f := l.about(TwoSidedMismatch, Warning, ref, "%s", text).at(d, i).other(l.After.PolicyID(o.by.Policy), int(o.by.Rule))
				f.Witness = o.denied
			}
		}
	}
}

// otherSide is what the side of the peer says to a flow of a group.
func (l *linter) otherSide(d policy.Direction, group, peer, p int) (policy.Decision, bool) {
	from, to := group, peer
	if d == policy.Ingress {
		from, to = peer, group
	}
	k := l.key(from, to, p)
	by := l.After.EvaluateSubjects(l.groups[from].after, l.groups[to].after, &k, d == policy.Ingress, d == policy.Egress)
	return by, by.Allowed
}

// uncovered finds endpoints that no policy selects.
func (l *linter) uncovered() {
	for _, d := range directions {
		var names []string
		for i := range l.groups {
			if l.byGroup[d][i] == nil {
				names = append(names, l.groups[i].Endpoints...)
			}
		}
		if len(names) == 0 || len(l.refs) == 0 {
			continue
		}
		slices.Sort(names)
		names = slices.Compact(names)
		f := l.about(EndpointsUncovered, Info, policy.NoPolicy, "no policy restricts the %s of %s", d, some(names))
		f.Direction = d.String()
	}
}

// sites finds prefixes and endpoints that make blocks ambiguous.
func (l *linter) sites() {
	sites := l.options.Sites
	for i := range sites {
		for j := i + 1; j < len(sites); j++ {
			for _, p := range sites[i].Prefixes {
				for _, q := range sites[j].Prefixes {
					if p.Overlaps(q) && p.Bits() > 0 && q.Bits() > 0 {
						l.about(SitePrefixesOverlap, Error, policy.NoPolicy, "%s of site %s and %s of site %s overlap: an ipBlock cannot tell them apart", p, sites[i].Name, q, sites[j].Name)
					}
				}
			}
		}
	}
	for _, e := range l.input.Endpoints {
		i := slices.IndexFunc(sites, func(s configs.Site) bool { return s.Name == e.Site })
		if i < 0 || len(sites[i].Prefixes) == 0 {
			continue
		}
		for _, a := range e.Addresses {
			if !slices.ContainsFunc(sites[i].Prefixes, func(p netip.Prefix) bool { return p.Contains(a.Addr()) && p.Bits() <= a.Bits() }) {
				l.about(EndpointOutsideSite, Warning, policy.NoPolicy, "endpoint %s/%s says it is at site %s, which has no prefix with %s", e.Namespace, e.Name, e.Site, a)
			}
		}
	}
}

// management finds policies that cut a site from the addresses by which the
// fabric is managed: its appliance's own, or that of its people.
func (l *linter) management() {
	for _, from := range l.options.Management {
		for _, to := range l.options.Management {
			if from.Site != to.Site {
				l.cutsAppliance(from, to)
			}
		}
	}
	bySite := map[string][]*configs.HostEndpoint{}
	for i := range l.input.Endpoints {
		e := &l.input.Endpoints[i]
		bySite[e.Site] = append(bySite[e.Site], e)
	}
	for _, to := range l.options.Management {
		for _, s := range l.options.Sites {
			if s.Name != to.Site {
				l.cutsPeople(s.Name, bySite[s.Name], to)
			}
		}
	}
}

func (l *linter) cutsAppliance(from, to Management) {
	k := newKey(packet.TCP, from.Addr, to.Addr, managementPort)
	if d := l.After.Evaluate(&k); !d.Allowed {
		l.refuse(d, from.Site, to, &Witness{From: from.Addr.String(), FromAddr: from.Addr, To: to.Addr.String(), ToAddr: to.Addr, Protocol: "TCP", Port: managementPort})
	}
}

// managementPort is what stands for the ports of the agent and the dashboard.
const managementPort = 443

// cutsPeople reports a site of which endpoints reach a management address today
// and none would.
func (l *linter) cutsPeople(site string, people []*configs.HostEndpoint, to Management) {
	var by policy.Decision
	var witness *Witness
	for _, e := range people {
		for _, a := range e.Addresses {
			addr := a.Addr()
			if addr.Is4() != to.Addr.Is4() {
				continue
			}
			k := newKey(packet.TCP, addr, to.Addr, managementPort)
			d := l.After.Evaluate(&k)
			if d.Allowed {
				return
			}
			if witness == nil && l.Before.Evaluate(&k).Allowed {
				by = d
				witness = &Witness{From: e.Namespace + "/" + e.Name, FromAddr: addr, To: to.Addr.String(), ToAddr: to.Addr, Protocol: "TCP", Port: managementPort}
			}
		}
	}
	if witness != nil {
		l.refuse(by, site, to, witness)
	}
}

func (l *linter) refuse(by policy.Decision, site string, to Management, w *Witness) {
	f := l.about(CutsManagement, Error, by.Policy, "cuts site %s from the management address %s of site %s", site, to.Addr, to.Site).at(by.Direction, int(by.Rule))
	f.Witness, f.Refused = w, true
}
