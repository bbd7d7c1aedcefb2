package vnet

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Direction is seen from a NIC.
type Direction uint8

// The directions; the zero value of a rule's direction is both.
const (
	BothWays Direction = iota
	Outgoing
	Incoming
)

// Action is what a rule does to the datagrams it selects.
type Action uint8

// The actions.
const (
	Drop    Action = iota
	Count          // let it pass
	Copy           // deliver it twice: a replay
	Corrupt        // flip a bit in the middle
)

// Rule selects datagrams by what an eavesdropper sees. Zero fields select all.
// "Lose only the second handshake response" is
//
//	Rule{Message: Response, Occurrences: []int{2}}
type Rule struct {
	Direction        Direction
	Family           int // 4 or 6
	SrcPort, DstPort uint16
	// MinSize and MaxSize bound the UDP payload, bytes, inclusive.
	MinSize, MaxSize int
	Message          Message
	// Match, if set, must agree too. It must not call the network. borrowed:
	// payload is only valid during the call and must not be written to.
	Match func(src, dst netip.AddrPort, payload []byte) bool
	// Occurrences are the numbers, from 1, of the selected datagrams that the
	// action is applied to; none means all.
	Occurrences []int
	Action      Action
}

// Trap is a rule in force.
type Trap struct {
	net   *Network
	nic   *NIC
	rule  Rule
	hits  atomic.Uint64
	fired atomic.Uint64
}

// Hits is how many datagrams the rule selected.
func (t *Trap) Hits() uint64 { return t.hits.Load() }

// Fired is how many of them the action was applied to.
func (t *Trap) Fired() uint64 { return t.fired.Load() }

// Remove ends the rule; its counters stay readable.
func (t *Trap) Remove() {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	t.net.traps = slices.DeleteFunc(t.net.traps, func(o *Trap) bool { return o == t })
}

// AddRule puts a rule in force at a NIC, or at all of them if nic is nil. Rules
// are applied in the order in which they were added.
func (n *Network) AddRule(nic *NIC, r Rule) *Trap {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &Trap{net: n, nic: nic, rule: r}
	n.traps = append(n.traps, t)
	return t
}

func (t *Trap) selects(nic *NIC, dir Direction, d *datagram) bool {
	r := &t.rule
	return (t.nic == nil || t.nic == nic) &&
		(r.Direction == BothWays || r.Direction == dir) &&
		(r.Family == 0 || (r.Family == 4) == d.dst.Addr().Is4()) &&
		(r.SrcPort == 0 || r.SrcPort == d.src.Port()) &&
		(r.DstPort == 0 || r.DstPort == d.dst.Port()) &&
		len(d.data) >= r.MinSize &&
		(r.MaxSize == 0 || len(d.data) <= r.MaxSize) &&
		MessageOf(d.data).is(r.Message) &&
		(r.Match == nil || r.Match(d.src, d.dst, d.data))
}

// filter applies the rules and hands what is left to next. The caller holds n.mu.
func (n *Network) filter(nic *NIC, dir Direction, d *datagram, now time.Time, next hop) {
	copies := 1
	for _, t := range n.traps {
		if !t.selects(nic, dir, d) {
			continue
		}
		hit := t.hits.Add(1)
		if len(t.rule.Occurrences) > 0 && !slices.Contains(t.rule.Occurrences, int(hit)) {
			continue
		}
		t.fired.Add(1)
		switch t.rule.Action {
		case Drop:
			n.end(d, RuleDropped, now)
			return
		case Copy:
			copies++
		case Corrupt:
			d.data = slices.Clone(d.data)
			if len(d.data) > 0 {
				d.data[len(d.data)/2] ^= 0x10
			}
		case Count:
		}
	}
	for range copies - 1 {
		next(d.clone(), now)
	}
	next(d, now)
}
