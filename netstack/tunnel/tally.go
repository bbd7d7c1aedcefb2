package tunnel

import (
	"sync"
	"sync/atomic"
)

// Tally is what came in for one of our sessions, or for all sessions of a
// peer. The difference Received - Delivered is what the device refused:
// duplicates, replays, and forgeries that guessed the index. (Briefly it is
// also what is being decrypted.)
type Tally struct {
	Received   uint64 // transport messages but keepalives, as they arrived
	Keepalives uint64 // of 32 bytes, as they arrived
	Delivered  uint64 // packets given to the Handler
}

func (a Tally) plus(b Tally) Tally {
	return Tally{a.Received + b.Received, a.Keepalives + b.Keepalives, a.Delivered + b.Delivered}
}

const (
	// looseIndexes bounds the indexes whose peer is not known yet: each
	// handshake message that we send makes one.
	looseIndexes = 4096
	// peerIndexes is how many sessions of a peer can be alive: the current
	// one, the previous one and the next.
	peerIndexes = 3
)

// index counts for one session of ours.
type index struct {
	receiver                        uint32
	peer                            atomic.Pointer[Peer]
	received, keepalives, delivered atomic.Uint64
}

func (x *index) tally() Tally {
	return Tally{x.received.Load(), x.keepalives.Load(), x.delivered.Load()}
}

// indexTable knows our receiver indexes, from the handshake messages that we
// sent, and through the first authenticated packet their peers.
type indexTable struct {
	mu    sync.RWMutex
	m     map[uint32]*index
	loose []uint32 // ring of the last registered ones
	next  int
}

func (x *indexTable) init() {
	x.m = make(map[uint32]*index)
}

// register notes an index of ours. The oldest that never got a peer goes.
func (x *indexTable) register(receiver uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.m[receiver] != nil {
		return
	}
	x.m[receiver] = &index{receiver: receiver}
	if len(x.loose) < looseIndexes {
		x.loose = append(x.loose, receiver)
		return
	}
	old := x.loose[x.next]
	x.loose[x.next] = receiver
	x.next = (x.next + 1) % looseIndexes
	if e := x.m[old]; e != nil && e.peer.Load() == nil {
		delete(x.m, old)
	}
}

func (x *indexTable) lookup(receiver uint32) *index {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.m[receiver]
}

// assign ties an index to p, and folds the oldest of p's into its total.
func (x *indexTable) assign(receiver uint32, p *Peer) *index {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.m[receiver]
	if e == nil {
		e = &index{receiver: receiver}
		x.m[receiver] = e
	}
	if e.peer.Load() == nil {
		e.peer.Store(p)
		p.indexes = append(p.indexes, e)
		if len(p.indexes) > peerIndexes {
			p.folded = p.folded.plus(p.indexes[0].tally())
			delete(x.m, p.indexes[0].receiver)
			p.indexes = append(p.indexes[:0], p.indexes[1:]...)
		}
	}
	return e
}

// release forgets the indexes of p.
func (x *indexTable) release(p *Peer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range p.indexes {
		p.folded = p.folded.plus(e.tally())
		delete(x.m, e.receiver)
	}
	p.indexes = nil
}

func (x *indexTable) total(p *Peer) Tally {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t := p.folded
	for _, e := range p.indexes {
		t = t.plus(e.tally())
	}
	return t
}

// tallyRun collects the counts of consecutive messages of one session, so that
// the shared counters are touched once.
type tallyRun struct {
	receiver                        uint32
	at                              *index
	received, keepalives, delivered uint64
}

func (r *tallyRun) start(receiver uint32, at *index) {
	r.flush()
	*r = tallyRun{receiver: receiver, at: at}
}

func (r *tallyRun) flush() {
	if r.at == nil {
		return
	}
	if r.received > 0 {
		r.at.received.Add(r.received)
	}
	if r.keepalives > 0 {
		r.at.keepalives.Add(r.keepalives)
	}
	if r.delivered > 0 {
		r.at.delivered.Add(r.delivered)
	}
	r.received, r.keepalives, r.delivered = 0, 0, 0
}

// deliver counts a decrypted packet, and finds its peer: by the session, or
// the first time by the packet's source, which the device has checked.
func (t *Tunnel) deliver(run *tallyRun, receiver uint32, pkt []byte) *Peer {
	if run.at == nil || run.receiver != receiver {
		at := t.meter.index.lookup(receiver)
		if at == nil || at.peer.Load() == nil {
			p := t.peerBySource(pkt)
			if p == nil {
				return nil // removed just now
			}
			at = t.meter.index.assign(receiver, p)
		}
		run.start(receiver, at)
		p := at.peer.Load()
		if !p.heard.Swap(true) {
			t.queue.confirmed(p, false)
		}
	}
	run.delivered++
	return run.at.peer.Load()
}

// SessionTally reads the counts of one session, by its Inbound.Receiver. ok is
// false for one that is over, or unknown.
func (t *Tunnel) SessionTally(receiver uint32) (tally Tally, ok bool) {
	if at := t.meter.index.lookup(receiver); at != nil {
		return at.tally(), true
	}
	return Tally{}, false
}
