package simulate

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"patronus/configs"
	"patronus/netstack/policy"
)

// shop is web (2), db, and a monitor in ops, at two sites.
func shop() policy.Input {
	one := func(space, name, site, addr, app string, ports ...configs.NamedPort) configs.HostEndpoint {
		return configs.HostEndpoint{
			Namespace: space, Name: name, Site: site, Addresses: []netip.Prefix{netip.MustParsePrefix(addr + "/32")},
			Labels: map[string]string{"app": app}, Ports: ports,
		}
	}
	return policy.Input{
		Namespaces: []configs.Namespace{{Name: "shop"}, {Name: "ops"}},
		Endpoints: []configs.HostEndpoint{
			one("shop", "web-1", "hq", "10.1.0.10", "web", configs.NamedPort{Name: "http", Port: 8080}),
			one("shop", "web-2", "east", "10.2.0.10", "web", configs.NamedPort{Name: "http", Port: 8081}),
			one("shop", "db", "east", "10.2.0.20", "db"), one("ops", "monitor", "hq", "10.1.0.99", "monitor"),
		},
	}
}

// network is a NetworkPolicy of the namespace shop.
func network(name, spec string) string {
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + name + ", namespace: shop}\nspec: " + spec + "\n"
}

func clusterWide(name, spec string) string {
	return "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

// Each kind of finding is found where it is, and not where it is not.
func TestFindings(t *testing.T) {
	options := LintOptions{
		Sites: []configs.Site{
			{Name: "hq", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}},
			{Name: "east", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")}},
		},
		Management: []Management{{"hq", netip.MustParseAddr("10.1.0.1")}, {"east", netip.MustParseAddr("10.2.0.1")}},
	}
	const openWeb = `{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}`
	for name, c := range map[string]struct {
		policies []string
		want     Code
		at       string // policy direction rule
		witness  string
		not      bool
	}{
		"selects nothing":  {[]string{network("a", `{podSelector: {matchLabels: {app: wbe}}}`)}, PolicySelectsNone, "NetworkPolicy/shop/a  -1", "", false},
		"selects":          {[]string{network("a", openWeb)}, PolicySelectsNone, "", "", true},
		"no peers":         {[]string{network("a", `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: x}}}]}]}`)}, PeerSelectsNone, "NetworkPolicy/shop/a ingress 0", "", false},
		"one peer of two":  {[]string{network("a", `{podSelector: {}, ingress: [{from: [{podSelector: {}}, {podSelector: {matchLabels: {app: x}}}]}]}`)}, PeerSelectsNone, "NetworkPolicy/shop/a ingress 0", "", false},
		"shadowed":         {[]string{network("a", `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}, {from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}`)}, RuleRedundant, "NetworkPolicy/shop/a ingress 1", "shop/web-1 -> shop/db:80/TCP", false},
		"other policy":     {[]string{network("a", openWeb), network("b", openWeb)}, PolicyRedundant, "NetworkPolicy/shop/b  -1", "", false},
		"needed":           {[]string{network("a", openWeb)}, PolicyRedundant, "", "", true},
		"overruled":        {[]string{network("a", openWeb), clusterWide("c", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`)}, RuleOverruled, "NetworkPolicy/shop/a ingress 0", "shop/db -> shop/web-1:80/TCP", false},
		"same priority":    {[]string{clusterWide("b", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}`), clusterWide("c", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`)}, SamePriority, "ClusterNetworkPolicy//c ingress 0", "ops/monitor -> ops/monitor:1/TCP", false},
		"other priority":   {[]string{clusterWide("b", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}`), clusterWide("c", `{tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`)}, SamePriority, "", "", true},
		"allow all":        {[]string{network("deny", `{podSelector: {}, policyTypes: [Ingress]}`), network("open", `{podSelector: {matchLabels: {app: web}}, ingress: [{}]}`)}, AllowAllOverDenyAll, "NetworkPolicy/shop/open ingress 0", "", false},
		"two sides":        {[]string{network("out", `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}]}]}`), network("in", `{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}`)}, TwoSidedMismatch, "NetworkPolicy/shop/out egress 0", "shop/web-1 -> shop/db:5432/TCP", false},
		"no DNS":           {[]string{network("out", `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 5432}]}]}`)}, DNSForgotten, "NetworkPolicy/shop/out egress -1", "shop/web-1 -> ops/monitor:53/UDP", false},
		"DNS":              {[]string{network("out", `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}, {to: [{podSelector: {}}]}]}`)}, DNSForgotten, "", "", true},
		"deny all, no DNS": {[]string{network("out", `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}`)}, DNSForgotten, "", "", true},
		"unknown port":     {[]string{network("a", `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: htpp}]}]}`)}, NamedPortUnknown, "NetworkPolicy/shop/a ingress 0", "", false},
		"known port":       {[]string{network("a", `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}`)}, NamedPortUnknown, "", "", true},
		"port differs":     {[]string{network("a", `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}`)}, NamedPortDiffers, "NetworkPolicy/shop/a ingress 0", "", false},
		"re-allowed":       {[]string{network("a", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/24]}}, {podSelector: {matchLabels: {app: web}}}]}]}`)}, ExceptReallowed, "NetworkPolicy/shop/a ingress 0", "shop/web-1 -> shop/db:1/TCP", false},
		"ignored":          {[]string{network("a", `{podSelector: {}, policyTypes: [Ingress], egress: [{}]}`)}, RulesIgnored, "NetworkPolicy/shop/a egress 0", "", false},
		"ignored ingress":  {[]string{network("a", `{podSelector: {}, policyTypes: [Egress], ingress: [{}]}`)}, RulesIgnored, "NetworkPolicy/shop/a ingress 0", "", false},
		"uncovered":        {[]string{network("a", openWeb)}, EndpointsUncovered, " egress -1", "", false},
		"block":            {[]string{network("a", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 10.1.0.0/16}}]}]}`)}, BlockHasEndpoints, "NetworkPolicy/shop/a ingress 0", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			in := shop()
			for _, p := range c.policies {
				in.Policies = append(in.Policies, parsed(p))
			}
			w, err := NewWorld(in, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			all := Lint(w, options)
			i := slices.IndexFunc(all, func(f Finding) bool {
				return f.Code == c.want && (c.not || strings.TrimSpace(c.at) == strings.TrimSpace(f.Policy+" "+f.Direction+" "+itoa(f.Rule)))
			})
			if (i < 0) != c.not {
				t.Fatalf("found %+v", all)
			}
			if c.witness != "" && (all[i].Witness == nil || all[i].Witness.String() != c.witness) {
				t.Errorf("witness %v, want %s", all[i].Witness, c.witness)
			}
		})
	}
}

func itoa(n int) string {
	if n < 0 {
		return "-1"
	}
	return string(rune('0' + n))
}

// A candidate that cuts a site from its management is refused; one that leaves
// somebody there a way is not, nor is what is cut today already.
func TestCutsManagement(t *testing.T) {
	options := LintOptions{
		Sites:      []configs.Site{{Name: "hq"}, {Name: "east"}},
		Management: []Management{{"hq", netip.MustParseAddr("10.1.0.1")}},
	}
	cut := parsed(clusterWide("cut", `{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.1.0.0/30]}]}]}`))
	some := parsed(network("some", `{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress]}`))
	for name, c := range map[string]struct {
		today, added []policy.Policy
		refused      bool
	}{
		"cut":         {nil, []policy.Policy{cut}, true},
		"some":        {nil, []policy.Policy{some}, false},
		"cut already": {[]policy.Policy{cut}, []policy.Policy{some}, false},
	} {
		in := shop()
		in.Policies = c.today
		w, err := NewWorld(in, nil, c.added)
		if err != nil {
			t.Fatal(err)
		}
		findings := Lint(w, options)
		i := slices.IndexFunc(findings, func(f Finding) bool { return f.Refused })
		if (i >= 0) != c.refused {
			t.Errorf("%s: %+v", name, findings)
		}
		if i >= 0 && (findings[i].Code != CutsManagement || findings[i].Policy != "ClusterNetworkPolicy//cut" || findings[i].Witness.From != "shop/web-2") {
			t.Errorf("%s: %+v", name, findings[i])
		}
	}
}

func TestText(t *testing.T) {
	in := shop()
	in.Policies = []policy.Policy{
		parsed(network("a", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}, {port: 81}, {port: 90, endPort: 99}, {protocol: UDP}]}]}`)),
		parsed(clusterWide("c", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 22}}}]}]}`)),
	}
	w, err := NewWorld(in, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := w.Matrix(context.Background(), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	group := func(name string) int {
		return slices.IndexFunc(w.groups, func(g Group) bool { return slices.Contains(g.Endpoints, name) })
	}
	for _, c := range []struct{ from, to, want string }{
		{"shop/web-1", "shop/db", "TCP 80-81, 90-99; UDP"},
		{"ops/monitor", "shop/db", "none"},
		{"shop/db", "ops/monitor", "all but TCP 22"},
	} {
		if got := w.Text(m.Cells[group(c.from)][group(c.to)]); got != c.want {
			t.Errorf("%s -> %s: %q, want %q", c.from, c.to, got, c.want)
		}
	}
}
