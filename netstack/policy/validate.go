package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"patronus/netstack/policy/manifest"
)

// defaultNetwork does what the API server does before it stores a
// NetworkPolicy (SetDefaults_NetworkPolicy of networking/v1), and drops empty
// lists, which storage does not keep.
func defaultNetwork(np *networking.NetworkPolicy) {
	if np.Namespace == "" {
		np.Namespace = metav1.NamespaceDefault
	}
	spec := &np.Spec
	if len(spec.PolicyTypes) == 0 {
		spec.PolicyTypes = []networking.PolicyType{networking.PolicyTypeIngress}
		if len(spec.Egress) > 0 {
			spec.PolicyTypes = append(spec.PolicyTypes, networking.PolicyTypeEgress)
		}
	}
	tcp := func(ports []networking.NetworkPolicyPort) {
		for i := range ports {
			if ports[i].Protocol == nil {
				p := core.ProtocolTCP
				ports[i].Protocol = &p
			}
		}
	}
	if len(spec.Ingress) == 0 {
		spec.Ingress = nil
	}
	if len(spec.Egress) == 0 {
		spec.Egress = nil
	}
	for i := range spec.Ingress {
		tcp(spec.Ingress[i].Ports)
	}
	for i := range spec.Egress {
		tcp(spec.Egress[i].Ports)
	}
}

// checker validates one object and finds the place of each problem.
type checker struct {
	node     manifest.Node
	problems *manifest.Problems
}

// fail notes a problem at a field, or where it should have been.
func (c *checker) fail(path, why string) {
	c.problems.Add(c.node.Find(path).Problemf(path, why))
}

func (c *checker) errors(errs field.ErrorList) {
	for _, e := range errs {
		c.fail(e.Field, e.ErrorBody())
	}
}

func (c *checker) invalid(path string, value any, why string) {
	c.fail(path, field.Invalid(nil, value, why).ErrorBody())
}

func (c *checker) required(path, why string) { c.fail(path, field.Required(nil, why).ErrorBody()) }

func (c *checker) forbidden(path, why string) { c.fail(path, field.Forbidden(nil, why).ErrorBody()) }

func (c *checker) unsupported(path, value string, supported ...string) {
	c.fail(path, field.NotSupported(nil, value, supported).ErrorBody())
}

// full reports whether enough problems have been found.
func (c *checker) full() bool { return c.problems.Full() }

// metadata checks what ValidateObjectMeta of apimachinery does, labels and
// annotations one by one, so that a hostile map costs no more than its problems.
func (c *checker) metadata(m *metav1.ObjectMeta, namespaced bool) {
	short := *m
	short.Labels, short.Annotations, short.ManagedFields = nil, nil, nil
	short.OwnerReferences = short.OwnerReferences[:min(len(short.OwnerReferences), 32)]
	short.Finalizers = short.Finalizers[:min(len(short.Finalizers), 32)]
	c.errors(apivalidation.ValidateObjectMeta(&short, namespaced, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata")))
	if m.Name == "" && m.GenerateName != "" {
		c.required("metadata.name", "a policy here needs its final name")
	}
	c.labels("metadata.labels", m.Labels)
	size := 0
	for _, k := range sortedKeys(m.Annotations) {
		for _, why := range labelKey(strings.ToLower(k)) {
			c.invalid("metadata.annotations", k, why)
		}
		if size += len(k) + len(m.Annotations[k]); size > apivalidation.TotalAnnotationSizeLimitB {
			c.fail("metadata.annotations", field.TooLong(nil, "", apivalidation.TotalAnnotationSizeLimitB).ErrorBody())
			return
		}
		if c.full() {
			return
		}
	}
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// plainName is the quick answer for what is usual and valid both as a label's
// name and as its value; validation by regular expressions is slow.
func plainName(s string) bool {
	if s == "" || len(s) > validation.LabelValueMaxLength {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case (c == '-' || c == '_' || c == '.') && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return true
}

func labelKey(s string) []string {
	if plainName(s) {
		return nil
	}
	return validation.IsQualifiedName(s)
}

func labelValue(s string) []string {
	if s == "" || plainName(s) {
		return nil
	}
	return validation.IsValidLabelValue(s)
}

func (c *checker) labels(path string, labels map[string]string) {
	for _, k := range sortedKeys(labels) {
		if c.full() {
			return
		}
		for _, why := range labelKey(k) {
			c.invalid(path, k, why)
		}
		for _, why := range labelValue(labels[k]) {
			c.invalid(path, labels[k], why)
		}
	}
}

// selector follows ValidateLabelSelector of apimachinery.
func (c *checker) selector(path string, s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	c.labels(path+".matchLabels", s.MatchLabels)
	for i, e := range s.MatchExpressions {
		if c.full() {
			return
		}
		at := fmt.Sprintf("%s.matchExpressions[%d]", path, i)
		switch e.Operator {
		case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
			if len(e.Values) == 0 {
				c.required(at+".values", "must be specified when `operator` is 'In' or 'NotIn'")
			}
		case metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist:
			if len(e.Values) > 0 {
				c.forbidden(at+".values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
			}
		default:
			c.invalid(at+".operator", e.Operator, "not a valid selector operator")
		}
		for _, why := range labelKey(e.Key) {
			c.invalid(at+".key", e.Key, why)
		}
		for j, v := range e.Values {
			if c.full() {
				return
			}
			for _, why := range labelValue(v) {
				c.invalid(fmt.Sprintf("%s.values[%d]", at, j), v, why)
			}
		}
	}
}

// network follows ValidateNetworkPolicy of kube-apiserver 1.37.
func (c *checker) network(np *networking.NetworkPolicy) {
	c.metadata(&np.ObjectMeta, true)
	c.selector("spec.podSelector", &np.Spec.PodSelector)
	for i := range np.Spec.Ingress {
		at := fmt.Sprintf("spec.ingress[%d]", i)
		c.ports(at+".ports", np.Spec.Ingress[i].Ports)
		c.peers(at+".from", np.Spec.Ingress[i].From)
		if c.full() {
			return
		}
	}
	for i := range np.Spec.Egress {
		at := fmt.Sprintf("spec.egress[%d]", i)
		c.ports(at+".ports", np.Spec.Egress[i].Ports)
		c.peers(at+".to", np.Spec.Egress[i].To)
		if c.full() {
			return
		}
	}
	if len(np.Spec.PolicyTypes) > 2 {
		c.fail("spec.policyTypes", "Invalid value: may not specify more than two policyTypes")
		return
	}
	for i, t := range np.Spec.PolicyTypes {
		if t != networking.PolicyTypeIngress && t != networking.PolicyTypeEgress {
			c.unsupported(fmt.Sprintf("spec.policyTypes[%d]", i), string(t),
				string(networking.PolicyTypeEgress), string(networking.PolicyTypeIngress))
		}
	}
}

func (c *checker) ports(path string, ports []networking.NetworkPolicyPort) {
	for i := range ports {
		if c.full() {
			return
		}
		p := &ports[i]
		bad := func(name string, value any, why []string) {
			for _, w := range why {
				c.invalid(fmt.Sprintf("%s[%d].%s", path, i, name), value, w)
			}
		}
		if !slices.Contains([]core.Protocol{core.ProtocolTCP, core.ProtocolUDP, core.ProtocolSCTP}, *p.Protocol) {
			c.unsupported(fmt.Sprintf("%s[%d].protocol", path, i), string(*p.Protocol), "SCTP", "TCP", "UDP")
		}
		switch {
		case p.Port == nil:
			if p.EndPort != nil {
				bad("endPort", *p.EndPort, []string{"may not be specified when `port` is not specified"})
			}
		case p.Port.Type == intstr.Int:
			bad("port", p.Port.IntVal, validation.IsValidPortNum(int(p.Port.IntVal)))
			if p.EndPort != nil {
				if *p.EndPort < p.Port.IntVal {
					bad("endPort", *p.EndPort, []string{"must be greater than or equal to `port`"})
				}
				bad("endPort", *p.EndPort, validation.IsValidPortNum(int(*p.EndPort)))
			}
		default:
			if p.EndPort != nil {
				bad("endPort", *p.EndPort, []string{"may not be specified when `port` is non-numeric"})
			}
			bad("port", p.Port.StrVal, validation.IsValidPortName(p.Port.StrVal))
		}
	}
}

func (c *checker) peers(path string, peers []networking.NetworkPolicyPeer) {
	for i := range peers {
		if c.full() {
			return
		}
		p := &peers[i]
		if p.IPBlock != nil && p.PodSelector == nil && p.NamespaceSelector == nil && plainBlock(p.IPBlock) {
			continue
		}
		at := fmt.Sprintf("%s[%d]", path, i)
		c.selector(at+".podSelector", p.PodSelector)
		c.selector(at+".namespaceSelector", p.NamespaceSelector)
		if p.IPBlock != nil {
			c.block(at+".ipBlock", p.IPBlock)
		}
		switch {
		case p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil):
			c.forbidden(at, "may not specify both ipBlock and another peer")
		case p.IPBlock == nil && p.PodSelector == nil && p.NamespaceSelector == nil:
			c.required(at, "must specify a peer")
		}
	}
}

// plainBlock is the quick answer for the usual, correct block.
func plainBlock(b *networking.IPBlock) bool {
	p, err := netip.ParsePrefix(b.CIDR)
	return err == nil && len(b.Except) == 0 && !p.Addr().Is4In6() && p == p.Masked()
}

func (c *checker) block(path string, b *networking.IPBlock) {
	if b.CIDR == "" {
		c.required(path+".cidr", "")
		return
	}
	outer, ok := c.prefix(path+".cidr", b.CIDR)
	if !ok {
		return
	}
	for i, s := range b.Except {
		if c.full() {
			return
		}
		at := fmt.Sprintf("%s.except[%d]", path, i)
		inner, ok := c.prefix(at, s)
		if ok && (!outer.Contains(inner.Addr()) || inner.Bits() <= outer.Bits()) {
			c.invalid(at, s, "must be a strict subset of `cidr`")
		}
	}
}

// prefix checks a CIDR as strictly as the API server does since it refuses
// host bits, leading zeros and IPv4-mapped addresses.
func (c *checker) prefix(path, s string) (netip.Prefix, bool) {
	root := field.NewPath("")
	errs := validation.IsValidCIDRForLegacyField(root, s, true, nil)
	for _, e := range errs {
		c.fail(path, e.ErrorBody())
	}
	if len(errs) > 0 {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	return p, err == nil
}
