package vnet

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Options of a Network; the zero value is usable.
type Options struct {
	// Seed decides all chance: links, NAT ports.
	Seed uint64
	// Keep is how many datagrams the network remembers for the pictures of
	// [OnFailure]; 0 means 2000.
	Keep int
}

// Network is a virtual internet. Datagrams move by its own event queue, in the
// order of time; at most one thing happens at once.
type Network struct {
	mu     sync.Mutex
	rng    *rand.Rand
	start  time.Time
	closed bool

	queue eventQueue
	seq   uint64
	timer *time.Timer

	nodes    []*Node
	pairs    map[pairKey]*Shaper
	traps    []*Trap
	taps     []*tap
	ring     ring
	outcomes [outcomes]uint64
}

type pairKey struct{ from, to *NIC }

// New returns an empty network. Its clock is time.Now: create it inside the
// synctest bubble in which it is used.
func New(o Options) *Network {
	return &Network{
		rng:   rand.New(rand.NewPCG(o.Seed, 0x706174726f6e7573)),
		start: time.Now(),
		pairs: make(map[pairKey]*Shaper),
		ring:  ring{max: cmp.Or(o.Keep, 2000)},
	}
}

// Close stops the clock: what is in flight is lost. Binds stay to be closed by
// their owners.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	n.queue = nil
	if n.timer != nil {
		n.timer.Stop()
	}
}

// Outcomes returns how many datagrams came to each end, copies by links
// included; ends that did not occur are absent.
func (n *Network) Outcomes() map[Outcome]uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := make(map[Outcome]uint64)
	for o, c := range n.outcomes {
		if c > 0 {
			m[Outcome(o)] = c
		}
	}
	return m
}

// newShaper draws a seed; the caller holds n.mu.
func (n *Network) newShaper() *Shaper { return NewShaper(Impairment{}, n.rng.Uint64()) }

// event is a datagram that arrives somewhere at a time.
type event struct {
	at   time.Time
	seq  uint64
	d    *datagram
	next hop
}

// hop is what happens to a datagram where it arrives. It runs under Network.mu.
type hop func(d *datagram, now time.Time)

// datagram is a UDP datagram on its way. data is never written to.
type datagram struct {
	src, dst netip.AddrPort
	data     []byte
	via      *NIC // where it entered the cloud it is in
	rec      *Record
}

// size is the IP packet's.
func (d *datagram) size() int { return packetSize(d.dst.Addr(), len(d.data)) }

func packetSize(a netip.Addr, payload int) int {
	if a.Is4() {
		return 20 + 8 + payload
	}
	return 40 + 8 + payload
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	if c := q[i].at.Compare(q[j].at); c != 0 {
		return c < 0
	}
	return q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}

// at schedules; the caller holds n.mu.
func (n *Network) at(t time.Time, d *datagram, next hop) {
	if n.closed {
		return
	}
	n.seq++
	heap.Push(&n.queue, event{t, n.seq, d, next})
}

// settle lets everything happen that is due, then sets the timer for the rest.
// Each event sees its own time, however late the machine is. The caller holds n.mu.
func (n *Network) settle() {
	now := time.Now()
	for len(n.queue) > 0 && !n.queue[0].at.After(now) {
		e := heap.Pop(&n.queue).(event)
		e.next(e.d, e.at)
	}
	if len(n.queue) == 0 {
		return
	}
	wait := n.queue[0].at.Sub(now)
	if n.timer == nil {
		n.timer = time.AfterFunc(wait, n.wake)
	} else {
		n.timer.Reset(wait)
	}
}

func (n *Network) wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.settle()
}

// pass sends a datagram through a shaper. The caller holds n.mu.
func (n *Network) pass(s *Shaper, d *datagram, now time.Time, next hop) {
	at, copies, fate := s.PlanFate(d.size(), now)
	if copies == 0 {
		n.end(d, fate.outcome(), now)
		return
	}
	for _, t := range at[:copies] {
		n.at(t, d, next)
		d = d.clone() // each copy is translated on its own
	}
}

func (d *datagram) clone() *datagram { c := *d; return &c }

// end notes what became of a datagram. The caller holds n.mu.
func (n *Network) end(d *datagram, o Outcome, now time.Time) {
	n.outcomes[o]++
	// Of several copies the one that got through is what the picture shows.
	if d.rec.Outcome == InFlight || o == Delivered && d.rec.Outcome != Delivered {
		d.rec.Outcome, d.rec.DoneAt = o, now
	}
}

// Node is a machine with NICs.
type Node struct {
	net  *Network
	name string
	nics []*NIC
}

// Node adds a machine. Names appear in pictures and are not checked for being
// unique.
func (n *Network) Node(name string) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := &Node{net: n, name: name}
	n.nodes = append(n.nodes, m)
	return m
}

// Name is the node's.
func (m *Node) Name() string { return m.name }

// Attach plugs a new NIC into a cloud. Its name is "node.name". It panics if an
// address is taken in that cloud: a topology is code.
func (m *Node) Attach(c *Cloud, name string, addrs ...netip.Addr) *NIC {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	nic := m.net.newNIC(c, m.name+"."+name, addrs)
	m.nics = append(m.nics, nic)
	return nic
}

// Cloud is a network in which every address reaches every other one: the
// internet, or what lies behind a NAT.
type Cloud struct {
	net     *Network
	name    string
	nics    map[netip.Addr]*NIC
	routers []*Router // whose inside is reached through this cloud
	gateway *Router   // of an inside cloud
}

// Cloud adds a cloud without a way out.
func (n *Network) Cloud(name string) *Cloud {
	return &Cloud{net: n, name: name, nics: make(map[netip.Addr]*NIC)}
}

// Name is the cloud's.
func (c *Cloud) Name() string { return c.name }

// Between returns what lies between two NICs of a cloud, besides their own
// links: Out is from a to b, In from b to a. Both start perfect.
func (c *Cloud) Between(a, b *NIC) *Link {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	return &Link{Out: c.net.pair(a, b), In: c.net.pair(b, a)}
}

// pair finds or makes; the caller holds n.mu.
func (n *Network) pair(from, to *NIC) *Shaper {
	k := pairKey{from, to}
	s := n.pairs[k]
	if s == nil {
		s = n.newShaper()
		n.pairs[k] = s
	}
	return s
}

// route carries a datagram through the cloud to whoever has its destination.
func (c *Cloud) route(d *datagram, now time.Time) {
	to := c.owner(d.dst.Addr())
	switch {
	case to != nil && to != d.via:
		if s := c.net.pairs[pairKey{d.via, to}]; s != nil {
			c.net.pass(s, d, now, to.ingress)
		} else {
			to.ingress(d, now)
		}
	case to != nil: // to itself: no link in between
		to.arrived(d, now)
	case c.gateway != nil:
		c.gateway.outbound(d, now)
	default:
		c.net.end(d, NoRoute, now)
	}
}

// owner is the NIC of this cloud through which an address is reached.
func (c *Cloud) owner(a netip.Addr) *NIC {
	if nic := c.nics[a]; nic != nil {
		return nic
	}
	for _, r := range c.routers {
		if r.opts.Kind == Routed && r.inside.owner(a) != nil {
			return r.outside
		}
	}
	return nil
}

// Link is the two directions of something: of a NIC's access line, where Out
// leads away from the NIC, or of what is between two places.
type Link struct{ Out, In *Shaper }

// Set changes both directions.
func (l *Link) Set(i Impairment) { l.Out.Set(i); l.In.Set(i) }

// Update changes both directions by a function.
func (l *Link) Update(change func(*Impairment)) { l.Out.Update(change); l.In.Update(change) }

// Break makes a black hole in both directions. Carrier stays.
func (l *Link) Break() { l.Out.SetDown(true); l.In.SetDown(true) }

// Heal ends Break.
func (l *Link) Heal() { l.Out.SetDown(false); l.In.SetDown(false) }

// Stats returns both directions' counts.
func (l *Link) Stats() (out, in Stats) { return l.Out.Stats(), l.In.Stats() }

// String counts what the network is made of.
func (n *Network) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fmt.Sprintf("network of %d nodes, %d datagrams in flight", len(n.nodes), len(n.queue))
}
