package simulate

import (
	"fmt"
	"net/netip"
	"strings"

	"pgregory.net/rapid"

	"patronus/configs"
	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

// The random worlds are small and their words few, so that everything meets.

func pick(t *rapid.T, name string, from ...string) string {
	return rapid.SampledFrom(from).Draw(t, name)
}

func drawSelector(t *rapid.T) string {
	return pick(t, "selector", "{}", "{matchLabels: {app: a}}", "{matchLabels: {app: b}}", "{matchLabels: {tier: a}}",
		"{matchExpressions: [{key: app, operator: NotIn, values: [a]}]}", "{matchExpressions: [{key: tier, operator: Exists}]}")
}

func drawPeer(t *rapid.T) string {
	switch rapid.IntRange(0, 3).Draw(t, "peer") {
	case 0:
		return "podSelector: " + drawSelector(t)
	case 1:
		return "namespaceSelector: " + drawSelector(t)
	case 2:
		return "{namespaceSelector: " + drawSelector(t) + ", podSelector: " + drawSelector(t) + "}"
	}
	return "ipBlock: " + pick(t, "block", "{cidr: 10.0.0.0/29}", "{cidr: 10.0.0.0/8, except: [10.0.0.4/30]}", "{cidr: 0.0.0.0/0, except: [10.0.0.0/24]}",
		"{cidr: 192.0.2.0/24, except: [192.0.2.0/26]}", "{cidr: 'fd00::/64'}", "{cidr: '::/0'}")
}

func drawPorts(t *rapid.T) string {
	var out []string
	for range rapid.IntRange(0, 2).Draw(t, "ports") {
		out = append(out, pick(t, "port", "{}", "{port: 80}", "{port: 81}", "{port: web}", "{port: 80, endPort: 82}", "{port: 80, protocol: UDP}", "{protocol: UDP}", "{port: dns, protocol: UDP}"))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

func drawNetworkPolicy(t *rapid.T, i int) policy.Policy {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p%d, namespace: %s}\nspec:\n", i, pick(t, "namespace", "n0", "n1"))
	fmt.Fprintf(&b, "  podSelector: %s\n  policyTypes: %s\n", drawSelector(t), pick(t, "types", "[]", "[Ingress]", "[Egress]", "[Ingress, Egress]"))
	for _, d := range [2][2]string{{"ingress", "from"}, {"egress", "to"}} {
		fmt.Fprintf(&b, "  %s:\n", d[0])
		for range rapid.IntRange(0, 2).Draw(t, d[0]) {
			fmt.Fprintf(&b, "  - ports: %s\n    %s:\n", drawPorts(t), d[1])
			for range rapid.IntRange(0, 2).Draw(t, "peers") {
				fmt.Fprintf(&b, "    - %s\n", drawPeer(t))
			}
		}
	}
	return parsed(b.String())
}

func drawSubject(t *rapid.T) string {
	if rapid.Bool().Draw(t, "namespaces?") {
		return "{namespaces: " + drawSelector(t) + "}"
	}
	return "{pods: {namespaceSelector: " + drawSelector(t) + ", podSelector: " + drawSelector(t) + "}}"
}

func drawClusterPolicy(t *rapid.T, i int) policy.Policy {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: c%d}\nspec:\n", i)
	fmt.Fprintf(&b, "  tier: %s\n  priority: %d\n  subject: %s\n", pick(t, "tier", "Admin", "Baseline"), rapid.IntRange(0, 1).Draw(t, "priority"), drawSubject(t))
	for _, d := range [2][2]string{{"ingress", "from"}, {"egress", "to"}} {
		n := rapid.IntRange(0, 2).Draw(t, d[0])
		if n == 0 {
			continue
		}
		fmt.Fprintf(&b, "  %s:\n", d[0])
		for range n {
			fmt.Fprintf(&b, "  - action: %s\n    %s: [%s]\n", pick(t, "action", "Accept", "Deny", "Pass"), d[1], drawSubject(t))
			if rapid.Bool().Draw(t, "protocols?") {
				fmt.Fprintf(&b, "    protocols: [%s]\n", pick(t, "protocol", "{tcp: {destinationPort: {number: 80}}}", "{udp: {destinationPort: {range: {start: 80, end: 82}}}}", "{destinationNamedPort: web}"))
			}
		}
	}
	return parsed(b.String())
}

func drawPolicy(t *rapid.T, i int) policy.Policy {
	var p policy.Policy
	if rapid.IntRange(0, 2).Draw(t, "kind") == 0 {
		p = drawClusterPolicy(t, i)
	} else {
		p = drawNetworkPolicy(t, i)
	}
	p.Mode = rapid.SampledFrom([]configs.PolicyMode{"", "", "", configs.PolicyStaged}).Draw(t, "mode")
	return p
}

func drawInput(t *rapid.T) policy.Input {
	var in policy.Input
	for i := range 2 {
		in.Namespaces = append(in.Namespaces, configs.Namespace{Name: fmt.Sprintf("n%d", i), Labels: drawLabels(t)})
	}
	for i := range rapid.IntRange(1, 5).Draw(t, "endpoints") {
		e := configs.HostEndpoint{Namespace: pick(t, "space", "n0", "n1"), Name: fmt.Sprintf("e%d", i), Labels: drawLabels(t)}
		e.Addresses = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32)}
		switch rapid.IntRange(0, 4).Draw(t, "address") {
		case 0:
			e.Addresses = append(e.Addresses, netip.MustParsePrefix(fmt.Sprintf("fd00::%d/128", i)))
		case 1:
			e.Addresses = append(e.Addresses, netip.MustParsePrefix("192.0.2.0/25"))
		}
		for range rapid.IntRange(0, 2).Draw(t, "named") {
			e.Ports = append(e.Ports, configs.NamedPort{Name: pick(t, "port", "web", "dns"), Port: uint16(rapid.IntRange(79, 82).Draw(t, "number")), Protocol: pick(t, "proto", "", "UDP")})
		}
		in.Endpoints = append(in.Endpoints, e)
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "policies") {
		in.Policies = append(in.Policies, drawPolicy(t, i))
	}
	return in
}

func drawLabels(t *rapid.T) map[string]string {
	return rapid.MapOfN(rapid.SampledFrom([]string{"app", "tier"}), rapid.SampledFrom([]string{"a", "b"}), 0, 2).Draw(t, "labels")
}

// everyFlow yields all flows between addresses and ports that a random world
// could tell apart.
func everyFlow(yield func(packet.Key) bool) {
	var addrs []netip.Addr
	for i := range 9 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	for _, s := range []string{"10.9.0.1", "192.0.2.1", "192.0.2.70", "192.0.2.200", "8.8.8.8", "fd00::0", "fd00::1", "fd00::2", "fd00::4", "fd00:1::1"} {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	for _, a := range addrs {
		for _, b := range addrs {
			if a.Is4() != b.Is4() {
				continue
			}
			for port := uint16(79); port <= 83; port++ {
				if !yield(newKey(packet.TCP, a, b, port)) || !yield(newKey(packet.UDP, a, b, port)) {
					return
				}
			}
			if !yield(newKey(packet.SCTP, a, b, 80)) || !yield(newKey(packet.ICMP, a, b, 0)) {
				return
			}
		}
	}
}
