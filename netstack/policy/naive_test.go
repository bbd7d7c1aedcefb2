package policy

import (
	"net/netip"
	"slices"
	"sort"

	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	cluster "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"patronus/configs"
	"patronus/netstack/packet"
)

// naive is the second evaluator that the compiled one is compared with: it
// follows the text of the API types word by word, over the objects themselves
// and with apimachinery's own selectors, and precomputes nothing.
type naive struct {
	Input
}

// naivePod is what the API calls a pod.
type naivePod struct {
	endpoint  *configs.HostEndpoint
	namespace map[string]string
}

func (n *naive) pod(a netip.Addr) *naivePod {
	var best *configs.HostEndpoint
	bits := -1
	for i := range n.Endpoints {
		e := &n.Endpoints[i]
		for _, p := range e.Addresses {
			better := p.Bits() > bits || p.Bits() == bits && endpointKey(e.Namespace, e.Name) < endpointKey(best.Namespace, best.Name)
			if p.Contains(a) && better {
				best, bits = e, p.Bits()
			}
		}
	}
	if best == nil {
		return nil
	}
	space := map[string]string{}
	for _, s := range n.Namespaces {
		if s.Name == best.Namespace {
			for k, v := range s.Labels {
				space[k] = v
			}
		}
	}
	space["kubernetes.io/metadata.name"] = best.Namespace
	return &naivePod{best, space}
}

func naiveMatch(s *metav1.LabelSelector, l map[string]string) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		panic(err)
	}
	return sel.Matches(labels.Set(l))
}

type naiveAnswer struct {
	allowed bool
	reason  Reason
	policy  string
	rule    int32
}

func (n *naive) side(d Direction, k *packet.Key, staged bool) naiveAnswer {
	src, dst := k.Src.Netip(), k.Dst.Netip()
	subject, peerAddr := src, dst
	if d == Ingress {
		subject, peerAddr = dst, src
	}
	pod, peer, dstPod := n.pod(subject), n.pod(peerAddr), n.pod(dst)
	out := naiveAnswer{true, NotIsolated, "", -1}
	if pod == nil {
		return out
	}
	for _, tier := range []Tier{AdminTier, NetworkTier, BaselineTier} {
		if tier == NetworkTier {
			if a, isolated := n.network(d, k, pod, peer, dstPod, peerAddr, staged); isolated {
				return a
			}
			continue
		}
		a, ok := n.clusterTier(tier, d, k, pod, peer, dstPod, peerAddr, staged)
		if ok && a.reason != PassedToDefault {
			return a
		}
		if ok {
			out = a
		}
	}
	return out
}

func (n *naive) active(p Policy, staged bool) bool {
	return p.Mode == "" || p.Mode == configs.PolicyEnforced || staged && p.Mode == configs.PolicyStaged
}

func (n *naive) network(d Direction, k *packet.Key, pod, peer, dst *naivePod, addr netip.Addr, staged bool) (naiveAnswer, bool) {
	var selecting []Policy
	for _, p := range n.Policies {
		np := p.Network
		if np == nil || !n.active(p, staged) || np.Namespace != pod.endpoint.Namespace || !naiveMatch(&np.Spec.PodSelector, pod.endpoint.Labels) {
			continue
		}
		want := networking.PolicyTypeEgress
		if d == Ingress {
			want = networking.PolicyTypeIngress
		}
		if slices.Contains(np.Spec.PolicyTypes, want) {
			selecting = append(selecting, p)
		}
	}
	if len(selecting) == 0 {
		return naiveAnswer{}, false
	}
	sort.Slice(selecting, func(i, j int) bool { return selecting[i].ID() < selecting[j].ID() })
	for _, p := range selecting {
		spec := &p.Network.Spec
		if d == Ingress {
			for i, r := range spec.Ingress {
				if naivePorts(r.Ports, k, dst) && naivePeers(r.From, p.Network.Namespace, peer, addr) {
					return naiveAnswer{true, AllowedByRule, p.ID(), int32(i)}, true
				}
			}
			continue
		}
		for i, r := range spec.Egress {
			if naivePorts(r.Ports, k, dst) && naivePeers(r.To, p.Network.Namespace, peer, addr) {
				return naiveAnswer{true, AllowedByRule, p.ID(), int32(i)}, true
			}
		}
	}
	return naiveAnswer{false, IsolatedNoMatch, selecting[0].ID(), -1}, true
}

func naiveProto(k *packet.Key) string {
	return map[uint8]string{packet.TCP: "TCP", packet.UDP: "UDP", packet.SCTP: "SCTP"}[k.Proto]
}

func naiveNamed(name, proto string, k *packet.Key, dst *naivePod) bool {
	if dst == nil {
		return false
	}
	for _, p := range dst.endpoint.Ports {
		declared := p.Protocol
		if declared == "" {
			declared = "TCP"
		}
		if p.Name == name && p.Port == k.DstPort && declared == naiveProto(k) && (proto == "" || proto == declared) {
			return true
		}
	}
	return false
}

func naivePorts(ports []networking.NetworkPolicyPort, k *packet.Key, dst *naivePod) bool {
	if len(ports) == 0 {
		return true
	}
	for _, p := range ports {
		proto := "TCP"
		if p.Protocol != nil {
			proto = string(*p.Protocol)
		}
		switch {
		case proto != naiveProto(k):
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			if naiveNamed(p.Port.StrVal, proto, k, dst) {
				return true
			}
		case p.EndPort == nil:
			if int(p.Port.IntVal) == int(k.DstPort) {
				return true
			}
		case p.Port.IntVal <= int32(k.DstPort) && int32(k.DstPort) <= *p.EndPort:
			return true
		}
	}
	return false
}

func naivePeers(peers []networking.NetworkPolicyPeer, namespace string, peer *naivePod, addr netip.Addr) bool {
	if len(peers) == 0 {
		return true
	}
	for _, p := range peers {
		if p.IPBlock != nil {
			if naiveCIDR(p.IPBlock.CIDR, addr) && !slices.ContainsFunc(p.IPBlock.Except, func(e string) bool { return naiveCIDR(e, addr) }) {
				return true
			}
			continue
		}
		if peer == nil {
			continue
		}
		if p.NamespaceSelector == nil && peer.endpoint.Namespace != namespace {
			continue
		}
		if p.NamespaceSelector != nil && !naiveMatch(p.NamespaceSelector, peer.namespace) {
			continue
		}
		if p.PodSelector == nil || naiveMatch(p.PodSelector, peer.endpoint.Labels) {
			return true
		}
	}
	return false
}

func naiveCIDR(s string, a netip.Addr) bool {
	p := netip.MustParsePrefix(s)
	return p.Contains(a)
}

func (n *naive) clusterTier(tier Tier, d Direction, k *packet.Key, pod, peer, dst *naivePod, addr netip.Addr, staged bool) (naiveAnswer, bool) {
	var list []Policy
	for _, p := range n.Policies {
		if p.Cluster != nil && n.active(p, staged) && (p.Cluster.Spec.Tier == cluster.AdminTier) == (tier == AdminTier) {
			list = append(list, p)
		}
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i].Cluster, list[j].Cluster
		if a.Spec.Priority != b.Spec.Priority {
			return a.Spec.Priority < b.Spec.Priority
		}
		return a.Name < b.Name
	})
	for _, p := range list {
		spec := &p.Cluster.Spec
		if !naivePods(spec.Subject.Namespaces, spec.Subject.Pods, pod) {
			continue
		}
		if d == Ingress {
			for i, r := range spec.Ingress {
				for _, from := range r.From {
					if naivePods(from.Namespaces, from.Pods, peer) && naiveProtocols(r.Protocols, k, dst) {
						return naiveAction(r.Action, p.ID(), i), true
					}
				}
			}
			continue
		}
		for i, r := range spec.Egress {
			for _, to := range r.To {
				in := naivePods(to.Namespaces, to.Pods, peer)
				for _, c := range to.Networks {
					in = in || naiveCIDR(string(c), addr)
				}
				if in && naiveProtocols(r.Protocols, k, dst) {
					return naiveAction(r.Action, p.ID(), i), true
				}
			}
		}
	}
	return naiveAnswer{}, false
}

func naiveAction(a cluster.ClusterNetworkPolicyRuleAction, id string, i int) naiveAnswer {
	switch a {
	case cluster.ClusterNetworkPolicyRuleActionAccept:
		return naiveAnswer{true, AllowedByRule, id, int32(i)}
	case cluster.ClusterNetworkPolicyRuleActionDeny:
		return naiveAnswer{false, DeniedByRule, id, int32(i)}
	}
	return naiveAnswer{true, PassedToDefault, id, int32(i)}
}

func naivePods(namespaces *metav1.LabelSelector, pods *cluster.NamespacedPod, p *naivePod) bool {
	switch {
	case p == nil:
		return false
	case namespaces != nil:
		return naiveMatch(namespaces, p.namespace)
	case pods != nil:
		return naiveMatch(&pods.NamespaceSelector, p.namespace) && naiveMatch(&pods.PodSelector, p.endpoint.Labels)
	}
	return false
}

func naiveProtocols(list []cluster.ClusterNetworkPolicyProtocol, k *packet.Key, dst *naivePod) bool {
	if len(list) == 0 {
		return true
	}
	for _, p := range list {
		if p.DestinationNamedPort != "" {
			if naiveNamed(p.DestinationNamedPort, "", k, dst) {
				return true
			}
			continue
		}
		proto, number := "", (*cluster.Port)(nil)
		switch {
		case p.TCP != nil:
			proto, number = "TCP", p.TCP.DestinationPort
		case p.UDP != nil:
			proto, number = "UDP", p.UDP.DestinationPort
		case p.SCTP != nil:
			proto, number = "SCTP", p.SCTP.DestinationPort
		}
		if proto != naiveProto(k) {
			continue
		}
		if number.Range == nil && number.Number == int32(k.DstPort) ||
			number.Range != nil && number.Range.Start <= int32(k.DstPort) && int32(k.DstPort) <= number.Range.End {
			return true
		}
	}
	return false
}
