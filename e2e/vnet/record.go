package vnet

import (
	"net/netip"
	"slices"
	"time"
)

// Record is a datagram's story, as the sender tells it: addresses are those
// before any translation.
type Record struct {
	At       time.Time // sent
	DoneAt   time.Time // arrived or lost; zero while in flight
	From     string    // NIC
	To       string    // NIC; empty if it came to none
	Src, Dst netip.AddrPort
	Message  Message
	Size     int // UDP payload, bytes
	Outcome  Outcome
	data     []byte
}

// ring keeps the newest records.
type ring struct {
	max  int
	recs []*Record
	next int
}

func (r *ring) add(rec Record) *Record {
	p := &rec
	if len(r.recs) < r.max {
		r.recs = append(r.recs, p)
	} else {
		r.recs[r.next] = p
	}
	r.next = (r.next + 1) % r.max
	return p
}

// all returns copies, oldest first.
func (r *ring) all() []Record {
	out := make([]Record, 0, len(r.recs))
	start := 0
	if len(r.recs) == r.max {
		start = r.next
	}
	for i := range r.recs {
		out = append(out, *r.recs[(start+i)%len(r.recs)])
	}
	return out
}

// Records returns the newest datagrams that the network remembers, oldest first.
func (n *Network) Records() []Record {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clip(n.ring.all())
}
