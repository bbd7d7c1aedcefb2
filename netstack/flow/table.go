package flow

import (
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"patronus/netstack/packet"
)

// Defaults of [Options].
const (
	DefaultMax       = 1 << 16
	DefaultTCPIdle   = 2 * time.Hour // a little less than RFC 5382, REQ-5: a flow that is picked up again is judged again
	DefaultTCPClosed = 10 * time.Second
	DefaultUDPIdle   = 180 * time.Second // RFC 4787, REQ-5: at least 2 min
	DefaultICMPIdle  = 30 * time.Second
)

// Time-outs that are not options.
const (
	halfOpenIdle = 30 * time.Second
	oneWayIdle   = 30 * time.Second
	adoptedIdle  = 60 * time.Second
	finWaitIdle  = 4 * time.Minute // RFC 5382, REQ-5: transitory connections
	closingIdle  = 30 * time.Second
)

// Options of a [Table]. Zero fields mean the defaults.
type Options struct {
	// Max is the most flows the table ever holds.
	Max int
	// Shards is the number of mutexes for inserting and removing, rounded up
	// to a power of two. The default gives each at least 4096 flows, up to 16.
	Shards int
	// TCPIdle is for established connections, UDPIdle for answered
	// conversations of every protocol but TCP and ICMP.
	TCPIdle, TCPClosed, UDPIdle, ICMPIdle time.Duration
	// Seed makes the hash, and so the choice of victims, repeatable; 0 draws one.
	Seed uint64
	// Sink receives the events, in the goroutine that caused them and outside
	// of all locks. It must not block. Events of one flow that happen at once in
	// two goroutines may arrive in either order.
	Sink func(Event)
}

// Table is the bounded set of live flows. It is safe for concurrent use.
type Table struct {
	// Read by every lookup, never written after New.
	buckets    []bucket
	mask       uint32 // len(buckets)-1
	shardMask  uint32 // buckets of one shard - 1
	shardShift uint8
	seeds      seeds
	max        int64
	idle       [states]int64
	icmpIdle   int64
	sink       func(Event)
	shards     []shard

	_    [64]byte // what follows is written by every insert
	live atomic.Int64
	// established counts those flows of worth established.
	established atomic.Int64
	stats       stats
	cursor      atomic.Uint32 // bucket at which Expire goes on
}

// shard guards a range of buckets against other writers.
type shard struct {
	mu    sync.Mutex
	first uint32 // bucket
	hand  uint32 // offset of the bucket at which the search for a victim goes on
	_     [48]byte
}

type stats struct{ created, evicted, evictedEstablished, expired, replaced, removed atomic.Uint64 }

// Counters count since New, except for Live and Established: as many flows are
// in the table now.
type Counters struct {
	Live, Established int
	Created           uint64
	// Evicted flows made room for others; EvictedEstablished are those of them
	// that were established: a sign that the table is too small.
	Evicted, EvictedEstablished uint64
	Expired, Replaced, Removed  uint64
}

// New makes a table. Its index is allocated at once, 64 bytes for every 2.5 to
// 5 flows of Max; a flow takes 128 bytes while it lives.
func New(o Options) *Table {
	if o.Max <= 0 {
		o.Max = DefaultMax
	}
	n := ceilPow2(uint32((o.Max + bucketFill - 1) / bucketFill))
	if o.Shards <= 0 {
		o.Shards = min(16, max(1, o.Max/4096))
	}
	shards := min(ceilPow2(uint32(o.Shards)), max(1, n/maxProbe))
	t := &Table{
		buckets: make([]bucket, n), mask: n - 1, shardMask: n/shards - 1,
		shardShift: uint8(bits.TrailingZeros32(n / shards)),
		seeds:      newSeeds(o.Seed), max: int64(o.Max), sink: o.Sink,
		shards:   make([]shard, shards),
		icmpIdle: int64(or(o.ICMPIdle, DefaultICMPIdle)),
	}
	for i := range t.shards {
		t.shards[i].first = uint32(i) << t.shardShift
	}
	t.idle = [states]int64{
		OneWay: int64(oneWayIdle), TwoWay: int64(or(o.UDPIdle, DefaultUDPIdle)),
		SynSent: int64(halfOpenIdle), SynReceived: int64(halfOpenIdle),
		Established: int64(or(o.TCPIdle, DefaultTCPIdle)), FinWait: int64(finWaitIdle),
		Closing: int64(closingIdle), Closed: int64(or(o.TCPClosed, DefaultTCPClosed)),
		Adopted: int64(adoptedIdle),
	}
	return t
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

func ceilPow2(n uint32) uint32 { return 1 << bits.Len32(max(n, 1)-1) }

// Lookup finds the flow of a packet, in either direction, or nil. It takes no
// lock and allocates nothing.
func (t *Table) Lookup(k *packet.Key) (f *Flow, forward bool) {
	return t.find(k, t.seeds.hash(k))
}

// Insert adds the flow whose first packet this is, with its size in bytes and
// its TCP flags, and counts that packet. If another goroutine was faster, its
// flow is returned and the packet counted there: ask [Flow.Forward] for the
// direction. A flow that the packet [Flow.Reopens] is replaced.
//
// If the table is full, one of a small sample of flows has to go: a closed
// one; else, if a quarter of the table or more is not established (half-open,
// one-way, pings), the longest silent of those; else the longest silent of all.
// So a scan cannot drive established flows out of three quarters of the table,
// and idle connections cannot keep new ones out of the last quarter.
func (t *Table) Insert(k *packet.Key, now int64, size int, flags uint8) (f *Flow, fresh bool) {
	h := t.seeds.hash(k)
	if f, forward := t.find(k, h); f != nil && !f.Reopens(flags) {
		f.Observe(forward, 1, size, flags, now)
		return f, false
	}
	f = newFlow(t, k, now, size, flags)
	sh := t.shardOf(h)
	var replaced, displaced *Flow
	for reserved := false; ; {
		sh.mu.Lock()
		old, forward := t.find(k, h)
		if old != nil && !old.Reopens(flags) {
			sh.mu.Unlock()
			if reserved {
				t.live.Add(-1)
			}
			old.Observe(forward, 1, size, flags, now)
			return old, false
		}
		if old == nil && !reserved && !t.reserve() {
			sh.mu.Unlock()
			t.makeRoom(sh, now)
			reserved = true
			continue
		}
		if old != nil {
			t.unlink(old)
			replaced = old
			if reserved {
				t.live.Add(-1)
			}
		}
		displaced = t.link(f, h, now)
		sh.mu.Unlock()
		break
	}
	t.stats.created.Add(1)
	if replaced != nil {
		t.end(replaced, Replaced)
	}
	if displaced != nil {
		t.live.Add(-1)
		t.end(displaced, Evicted)
	}
	return f, true
}

// Remove ends the flow of k, either direction, and reports whether there was one.
func (t *Table) Remove(k *packet.Key) bool {
	h := t.seeds.hash(k)
	sh := t.shardOf(h)
	sh.mu.Lock()
	f, _ := t.find(k, h)
	if f != nil {
		t.unlink(f)
	}
	sh.mu.Unlock()
	if f == nil {
		return false
	}
	t.live.Add(-1)
	t.end(f, Removed)
	return true
}

// All yields the live flows in no order, without holding a lock: one that
// lives throughout is yielded exactly once, one that comes or goes meanwhile at
// most once.
func (t *Table) All() iter.Seq[View] {
	return func(yield func(View) bool) {
		for i := range t.buckets {
			for f := range t.buckets[i].all() {
				if !yield(f.View()) {
					return
				}
			}
		}
	}
}

// Len is the number of live flows, never more than Options.Max.
func (t *Table) Len() int { return int(t.live.Load()) }

// Counters reads the counters, one by one.
func (t *Table) Counters() Counters {
	s := &t.stats
	return Counters{
		Live: t.Len(), Established: int(t.established.Load()),
		Created: s.created.Load(), Evicted: s.evicted.Load(), EvictedEstablished: s.evictedEstablished.Load(),
		Expired: s.expired.Load(), Replaced: s.replaced.Load(), Removed: s.removed.Load(),
	}
}

// end counts and reports a flow that was unlinked. The caller holds no lock.
func (t *Table) end(f *Flow, why End) {
	w := f.state.Or(ended)
	whole := worthOf(w, f.key.Proto) == established
	if whole {
		t.established.Add(-1)
	}
	switch why {
	case Evicted:
		t.stats.evicted.Add(1)
		if whole {
			t.stats.evictedEstablished.Add(1)
		}
	case Idle:
		t.stats.expired.Add(1)
	case Replaced:
		t.stats.replaced.Add(1)
	case Removed:
		t.stats.removed.Add(1)
	case NotEnded:
	}
	if w&started != 0 {
		t.emit(Event{Kind: Ended, End: why, View: f.View()})
	}
}

// recount follows f from one state word to the next.
func (t *Table) recount(f *Flow, from, to uint32) {
	if from&ended != 0 {
		return // end has settled its account
	}
	was, is := worthOf(from, f.key.Proto) == established, worthOf(to, f.key.Proto) == established
	switch {
	case is && !was:
		t.established.Add(1)
	case was && !is:
		t.established.Add(-1)
	}
}

func (t *Table) emit(e Event) {
	if t.sink != nil {
		t.sink(e)
	}
}
