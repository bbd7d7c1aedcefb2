package policy

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"patronus/configs"
	"patronus/netstack/packet"
)

// compare holds a ruleset to the naive evaluator, side by side.
func compare(t *rapid.T, r *Ruleset, in Input, k packet.Key) {
	n := naive{in}
	for _, staged := range []bool{false, true} {
		for _, d := range []Direction{Egress, Ingress} {
			want := n.side(d, &k, staged)
			got := r.evaluate(&k, d == Egress, d == Ingress, staged)
			have := naiveAnswer{got.Allowed, got.Reason, r.PolicyID(got.Policy), got.Rule}
			if have != want {
				t.Fatalf("%s staged=%v %v -> %v proto %d port %d: compiled %+v, naive %+v", d, staged, k.Src.Netip(), k.Dst.Netip(), k.Proto, k.DstPort, have, want)
			}
		}
	}
	d := r.Evaluate(&k)
	out, in2 := n.side(Egress, &k, false), n.side(Ingress, &k, false)
	if d.Egress != out.allowed || d.Ingress != in2.allowed || d.Allowed != (out.allowed && in2.allowed) {
		t.Fatalf("flow %+v, sides %+v %+v", d, out, in2)
	}
	if p, ok := r.Policy(d.Policy); d.Reject != (ok && !d.Allowed && p.Reject) {
		t.Fatalf("reject: %+v", d)
	}
	x := r.Explain(&k)
	if x.Decision != d || x.Egress.Allowed != d.Egress || x.Ingress.Allowed != d.Ingress {
		t.Fatalf("explanation differs: %+v, %+v", x, d)
	}
}

// indexing is a compiler that indexes every program, even the shortest.
func indexing() *Compiler {
	c := NewCompiler()
	c.indexAbove = 0
	return c
}

func TestCompiledEqualsNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		r, err := Compile(in)
		if err != nil {
			t.Fatal(err)
		}
		indexed, err := indexing().Apply(Change{Input: in})
		if err != nil {
			t.Fatal(err)
		}
		for range 12 {
			k := drawKey(t)
			compare(t, r, in, k)
			compare(t, indexed, in, k)
		}
	})
}

// world is the input that a history of changes amounts to.
type world struct{ Input }

func (w *world) apply(ch Change) {
	drop := func(ids []string, id string) bool { return slices.Contains(ids, id) }
	w.Policies = slices.DeleteFunc(w.Policies, func(p Policy) bool {
		return drop(ch.RemovePolicies, p.ID()) || slices.ContainsFunc(ch.Policies, func(q Policy) bool { return q.ID() == p.ID() })
	})
	w.Policies = append(w.Policies, ch.Policies...)
	w.Endpoints = slices.DeleteFunc(w.Endpoints, func(e configs.HostEndpoint) bool {
		key := endpointKey(e.Namespace, e.Name)
		return drop(ch.RemoveEndpoints, key) || slices.ContainsFunc(ch.Endpoints, func(f configs.HostEndpoint) bool { return endpointKey(f.Namespace, f.Name) == key })
	})
	w.Endpoints = append(w.Endpoints, ch.Endpoints...)
	w.Namespaces = slices.DeleteFunc(w.Namespaces, func(n configs.Namespace) bool {
		return drop(ch.RemoveNamespaces, n.Name) || slices.ContainsFunc(ch.Namespaces, func(m configs.Namespace) bool { return m.Name == n.Name })
	})
	w.Namespaces = append(w.Namespaces, ch.Namespaces...)
}

func drawChange(t *rapid.T, w *world) Change {
	var ch Change
	for range rapid.IntRange(1, 3).Draw(t, "steps") {
		switch rapid.IntRange(0, 6).Draw(t, "step") {
		case 0, 1:
			p := drawPolicy(t, rapid.IntRange(0, 7).Draw(t, "policy"))
			if !slices.ContainsFunc(ch.Policies, func(q Policy) bool { return q.ID() == p.ID() }) {
				ch.Policies = append(ch.Policies, p)
			}
		case 2, 3:
			e := drawEndpoint(t, rapid.IntRange(0, 7).Draw(t, "endpoint"))
			if !slices.ContainsFunc(ch.Endpoints, func(f configs.HostEndpoint) bool {
				return endpointKey(f.Namespace, f.Name) == endpointKey(e.Namespace, e.Name)
			}) {
				ch.Endpoints = append(ch.Endpoints, e)
			}
		case 4:
			n := drawNamespace(t, fmt.Sprintf("n%d", rapid.IntRange(0, 2).Draw(t, "namespace")))
			if !slices.ContainsFunc(ch.Namespaces, func(m configs.Namespace) bool { return m.Name == n.Name }) {
				ch.Namespaces = append(ch.Namespaces, n)
			}
		case 5:
			if len(w.Policies) > 0 {
				ch.RemovePolicies = append(ch.RemovePolicies, rapid.SampledFrom(w.Policies).Draw(t, "remove").ID())
			}
			if len(w.Namespaces) > 0 && rapid.Bool().Draw(t, "namespace too") {
				ch.RemoveNamespaces = append(ch.RemoveNamespaces, rapid.SampledFrom(w.Namespaces).Draw(t, "remove").Name)
			}
		case 6:
			if len(w.Endpoints) > 0 {
				e := rapid.SampledFrom(w.Endpoints).Draw(t, "remove")
				ch.RemoveEndpoints = append(ch.RemoveEndpoints, endpointKey(e.Namespace, e.Name))
			}
		}
	}
	return ch
}

// TestIncrementalEqualsFull follows random histories: after each step the
// incremental ruleset answers as a fresh one does, as the naive evaluator does,
// and older rulesets still answer as they did.
func TestIncrementalEqualsFull(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.SampledFrom([]*Compiler{NewCompiler(), indexing()}).Draw(t, "compiler")
		var w world
		type answered struct {
			r *Ruleset
			k packet.Key
			d Decision
		}
		var past []answered
		for range rapid.IntRange(1, 8).Draw(t, "history") {
			ch := drawChange(t, &w)
			w.apply(ch)
			r, err := c.Apply(ch)
			if err != nil {
				t.Fatal(err)
			}
			full, err := Compile(w.Input)
			if err != nil {
				t.Fatal(err)
			}
			for range 6 {
				k := drawKey(t)
				compare(t, r, w.Input, k)
				a, b := r.Evaluate(&k), full.Evaluate(&k)
				if r.PolicyID(a.Policy) != full.PolicyID(b.Policy) {
					t.Fatalf("incremental %+v, full %+v", a, b)
				}
				a.Policy, b.Policy = 0, 0
				if a != b {
					t.Fatalf("incremental %+v, full %+v", a, b)
				}
				past = append(past, answered{r, k, r.Evaluate(&k)})
			}
			for _, p := range past {
				if p.r.Evaluate(&p.k) != p.d {
					t.Fatal("a published ruleset changed")
				}
			}
			c.verify(t)
		}
	})
}

// verify checks the compiler's books.
func (c *Compiler) verify(t *rapid.T) {
	for _, a := range c.byID {
		if a == nil {
			continue
		}
		for _, id := range c.identities {
			if id != nil && (a.members.has(id.id) != a.matches(id) || a.matches(id) != c.ownEntry(id.id).row.has(a.id)) {
				t.Fatalf("audience %q, identity %q", a.key, id.key)
			}
		}
	}
	live := 0
	for _, id := range c.identities {
		if id != nil {
			live++
		}
	}
	if live != len(c.byKey) || len(c.identities) != live+len(c.freeIdentities) {
		t.Fatal("identities leak")
	}
	hosts := 0
	for _, shard := range c.hosts.shards {
		for _, s := range shard {
			if s.loc.identity != 0 {
				hosts++
			}
		}
	}
	if c.prefixes.Size()+hosts != len(c.claims) {
		t.Fatal("addresses leak")
	}
	if len(c.audiences)+len(c.freeAudiences) != len(c.byID) {
		t.Fatal("audiences leak")
	}
}
