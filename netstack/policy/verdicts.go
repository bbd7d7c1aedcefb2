package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"patronus/configs"
	"patronus/netstack/packet"
	"patronus/netstack/policy/manifest"
)

// MaxCaseSize is the largest case file that is read, bytes. Each policy in it
// is held to [MaxPolicySize].
const MaxCaseSize = 64 << 20

// Verdict is one line of the output of `patronus policy verdicts`.
type Verdict struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
	Allowed  bool   `json:"allowed"`
	Egress   bool   `json:"egress"`
	Ingress  bool   `json:"ingress"`
	Reason   string `json:"reason"`
	Policy   string `json:"policy"`
	Rule     int32  `json:"rule"`
}

// PacketVerdict is what became of one packet of a case.
type PacketVerdict struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`
}

// Verdicts is the output of `patronus policy verdicts`.
type Verdicts struct {
	Verdicts []Verdict       `json:"verdicts"`
	Packets  []PacketVerdict `json:"packets,omitempty"`
}

// RunVerdicts evaluates the cases of a text (YAML documents, or JSON objects
// one after another) and writes one JSON object: the verdicts of all of them in
// input order. Each document is a case of its own. name is the file that errors
// name. Nothing is written if there is an error.
func RunVerdicts(in []byte, name string, out io.Writer) error {
	v, err := EvaluateCases(in, name)
	if err != nil {
		return err
	}
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write verdicts: %w", err)
	}
	return nil
}

// EvaluateCases is [RunVerdicts] without the writing.
func EvaluateCases(in []byte, name string) (Verdicts, error) {
	docs, err := manifest.Parse(in, name, MaxCaseSize)
	if err != nil {
		return Verdicts{}, err
	}
	all := Verdicts{Verdicts: []Verdict{}}
	for _, d := range docs {
		if err := evaluateCase(d.Root(), &all); err != nil {
			return Verdicts{}, err
		}
	}
	return all, nil
}

// The sections of a case.
type (
	caseEndpoint struct {
		Namespace string            `json:"namespace"`
		Name      string            `json:"name"`
		IP        string            `json:"ip"`
		IPs       []string          `json:"ips"`
		Labels    map[string]string `json:"labels"`
		Ports     []caseNamedPort   `json:"ports"`
	}
	caseNamedPort struct {
		Name     string `json:"name"`
		Port     uint16 `json:"port"`
		Protocol string `json:"protocol"`
	}
	caseFlow struct {
		From     string `json:"from"`
		To       string `json:"to"`
		Protocol string `json:"protocol"`
		Port     uint16 `json:"port"`
	}
	casePacket struct {
		From     string `json:"from"`
		FromPort uint16 `json:"from_port"`
		To       string `json:"to"`
		ToPort   uint16 `json:"to_port"`
		Protocol string `json:"protocol"`
		Flags    string `json:"flags"`
	}
	caseFile struct {
		node       manifest.Node
		problems   manifest.Problems
		namespaces []configs.Namespace
		endpoints  []caseEndpoint
		policies   []Policy
		flows      []caseFlow
		packets    []casePacket
		addresses  map[string][]netip.Addr // by namespace/name
	}
)

func evaluateCase(n manifest.Node, out *Verdicts) error {
	c := caseFile{node: n, addresses: map[string][]netip.Addr{}}
	if n.Kind() != manifest.Mapping {
		c.fail(n, "", "expected a case: a mapping with endpoints, policies and flows")
		return c.problems.Err()
	}
	c.decode()
	if err := c.problems.Err(); err != nil {
		return err
	}
	in := Input{Namespaces: c.namespaces, Endpoints: c.hostEndpoints(), Policies: c.policies}
	if err := c.problems.Err(); err != nil {
		return err
	}
	rules, err := Compile(in)
	if err != nil {
		c.fail(n, "", err.Error())
		return c.problems.Err()
	}
	c.judgeFlows(rules, out)
	c.judgePackets(rules, out)
	return c.problems.Err()
}

func (c *caseFile) fail(n manifest.Node, path, why string) { c.problems.Add(n.Problemf(path, why)) }

func (c *caseFile) decode() {
	for k, v := range c.node.Pairs {
		switch key := k.Text(); key {
		case "namespaces":
			var list []struct {
				Name   string            `json:"name"`
				Labels map[string]string `json:"labels"`
			}
			v.Decode(&list, key, &c.problems)
			seen := map[string]bool{}
			for i, s := range list {
				if s.Name == "" || seen[s.Name] {
					c.fail(v.Index(i), fmt.Sprintf("namespaces[%d].name", i), "a unique name is needed")
					return
				}
				seen[s.Name] = true
				c.namespaces = append(c.namespaces, configs.Namespace{Name: s.Name, Labels: s.Labels})
			}
		case "endpoints":
			v.Decode(&c.endpoints, key, &c.problems)
		case "policies":
			c.decodePolicies(v)
		case "flows":
			v.Decode(&c.flows, key, &c.problems)
		case "packets":
			v.Decode(&c.packets, key, &c.problems)
		default:
			c.fail(k, "", fmt.Sprintf("unknown field %q", key))
		}
	}
}

func (c *caseFile) decodePolicies(n manifest.Node) {
	if n.Null() {
		return
	}
	if n.Kind() != manifest.Sequence {
		c.fail(n, "policies", "expected a sequence")
		return
	}
	seen := map[string]bool{}
	for e := range n.Entries {
		if c.problems.Full() {
			return
		}
		o := parseObject(e, &c.problems)
		if !o.Valid() {
			continue
		}
		if seen[o.ID()] {
			c.fail(e, "", fmt.Sprintf("policy %s is there twice", o.ID()))
		}
		seen[o.ID()] = true
		c.policies = append(c.policies, Policy{Object: o})
	}
}

// hostEndpoints converts the endpoints. One without an address gets one of
// class E (RFC 1112), so that it can be named: it is in no ipBlock but a whole
// family's.
func (c *caseFile) hostEndpoints() []configs.HostEndpoint {
	list := c.node.Key("endpoints")
	owners := map[netip.Addr]string{}
	out := make([]configs.HostEndpoint, 0, len(c.endpoints))
	for i, e := range c.endpoints {
		if c.problems.Full() {
			return nil
		}
		bad := func(field, why string) { c.fail(list.Index(i), fmt.Sprintf("endpoints[%d]%s", i, field), why) }
		if e.Namespace == "" {
			e.Namespace = "default"
		}
		key := endpointKey(e.Namespace, e.Name)
		if _, dup := c.addresses[key]; dup || e.Name == "" {
			bad(".name", "a name that is unique in its namespace is needed")
			continue
		}
		h := configs.HostEndpoint{Namespace: e.Namespace, Name: e.Name, Labels: e.Labels, Origin: "configuration"}
		ips := e.IPs
		if e.IP != "" {
			ips = append([]string{e.IP}, ips...)
		}
		for _, s := range ips {
			a, err := netip.ParseAddr(s)
			if err != nil || a.Zone() != "" {
				bad("", fmt.Sprintf("not an address: %q", s))
				continue
			}
			a = a.Unmap()
			if owner, taken := owners[a]; taken && owner != key {
				bad("", fmt.Sprintf("address %s belongs to %s already", a, owner))
			}
			owners[a] = key
			c.addresses[key] = append(c.addresses[key], a)
		}
		if len(ips) == 0 {
			c.addresses[key] = []netip.Addr{netip.AddrFrom4([4]byte{240, byte(i >> 16), byte(i >> 8), byte(i)})}
		}
		for _, a := range c.addresses[key] {
			h.Addresses = append(h.Addresses, netip.PrefixFrom(a, a.BitLen()))
		}
		for j, p := range e.Ports {
			if _, err := ParseProtocol(p.Protocol); err != nil {
				bad(fmt.Sprintf(".ports[%d].protocol", j), err.Error())
			}
			h.Ports = append(h.Ports, configs.NamedPort{Name: p.Name, Port: p.Port, Protocol: p.Protocol})
		}
		out = append(out, h)
	}
	return out
}

var errNoEndpoint = errors.New("neither an address nor an endpoint of the case")

// pair resolves both ends of a flow, to addresses of one family if they have one.
func (c *caseFile) pair(from, to string) (a, b netip.Addr, err error) {
	as, err := c.resolve(from)
	if err != nil {
		return a, b, fmt.Errorf("from %q: %w", from, err)
	}
	bs, err := c.resolve(to)
	if err != nil {
		return a, b, fmt.Errorf("to %q: %w", to, err)
	}
	for _, a := range as {
		for _, b := range bs {
			if a.Is4() == b.Is4() {
				return a, b, nil
			}
		}
	}
	return as[0], bs[0], nil
}

func (c *caseFile) resolve(s string) ([]netip.Addr, error) {
	if a, ok := c.addresses[s]; ok && len(a) > 0 {
		return a, nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return []netip.Addr{a.Unmap()}, nil
	}
	return nil, errNoEndpoint
}

func (c *caseFile) judgeFlows(rules *Ruleset, out *Verdicts) {
	list := c.node.Key("flows")
	for i, f := range c.flows {
		proto, err := ParseProtocol(f.Protocol)
		var a, b netip.Addr
		if err == nil {
			a, b, err = c.pair(f.From, f.To)
		}
		if err != nil {
			if c.problems.Full() {
				return
			}
			c.fail(list.Index(i), fmt.Sprintf("flows[%d]", i), err.Error())
			continue
		}
		k := packet.NewKey(proto, netip.AddrPortFrom(a, 0), netip.AddrPortFrom(b, f.Port))
		d := rules.Evaluate(&k)
		if f.Protocol == "" {
			f.Protocol = "TCP"
		}
		out.Verdicts = append(out.Verdicts, Verdict{
			From: f.From, To: f.To, Protocol: f.Protocol, Port: f.Port, Allowed: d.Allowed, Egress: d.Egress,
			Ingress: d.Ingress, Reason: d.Reason.String(), Policy: rules.PolicyID(d.Policy), Rule: d.Rule,
		})
	}
}
