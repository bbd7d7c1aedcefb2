package simulate

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"patronus/configs"
	"patronus/netstack/flow"
	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

// line is a recorded flow as JSON: what FORMAT.md documents, and what an
// appliance prints of a flow. Dictionaries are left as texts: most lines repeat
// the texts of others.
type line struct {
	Key     string     `json:"flow_key"`
	At      time.Time  `json:"at"`
	Created time.Time  `json:"created_at"`
	Verdict string     `json:"verdict"`
	Status  string     `json:"status"` // of an appliance: active or blocked
	Judged  string     `json:"judged"`
	Policy  string     `json:"policy"`
	Rule    *int32     `json:"rule"`
	Packets uint64     `json:"packets"`
	Bytes   uint64     `json:"bytes"`
	Reverse lineCounts `json:"reverse"`

	From     json.RawMessage `json:"from"`
	To       json.RawMessage `json:"to"`
	Decision *lineDecision   `json:"decision"`

	// An appliance's event wraps a flow.
	Type   string `json:"type"`
	Change string `json:"change"`
	Flow   *line  `json:"flow"`
}

type lineCounts struct{ Packets, Bytes uint64 }

// lineDecision is flow.Record as JSON.
type lineDecision struct {
	At         time.Time         `json:"decided_at"`
	Policy     string            `json:"policy"`
	Rule       int32             `json:"rule"`
	From       *Party            `json:"from"`
	To         *Party            `json:"to"`
	FromLabels map[string]string `json:"from_labels"`
	ToLabels   map[string]string `json:"to_labels"`
	PortNames  []string          `json:"port_names"`
	Egress     bool              `json:"judged_egress"`
	Ingress    bool              `json:"judged_ingress"`
}

// party is an end of a decision as a party's text.
func (d *lineDecision) party(p *Party, labels map[string]string, names []string, k *packet.Key) (json.RawMessage, error) {
	if p == nil || p.Namespace == "" {
		return nil, nil
	}
	out := *p
	if out.Labels == nil {
		out.Labels = labels
	}
	for _, name := range names {
		out.Ports = append(out.Ports, configs.NamedPort{Name: name, Port: k.DstPort, Protocol: protocolName(k.Proto)})
	}
	return json.Marshal(&out)
}

// parseLine reads a line into a record without its dictionary indexes. skip
// means that the line is an event that records no flow.
func parseLine(text []byte, l *line, r *Record) (skip bool, err error) {
	*l = line{}
	if err := json.Unmarshal(text, l); err != nil {
		return false, err
	}
	if l.Type != "" {
		if l.Flow == nil || l.Change != "ended" {
			return true, nil
		}
		*l = *l.Flow
	}
	k, err := flow.ParseKey(l.Key)
	if err != nil {
		return false, err
	}
	*r = Record{Key: k, From: Nowhere, To: Nowhere, Policy: NoName, Rule: -1}
	if d := l.Decision; d != nil {
		l.At, l.Policy, l.Rule = d.At, d.Policy, &d.Rule
		if l.From, err = d.party(d.From, d.FromLabels, nil, &k); err != nil {
			return false, err
		}
		if l.To, err = d.party(d.To, d.ToLabels, d.PortNames, &k); err != nil {
			return false, err
		}
		r.Egress, r.Ingress = d.Egress, d.Ingress
	}
	if l.At.IsZero() {
		l.At = l.Created
	}
	if !l.At.IsZero() {
		r.At = l.At.UnixNano()
	}
	if l.Rule != nil {
		r.Rule = *l.Rule
	}
	r.Packets, r.Bytes = l.Packets+l.Reverse.Packets, l.Bytes+l.Reverse.Bytes
	switch {
	case l.Verdict == "allowed" || l.Verdict == "" && l.Status == "active":
		r.Allowed = true
	case l.Verdict == "denied" || l.Verdict == "" && l.Status == "blocked":
	default:
		return false, fmt.Errorf("verdict %q: expected allowed or denied", l.Verdict)
	}
	switch l.Judged {
	case "":
	case "both":
		r.Egress, r.Ingress = true, true
	case "egress":
		r.Egress = true
	case "ingress":
		r.Ingress = true
	default:
		return false, fmt.Errorf("judged %q: expected egress, ingress or both", l.Judged)
	}
	if !r.Egress && !r.Ingress {
		r.Egress, r.Ingress = true, true
	}
	return false, nil
}

// parseParty reads a party's text; nil is an address in no endpoint.
func parseParty(text []byte) (*Party, error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	if len(text) > maxParty {
		return nil, fmt.Errorf("a party of %d bytes, at most %d are read", len(text), maxParty)
	}
	p := new(Party)
	if err := json.Unmarshal(text, p); err != nil {
		return nil, err
	}
	for _, port := range p.Ports {
		if _, err := policy.ParseProtocol(port.Protocol); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// PartyOf is the party that an endpoint is today.
func PartyOf(e *configs.HostEndpoint, namespaceLabels map[string]string) *Party {
	return &Party{Site: e.Site, Namespace: e.Namespace, Name: e.Name, Labels: e.Labels, NamespaceLabels: namespaceLabels, Ports: e.Ports}
}

// NewKey is the key of a flow between two addresses. ports is what rules see.
func newKey(proto uint8, from, to netip.Addr, port uint16) packet.Key {
	return packet.NewKey(proto, netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, port))
}
