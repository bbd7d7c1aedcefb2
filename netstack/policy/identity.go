package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"patronus/configs"
	"patronus/netstack/packet"
)

// nameLabel is set by the API server on every namespace.
const nameLabel = "kubernetes.io/metadata.name"

// namespace is a namespace's compiled state.
type namespace struct {
	name       string
	labels     map[string]string // replaced, never changed
	identities map[uint32]struct{}
	declared   bool // configured, not only named by an endpoint
}

// identity is what policies can know of an endpoint.
type identity struct {
	id        uint32
	key       string
	space     *namespace
	labels    map[string]string
	ports     []namedPort
	endpoints int     // that have it
	policies  []int32 // that select it, in the order they are asked
}

// endpoint is one endpoint. It never changes.
type endpoint struct {
	configs.HostEndpoint
	key      string // namespace/name
	identity *identity
	place    uint32
}

// endpointKey is how flows and changes name an endpoint.
func endpointKey(namespace, name string) string { return namespace + "/" + name }

// portNames numbers the names of ports, from 1.
type portNames struct {
	numbers map[string]uint32
	names   []string
}

func (n *portNames) number(name string) uint32 {
	if i, ok := n.numbers[name]; ok {
		return i
	}
	n.names = append(n.names, name)
	i := uint32(len(n.names))
	n.numbers[name] = i
	return i
}

// ParseProtocol reads a protocol's name, TCP if it is empty.
func ParseProtocol(s string) (uint8, error) {
	switch strings.ToUpper(s) {
	case "", "TCP":
		return packet.TCP, nil
	case "UDP":
		return packet.UDP, nil
	case "SCTP":
		return packet.SCTP, nil
	case "ICMP":
		return packet.ICMP, nil
	case "ICMPV6":
		return packet.ICMPv6, nil
	}
	return 0, fmt.Errorf("unknown protocol %q: expected TCP, UDP, SCTP, ICMP or ICMPv6", s)
}

// checkEndpoint finds what is wrong with an endpoint before it changes anything.
func checkEndpoint(e *configs.HostEndpoint) error {
	if e.Namespace == "" || e.Name == "" || strings.Contains(e.Namespace, "/") {
		return fmt.Errorf("endpoint %q: a namespace and a name are needed", endpointKey(e.Namespace, e.Name))
	}
	for _, a := range e.Addresses {
		if !a.IsValid() {
			return fmt.Errorf("endpoint %s: invalid address", endpointKey(e.Namespace, e.Name))
		}
	}
	for _, p := range e.Ports {
		if _, err := ParseProtocol(p.Protocol); err != nil {
			return fmt.Errorf("endpoint %s: port %q: %w", endpointKey(e.Namespace, e.Name), p.Name, err)
		}
	}
	return nil
}

// ports compiles an endpoint's named ports.
func (c *Compiler) ports(e *configs.HostEndpoint) []namedPort {
	if len(e.Ports) == 0 {
		return nil
	}
	out := make([]namedPort, 0, len(e.Ports))
	for _, p := range e.Ports {
		if proto, err := ParseProtocol(p.Protocol); err == nil && p.Name != "" {
			out = append(out, namedPort{c.names.number(p.Name), p.Port, proto})
		}
	}
	slices.SortFunc(out, func(a, b namedPort) int {
		if a.name != b.name {
			return int(a.name) - int(b.name)
		}
		if a.proto != b.proto {
			return int(a.proto) - int(b.proto)
		}
		return int(a.port) - int(b.port)
	})
	return slices.Compact(out)
}

// identityKey is equal for endpoints that no policy can tell apart.
func identityKey(space string, labels map[string]string, ports []namedPort) string {
	b := appendQuoted(nil, space)
	for _, k := range sortedKeys(labels) {
		b = appendQuoted(appendQuoted(b, k), labels[k])
	}
	b = append(b, '#')
	for _, p := range ports {
		b = append(b, byte(p.name), byte(p.name>>8), byte(p.name>>16), byte(p.name>>24), byte(p.port), byte(p.port>>8), p.proto)
	}
	return string(b)
}

// space finds a namespace, or makes one that is only named.
func (c *Compiler) space(name string) *namespace {
	s := c.namespaces[name]
	if s == nil {
		s = &namespace{name: name, labels: map[string]string{nameLabel: name}, identities: map[uint32]struct{}{}}
		c.namespaces[name] = s
	}
	return s
}

// setNamespace declares a namespace, or takes the declaration back.
func (c *Compiler) setNamespace(name string, labels map[string]string, declared bool) {
	s := c.space(name)
	next := make(map[string]string, len(labels)+1)
	for k, v := range labels {
		next[k] = v
	}
	next[nameLabel] = name
	s.declared = declared
	if !mapsEqual(s.labels, next) {
		old := s.labels
		s.labels = next
		c.relabel(s, old)
	}
	c.dropSpace(s)
}

func (c *Compiler) dropSpace(s *namespace) {
	if !s.declared && len(s.identities) == 0 {
		delete(c.namespaces, s.name)
	}
}

func mapsEqual(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// relabel puts a namespace's identities into the audiences that its new labels
// put them in.
func (c *Compiler) relabel(s *namespace, old map[string]string) {
	for _, a := range c.byID {
		if a == nil || !a.byLabels || !slices.ContainsFunc(a.scopes, func(x scope) bool {
			return x.namespace == "" && x.namespaces.matches(old) != x.namespaces.matches(s.labels)
		}) {
			continue
		}
		for i := range s.identities {
			c.setMember(a, i, a.matches(c.identities[i]))
		}
	}
	for i := range s.identities {
		c.ownEntry(i).space = s.labels
	}
}

// acquire finds or makes the identity of an endpoint.
func (c *Compiler) acquire(e *configs.HostEndpoint) *identity {
	ports := c.ports(e)
	key := identityKey(e.Namespace, e.Labels, ports)
	if id := c.byKey[key]; id != nil {
		id.endpoints++
		return id
	}
	id := &identity{key: key, space: c.space(e.Namespace), labels: e.Labels, ports: ports, endpoints: 1}
	if n := len(c.freeIdentities); n > 0 {
		id.id = c.freeIdentities[n-1]
		c.freeIdentities = c.freeIdentities[:n-1]
		c.identities[id.id] = id
	} else {
		id.id = uint32(len(c.identities))
		c.identities = append(c.identities, id)
	}
	c.byKey[key] = id
	id.space.identities[id.id] = struct{}{}
	for k, v := range id.labels {
		c.index.add(k, v, id.id)
	}
	*c.ownEntry(id.id) = entry{programs: [2]*program{open, open}, staged: [2]*program{open, open}, ports: ports, space: id.space.labels}
	c.own.rows.set(id.id, false)
	for _, a := range c.byID {
		if a != nil && a.matches(id) {
			c.setMember(a, id.id, true)
		}
	}
	return id
}

// release gives an identity back.
func (c *Compiler) release(id *identity) {
	if id.endpoints--; id.endpoints > 0 {
		return
	}
	for _, a := range c.byID {
		if a != nil {
			c.setMember(a, id.id, false)
		}
	}
	for k, v := range id.labels {
		c.index.remove(k, v, id.id)
	}
	delete(id.space.identities, id.id)
	c.dropSpace(id.space)
	delete(c.byKey, id.key)
	delete(c.dirty, id.id)
	c.identities[id.id] = nil
	c.freeIdentities = append(c.freeIdentities, id.id)
	*c.ownEntry(id.id) = entry{}
	c.own.rows.set(id.id, false)
}

// postings is an inverted index of labels.
type postings map[string]map[string][]uint32

func (p postings) add(k, v string, id uint32) {
	m := p[k]
	if m == nil {
		m = map[string][]uint32{}
		p[k] = m
	}
	m[v] = append(m[v], id)
}

func (p postings) remove(k, v string, id uint32) {
	l := p[k][v]
	if i := slices.Index(l, id); i >= 0 {
		l[i] = l[len(l)-1]
		p[k][v] = l[:len(l)-1]
	}
	if len(p[k][v]) == 0 {
		delete(p[k], v)
	}
	if len(p[k]) == 0 {
		delete(p, k)
	}
}

// hostPrefix is an address as the endpoint table has it.
func hostPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked()
	}
	return p.Masked()
}
