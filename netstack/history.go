package netstack

import (
	"net/netip"
	"strings"
	"sync"
	"time"
)

// historyFlows is how many ended flows are remembered, with the decisions that
// they were treated under: about 4 MB.
const historyFlows = 4096

// history remembers the flows that ended last, so that a question about the
// past is answered with what was true then.
type history struct {
	mu   sync.Mutex
	ring []FlowStatus
	next int
}

func (h *history) add(f *FlowStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) < historyFlows {
		h.ring = append(h.ring, *f)
		return
	}
	h.ring[h.next] = *f
	h.next = (h.next + 1) % historyFlows
}

// find returns the newest ended flow between two addresses that was alive at a
// time, in either direction.
func (h *history) find(from, to netip.Addr, protocol string, port uint16, at time.Time) (FlowStatus, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var best FlowStatus
	found := false
	for i := range h.ring {
		f := &h.ring[i]
		if f.matches(from, to, protocol, port) && f.aliveAt(at) && (!found || f.Seen.After(best.Seen)) {
			best, found = *f, true
		}
	}
	return best, found
}

// matches reports whether a flow is the conversation of a question, which may
// ask for either direction.
func (f *FlowStatus) matches(from, to netip.Addr, protocol string, port uint16) bool {
	if !strings.EqualFold(f.Protocol, protocol) {
		return false
	}
	return f.Src == from && f.Dst == to && f.Port == port || f.Src == to && f.Dst == from && f.SrcPort == port
}

// aliveAt reports whether a flow saw packets before and after a time; the zero
// time is any.
func (f *FlowStatus) aliveAt(at time.Time) bool {
	return at.IsZero() || !f.Created.After(at) && !f.Seen.Before(at)
}
