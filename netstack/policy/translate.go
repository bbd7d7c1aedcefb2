package policy

import (
	"net/netip"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	cluster "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"patronus/netstack/packet"
)

// Tier orders policies: Admin before NetworkPolicy before Baseline.
type Tier uint8

// The tiers.
const (
	AdminTier Tier = iota
	NetworkTier
	BaselineTier
)

func (t Tier) String() string { return [...]string{"Admin", "NetworkPolicy", "Baseline"}[t] }

// compiled is a policy with its rules translated. It never changes.
type compiled struct {
	Policy
	id       string
	tier     Tier
	priority int32
	subject  *audience
	applies  [2]bool // by Direction: it isolates, or has rules
	rules    [2][]rule
	terms    [2][]term
	used     []*audience // of the rules
}

// before orders policies as they are asked. Policies of one priority, of which
// the API leaves the order open, go by name.
func (p *compiled) before(q *compiled) int {
	switch {
	case p.tier != q.tier:
		return int(p.tier) - int(q.tier)
	case p.priority != q.priority:
		return int(p.priority) - int(q.priority)
	}
	return strings.Compare(p.id, q.id)
}

// translate compiles a policy for a place. It takes references on audiences.
func (c *Compiler) translate(p Policy, ref PolicyRef) *compiled {
	out := &compiled{Policy: p, id: p.ID()}
	if p.Network != nil {
		c.translateNetwork(out, ref)
	} else {
		c.translateCluster(out, ref)
	}
	for d := range out.rules {
		for i := range out.rules[d] {
			out.terms[d] = out.rules[d][i].terms(out.terms[d])
		}
	}
	return out
}

func (c *Compiler) translateNetwork(out *compiled, ref PolicyRef) {
	np := out.Network
	out.tier = NetworkTier
	out.subject = c.audience([]scope{{namespace: np.Namespace, pods: newSelector(&np.Spec.PodSelector)}}, true)
	out.applies[Ingress] = slices.Contains(np.Spec.PolicyTypes, networking.PolicyTypeIngress)
	out.applies[Egress] = slices.Contains(np.Spec.PolicyTypes, networking.PolicyTypeEgress)
	if out.applies[Ingress] {
		for i := range np.Spec.Ingress {
			r := rule{policy: ref, index: int32(i), ports: c.networkPorts(np.Spec.Ingress[i].Ports)}
			c.networkPeers(out, &r, np.Namespace, np.Spec.Ingress[i].From)
			out.rules[Ingress] = append(out.rules[Ingress], r)
		}
	}
	if out.applies[Egress] {
		for i := range np.Spec.Egress {
			r := rule{policy: ref, index: int32(i), ports: c.networkPorts(np.Spec.Egress[i].Ports)}
			c.networkPeers(out, &r, np.Namespace, np.Spec.Egress[i].To)
			out.rules[Egress] = append(out.rules[Egress], r)
		}
	}
}

func (c *Compiler) networkPorts(ports []networking.NetworkPolicyPort) []port {
	var out []port
	for i := range ports {
		p := &ports[i]
		q := port{proto: protocol(*p.Protocol), last: 65535}
		switch {
		case p.Port == nil:
		case p.Port.Type == intstr.String:
			q.name = c.names.number(p.Port.StrVal)
		default:
			q.first, q.last = uint16(p.Port.IntVal), uint16(p.Port.IntVal)
			if p.EndPort != nil {
				q.last = uint16(*p.EndPort)
			}
		}
		out = append(out, q)
	}
	return out
}

func protocol(p core.Protocol) uint8 {
	switch p {
	case core.ProtocolUDP:
		return packet.UDP
	case core.ProtocolSCTP:
		return packet.SCTP
	}
	return packet.TCP
}

func (c *Compiler) networkPeers(out *compiled, r *rule, namespace string, peers []networking.NetworkPolicyPeer) {
	var scopes []scope
	var blocks []block
	for i := range peers {
		switch p := &peers[i]; {
		case p.IPBlock != nil:
			b := block{cidr: mustPrefix(p.IPBlock.CIDR)}
			for _, e := range p.IPBlock.Except {
				b.except = append(b.except, mustPrefix(e))
			}
			blocks = append(blocks, b)
		case p.NamespaceSelector != nil:
			scopes = append(scopes, scope{namespaces: newSelector(p.NamespaceSelector), pods: newSelector(p.PodSelector)})
		default:
			scopes = append(scopes, scope{namespace: namespace, pods: newSelector(p.PodSelector)})
		}
	}
	c.setPeers(out, r, len(peers) == 0, scopes, blocks)
}

// mustPrefix parses what validation has parsed before.
func mustPrefix(s string) netip.Prefix {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		panic("policy: unvalidated object: " + err.Error())
	}
	return p.Masked()
}

func (c *Compiler) setPeers(out *compiled, r *rule, everyone bool, scopes []scope, blocks []block) {
	r.everyone, r.peers, r.cidrs = everyone, none, newRanges(blocks)
	if len(scopes) > 0 {
		a := c.audience(scopes, false)
		r.peers = a.id
		out.used = append(out.used, a)
	}
}

func (c *Compiler) translateCluster(out *compiled, ref PolicyRef) {
	spec := &out.Cluster.Spec
	out.tier, out.priority = AdminTier, spec.Priority
	if spec.Tier == cluster.BaselineTier {
		out.tier = BaselineTier
	}
	out.subject = c.audience([]scope{namespacedScope(spec.Subject.Pods, newSelector(spec.Subject.Namespaces))}, true)
	for i := range spec.Ingress {
		src := &spec.Ingress[i]
		r := rule{policy: ref, index: int32(i), action: action(src.Action), ports: c.clusterPorts(src.Protocols)}
		var scopes []scope
		for _, p := range src.From {
			scopes = append(scopes, namespacedScope(p.Pods, newSelector(p.Namespaces)))
		}
		c.setPeers(out, &r, false, scopes, nil)
		out.rules[Ingress] = append(out.rules[Ingress], r)
	}
	for i := range spec.Egress {
		src := &spec.Egress[i]
		r := rule{policy: ref, index: int32(i), action: action(src.Action), ports: c.clusterPorts(src.Protocols)}
		var scopes []scope
		var blocks []block
		for _, p := range src.To {
			if p.Namespaces != nil || p.Pods != nil {
				scopes = append(scopes, namespacedScope(p.Pods, newSelector(p.Namespaces)))
			}
			for _, n := range p.Networks {
				blocks = append(blocks, block{cidr: mustPrefix(string(n))})
			}
		}
		c.setPeers(out, &r, false, scopes, blocks)
		out.rules[Egress] = append(out.rules[Egress], r)
	}
	out.applies = [2]bool{len(out.rules[Egress]) > 0, len(out.rules[Ingress]) > 0}
}

func namespacedScope(pods *cluster.NamespacedPod, namespaces selector) scope {
	if pods != nil {
		return scope{namespaces: newSelector(&pods.NamespaceSelector), pods: newSelector(&pods.PodSelector)}
	}
	return scope{namespaces: namespaces}
}

func action(a cluster.ClusterNetworkPolicyRuleAction) Action {
	switch a {
	case cluster.ClusterNetworkPolicyRuleActionDeny:
		return Deny
	case cluster.ClusterNetworkPolicyRuleActionPass:
		return Pass
	}
	return Accept
}

func (c *Compiler) clusterPorts(protocols []cluster.ClusterNetworkPolicyProtocol) []port {
	var out []port
	for _, p := range protocols {
		var q port
		var number *cluster.Port
		switch {
		case p.TCP != nil:
			q.proto, number = packet.TCP, p.TCP.DestinationPort
		case p.UDP != nil:
			q.proto, number = packet.UDP, p.UDP.DestinationPort
		case p.SCTP != nil:
			q.proto, number = packet.SCTP, p.SCTP.DestinationPort
		default:
			q.name = c.names.number(p.DestinationNamedPort)
			out = append(out, q)
			continue
		}
		if number.Range != nil {
			q.first, q.last = uint16(number.Range.Start), uint16(number.Range.End)
		} else {
			q.first, q.last = uint16(number.Number), uint16(number.Number)
		}
		out = append(out, q)
	}
	return out
}
