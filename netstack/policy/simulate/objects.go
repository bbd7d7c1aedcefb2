package simulate

import (
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	cluster "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

// peersOf are all peers that a NetworkPolicy writes.
func peersOf(p *networking.NetworkPolicy) []networking.NetworkPolicyPeer {
	var out []networking.NetworkPolicyPeer
	for i := range p.Spec.Ingress {
		out = append(out, p.Spec.Ingress[i].From...)
	}
	for i := range p.Spec.Egress {
		out = append(out, p.Spec.Egress[i].To...)
	}
	return out
}

func protocolOf(p *core.Protocol) uint8 {
	switch {
	case p == nil:
	case *p == core.ProtocolUDP:
		return packet.UDP
	case *p == core.ProtocolSCTP:
		return packet.SCTP
	}
	return packet.TCP
}

// eachPort calls yield for the numbered ports that a policy names.
func eachPort(o policy.Object, yield func(proto uint8, first, last uint16)) {
	if o.Network != nil {
		ports := func(list []networking.NetworkPolicyPort) {
			for i := range list {
				p := &list[i]
				if p.Port == nil || p.Port.Type == intstr.String {
					continue
				}
				first := uint16(p.Port.IntVal)
				last := first
				if p.EndPort != nil {
					last = uint16(*p.EndPort)
				}
				yield(protocolOf(p.Protocol), first, last)
			}
		}
		for i := range o.Network.Spec.Ingress {
			ports(o.Network.Spec.Ingress[i].Ports)
		}
		for i := range o.Network.Spec.Egress {
			ports(o.Network.Spec.Egress[i].Ports)
		}
		return
	}
	protocols := func(list []cluster.ClusterNetworkPolicyProtocol) {
		for _, p := range list {
			var proto uint8
			var n *cluster.Port
			switch {
			case p.TCP != nil:
				proto, n = packet.TCP, p.TCP.DestinationPort
			case p.UDP != nil:
				proto, n = packet.UDP, p.UDP.DestinationPort
			case p.SCTP != nil:
				proto, n = packet.SCTP, p.SCTP.DestinationPort
			}
			switch {
			case n == nil:
			case n.Range != nil:
				yield(proto, uint16(n.Range.Start), uint16(n.Range.End))
			default:
				yield(proto, uint16(n.Number), uint16(n.Number))
			}
		}
	}
	for i := range o.Cluster.Spec.Ingress {
		protocols(o.Cluster.Spec.Ingress[i].Protocols)
	}
	for i := range o.Cluster.Spec.Egress {
		protocols(o.Cluster.Spec.Egress[i].Protocols)
	}
}

// portNames are the names of ports that a direction of a policy asks for, each
// with the rules that do.
func portNames(o policy.Object, d policy.Direction) map[string][]int {
	out := map[string][]int{}
	network := func(rule int, list []networking.NetworkPolicyPort) {
		for i := range list {
			if p := list[i].Port; p != nil && p.Type == intstr.String {
				out[p.StrVal] = append(out[p.StrVal], rule)
			}
		}
	}
	protocols := func(rule int, list []cluster.ClusterNetworkPolicyProtocol) {
		for _, p := range list {
			if p.DestinationNamedPort != "" {
				out[p.DestinationNamedPort] = append(out[p.DestinationNamedPort], rule)
			}
		}
	}
	switch {
	case o.Network != nil && d == policy.Ingress:
		for i := range o.Network.Spec.Ingress {
			network(i, o.Network.Spec.Ingress[i].Ports)
		}
	case o.Network != nil:
		for i := range o.Network.Spec.Egress {
			network(i, o.Network.Spec.Egress[i].Ports)
		}
	case d == policy.Ingress:
		for i := range o.Cluster.Spec.Ingress {
			protocols(i, o.Cluster.Spec.Ingress[i].Protocols)
		}
	default:
		for i := range o.Cluster.Spec.Egress {
			protocols(i, o.Cluster.Spec.Egress[i].Protocols)
		}
	}
	return out
}
