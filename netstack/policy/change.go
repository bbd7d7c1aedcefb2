package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"patronus/configs"
	"patronus/netstack/packet"
)

// setEndpoint adds an endpoint or replaces the one of its name.
func (c *Compiler) setEndpoint(src *configs.HostEndpoint) {
	e := &endpoint{HostEndpoint: *src, key: endpointKey(src.Namespace, src.Name)}
	e.Labels = maps.Clone(src.Labels)
	e.Ports = slices.Clone(src.Ports)
	e.Addresses = make([]netip.Prefix, len(src.Addresses))
	for i, a := range src.Addresses {
		e.Addresses[i] = hostPrefix(a)
	}
	e.identity = c.acquire(&e.HostEndpoint) // before the old one is released: it may be the same
	old := c.byEndpoint[e.key]
	switch n := len(c.freeEndpoints); {
	case old != nil:
		e.place = old.place
	case n > 0:
		e.place = c.freeEndpoints[n-1]
		c.freeEndpoints = c.freeEndpoints[:n-1]
	default:
		e.place = uint32(len(c.endpoints))
		c.endpoints = append(c.ownEndpoints(), nil)
	}
	c.ownEndpoints()[e.place] = e
	c.byEndpoint[e.key] = e
	if old != nil {
		for _, a := range old.Addresses {
			if !slices.Contains(e.Addresses, a) {
				c.unclaim(a, old)
			}
		}
		for _, a := range e.Addresses {
			if i := slices.Index(c.claims[a], old); i >= 0 {
				c.claims[a][i] = e
				c.reown(a)
			} else {
				c.claim(a, e)
			}
		}
		c.release(old.identity)
		return
	}
	for _, a := range e.Addresses {
		c.claim(a, e)
	}
}

func (c *Compiler) removeEndpoint(key string) {
	e := c.byEndpoint[key]
	if e == nil {
		return
	}
	for _, a := range e.Addresses {
		c.unclaim(a, e)
	}
	delete(c.byEndpoint, key)
	c.ownEndpoints()[e.place] = nil
	c.freeEndpoints = append(c.freeEndpoints, e.place)
	c.release(e.identity)
}

// claim notes that an endpoint has an address. If several do, the first by
// name gets it, whatever the order they came in.
func (c *Compiler) claim(a netip.Prefix, e *endpoint) {
	list := c.claims[a]
	i, dup := slices.BinarySearchFunc(list, e, func(x, y *endpoint) int { return cmp.Compare(x.key, y.key) })
	if dup {
		return
	}
	c.claims[a] = slices.Insert(list, i, e)
	if i == 0 {
		c.reown(a)
	}
}

func (c *Compiler) unclaim(a netip.Prefix, e *endpoint) {
	list := c.claims[a]
	i := slices.Index(list, e)
	if i < 0 {
		return
	}
	c.claims[a] = slices.Delete(list, i, i+1)
	if len(c.claims[a]) == 0 {
		delete(c.claims, a)
	}
	if i == 0 {
		c.reown(a)
	}
}

// reown writes the owner of an address into the tables.
func (c *Compiler) reown(a netip.Prefix) {
	list := c.claims[a]
	var loc location
	if len(list) > 0 {
		loc = location{list[0].identity.id, list[0].place}
	}
	switch {
	case a.IsSingleIP():
		if !c.own.hosts {
			c.hosts, c.own.hosts = c.hosts.clone(), true
		}
		key := packet.AddrFrom(a.Addr())
		c.hosts.replace(&key, loc, len(list) > 0)
	case len(list) == 0 && c.own.prefixes:
		c.prefixes.Delete(a)
	case len(list) == 0:
		c.prefixes = c.prefixes.DeletePersist(a)
	case c.own.prefixes:
		c.prefixes.Insert(a, loc)
	default:
		c.prefixes = c.prefixes.InsertPersist(a, loc)
	}
}

// addPolicy puts a policy in that is not there.
func (c *Compiler) addPolicy(p Policy) {
	var ref PolicyRef
	if n := len(c.freePolicies); n > 0 {
		ref = c.freePolicies[n-1]
		c.freePolicies = c.freePolicies[:n-1]
	} else {
		ref = PolicyRef(len(c.policies))
		c.policies = append(c.ownPolicies(), nil)
	}
	if p.Mode == "" {
		p.Mode = configs.PolicyEnforced
	}
	x := c.translate(p, ref)
	c.ownPolicies()[ref] = x
	c.byPolicy[x.id] = ref
	if p.Mode == configs.PolicyDisabled {
		return
	}
	if p.Mode == configs.PolicyStaged {
		c.stagedCount++
	}
	x.subject.members.each(func(id uint32) bool {
		if _, stale := c.dirty[id]; !stale {
			i := c.identities[id]
			at, _ := slices.BinarySearchFunc(i.policies, x, func(have int32, x *compiled) int { return c.policies[have].before(x) })
			i.policies = slices.Insert(i.policies, at, int32(ref))
		}
		c.touched[id] = struct{}{}
		return true
	})
}

func (c *Compiler) removePolicy(id string) {
	ref, ok := c.byPolicy[id]
	if !ok {
		return
	}
	x := c.policies[ref]
	if x.Mode != configs.PolicyDisabled {
		x.subject.members.each(func(id uint32) bool {
			i := c.identities[id]
			if at := slices.Index(i.policies, int32(ref)); at >= 0 {
				i.policies = slices.Delete(i.policies, at, at+1)
			}
			c.touched[id] = struct{}{}
			return true
		})
		if x.Mode == configs.PolicyStaged {
			c.stagedCount--
		}
	}
	c.releaseAudience(x.subject, true)
	for _, a := range x.used {
		c.releaseAudience(a, false)
	}
	delete(c.byPolicy, id)
	c.ownPolicies()[ref] = nil
	c.freePolicies = append(c.freePolicies, ref)
}

// rebuild makes the programs of the identities that changes touched. dirty
// ones have to be asked which policies select them; touched ones know.
func (c *Compiler) rebuild() {
	if len(c.dirty) > 0 {
		order := make([]int32, 0, len(c.policies))
		for ref, p := range c.policies {
			if p != nil && p.Mode != configs.PolicyDisabled {
				order = append(order, int32(ref))
			}
		}
		slices.SortFunc(order, func(a, b int32) int { return c.policies[a].before(c.policies[b]) })
		for id := range c.dirty {
			i := c.identities[id]
			i.policies = i.policies[:0:0]
			for _, ref := range order {
				if c.policies[ref].subject.members.has(id) {
					i.policies = append(i.policies, ref)
				}
			}
			c.touched[id] = struct{}{}
		}
		clear(c.dirty)
	}
	programs := map[string][2]*program{}
	for id := range c.touched {
		if i := c.identities[id]; i != nil {
			e := c.ownEntry(id)
			e.programs, e.staged = c.link(i.policies, programs)
		}
	}
	clear(c.touched)
}

// link finds or makes the programs of a list of policies.
func (c *Compiler) link(list []int32, programs map[string][2]*program) (enforced, staged [2]*program) {
	var key, stagedKey []byte
	var refs []int32
	for _, ref := range list {
		b := [4]byte{byte(ref), byte(ref >> 8), byte(ref >> 16), byte(ref >> 24)}
		stagedKey = append(stagedKey, b[:]...)
		if c.policies[ref].Mode == configs.PolicyEnforced {
			key = append(key, b[:]...)
			refs = append(refs, ref)
		}
	}
	get := func(key []byte, refs []int32) [2]*program {
		p, ok := programs[string(key)]
		if !ok {
			p = [2]*program{c.program(refs, Egress), c.program(refs, Ingress)}
			programs[string(key)] = p
		}
		return p
	}
	return get(key, refs), get(stagedKey, list)
}
