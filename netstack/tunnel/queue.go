package tunnel

import (
	"sync"
	"time"

	"patronus/netstack/packet"
)

// The bands of the queue. Control goes before everything; Voice goes before
// Rest, which keeps a quarter of each batch (of 4 and more); Rest is shared between the peers
// by bytes (surplus round robin).
const (
	Control uint8 = iota
	Voice
	Rest
	bands
)

const (
	// stagedPackets is how many packets of a peer without a session the device
	// may hold, each in a buffer of 64 KB (Decision 1).
	stagedPackets = 8
	// stagedTotal bounds the same over all peers.
	stagedTotal = 512
	// sessionWait is how long a packet waits for a session: for longer than it
	// takes the device to repeat an initiation that was lost (5 to 5.3 s).
	sessionWait = 7 * time.Second
	// stallAfter: a peer whose packets went into the device and did not come
	// out for this long has no session any more.
	stallAfter = time.Second
	// quantum is what a peer may send in Rest before others have their turn:
	// about one UDP GSO message.
	quantum = 64 << 10
	// pressedAt is how many superpackets may be ready for the device before
	// whoever reads more of them is asked to wait: see Tunnel.Await.
	pressedAt = 8
)

type limits struct {
	peer, device int // bytes
	flight       int // packets of a peer between Read and Bind.Send
}

// queue is what waits in front of tun.Device.Read. push is called by anybody,
// plan by the device's reading goroutine only.
type queue struct {
	limits
	wake      chan struct{} // capacity 1: Read sleeps on it
	attention chan struct{} // capacity 1: some peer is blocked; Run sleeps on it
	relief    chan struct{} // capacity 1: not pressed any more; readers sleep on it

	// reading is held while planned buffers are copied. Whoever releases
	// queued buffers takes it before mu.
	reading sync.Mutex

	mu       sync.Mutex
	lists    [bands]list
	bytes    int
	supers   int // superpackets of peers that are not blocked
	awaiting int // readers that sleep on relief
	staged   int // packets of peers without a session in the device
	blocked  []*Peer
	sleeping bool
	up       bool // the device is; before, it would drop what it reads
	closed   bool
	now      int64 // of the plan being made
}

// entry is a queued buffer.
type entry struct {
	b     *packet.Buffer
	at    int64 // Options.Now
	probe bool
}

// lane is what one peer has queued in one band.
type lane struct {
	p      *Peer
	ring   ring
	credit int  // bytes
	listed bool // in the band's list
	next   *lane
	// seg is the segmenter of a superpacket at the head that did not fit into
	// the last batch. Only the reading goroutine uses it.
	seg   packet.Segmenter
	begun bool
}

// flight is a peer's account in the queue, guarded by queue.mu.
type flight struct {
	lanes   [bands]lane
	bytes   int
	supers  int   // superpackets queued
	packets int   // in the device, between Read and Bind.Send
	staged  int   // of these, placed while not open
	open    bool  // a session is known to exist
	shutAt  int64 // wall clock ns since when it is not open
	movedAt int64 // Options.Now when packets last came out, or first went in
	blocked bool
	noted   bool // in queue.blocked
	removed bool
}

func newQueue(l limits) *queue {
	return &queue{limits: l, wake: make(chan struct{}, 1), attention: make(chan struct{}, 1), relief: make(chan struct{}, 1)}
}

// push appends e. It reports false, and leaves e with the caller, if there is
// no room.
func (q *queue) push(p *Peer, band uint8, e entry) bool {
	size := e.b.Cap()
	q.mu.Lock()
	f := &p.flight
	if q.closed || f.removed || !q.admits(f, band, size) {
		q.mu.Unlock()
		return false
	}
	f.bytes += size
	q.bytes += size
	if e.b.GSO.Size > 0 {
		q.count(f, 1)
	}
	l := &f.lanes[band]
	l.ring.push(e)
	if !f.blocked && !l.listed {
		l.listed = true
		q.lists[band].push(l)
	}
	q.rouse()
	q.mu.Unlock()
	return true
}

// admits decides by bytes. Rest leaves an eighth to the other bands.
func (q *queue) admits(f *flight, band uint8, size int) bool {
	peer, dev := q.peer, q.device
	if !f.open {
		peer, dev = peer/8, dev/2
	}
	if band == Rest {
		peer, dev = peer-peer/8, dev-dev/8
	}
	// A peer's first buffer always fits into its own share.
	return (f.bytes == 0 || f.bytes+size <= peer) && q.bytes+size <= dev
}

// start lets Read have packets.
func (q *queue) start() {
	q.mu.Lock()
	q.up = true
	q.rouse()
	q.mu.Unlock()
}

// rouse wakes Read. The caller holds mu.
func (q *queue) rouse() {
	if q.sleeping {
		q.sleeping = false
		notify(q.wake)
	}
}

// job is one planned buffer: take segments of it go into the batch.
type job struct {
	l    *lane
	e    entry
	seg  packet.Segmenter
	take int
	last bool // the buffer is finished and leaves the queue
}

// plan decides what goes into the next slots buffers. Without anything to do
// it returns no jobs and puts Read to sleep. The caller holds reading.
func (q *queue) plan(jobs []job, slots int, now int64) ([]job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.now = now
	if q.closed {
		return jobs, false
	}
	for band := 0; band < len(q.lists) && q.up; band++ {
		share := slots
		if band == int(Voice) && q.lists[Rest].head != nil {
			share = slots - slots/4
		}
		slots -= share
		jobs, share = q.serve(jobs, &q.lists[band], band == int(Rest), share)
		slots += share
	}
	q.sleeping = len(jobs) == 0
	if q.awaiting > 0 && q.supers < pressedAt/2 {
		notify(q.relief)
	}
	return jobs, true
}

// serve fills up to slots from one band and returns how many are left.
func (q *queue) serve(jobs []job, from *list, fair bool, slots int) ([]job, int) {
	for slots > 0 && from.head != nil {
		l := from.head
		if l.ring.n == 0 {
			l.listed = false
			from.pop()
			continue
		}
		may := q.allowance(&l.p.flight)
		if may <= 0 {
			l.listed = false
			from.pop()
			q.block(l.p)
			continue
		}
		if fair && l.credit <= 0 {
			l.credit += quantum
			from.rotate()
			continue
		}
		j, ok := q.take(l, min(may, slots))
		if ok {
			jobs = append(jobs, j)
			slots -= j.take
		}
	}
	return jobs, slots
}

// take plans up to n segments of the buffer at the head of l.
func (q *queue) take(l *lane, n int) (job, bool) {
	f := &l.p.flight
	e := l.ring.front()
	j := job{l: l, e: *e}
	if l.begun {
		j.seg = l.seg
	} else {
		j.seg.Reset(e.b)
	}
	if j.seg.Left() == 0 {
		l.p.count.malformed.Add(1)
		q.forget(l, e)
		e.b.Release()
		l.ring.pop()
		return j, false
	}
	j.take = min(n, j.seg.Left())
	j.last = j.take == j.seg.Left()
	l.begun = !j.last
	l.credit -= j.take * j.seg.Len()
	if f.packets == 0 {
		f.movedAt = q.now
	}
	f.packets += j.take
	if !f.open {
		f.staged += j.take
		q.staged += j.take
	}
	if j.last {
		q.forget(l, e)
		l.ring.pop()
	}
	return j, true
}

// allowance is how many packets of the peer may enter the device now.
func (q *queue) allowance(f *flight) int {
	if f.open {
		return q.flight - f.packets
	}
	return min(stagedPackets-f.packets, stagedTotal-q.staged)
}

// block takes the peer out of the lists until credits come back.
func (q *queue) block(p *Peer) {
	if p.flight.blocked {
		return
	}
	p.flight.blocked = true
	q.supers -= p.flight.supers
	if !p.flight.noted {
		p.flight.noted = true
		q.blocked = append(q.blocked, p)
	}
	notify(q.attention)
}

// unblock puts the peer's lanes back into the lists. A stale entry may stay in
// q.blocked; keep drops it.
func (q *queue) unblock(p *Peer) {
	f := &p.flight
	q.clear(f)
	for band := range f.lanes {
		if l := &f.lanes[band]; l.ring.n > 0 && !l.listed && !f.removed {
			l.listed = true
			q.lists[band].push(l)
		}
	}
	q.rouse()
}

// sent takes back the credits of n packets that came out of the device, which
// proves that the peer has a session.
func (q *queue) sent(p *Peer, n int, now int64) {
	q.mu.Lock()
	f := &p.flight
	f.packets = max(0, f.packets-n)
	f.movedAt = now
	q.confirm(f)
	if f.blocked && q.allowance(f) > 0 {
		q.unblock(p)
	}
	q.mu.Unlock()
}

// void takes back the credits of n planned packets that were not placed.
func (q *queue) void(p *Peer, n int) {
	q.mu.Lock()
	f := &p.flight
	f.packets = max(0, f.packets-n)
	if !f.open {
		n = min(n, f.staged)
		f.staged -= n
		q.staged -= n
	}
	q.mu.Unlock()
}

// confirm notes a session. The caller holds mu.
func (q *queue) confirm(f *flight) {
	if !f.open {
		f.open = true
		q.staged -= f.staged
		f.staged = 0
	}
}

// confirmed notes a session that is known by other means than sent. reset says
// that nothing the peer has in the device will come out any more.
func (q *queue) confirmed(p *Peer, reset bool) {
	q.mu.Lock()
	q.confirm(&p.flight)
	if reset {
		p.flight.packets = 0
	}
	if p.flight.blocked && q.allowance(&p.flight) > 0 {
		q.unblock(p)
	}
	q.mu.Unlock()
}

// forget takes e's bytes off the accounts.
func (q *queue) forget(l *lane, e *entry) {
	size := e.b.Cap()
	l.p.flight.bytes -= size
	q.bytes -= size
	if e.b.GSO.Size > 0 {
		q.count(&l.p.flight, -1)
	}
}

// count adds n to the peer's superpackets.
func (q *queue) count(f *flight, n int) {
	f.supers += n
	if !f.blocked {
		q.supers += n
	}
}

// clear ends a peer's being blocked.
func (q *queue) clear(f *flight) {
	if f.blocked {
		f.blocked = false
		q.supers += f.supers
	}
}

// pressed reports whether the device has superpackets enough before it.
func (q *queue) pressed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.supers >= pressedAt
}

// await sleeps until the device has caught up, or expired fires.
func (q *queue) await(expired <-chan time.Time) {
	q.mu.Lock()
	if q.supers < pressedAt || q.closed {
		q.mu.Unlock()
		return
	}
	q.awaiting++
	q.mu.Unlock()
	select {
	case <-q.relief:
	case <-expired:
	}
	q.mu.Lock()
	q.awaiting--
	if q.awaiting > 0 && q.supers < pressedAt/2 {
		notify(q.relief) // to the next one
	}
	q.mu.Unlock()
}

// remove drops everything queued for p, for good.
func (q *queue) remove(p *Peer) {
	q.reading.Lock()
	defer q.reading.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	f := &p.flight
	f.removed = true
	q.staged -= f.staged
	f.staged, f.packets = 0, 0
	for band := range f.lanes {
		q.drop(&f.lanes[band], func(*entry) bool { return true })
	}
}

// drop releases entries from the head of l while cond holds, and counts them.
// The caller holds reading and mu.
func (q *queue) drop(l *lane, cond func(*entry) bool) (n uint64) {
	for l.ring.n > 0 && cond(l.ring.front()) {
		e := l.ring.front()
		q.forget(l, e)
		e.b.Release()
		l.ring.pop()
		l.begun = false
		n++
	}
	return n
}

// close drops what is queued and ends Read.
func (q *queue) close() {
	q.reading.Lock()
	defer q.reading.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	notify(q.wake)
	notify(q.relief)
	for band := range q.lists {
		for l := q.lists[band].head; l != nil; l = l.next {
			q.drop(l, func(*entry) bool { return true })
		}
	}
	for _, p := range q.blocked {
		for band := range p.flight.lanes {
			q.drop(&p.flight.lanes[band], func(*entry) bool { return true })
		}
	}
}

// notify puts a token into a channel of capacity 1.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
