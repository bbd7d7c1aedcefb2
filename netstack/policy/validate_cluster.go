package policy

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation"
	cluster "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// maxItems bounds each list of a ClusterNetworkPolicy, as its schema does.
const maxItems = 25

// cluster follows the schema of ClusterNetworkPolicy v1alpha2. Peers that mean
// nothing between sites (nodes, domain names) are refused, not ignored: a
// policy that is accepted is enforced.
func (c *checker) cluster(cnp *cluster.ClusterNetworkPolicy) {
	c.metadata(&cnp.ObjectMeta, false)
	spec := &cnp.Spec
	c.needs("", "spec")
	c.needs("spec", "tier", "priority", "subject")
	if spec.Tier != cluster.AdminTier && spec.Tier != cluster.BaselineTier && c.node.Key("spec").Key("tier").Present() {
		c.unsupported("spec.tier", string(spec.Tier), string(cluster.AdminTier), string(cluster.BaselineTier))
	}
	if spec.Priority < 0 || spec.Priority > 1000 {
		c.invalid("spec.priority", spec.Priority, "must be between 0 and 1000")
	}
	c.exactlyOne("spec.subject", spec.Subject.Namespaces != nil, spec.Subject.Pods != nil)
	c.selector("spec.subject.namespaces", spec.Subject.Namespaces)
	c.pods("spec.subject.pods", spec.Subject.Pods)
	c.atMost("spec.ingress", len(spec.Ingress))
	c.atMost("spec.egress", len(spec.Egress))
	for i := range min(len(spec.Ingress), maxItems) {
		r := &spec.Ingress[i]
		at := fmt.Sprintf("spec.ingress[%d]", i)
		c.clusterRule(at, "from", r.Name, r.Action, len(r.From), r.Protocols)
		for j := range min(len(r.From), maxItems) {
			if c.full() {
				return
			}
			p := &r.From[j]
			here := fmt.Sprintf("%s.from[%d]", at, j)
			c.exactlyOne(here, p.Namespaces != nil, p.Pods != nil)
			c.selector(here+".namespaces", p.Namespaces)
			c.pods(here+".pods", p.Pods)
		}
	}
	for i := range min(len(spec.Egress), maxItems) {
		r := &spec.Egress[i]
		at := fmt.Sprintf("spec.egress[%d]", i)
		c.clusterRule(at, "to", r.Name, r.Action, len(r.To), r.Protocols)
		for j := range min(len(r.To), maxItems) {
			if c.full() {
				return
			}
			c.egressPeer(fmt.Sprintf("%s.to[%d]", at, j), &r.To[j], r.Protocols)
		}
	}
}

func (c *checker) egressPeer(at string, p *cluster.ClusterNetworkPolicyEgressPeer, protocols []cluster.ClusterNetworkPolicyProtocol) {
	if p.Nodes != nil {
		c.forbidden(at+".nodes", "there are no nodes between sites; use networks with their addresses")
		return
	}
	if p.DomainNames != nil {
		c.forbidden(at+".domainNames", "domain names are not resolved here; use networks with their addresses")
		return
	}
	c.exactlyOne(at, p.Namespaces != nil, p.Pods != nil, p.Networks != nil)
	c.selector(at+".namespaces", p.Namespaces)
	c.pods(at+".pods", p.Pods)
	if p.Networks == nil {
		return
	}
	c.atLeastOne(at+".networks", len(p.Networks))
	c.atMost(at+".networks", len(p.Networks))
	seen := map[cluster.CIDR]bool{}
	for i, n := range p.Networks[:min(len(p.Networks), maxItems)] {
		if c.full() {
			return
		}
		here := fmt.Sprintf("%s.networks[%d]", at, i)
		if seen[n] {
			c.fail(here, fmt.Sprintf("Duplicate value: %q", n))
		}
		seen[n] = true
		c.prefix(here, string(n))
	}
	for i := range min(len(protocols), maxItems) {
		if protocols[i].DestinationNamedPort != "" {
			c.forbidden(at+".networks", "networks have no named ports, which the rule asks for")
		}
	}
}

func (c *checker) clusterRule(at, peers, name string, action cluster.ClusterNetworkPolicyRuleAction, n int, protocols []cluster.ClusterNetworkPolicyProtocol) {
	c.needs(at, "action", peers)
	if len(name) > 100 {
		c.invalid(at+".name", name, "must have at most 100 characters")
	}
	switch action {
	case cluster.ClusterNetworkPolicyRuleActionAccept, cluster.ClusterNetworkPolicyRuleActionDeny, cluster.ClusterNetworkPolicyRuleActionPass:
	default:
		if c.node.Find(at).Key("action").Present() {
			c.unsupported(at+".action", string(action), "Accept", "Deny", "Pass")
		}
	}
	if c.node.Find(at).Key(peers).Present() {
		c.atLeastOne(at+"."+peers, n)
	}
	c.atMost(at+"."+peers, n)
	if protocols != nil {
		c.atLeastOne(at+".protocols", len(protocols))
	}
	c.atMost(at+".protocols", len(protocols))
	for i := range min(len(protocols), maxItems) {
		if c.full() {
			return
		}
		c.protocol(fmt.Sprintf("%s.protocols[%d]", at, i), &protocols[i])
	}
}

func (c *checker) protocol(at string, p *cluster.ClusterNetworkPolicyProtocol) {
	c.exactlyOne(at, p.TCP != nil, p.UDP != nil, p.SCTP != nil, p.DestinationNamedPort != "")
	name, port := "", (*cluster.Port)(nil)
	switch {
	case p.TCP != nil:
		name, port = "tcp", p.TCP.DestinationPort
	case p.UDP != nil:
		name, port = "udp", p.UDP.DestinationPort
	case p.SCTP != nil:
		name, port = "sctp", p.SCTP.DestinationPort
	default:
		return
	}
	at += "." + name
	if port == nil {
		c.required(at+".destinationPort", "must have at least one property")
		return
	}
	at += ".destinationPort"
	c.exactlyOne(at, port.Number != 0 || c.node.Find(at).Key("number").Present(), port.Range != nil)
	if port.Range == nil {
		if c.node.Find(at).Key("number").Present() {
			for _, why := range validation.IsValidPortNum(int(port.Number)) {
				c.invalid(at+".number", port.Number, why)
			}
		}
		return
	}
	at += ".range"
	c.needs(at, "start", "end")
	for _, why := range validation.IsValidPortNum(int(port.Range.Start)) {
		c.invalid(at+".start", port.Range.Start, why)
	}
	for _, why := range validation.IsValidPortNum(int(port.Range.End)) {
		c.invalid(at+".end", port.Range.End, why)
	}
	if port.Range.Start >= port.Range.End {
		c.invalid(at, port.Range.Start, "Start port must be less than End port")
	}
}

func (c *checker) pods(at string, p *cluster.NamespacedPod) {
	if p == nil {
		return
	}
	c.needs(at, "podSelector")
	c.selector(at+".namespaceSelector", &p.NamespaceSelector)
	c.selector(at+".podSelector", &p.PodSelector)
}

// needs reports fields that are not written.
func (c *checker) needs(at string, fields ...string) {
	n := c.node.Find(at)
	for _, f := range fields {
		if n.Key(f).Null() {
			if at != "" {
				f = at + "." + f
			}
			c.required(f, "")
		}
	}
}

func (c *checker) exactlyOne(at string, set ...bool) {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	if n != 1 {
		c.fail(at, fmt.Sprintf("Invalid value: exactly one field must be set, found %d", n))
	}
}

func (c *checker) atMost(at string, n int) {
	if n > maxItems {
		c.fail(at, fmt.Sprintf("Too many: %d: must have at most %d items", n, maxItems))
	}
}

func (c *checker) atLeastOne(at string, n int) {
	if n == 0 {
		c.fail(at, "Invalid value: should have at least 1 items")
	}
}
