package lan

import (
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"patronus/netstack/packet"
)

// Bounds of the neighbour table.
const (
	maxNeighbours  = 4096             // that have answered
	maxWaiting     = 256              // that are being asked for
	maxSilent      = 1024             // that are known not to answer
	maxQueued      = 3                // packets that wait for one answer (RFC 1122, 2.3.2.2 asks for one)
	neighbourFresh = 10 * time.Second // an answer is asked for again after this
	resolveTime    = 4 * time.Second  // a resolver that says nothing has failed
	silentTime     = 3 * time.Second  // no question is asked again so soon (RFC 1122, 2.3.2.1: at most one a second)
	sweepEvery     = 100 * time.Millisecond
)

// Resolver finds the link address of an on-link address. The engine's is the
// gVisor stack, which speaks ARP and NDP through the port's Control frames.
type Resolver interface {
	// Resolve returns the address if it is known. Otherwise it returns false,
	// asks, and calls done once: from any goroutine, possibly before it
	// returns, with ok false if nobody answered. It must not block.
	Resolve(addr netip.Addr, done func(mac [6]byte, ok bool)) (mac [6]byte, ok bool)
}

// Refuser is what a Resolver may be besides: it is told which packets were
// dropped because their next hop does not answer, so that it can tell their
// senders (RFC 1812, 5.2.7.1; RFC 4443, 3.1).
type Refuser interface {
	// Unanswered takes a packet over. It must not block.
	Unanswered(b *packet.Buffer)
}

// neighbours maps next hops to link addresses. Neighbours that have answered
// are looked up without a lock; those that have not are bounded, and so is what
// waits for them, so that a scan of a network of dead hosts costs little.
// Times are monotonic, in nanoseconds. Safe for concurrent use.
type neighbours struct {
	resolver Resolver
	clock    func() int64
	send     func(waiting []*packet.Buffer, mac [6]byte) // takes the buffers over
	count    *counters
	refuser  Refuser // or nil

	known atomic.Pointer[map[packet.Addr]*neighbour]

	mu        sync.Mutex // guards what follows and the replacing of known
	asked     map[packet.Addr]*question
	waiting   int // questions without an answer
	nextSweep int64
	closed    bool
}

// neighbour is one that has answered.
type neighbour struct {
	mac       atomic.Uint64
	refreshAt atomic.Int64
}

// question is one that has not: waiting, or silent until a time.
type question struct {
	queue  []*packet.Buffer
	until  int64
	silent bool
}

func newNeighbours(r Resolver, clock func() int64, count *counters, send func([]*packet.Buffer, [6]byte)) *neighbours {
	n := &neighbours{resolver: r, clock: clock, send: send, count: count, asked: make(map[packet.Addr]*question)}
	n.refuser, _ = r.(Refuser)
	n.known.Store(&map[packet.Addr]*neighbour{})
	return n
}

// lookup returns the link address of a neighbour that has answered. An old
// answer is used while it is asked for again.
func (n *neighbours) lookup(a *packet.Addr, now int64) ([6]byte, bool) {
	e := (*n.known.Load())[*a]
	if e == nil {
		return [6]byte{}, false
	}
	if at := e.refreshAt.Load(); now >= at && e.refreshAt.CompareAndSwap(at, now+int64(resolveTime)) {
		n.ask(*a)
	}
	return unpackMAC(e.mac.Load()), true
}

// hold keeps a copy of p, complete but without a link header, until its next
// hop has answered, or drops and counts it. The first packet asks.
func (n *neighbours) hold(a packet.Addr, p *Out, now int64) {
	if len(p.Bytes) > packet.SmallSize-packet.Headroom {
		// A superpacket would be a lot of memory; flows begin with small packets.
		n.count.drop(DropNeighbourQueue, segments(&p.GSO, len(p.Bytes)))
		return
	}
	n.mu.Lock()
	q, ask, why := n.questionLocked(a, now)
	if q == nil {
		n.mu.Unlock()
		n.count.drop(why, 1)
		if why == DropUnreachable && n.refuser != nil {
			n.refuser.Unanswered(bufferOf(p))
		}
		return
	}
	if len(q.queue) == maxQueued {
		// The oldest goes: it is the one whose sender has given up first.
		q.queue[0].Release()
		q.queue = append(q.queue[:0], q.queue[1:]...)
		n.count.drop(DropNeighbourQueue, 1)
	}
	q.queue = append(q.queue, bufferOf(p))
	n.mu.Unlock()
	if ask {
		n.ask(a)
	}
}

// questionLocked returns the question that is open for a, and whether it is to
// be put now; nil and the reason if there is to be none.
func (n *neighbours) questionLocked(a packet.Addr, now int64) (q *question, ask bool, why Drop) {
	if n.closed {
		return nil, false, DropLinkDown
	}
	q = n.asked[a]
	switch {
	case q != nil && now < q.until && q.silent:
		return nil, false, DropUnreachable
	case q != nil && now < q.until:
		return q, false, 0
	case q != nil && !q.silent: // the resolver has lost it
		q.until = now + int64(resolveTime)
		return q, true, 0
	}
	if n.waiting >= maxWaiting {
		n.sweep(now)
	}
	if n.waiting >= maxWaiting {
		return nil, false, DropNeighbours
	}
	q = &question{until: now + int64(resolveTime)}
	n.asked[a] = q
	n.waiting++
	return q, true, 0
}

// bufferOf copies p, which is borrowed.
func bufferOf(p *Out) *packet.Buffer {
	b := packet.Get(len(p.Bytes))
	copy(b.Bytes, p.Bytes)
	b.GSO = p.GSO
	if p.Info != nil {
		b.Info = *p.Info
	}
	return b
}

// ask puts the question, without the lock since the answer may come at once.
func (n *neighbours) ask(a packet.Addr) {
	mac, ok := n.resolver.Resolve(a.Netip(), func(mac [6]byte, ok bool) { n.answer(a, mac, ok) })
	if ok {
		n.answer(a, mac, true)
	}
}

// answer takes what the resolver found out.
func (n *neighbours) answer(a packet.Addr, mac [6]byte, ok bool) {
	now := n.clock()
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return
	}
	q := n.asked[a]
	var queue []*packet.Buffer
	if q != nil {
		queue, q.queue = q.queue, nil
		if !q.silent {
			n.waiting--
		}
		delete(n.asked, a)
	}
	if ok {
		n.learnLocked(a, mac, now)
	} else {
		n.forgetLocked(a)
		n.silenceLocked(a, now)
	}
	n.mu.Unlock()
	switch {
	case len(queue) == 0:
	case ok:
		n.send(queue, mac)
	default:
		n.refuse(queue)
	}
}

// refuse gives up packets whose next hop does not answer.
func (n *neighbours) refuse(queue []*packet.Buffer) {
	n.count.drop(DropUnreachable, len(queue))
	if n.refuser == nil {
		release(queue)
		return
	}
	for _, b := range queue {
		n.refuser.Unanswered(b)
	}
}

// update corrects the address of a neighbour that is known, from what it
// announced itself: a host that moved, a router that took over.
func (n *neighbours) update(a packet.Addr, mac [6]byte) {
	if e := (*n.known.Load())[a]; e != nil && mac[0]&1 == 0 && mac != [6]byte{} {
		e.mac.Store(packMAC(mac))
	}
}

func (n *neighbours) learnLocked(a packet.Addr, mac [6]byte, now int64) {
	known := *n.known.Load()
	e := known[a]
	if e == nil {
		e = new(neighbour)
		e.mac.Store(packMAC(mac))
		e.refreshAt.Store(now + int64(neighbourFresh))
		grown := maps.Clone(known)
		if len(grown) >= maxNeighbours {
			evict(grown)
		}
		grown[a] = e
		n.known.Store(&grown)
		return
	}
	e.mac.Store(packMAC(mac))
	e.refreshAt.Store(now + int64(neighbourFresh))
}

// evict removes the neighbour of a few that has been unused for longest: one in
// use is asked for again and again, which moves its time on.
func evict(known map[packet.Addr]*neighbour) {
	var victim packet.Addr
	oldest, seen := int64(0), 0
	for a, e := range known {
		if at := e.refreshAt.Load(); seen == 0 || at < oldest {
			victim, oldest = a, at
		}
		if seen++; seen == 16 {
			break
		}
	}
	delete(known, victim)
}

func (n *neighbours) forgetLocked(a packet.Addr) {
	known := *n.known.Load()
	if known[a] == nil {
		return
	}
	shrunk := maps.Clone(known)
	delete(shrunk, a)
	n.known.Store(&shrunk)
}

// silenceLocked remembers that a does not answer.
func (n *neighbours) silenceLocked(a packet.Addr, now int64) {
	if len(n.asked)-n.waiting >= maxSilent {
		for other, q := range n.asked {
			if q.silent {
				delete(n.asked, other)
				break
			}
		}
	}
	n.asked[a] = &question{silent: true, until: now + int64(silentTime)}
}

// sweep gives up questions that the resolver never answered, and forgets
// neighbours whose silence has been long enough.
func (n *neighbours) sweep(now int64) {
	if now < n.nextSweep {
		return
	}
	n.nextSweep = now + int64(sweepEvery)
	for a, q := range n.asked {
		if now < q.until {
			continue
		}
		if !q.silent {
			n.waiting--
			n.refuse(q.queue)
		}
		delete(n.asked, a)
	}
}

// close releases what waits.
func (n *neighbours) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, q := range n.asked {
		release(q.queue)
	}
	clear(n.asked)
	n.waiting = 0
}

func release(queue []*packet.Buffer) {
	for _, b := range queue {
		b.Release()
	}
}

func packMAC(m [6]byte) uint64 {
	return uint64(m[0])<<40 | uint64(m[1])<<32 | uint64(m[2])<<24 | uint64(m[3])<<16 | uint64(m[4])<<8 | uint64(m[5])
}

func unpackMAC(v uint64) [6]byte {
	return [6]byte{byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}
