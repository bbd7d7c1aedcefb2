package dashboard

import (
	"context"
	"net/netip"
	"slices"

	"patronus/configs"
	"patronus/dashboard/control"
	"patronus/netstack/policy"
	"patronus/netstack/policy/simulate"
)

// Reach is what a change means: who gains or loses what, by the evaluator that
// decides about packets.
type Reach struct {
	// Pairs are groups of endpoints between which ports are lost or gained.
	Pairs     []simulate.Pair `json:"pairs"`
	Truncated bool            `json:"truncated,omitempty"`
	// Prefixes are networks that a site gains or loses.
	Prefixes []PrefixChange `json:"prefixes"`
}

// PrefixChange is a network that came to a site or went from it.
type PrefixChange struct {
	Site   string       `json:"site"`
	Prefix netip.Prefix `json:"prefix"`
	Gained bool         `json:"gained"`
}

// reachOf compares two networks in meaning. Endpoints that only one of them has
// are taken to be in both: policies are compared, not labels.
func reachOf(ctx context.Context, before, after *configs.Network) (*Reach, error) {
	out := &Reach{Pairs: []simulate.Pair{}, Prefixes: prefixChanges(before, after)}
	old, err := policiesOf(before)
	if err != nil {
		return nil, err
	}
	now, err := policiesOf(after)
	if err != nil {
		return nil, err
	}
	in := policy.Input{Namespaces: after.Namespaces, Endpoints: after.Hosts}
	var removed []string
	var added []policy.Policy
	for i, p := range before.Policies {
		in.Policies = append(in.Policies, old[i])
		if !slices.Contains(after.Policies, p) {
			removed = append(removed, old[i].ID())
		}
	}
	for i, p := range after.Policies {
		if !slices.Contains(before.Policies, p) {
			added = append(added, now[i])
		}
	}
	if len(removed) == 0 && len(added) == 0 {
		return out, nil
	}
	w, err := simulate.NewWorld(in, removed, added)
	if err != nil {
		return nil, err
	}
	diff, err := w.Diff(ctx)
	if err != nil {
		return nil, err
	}
	if len(diff) > maxDifferences {
		diff, out.Truncated = diff[:maxDifferences], true
	}
	if pairs := w.DifferencePairs(diff); len(pairs) > 0 {
		out.Pairs = pairs
	}
	return out, nil
}

func policiesOf(n *configs.Network) ([]policy.Policy, error) {
	in, err := control.Input(&configs.Config{Policies: n.Policies})
	return in.Policies, err
}

func prefixChanges(before, after *configs.Network) []PrefixChange {
	out := []PrefixChange{}
	owned := func(n *configs.Network) map[PrefixChange]bool {
		m := map[PrefixChange]bool{}
		for i := range n.Sites {
			for _, p := range n.Sites[i].Prefixes {
				m[PrefixChange{Site: n.Sites[i].Name, Prefix: p}] = true
			}
		}
		return m
	}
	old, now := owned(before), owned(after)
	for c := range now {
		if !old[c] {
			out = append(out, PrefixChange{c.Site, c.Prefix, true})
		}
	}
	for c := range old {
		if !now[c] {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b PrefixChange) int { return a.Prefix.Compare(b.Prefix) })
	return out
}
