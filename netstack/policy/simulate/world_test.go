package simulate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"patronus/configs"
	"patronus/netstack/policy"
)

// bigWorld is namespaces x endpoints x policies with the selectors, blocks and
// ports that real ones have.
func bigWorld(namespaces, endpoints, policies int) policy.Input {
	rnd := rand.New(rand.NewPCG(1, 2))
	var in policy.Input
	for i := range namespaces {
		in.Namespaces = append(in.Namespaces, configs.Namespace{
			Name: fmt.Sprintf("ns%d", i), Labels: map[string]string{"team": fmt.Sprintf("t%d", i%10)},
		})
	}
	for i := range endpoints {
		in.Endpoints = append(in.Endpoints, configs.HostEndpoint{
			Namespace: fmt.Sprintf("ns%d", i%namespaces), Name: fmt.Sprintf("pod%d", i), Site: fmt.Sprintf("site%d", i%5),
			Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)},
			Labels: map[string]string{
				"app": fmt.Sprintf("app%d", rnd.IntN(20)), "tier": []string{"front", "back", "data"}[rnd.IntN(3)], "version": fmt.Sprintf("v%d", rnd.IntN(5)),
			},
			Ports: []configs.NamedPort{{Name: "http", Port: 8080}},
		})
	}
	for i := range policies {
		var b strings.Builder
		fmt.Fprintf(&b, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: np%d, namespace: ns%d}\nspec:\n", i, i%namespaces)
		fmt.Fprintf(&b, "  podSelector: {matchLabels: {app: app%d}}\n  policyTypes: [Ingress, Egress]\n", rnd.IntN(20))
		for _, d := range [2][2]string{{"ingress", "from"}, {"egress", "to"}} {
			fmt.Fprintf(&b, "  %s:\n", d[0])
			for range 2 {
				fmt.Fprintf(&b, "  - ports: [{port: %d}]\n    %s:\n    - podSelector: {matchLabels: {app: app%d}}\n", 80+rnd.IntN(4), d[1], rnd.IntN(20))
				fmt.Fprintf(&b, "    - podSelector: {matchLabels: {app: app%d}}\n      namespaceSelector: {matchLabels: {team: t%d}}\n", rnd.IntN(20), rnd.IntN(10))
				if rnd.IntN(2) == 0 {
					fmt.Fprintf(&b, "    - ipBlock: {cidr: 172.%d.0.0/16}\n", 16+rnd.IntN(16))
				}
			}
		}
		in.Policies = append(in.Policies, parsed(b.String()))
	}
	return in
}

// parsed is a policy that must be valid.
func parsed(text string) policy.Policy {
	o, err := policy.ParsePolicy([]byte(text), "policy")
	if err != nil {
		panic(err)
	}
	return policy.Policy{Object: o}
}

// bigRecords writes recorded flows between the endpoints of a world, judged by
// its policies, and returns them packed.
func bigRecords(in policy.Input, n int) []byte {
	rnd := rand.New(rand.NewPCG(3, 4))
	rules, err := policy.Compile(in)
	if err != nil {
		panic(err)
	}
	var out strings.Builder
	w := NewWriter(&out)
	spaces := map[string]map[string]string{}
	for _, s := range in.Namespaces {
		spaces[s.Name] = s.Labels
	}
	parties := make([]uint32, len(in.Endpoints))
	for i := range in.Endpoints {
		e := &in.Endpoints[i]
		if parties[i], err = w.Party(PartyOf(e, spaces[e.Namespace])); err != nil {
			panic(err)
		}
	}
	for i := range n {
		from, to := rnd.IntN(len(in.Endpoints)), rnd.IntN(len(in.Endpoints))
		r := Record{
			At:   1_700_000_000_000_000_000 + int64(i)*1e6,
			Key:  newKey(6, in.Endpoints[from].Addresses[0].Addr(), in.Endpoints[to].Addresses[0].Addr(), uint16(80+rnd.IntN(5))),
			From: parties[from], To: parties[to], Egress: true, Ingress: true, Packets: 10, Bytes: uint64(rnd.IntN(100_000)),
		}
		r.Key.SrcPort = uint16(32768 + i%28000)
		d := rules.Evaluate(&r.Key)
		r.Allowed, r.Rule = d.Allowed, d.Rule
		if r.Policy, err = w.Name(rules.PolicyID(d.Policy)); err != nil {
			panic(err)
		}
		if err := w.Write(&r); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return []byte(out.String())
}
