package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"patronus/configs"
)

// Input is all that a ruleset is made of.
type Input struct {
	Namespaces []configs.Namespace
	Endpoints  []configs.HostEndpoint
	Policies   []Policy
}

// Change is a step from one ruleset to the next. Removals come first. What is
// named again replaces what had the name.
type Change struct {
	Input
	RemoveNamespaces []string
	RemoveEndpoints  []string // "namespace/name"
	RemovePolicies   []string // [Object.ID]
}

// Compile makes a ruleset of an input at once.
func Compile(in Input) (*Ruleset, error) { return NewCompiler().Apply(Change{Input: in}) }

// Compiler keeps what is needed to get from one ruleset to the next without
// starting over: it rebuilds what a change touches and shares the rest. It is
// owned by one goroutine; the rulesets it returns are immutable.
type Compiler struct {
	version    uint32
	namespaces map[string]*namespace
	names      *portNames

	identities     []*identity // by id; nil is free
	freeIdentities []uint32
	byKey          map[string]*identity
	index          postings

	byEndpoint    map[string]*endpoint
	endpoints     []*endpoint // by place
	freeEndpoints []uint32
	claims        map[netip.Prefix][]*endpoint
	hosts         hosts
	prefixes      *bart.Table[location]

	audiences     map[string]*audience
	byID          []*audience
	freeAudiences []uint32

	byPolicy     map[string]PolicyRef
	policies     []*compiled
	freePolicies []PolicyRef
	stagedCount  int

	pages   [][]entry           // by identity
	dirty   map[uint32]struct{} // identities to be asked which policies select them
	touched map[uint32]struct{} // identities whose programs are stale

	indexAbove int // see newIndex

	// own says which of the slices above the last ruleset does not share.
	own struct {
		endpoints, policies, hosts, prefixes, top bool
		pages                                     bitset
		rows                                      bitset // by identity: the entry's row
	}
}

// NewCompiler returns an empty compiler.
func NewCompiler() *Compiler {
	c := &Compiler{
		namespaces: map[string]*namespace{},
		names:      &portNames{numbers: map[string]uint32{}},
		byKey:      map[string]*identity{},
		index:      postings{},
		byEndpoint: map[string]*endpoint{},
		claims:     map[netip.Prefix][]*endpoint{},
		hosts:      newHosts(),
		prefixes:   new(bart.Table[location]),
		audiences:  map[string]*audience{},
		byPolicy:   map[string]PolicyRef{},
		dirty:      map[uint32]struct{}{},
		touched:    map[uint32]struct{}{},
		indexAbove: indexAbove,
	}
	c.own.hosts, c.own.prefixes = true, true
	return c
}

// Apply makes the next ruleset. If it returns an error nothing has changed.
func (c *Compiler) Apply(ch Change) (*Ruleset, error) {
	if err := ch.check(); err != nil {
		return nil, fmt.Errorf("compile policies: %w", err)
	}
	for _, id := range ch.RemovePolicies {
		c.removePolicy(id)
	}
	for _, key := range ch.RemoveEndpoints {
		c.removeEndpoint(key)
	}
	for _, name := range ch.RemoveNamespaces {
		if c.namespaces[name] != nil {
			c.setNamespace(name, nil, false)
		}
	}
	for _, n := range ch.Namespaces {
		c.setNamespace(n.Name, n.Labels, true)
	}
	for i := range ch.Endpoints {
		c.setEndpoint(&ch.Endpoints[i])
	}
	policies := slices.Clone(ch.Policies)
	slices.SortStableFunc(policies, func(a, b Policy) int { return strings.Compare(a.ID(), b.ID()) })
	for _, p := range policies {
		c.removePolicy(p.ID())
		c.addPolicy(p)
	}
	c.rebuild()
	return c.publish(), nil
}

func (ch *Change) check() error {
	for _, n := range ch.Namespaces {
		if n.Name == "" {
			return fmt.Errorf("a namespace has no name")
		}
	}
	for i := range ch.Endpoints {
		if err := checkEndpoint(&ch.Endpoints[i]); err != nil {
			return err
		}
	}
	for i, p := range ch.Policies {
		if !p.Valid() {
			return fmt.Errorf("policy %d: %w", i, ErrNotPolicy)
		}
		switch p.Mode {
		case "", configs.PolicyEnforced, configs.PolicyStaged, configs.PolicyDisabled:
		default:
			return fmt.Errorf("policy %s: unknown mode %q", p.ID(), p.Mode)
		}
	}
	return nil
}

// publish hands the current state out; from now on it is shared.
func (c *Compiler) publish() *Ruleset {
	c.version++
	c.own.endpoints, c.own.policies, c.own.hosts, c.own.prefixes, c.own.top = false, false, false, false, false
	clear(c.own.pages)
	clear(c.own.rows)
	return &Ruleset{
		version: c.version, hosts: c.hosts, prefixes: c.prefixes, pages: c.pages, endpoints: c.endpoints,
		policies: c.policies, staged: c.stagedCount > 0,
	}
}

// ownEntry is an identity's entry, in a page that may be written.
func (c *Compiler) ownEntry(id uint32) *entry {
	if !c.own.top {
		c.pages, c.own.top = slices.Clone(c.pages), true
	}
	n := id / pageSize
	if int(n) == len(c.pages) {
		c.pages = append(c.pages, make([]entry, pageSize))
		c.own.pages.set(n, true)
	}
	if !c.own.pages.has(n) {
		c.pages[n] = slices.Clone(c.pages[n])
		c.own.pages.set(n, true)
	}
	return &c.pages[n][id%pageSize]
}

func (c *Compiler) ownEndpoints() []*endpoint {
	if !c.own.endpoints {
		c.endpoints, c.own.endpoints = slices.Clone(c.endpoints), true
	}
	return c.endpoints
}

func (c *Compiler) ownPolicies() []*compiled {
	if !c.own.policies {
		c.policies, c.own.policies = slices.Clone(c.policies), true
	}
	return c.policies
}

// audience finds or makes the audience of scopes and takes a reference.
func (c *Compiler) audience(scopes []scope, subject bool) *audience {
	key := audienceKey(scopes)
	a := c.audiences[key]
	if a == nil {
		a = &audience{key: key, scopes: scopes}
		if n := len(c.freeAudiences); n > 0 {
			a.id = c.freeAudiences[n-1]
			c.freeAudiences = c.freeAudiences[:n-1]
			c.byID[a.id] = a
		} else {
			a.id = uint32(len(c.byID))
			c.byID = append(c.byID, a)
		}
		c.audiences[key] = a
		for i := range scopes {
			a.byLabels = a.byLabels || scopes[i].namespace == "" && len(scopes[i].namespaces) > 0
			c.find(&scopes[i], func(id uint32) { c.setMember(a, id, true) })
		}
	}
	a.refs++
	if subject {
		a.subjects++
	}
	return a
}

func (c *Compiler) releaseAudience(a *audience, subject bool) {
	if subject {
		a.subjects--
	}
	if a.refs--; a.refs > 0 {
		return
	}
	for id := range a.members.each {
		c.ownRow(id).set(a.id, false)
	}
	delete(c.audiences, a.key)
	c.byID[a.id] = nil
	c.freeAudiences = append(c.freeAudiences, a.id)
}

// find calls yield for the identities in a scope, looking only at those that
// the most selective label or the namespaces offer.
func (c *Compiler) find(s *scope, yield func(id uint32)) {
	if s.namespace != "" {
		if space := c.namespaces[s.namespace]; space != nil {
			for i := range space.identities {
				if s.pods.matches(c.identities[i].labels) {
					yield(i)
				}
			}
		}
		return
	}
	var spaces []*namespace
	n := 0
	for _, space := range c.namespaces {
		if s.namespaces.matches(space.labels) {
			spaces = append(spaces, space)
			n += len(space.identities)
		}
	}
	if list, ok := c.shortest(s.pods); ok && len(list) < n {
		for _, i := range list {
			if s.matches(c.identities[i]) {
				yield(i)
			}
		}
		return
	}
	for _, space := range spaces {
		for i := range space.identities {
			if s.pods.matches(c.identities[i].labels) {
				yield(i)
			}
		}
	}
}

// shortest is the shortest list of identities that has all that match; ok is
// false if the selector demands no label.
func (c *Compiler) shortest(s selector) (best []uint32, ok bool) {
	for i := range s {
		var list []uint32
		switch q := &s[i]; q.op {
		case "In":
			for _, v := range q.values {
				list = append(list[:len(list):len(list)], c.index[q.key][v]...)
			}
		case "Exists":
			for _, l := range c.index[q.key] {
				list = append(list, l...)
			}
		default:
			continue
		}
		if !ok || len(list) < len(best) {
			best, ok = list, true
		}
	}
	return best, ok
}

// setMember puts an identity into an audience, or takes it out.
func (c *Compiler) setMember(a *audience, id uint32, on bool) {
	if a.members.has(id) == on {
		return
	}
	a.members.set(id, on)
	c.ownRow(id).set(a.id, on)
	if a.subjects > 0 {
		c.dirty[id] = struct{}{}
	}
}

// ownRow is the row of an identity's entry, to be written.
func (c *Compiler) ownRow(id uint32) *bitset {
	e := c.ownEntry(id)
	if !c.own.rows.has(id) {
		row := make(bitset, max(len(e.row), len(c.byID)/64+1))
		copy(row, e.row)
		e.row = row
		c.own.rows.set(id, true)
	}
	return &e.row
}
