package flow

import (
	"net/netip"
	"time"

	"patronus/netstack/packet"
)

// View is a flow at one moment: a value that nobody else changes. The packets
// and bytes of one direction may differ by a run that is being counted at that
// very moment.
type View struct {
	Key     packet.Key // of the first packet
	State   State
	Replied bool // a packet from the responder was seen
	Binding Binding
	Record  *Record // immutable; nil if none was set
	Moves   uint32  // changes of path
	// Created and Seen are monotonic ns, of the first and the last packet; Seen
	// may be up to about 1 ms early.
	Created, Seen    int64
	Forward, Reverse Counts // from the originator, from the responder
}

// Counts are packets and their bytes, IP header included.
type Counts struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Originator is who sent the first packet.
func (v View) Originator() netip.AddrPort {
	return netip.AddrPortFrom(v.Key.Src.Netip(), v.Key.SrcPort)
}

// Responder is who it was sent to.
func (v View) Responder() netip.AddrPort {
	return netip.AddrPortFrom(v.Key.Dst.Netip(), v.Key.DstPort)
}

// ID is the flow's name in URLs: [FormatKey] of its key.
func (v View) ID() string { return FormatKey(&v.Key) }

// Record says why a flow is treated as it is, in names that stay meaningful
// when the configuration has changed. It is immutable once set.
type Record struct {
	At           time.Time   `json:"decided_at"`
	RulesVersion uint32      `json:"rules_version"`
	Policy       string      `json:"policy"` // Kind/namespace/name of the deciding policy, or empty
	Rule         int         `json:"rule"`   // its index, or -1
	Reason       string      `json:"reason"`
	Class        string      `json:"class"`
	Candidates   []Candidate `json:"candidates,omitempty"`
	Winner       string      `json:"winner,omitempty"` // path id, or empty
	Why          string      `json:"why,omitempty"`
	// What rules knew of both ends when it was decided: enough to decide again.
	From       Party             `json:"from,omitzero"`
	To         Party             `json:"to,omitzero"`
	FromLabels map[string]string `json:"from_labels,omitempty"`
	ToLabels   map[string]string `json:"to_labels,omitempty"`
	PortNames  []string          `json:"port_names,omitempty"` // what the destination calls the port
	Egress     bool              `json:"judged_egress"`        // the ends that were judged here
	Ingress    bool              `json:"judged_ingress"`
	// Admitted is set once the flow has been let through. If it is denied later
	// the packets of both directions are still its own.
	Admitted bool `json:"admitted"`
}

// Party is the endpoint at one end of a flow, empty if its address is in none.
type Party struct {
	Site            string            `json:"site,omitempty"`
	Namespace       string            `json:"namespace,omitempty"`
	Name            string            `json:"name,omitempty"`
	NamespaceLabels map[string]string `json:"namespace_labels,omitempty"`
}

// IsZero reports whether the address is in no endpoint.
func (p Party) IsZero() bool { return p.Namespace == "" }

// Candidate is one path that was considered.
type Candidate struct {
	Path   string `json:"path_id"`
	Score  int16  `json:"score"` // 0..100, -1 if none
	State  string `json:"status"`
	Usable bool   `json:"usable"`
}

// Kind says what happened to a flow.
type Kind uint8

// The kinds of event. A flow that is never bound reports nothing; one that
// reported Started reports Ended exactly once.
const (
	Started  Kind = iota + 1 // bound for the first time
	Moved                    // bound to another path
	Rejudged                 // bound with another verdict
	Ended                    // dropped by the table
)

func (k Kind) String() string {
	switch k {
	case Started:
		return "started"
	case Moved:
		return "moved"
	case Rejudged:
		return "rejudged"
	case Ended:
		return "ended"
	default:
		return "unknown"
	}
}

// End says why a flow ended.
type End uint8

// The ends.
const (
	NotEnded End = iota
	Idle         // no packet for its state's time-out
	Evicted      // made room for another flow
	Replaced     // a SYN started a new conversation under its key
	Removed      // by [Table.Remove]
)

func (e End) String() string {
	switch e {
	case NotEnded:
		return ""
	case Idle:
		return "idle"
	case Evicted:
		return "evicted"
	case Replaced:
		return "replaced"
	case Removed:
		return "removed"
	default:
		return "unknown"
	}
}

// Event is something that happened to a flow, with the flow as it was then.
type Event struct {
	Kind Kind
	End  End     // if Ended
	From Binding // what it was bound to before, if Moved or Rejudged
	View View
}
