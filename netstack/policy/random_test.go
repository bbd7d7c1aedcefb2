package policy

import (
	"fmt"
	"net/netip"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
	cluster "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"patronus/configs"
	"patronus/netstack/packet"
)

// The random worlds are small and their words few, so that everything meets.

func drawLabels(t *rapid.T) map[string]string {
	return rapid.MapOfN(rapid.SampledFrom([]string{"app", "tier", "env"}), rapid.SampledFrom([]string{"a", "b", ""}), 0, 3).Draw(t, "labels")
}

func drawSelector(t *rapid.T) metav1.LabelSelector {
	s := metav1.LabelSelector{}
	if rapid.Bool().Draw(t, "labels?") {
		s.MatchLabels = rapid.MapOfN(rapid.SampledFrom([]string{"app", "tier", "env"}), rapid.SampledFrom([]string{"a", "b", ""}), 0, 2).Draw(t, "match")
	}
	for range rapid.IntRange(0, 1).Draw(t, "expressions") {
		op := rapid.SampledFrom([]metav1.LabelSelectorOperator{"In", "NotIn", "Exists", "DoesNotExist"}).Draw(t, "op")
		e := metav1.LabelSelectorRequirement{Key: rapid.SampledFrom([]string{"app", "tier", "env", nameLabel}).Draw(t, "key"), Operator: op}
		if op == "In" || op == "NotIn" {
			e.Values = rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "n0", "n1"}), 1, 3).Draw(t, "values")
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

func drawSelectorPointer(t *rapid.T) *metav1.LabelSelector {
	s := drawSelector(t)
	return &s
}

var cidrs = []string{"10.0.0.0/29", "10.0.0.2/32", "10.0.0.4/30", "0.0.0.0/0", "10.0.0.0/8", "fd00::/64", "::/0", "192.0.2.0/24"}

func drawPeers(t *rapid.T) []networking.NetworkPolicyPeer {
	var out []networking.NetworkPolicyPeer
	for range rapid.IntRange(0, 3).Draw(t, "peers") {
		switch rapid.IntRange(0, 3).Draw(t, "peer") {
		case 0:
			out = append(out, networking.NetworkPolicyPeer{PodSelector: drawSelectorPointer(t)})
		case 1:
			out = append(out, networking.NetworkPolicyPeer{NamespaceSelector: drawSelectorPointer(t)})
		case 2:
			out = append(out, networking.NetworkPolicyPeer{NamespaceSelector: drawSelectorPointer(t), PodSelector: drawSelectorPointer(t)})
		case 3:
			b := networking.IPBlock{CIDR: rapid.SampledFrom(cidrs).Draw(t, "cidr")}
			outer := netip.MustParsePrefix(b.CIDR)
			for _, c := range rapid.SliceOfN(rapid.SampledFrom(cidrs), 0, 2).Draw(t, "except") {
				if p := netip.MustParsePrefix(c); outer.Contains(p.Addr()) && p.Bits() > outer.Bits() {
					b.Except = append(b.Except, c)
				}
			}
			out = append(out, networking.NetworkPolicyPeer{IPBlock: &b})
		}
	}
	return out
}

func drawPorts(t *rapid.T) []networking.NetworkPolicyPort {
	var out []networking.NetworkPolicyPort
	for range rapid.IntRange(0, 2).Draw(t, "ports") {
		proto := rapid.SampledFrom([]core.Protocol{"TCP", "UDP", "SCTP"}).Draw(t, "protocol")
		p := networking.NetworkPolicyPort{Protocol: &proto}
		switch rapid.IntRange(0, 3).Draw(t, "port") {
		case 1:
			v := intstr.FromInt32(int32(rapid.IntRange(79, 82).Draw(t, "number")))
			p.Port = &v
		case 2:
			v := intstr.FromString(rapid.SampledFrom([]string{"web", "dns", "x"}).Draw(t, "name"))
			p.Port = &v
		case 3:
			v := intstr.FromInt32(80)
			end := int32(rapid.SampledFrom([]int{80, 82, 65535}).Draw(t, "end"))
			p.Port, p.EndPort = &v, &end
		}
		out = append(out, p)
	}
	return out
}

func drawNetworkPolicy(t *rapid.T, name string) Object {
	np := &networking.NetworkPolicy{}
	np.Name, np.Namespace = name, rapid.SampledFrom([]string{"n0", "n1", "n2"}).Draw(t, "namespace")
	np.Spec.PodSelector = drawSelector(t)
	np.Spec.PolicyTypes = rapid.SampledFrom([][]networking.PolicyType{nil, {"Ingress"}, {"Egress"}, {"Ingress", "Egress"}}).Draw(t, "types")
	for range rapid.IntRange(0, 2).Draw(t, "ingress") {
		np.Spec.Ingress = append(np.Spec.Ingress, networking.NetworkPolicyIngressRule{From: drawPeers(t), Ports: drawPorts(t)})
	}
	for range rapid.IntRange(0, 2).Draw(t, "egress") {
		np.Spec.Egress = append(np.Spec.Egress, networking.NetworkPolicyEgressRule{To: drawPeers(t), Ports: drawPorts(t)})
	}
	defaultNetwork(np)
	return Object{Network: np}
}

func drawPods(t *rapid.T) (*metav1.LabelSelector, *cluster.NamespacedPod) {
	if rapid.Bool().Draw(t, "namespaces?") {
		return drawSelectorPointer(t), nil
	}
	return nil, &cluster.NamespacedPod{NamespaceSelector: drawSelector(t), PodSelector: drawSelector(t)}
}

func drawProtocols(t *rapid.T) []cluster.ClusterNetworkPolicyProtocol {
	var out []cluster.ClusterNetworkPolicyProtocol
	for range rapid.IntRange(0, 2).Draw(t, "protocols") {
		number := &cluster.Port{Number: int32(rapid.IntRange(79, 82).Draw(t, "number"))}
		if rapid.Bool().Draw(t, "range?") {
			number = &cluster.Port{Range: &cluster.PortRange{Start: 80, End: 82}}
		}
		switch rapid.IntRange(0, 3).Draw(t, "protocol") {
		case 0:
			out = append(out, cluster.ClusterNetworkPolicyProtocol{TCP: &cluster.ClusterNetworkPolicyProtocolTCP{DestinationPort: number}})
		case 1:
			out = append(out, cluster.ClusterNetworkPolicyProtocol{UDP: &cluster.ClusterNetworkPolicyProtocolUDP{DestinationPort: number}})
		case 2:
			out = append(out, cluster.ClusterNetworkPolicyProtocol{SCTP: &cluster.ClusterNetworkPolicyProtocolSCTP{DestinationPort: number}})
		case 3:
			out = append(out, cluster.ClusterNetworkPolicyProtocol{DestinationNamedPort: rapid.SampledFrom([]string{"web", "dns"}).Draw(t, "name")})
		}
	}
	return out
}

func drawClusterPolicy(t *rapid.T, name string) Object {
	p := &cluster.ClusterNetworkPolicy{}
	p.Name = name
	p.Spec.Tier = rapid.SampledFrom([]cluster.Tier{cluster.AdminTier, cluster.BaselineTier}).Draw(t, "tier")
	p.Spec.Priority = int32(rapid.IntRange(0, 2).Draw(t, "priority"))
	p.Spec.Subject.Namespaces, p.Spec.Subject.Pods = drawPods(t)
	actions := rapid.SampledFrom([]cluster.ClusterNetworkPolicyRuleAction{"Accept", "Deny", "Pass"})
	for range rapid.IntRange(0, 2).Draw(t, "ingress") {
		r := cluster.ClusterNetworkPolicyIngressRule{Action: actions.Draw(t, "action"), Protocols: drawProtocols(t)}
		for range rapid.IntRange(1, 2).Draw(t, "from") {
			var peer cluster.ClusterNetworkPolicyIngressPeer
			peer.Namespaces, peer.Pods = drawPods(t)
			r.From = append(r.From, peer)
		}
		p.Spec.Ingress = append(p.Spec.Ingress, r)
	}
	for range rapid.IntRange(0, 2).Draw(t, "egress") {
		r := cluster.ClusterNetworkPolicyEgressRule{Action: actions.Draw(t, "action"), Protocols: drawProtocols(t)}
		for range rapid.IntRange(1, 2).Draw(t, "to") {
			var peer cluster.ClusterNetworkPolicyEgressPeer
			if rapid.Bool().Draw(t, "networks?") {
				peer.Networks = []cluster.CIDR{cluster.CIDR(rapid.SampledFrom(cidrs).Draw(t, "network"))}
			} else {
				peer.Namespaces, peer.Pods = drawPods(t)
			}
			r.To = append(r.To, peer)
		}
		p.Spec.Egress = append(p.Spec.Egress, r)
	}
	return Object{Cluster: p}
}

func drawPolicy(t *rapid.T, i int) Policy {
	p := Policy{Mode: rapid.SampledFrom([]configs.PolicyMode{"", "", "", configs.PolicyStaged, configs.PolicyDisabled}).Draw(t, "mode")}
	p.Reject = rapid.Bool().Draw(t, "reject")
	if rapid.IntRange(0, 2).Draw(t, "kind") == 0 {
		p.Object = drawClusterPolicy(t, fmt.Sprintf("p%d", i))
	} else {
		p.Object = drawNetworkPolicy(t, fmt.Sprintf("p%d", i))
	}
	return p
}

func drawEndpoint(t *rapid.T, i int) configs.HostEndpoint {
	e := configs.HostEndpoint{Namespace: rapid.SampledFrom([]string{"n0", "n1", "n2"}).Draw(t, "space"), Name: fmt.Sprintf("e%d", i), Labels: drawLabels(t)}
	e.Addresses = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32)}
	switch rapid.IntRange(0, 4).Draw(t, "address") {
	case 0:
		e.Addresses = append(e.Addresses, netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd00::%d", i)), 128))
	case 1:
		e.Addresses = append(e.Addresses, netip.MustParsePrefix("192.0.2.0/25"))
	case 2:
		e.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/26")}
	}
	for _, n := range rapid.SliceOfN(rapid.SampledFrom([]string{"web", "dns"}), 0, 2).Draw(t, "named") {
		e.Ports = append(e.Ports, configs.NamedPort{Name: n, Port: uint16(rapid.IntRange(79, 82).Draw(t, "port")), Protocol: rapid.SampledFrom([]string{"", "UDP"}).Draw(t, "proto")})
	}
	return e
}

func drawNamespace(t *rapid.T, name string) configs.Namespace {
	return configs.Namespace{Name: name, Labels: drawLabels(t)}
}

func drawInput(t *rapid.T) Input {
	var in Input
	for i := range rapid.IntRange(0, 3).Draw(t, "namespaces") {
		in.Namespaces = append(in.Namespaces, drawNamespace(t, fmt.Sprintf("n%d", i)))
	}
	for i := range rapid.IntRange(0, 6).Draw(t, "endpoints") {
		in.Endpoints = append(in.Endpoints, drawEndpoint(t, i))
	}
	for i := range rapid.IntRange(0, 6).Draw(t, "policies") {
		in.Policies = append(in.Policies, drawPolicy(t, i))
	}
	return in
}

func drawAddr(t *rapid.T) netip.Addr {
	switch rapid.IntRange(0, 5).Draw(t, "addr") {
	case 0:
		return netip.MustParseAddr(fmt.Sprintf("fd00::%d", rapid.IntRange(0, 6).Draw(t, "host")))
	case 1:
		return netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.SampledFrom([]int{1, 65, 200}).Draw(t, "host"))})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 8).Draw(t, "host"))})
}

func drawKey(t *rapid.T) packet.Key {
	proto := rapid.SampledFrom([]uint8{packet.TCP, packet.UDP, packet.SCTP, packet.ICMP}).Draw(t, "proto")
	return packet.NewKey(proto, netip.AddrPortFrom(drawAddr(t), 4000), netip.AddrPortFrom(drawAddr(t), uint16(rapid.IntRange(79, 83).Draw(t, "dport"))))
}
