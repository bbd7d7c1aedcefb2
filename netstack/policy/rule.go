package policy

import (
	"slices"

	"patronus/netstack/packet"
)

// Direction is the side of a flow that a policy isolates: egress at its
// source, ingress at its destination.
type Direction uint8

// The directions.
const (
	Egress Direction = iota
	Ingress
)

func (d Direction) String() string {
	if d == Ingress {
		return "ingress"
	}
	return "egress"
}

// Action is what a rule does with what it matches.
type Action uint8

// The actions. NetworkPolicy rules only accept.
const (
	Accept Action = iota
	Deny
	Pass
)

func (a Action) String() string { return [...]string{"Accept", "Deny", "Pass"}[a] }

// nobody is the identity of an address in no endpoint.
const nobody = ^uint32(0)

// none is the audience of a rule whose peers are addresses only.
const none = ^uint32(0)

// rule is a compiled rule: it matches if any port and any peer does.
type rule struct {
	policy   PolicyRef
	index    int32
	action   Action
	everyone bool   // any peer
	peers    uint32 // audience, or none
	cidrs    *ranges
	ports    []port // empty: any protocol and port
}

// port is a range of ports of a protocol, or a name.
type port struct {
	proto       uint8 // 0: any (a ClusterNetworkPolicy's named port)
	first, last uint16
	name        uint32 // 0: by number
}

// namedPort is a port of an endpoint that policies may name.
type namedPort struct {
	name  uint32
	port  uint16
	proto uint8
}

// query is one side's question.
type query struct {
	peer  bitset       // the audiences that the peer belongs to
	addr  *packet.Addr // the peer's address
	ports []namedPort  // of the destination
	proto uint8
	port  uint16 // destination
}

func (r *rule) matchesPeer(q *query) bool {
	return r.everyone || r.peers != none && q.peer.has(r.peers) || r.cidrs != nil && r.cidrs.contains(q.addr)
}

func (r *rule) matchesPort(q *query) bool {
	if len(r.ports) == 0 {
		return true
	}
	return slices.ContainsFunc(r.ports, func(p port) bool {
		if p.name != 0 {
			return q.names(p.name, p.proto)
		}
		return p.proto == q.proto && p.first <= q.port && q.port <= p.last
	})
}

// names reports whether the destination calls its port by a name.
func (q *query) names(name uint32, proto uint8) bool {
	for _, n := range q.ports {
		if n.name == name && n.port == q.port && n.proto == q.proto && (proto == 0 || proto == n.proto) {
			return true
		}
	}
	return false
}
