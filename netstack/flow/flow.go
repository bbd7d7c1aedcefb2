package flow

import (
	"sync/atomic"

	"patronus/netstack/packet"
)

// granule is how exactly a flow's last packet is timed, ns. Writing the time
// of every packet would make the line that all lookups read bounce between
// the cores.
const granule = 1 << 20

// Flow is one conversation, both directions. It is safe for concurrent use.
//
// Its two cache lines are laid out by who touches them: a lookup reads the
// first, counting writes the second.
type Flow struct {
	key     packet.Key    // as the first packet had it; never changes
	binding atomic.Uint64 // Binding
	seen    atomic.Int64
	state   atomic.Uint32 // State and its flags
	loc     uint32        // index slot: bucket<<3 | slot; never changes once linked

	counts  [2]counts // from the originator, from the responder
	created int64
	record  atomic.Pointer[Record]
	table   *Table
	moves   atomic.Uint32
	_       uint32
}

type counts struct{ packets, bytes atomic.Uint64 }

func newFlow(t *Table, k *packet.Key, now int64, size int, flags uint8) *Flow {
	f := &Flow{key: *k, table: t, created: now}
	f.seen.Store(now)
	f.state.Store(firstState(k.Proto, flags))
	f.counts[0].packets.Store(1)
	f.counts[0].bytes.Store(uint64(size))
	return f
}

// Key is the key of the conversation's first packet.
func (f *Flow) Key() packet.Key { return f.key }

// Hash is the same for both directions and as random as the table's seed: for
// spreading flows over equal paths.
func (f *Flow) Hash() uint64 { return f.table.seeds.hash(&f.key) }

// Forward reports whether k, one of the flow's two keys, is the direction of
// its first packet.
func (f *Flow) Forward(k *packet.Key) bool { return Same(k, &f.key) }

// State is how far the conversation has come.
func (f *Flow) State() State { return State(f.state.Load() & stateMask) }

// Replied reports whether a packet from the responder was seen.
func (f *Flow) Replied() bool { return f.state.Load()&replied != 0 }

// Reopens reports whether a packet with these TCP flags starts a new
// conversation under the key of this one, which is over: a SYN after both
// FINs, or after a reset. The engine then goes on as if the lookup had found
// nothing; [Table.Insert] replaces the flow.
func (f *Flow) Reopens(flags uint8) bool {
	if flags&(syn|ack|rst) != syn {
		return false
	}
	s := f.State()
	return s == Closed || s == Closing
}

// Observe counts a run of packets of one direction: their number, their bytes
// (IP packets, header included) and the TCP flags of all of them or-ed
// together (0 for other protocols).
func (f *Flow) Observe(forward bool, packets, bytes int, flags uint8, now int64) {
	c := &f.counts[0]
	if !forward {
		c = &f.counts[1]
	}
	c.packets.Add(uint64(packets))
	c.bytes.Add(uint64(bytes))
	if now-f.seen.Load() >= granule {
		f.seen.Store(now)
	}
	if w := f.state.Load(); !settled(w, forward, flags) {
		f.advance(w, forward, flags)
	}
}

func (f *Flow) advance(w uint32, forward bool, flags uint8) {
	for {
		next := advance(w, forward, flags)
		if next == w {
			return
		}
		if f.state.CompareAndSwap(w, next) {
			f.table.recount(f, w, next)
			return
		}
		w = f.state.Load()
	}
}

// Binding is what was decided last, or 0.
func (f *Flow) Binding() Binding { return Binding(f.binding.Load()) }

// Bind keeps a decision. The first one reports Started, one that moves it from
// one path to another Moved, one with another verdict Rejudged, to the table's sink, so call
// [Flow.SetRecord] before. Of two goroutines that decide at once the last one
// stays: if it had the older rules, the flow's next packet finds that out and
// decides again. Each change is reported once, whoever made it.
func (f *Flow) Bind(b Binding) {
	old := Binding(f.binding.Swap(uint64(b)))
	w := f.state.Load()
	if w&started == 0 {
		w = f.state.Or(started)
	}
	switch {
	case w&ended != 0:
	case w&started == 0:
		f.table.emit(Event{Kind: Started, View: f.View()})
	case old.Verdict() != b.Verdict():
		f.table.emit(Event{Kind: Rejudged, From: old, View: f.View()})
	case old.Path() != b.Path() && old.Path() != NoPath && b.Path() != NoPath:
		f.moves.Add(1)
		f.table.emit(Event{Kind: Moved, From: old, View: f.View()})
	}
}

// Record is why the flow was bound as it is, or nil. It is immutable.
func (f *Flow) Record() *Record { return f.record.Load() }

// SetRecord keeps r, which must not change any more.
func (f *Flow) SetRecord(r *Record) { f.record.Store(r) }

// View is the flow as it is now.
func (f *Flow) View() View {
	w := f.state.Load()
	return View{
		Key: f.key, State: State(w & stateMask), Replied: w&replied != 0,
		Binding: f.Binding(), Record: f.record.Load(), Moves: f.moves.Load(),
		Created: f.created, Seen: f.seen.Load(),
		Forward: f.counts[0].load(), Reverse: f.counts[1].load(),
	}
}

func (c *counts) load() Counts {
	return Counts{Packets: c.packets.Load(), Bytes: c.bytes.Load()}
}
