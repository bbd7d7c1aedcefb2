package simulate

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"patronus/configs"
	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

// World is a set of endpoints under today's policies and under a candidate set.
// It is immutable and safe for concurrent use.
type World struct {
	Before, After *policy.Ruleset
	input         policy.Input // of after
	*universe
}

// NewWorld compiles today's input and what a change makes of it: policies that
// are removed, then those that are added or, by name, replaced.
func NewWorld(today policy.Input, removed []string, added []policy.Policy) (*World, error) {
	c := policy.NewCompiler()
	before, err := c.Apply(policy.Change{Input: today})
	if err != nil {
		return nil, fmt.Errorf("today: %w", err)
	}
	after := before
	next := today
	if len(removed)+len(added) > 0 {
		next.Policies = Amend(today.Policies, removed, added)
		if after, err = c.Apply(policy.Change{Input: policy.Input{Policies: added}, RemovePolicies: removed}); err != nil {
			return nil, fmt.Errorf("candidate: %w", err)
		}
	}
	all := slices.Concat(today.Policies, added)
	return &World{Before: before, After: after, input: next, universe: newUniverse(&today, all, before, after)}, nil
}

// Amend is a set of policies without those removed and with those added, which
// replace what has their name.
func Amend(today []policy.Policy, removed []string, added []policy.Policy) []policy.Policy {
	gone := map[string]bool{}
	for _, id := range removed {
		gone[id] = true
	}
	for _, p := range added {
		gone[p.ID()] = true
	}
	out := make([]policy.Policy, 0, len(today)+len(added))
	for _, p := range today {
		if !gone[p.ID()] {
			out = append(out, p)
		}
	}
	return append(out, added...)
}

// Groups are the groups of addresses that no policy tells apart, endpoints
// first; borrowed.
func (w *World) Groups() []Group { return w.groups }

// Ports are the ranges of ports that no policy tells apart; borrowed.
func (w *World) Ports() []Ports { return w.ports }

// PortSet is a set of [World.Ports], by index.
type PortSet []uint64

func newPortSet(n int) PortSet { return make(PortSet, (n+63)/64) }

// Has reports whether the set has the ports at an index.
func (s PortSet) Has(i int) bool { return s[i/64]>>(i%64)&1 != 0 }

func (s PortSet) add(i int) { s[i/64] |= 1 << (i % 64) }

// Empty reports whether the set has nothing.
func (s PortSet) Empty() bool { return !slices.ContainsFunc(s, func(w uint64) bool { return w != 0 }) }

// key is a flow between groups.
func (u *universe) key(from, to, ports int) packet.Key {
	p := &u.ports[ports]
	proto := p.Protocol
	if proto == packet.ICMP && u.groups[to].Addr.Is6() {
		proto = packet.ICMPv6
	}
	return newKey(proto, u.groups[from].Addr, u.groups[to].Addr, p.witness())
}

// meet reports whether two groups can have a flow: they are of one family.
func (u *universe) meet(from, to int) bool {
	return u.groups[from].Addr.Is4() == u.groups[to].Addr.Is4()
}

// pair reports whether two groups are to be compared: they meet, one of them is
// of endpoints, and they are not the same endpoint, which reaches itself
// without us.
func (u *universe) pair(from, to int) bool {
	n := len(u.groups[from].Endpoints)
	return u.meet(from, to) && n+len(u.groups[to].Endpoints) > 0 && (from != to || n > 1)
}

func (w *World) allowed(after bool, from, to, ports int) bool {
	k := w.key(from, to, ports)
	if after {
		return w.After.EvaluateSubjects(w.groups[from].after, w.groups[to].after, &k, true, true).Allowed
	}
	return w.Before.EvaluateSubjects(w.groups[from].before, w.groups[to].before, &k, true, true).Allowed
}

// Matrix says who reaches whom: Cells[from][to] are the ports that are allowed,
// by index of groups and of ports. Cells between groups of two address families,
// between two groups in no endpoint, and of an endpoint with itself are nil.
type Matrix struct {
	Cells [][]PortSet
}

// Matrix judges all pairs of groups, under the candidate or as it is today.
// keep says which groups to look at; nil is all of them.
func (w *World) Matrix(ctx context.Context, candidate bool, keep func(*Group) bool) (*Matrix, error) {
	n := len(w.groups)
	m := &Matrix{Cells: make([][]PortSet, n)}
	wanted := make([]bool, n)
	for i := range wanted {
		wanted[i] = keep == nil || keep(&w.groups[i])
	}
	err := w.eachRow(ctx, func(from int) {
		row := make([]PortSet, n)
		m.Cells[from] = row
		if !wanted[from] {
			return
		}
		for to := range row {
			if !wanted[to] || !w.pair(from, to) {
				continue
			}
			row[to] = newPortSet(len(w.ports))
			for p := range w.ports {
				if w.allowed(candidate, from, to, p) {
					row[to].add(p)
				}
			}
		}
	})
	return m, err
}

// eachRow calls f once for each group, on all processors.
func (w *World) eachRow(ctx context.Context, f func(from int)) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			for {
				from := int(next.Add(1)) - 1
				if from >= len(w.groups) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				f(from)
			}
		})
	}
	return group.Wait()
}

// Difference is a pair of groups between which the candidate changes something.
type Difference struct {
	From, To int     // groups
	Lost     PortSet // were allowed
	Gained   PortSet // were denied
}

// Diff finds all pairs whose verdicts the candidate changes, in order of their
// groups. It looks only at groups with a policy that changed.
func (w *World) Diff(ctx context.Context) ([]Difference, error) {
	n := len(w.groups)
	var changed [2][]bool
	for d := range changed {
		changed[d] = make([]bool, n)
		for i := range changed[d] {
			changed[d][i] = w.groups[i].after.Changed(policy.Direction(d), w.groups[i].before)
		}
	}
	rows := make([][]Difference, n)
	err := w.eachRow(ctx, func(from int) {
		for to := range w.groups {
			if !changed[policy.Egress][from] && !changed[policy.Ingress][to] || !w.pair(from, to) {
				continue
			}
			if d, any := w.compare(from, to); any {
				rows[from] = append(rows[from], d)
			}
		}
	})
	return slices.Concat(rows...), err
}

func (w *World) compare(from, to int) (d Difference, any bool) {
	for p := range w.ports {
		before, after := w.allowed(false, from, to, p), w.allowed(true, from, to, p)
		if before == after {
			continue
		}
		if !any {
			d, any = Difference{from, to, newPortSet(len(w.ports)), newPortSet(len(w.ports))}, true
		}
		if before {
			d.Lost.add(p)
		} else {
			d.Gained.add(p)
		}
	}
	return d, any
}

// Flow is a flow that is asked about: ends are "namespace/name" or addresses.
type Flow struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Protocol string `json:"protocol"` // "" is TCP
	Port     uint16 `json:"port"`
}

// Verdict is what is decided about a flow.
type Verdict struct {
	Allowed bool   `json:"allowed"`
	Egress  bool   `json:"egress"`
	Ingress bool   `json:"ingress"`
	Reason  string `json:"reason"`
	Policy  string `json:"policy"`
	Rule    int32  `json:"rule"`
}

// Outcome is a flow's verdict today and under the candidate.
type Outcome struct {
	Flow
	Before  Verdict `json:"before"`
	After   Verdict `json:"after"`
	Changed bool    `json:"changed"`
}

// Flow judges a flow that is asked about.
func (w *World) Flow(f Flow) (Outcome, error) {
	out := Outcome{Flow: f}
	proto, err := policy.ParseProtocol(f.Protocol)
	if err != nil {
		return out, err
	}
	from, to, err := w.resolve(f.From, f.To)
	if err != nil {
		return out, err
	}
	k := newKey(proto, from, to, f.Port)
	out.Before, out.After = verdictOf(w.Before, &k), verdictOf(w.After, &k)
	out.Changed = out.Before.Allowed != out.After.Allowed
	return out, nil
}

func verdictOf(r *policy.Ruleset, k *packet.Key) Verdict {
	d := r.Evaluate(k)
	return Verdict{d.Allowed, d.Egress, d.Ingress, d.Reason.String(), r.PolicyID(d.Policy), d.Rule}
}

// resolve finds addresses of one family for two ends.
func (w *World) resolve(from, to string) (a, b netip.Addr, err error) {
	as, bs := w.addresses(from), w.addresses(to)
	for _, a := range as {
		for _, b := range bs {
			if a.Is4() == b.Is4() {
				return a, b, nil
			}
		}
	}
	for _, end := range []struct {
		name string
		list []netip.Addr
	}{{from, as}, {to, bs}} {
		if len(end.list) == 0 {
			return a, b, fmt.Errorf("%q is neither an address nor an endpoint with one", end.name)
		}
	}
	return a, b, fmt.Errorf("%s and %s have no addresses of one family", from, to)
}

func (w *World) addresses(end string) []netip.Addr {
	if a, err := netip.ParseAddr(end); err == nil {
		return []netip.Addr{a.Unmap()}
	}
	var out []netip.Addr
	w.After.Endpoints(func(e configs.HostEndpoint) bool {
		if e.Namespace+"/"+e.Name != end {
			return true
		}
		for _, p := range e.Addresses {
			out = append(out, p.Addr())
		}
		return false
	})
	return out
}
