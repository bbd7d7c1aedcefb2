package simulate

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

// place finds the group of an address by brute force: the group whose
// representative no ruleset tells from it. It uses what newUniverse keys by.
func (u *universe) place(t interface{ Fatalf(string, ...any) }, w *World, a netip.Addr, blocks []netip.Prefix) int {
	fingerprint := func(a netip.Addr) string {
		b := []byte{bit(a.Is4(), 1)}
		b = w.After.AppendFingerprint(w.Before.AppendFingerprint(b, w.Before.SubjectOf(a)), w.After.SubjectOf(a))
		for _, p := range blocks {
			b = append(b, bit(p.Contains(a), 1))
		}
		return string(b)
	}
	want := fingerprint(a)
	for i := range u.groups {
		if fingerprint(u.groups[i].Addr) == want {
			return i
		}
	}
	t.Fatalf("no group for %s", a)
	return -1
}

func (u *universe) portIndex(proto uint8, port uint16) int {
	if proto == packet.ICMPv6 {
		proto = packet.ICMP
	}
	return slices.IndexFunc(u.ports, func(p Ports) bool {
		return p.Protocol == proto && (!hasPorts(proto) || p.First <= port && port <= p.Last)
	})
}

// The matrix and its difference say of every flow what the evaluator says.
func TestMatrixEqualsEvaluator(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		var removed []string
		for _, p := range in.Policies {
			if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
				removed = append(removed, p.ID())
			}
		}
		added := []policy.Policy{drawPolicy(t, rapid.IntRange(0, 6).Draw(t, "which"))}
		w, err := NewWorld(in, removed, added)
		if err != nil {
			t.Fatal(err)
		}
		fresh := in
		fresh.Policies = Amend(in.Policies, removed, added)
		after, err := policy.Compile(fresh)
		if err != nil {
			t.Fatal(err)
		}
		matrix, err := w.Matrix(context.Background(), true, nil)
		if err != nil {
			t.Fatal(err)
		}
		diff, err := w.Diff(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		type pair struct{ from, to int }
		changes := map[pair]Difference{}
		for _, d := range diff {
			changes[pair{d.From, d.To}] = d
		}
		blocks := blocksOf(slices.Concat(in.Policies, added))
		groups := map[netip.Addr]int{}
		group := func(a netip.Addr) int {
			if _, ok := groups[a]; !ok {
				groups[a] = w.place(t, w, a, blocks)
			}
			return groups[a]
		}
		for k := range everyFlow {
			from, to, p := group(k.Src.Netip()), group(k.Dst.Netip()), w.portIndex(k.Proto, k.DstPort)
			if p < 0 {
				t.Fatalf("no ports for %d/%d", k.DstPort, k.Proto)
			}
			if !w.pair(from, to) {
				continue
			}
			was, would := w.Before.Evaluate(&k).Allowed, after.Evaluate(&k).Allowed
			if cell := matrix.Cells[from][to]; cell != nil && cell.Has(p) != would {
				t.Fatalf("matrix says %v of %v -> %v:%d/%d", cell.Has(p), k.Src.Netip(), k.Dst.Netip(), k.DstPort, k.Proto)
			}
			d, ok := changes[pair{from, to}]
			lost, gained := ok && d.Lost.Has(p), ok && d.Gained.Has(p)
			if lost != (was && !would) || gained != (!was && would) {
				t.Fatalf("difference: lost %v gained %v, but was %v would %v: %v -> %v:%d/%d", lost, gained, was, would, k.Src.Netip(), k.Dst.Netip(), k.DstPort, k.Proto)
			}
		}
	})
}

// A policy is called redundant exactly if removing it changes no side's verdict
// on any flow, and a rule is only called redundant if that holds of it.
func TestRedundantEqualsBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		w, err := NewWorld(in, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		said := map[string]bool{}
		var rules []Finding
		findings := Lint(w, LintOptions{})
		for _, f := range findings {
			switch f.Code {
			case PolicyRedundant, PolicySelectsNone:
				said[f.Policy] = true
			case RuleRedundant, RuleOverruled:
				rules = append(rules, f)
			}
		}
		unchanged := func(policies []policy.Policy) (packet.Key, bool) {
			without := in
			without.Policies = policies
			r, err := policy.Compile(without)
			if err != nil {
				t.Fatal(err)
			}
			for k := range everyFlow {
				a, b := w.After.Evaluate(&k), r.Evaluate(&k)
				if a.Egress != b.Egress || a.Ingress != b.Ingress {
					return k, false
				}
			}
			return packet.Key{}, true
		}
		for _, p := range in.Policies {
			if !enforced(&p) {
				continue
			}
			k, same := unchanged(Amend(in.Policies, []string{p.ID()}, nil))
			if same != said[p.ID()] {
				t.Fatalf("%s: said redundant %v, is %v (flow %v -> %v:%d/%d)\n%v", p.ID(), said[p.ID()], same, k.Src.Netip(), k.Dst.Netip(), k.DstPort, k.Proto, findings)
			}
		}
		for _, f := range rules {
			policies := slices.Clone(in.Policies)
			i := slices.IndexFunc(policies, func(p policy.Policy) bool { return p.ID() == f.Policy })
			policies[i].Object = withoutRule(policies[i].Object, f.Direction, f.Rule)
			if k, same := unchanged(policies); !same {
				t.Fatalf("%+v: needed for %v -> %v:%d/%d", f, k.Src.Netip(), k.Dst.Netip(), k.DstPort, k.Proto)
			}
		}
		// A witness of a flow that a finding claims is denied or allowed is.
		for _, f := range findings {
			if f.Witness == nil {
				continue
			}
			proto, err := policy.ParseProtocol(f.Witness.Protocol)
			if err != nil {
				t.Fatal(err)
			}
			k := newKey(proto, f.Witness.FromAddr, f.Witness.ToAddr, f.Witness.Port)
			d := w.After.Evaluate(&k)
			switch f.Code {
			case TwoSidedMismatch, DNSForgotten, RuleOverruled:
				if d.Allowed {
					t.Fatalf("%+v: the witness is allowed", f)
				}
			case ExceptReallowed, AllowAllOverDenyAll:
				if side := map[string]bool{"egress": d.Egress, "ingress": d.Ingress}[f.Direction]; f.Code == ExceptReallowed && !side {
					t.Fatalf("%+v: the witness is denied", f)
				}
			}
		}
	})
}

func withoutRule(o policy.Object, direction string, rule int) policy.Object {
	switch {
	case o.Network != nil && direction == "ingress":
		o.Network = o.Network.DeepCopy()
		o.Network.Spec.Ingress = slices.Delete(o.Network.Spec.Ingress, rule, rule+1)
	case o.Network != nil:
		o.Network = o.Network.DeepCopy()
		o.Network.Spec.Egress = slices.Delete(o.Network.Spec.Egress, rule, rule+1)
	case direction == "ingress":
		o.Cluster = o.Cluster.DeepCopy()
		o.Cluster.Spec.Ingress = slices.Delete(o.Cluster.Spec.Ingress, rule, rule+1)
	default:
		o.Cluster = o.Cluster.DeepCopy()
		o.Cluster.Spec.Egress = slices.Delete(o.Cluster.Spec.Egress, rule, rule+1)
	}
	return o
}

// Replaying flows that a ruleset decided, against that ruleset, changes
// nothing; against another it changes what the two decide differently.
func TestReplayEqualsEvaluator(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		recorded, err := policy.Compile(in)
		if err != nil {
			t.Fatal(err)
		}
		other := in
		other.Policies = []policy.Policy{drawPolicy(t, 7), drawPolicy(t, 8)}
		c := policy.NewCompiler()
		candidate, err := c.Apply(policy.Change{Input: other})
		if err != nil {
			t.Fatal(err)
		}
		var keys []packet.Key
		for k := range everyFlow {
			if k.Proto == packet.TCP && k.DstPort <= 81 {
				keys = append(keys, k)
			}
		}
		packed, lines := record(t, in, recorded, keys)
		var want Changes
		for i := range keys {
			a, b := recorded.Evaluate(&keys[i]), candidate.Evaluate(&keys[i])
			if a.Allowed != b.Allowed {
				want.of(a.Allowed).add(Counts{1, 2, 100})
			}
		}
		for name, input := range map[string][]byte{"packed": packed, "lines": lines} {
			report := replayed(t, c, candidate, input)
			if report.Records != uint64(len(keys)) || report.Changes != want {
				t.Fatalf("%s: %d records, %+v, want %d and %+v", name, report.Records, report.Changes, len(keys), want)
			}
			if len(report.Samples) == 0 != (want.flows() == 0) {
				t.Fatalf("%s: %d samples of %d changes", name, len(report.Samples), want.flows())
			}
			var sites uint64
			for _, s := range report.Sites {
				sites += s.flows()
			}
			if sites != want.flows() {
				t.Fatalf("%s: sites add up to %d of %d", name, sites, want.flows())
			}
		}
		same := policy.NewCompiler()
		again, err := same.Apply(policy.Change{Input: in})
		if err != nil {
			t.Fatal(err)
		}
		if report := replayed(t, same, again, packed); report.Unchanged != report.Records {
			t.Fatalf("the rules that decided would decide %d of %d otherwise", report.Records-report.Unchanged, report.Records)
		}
	})
}
