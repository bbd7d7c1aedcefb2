package probe

import (
	"math/bits"
	"sync/atomic"
)

// The window that remembers which counters have arrived, bits. WireGuard's own
// replay window is 8128: nothing later than that is delivered.
const (
	windowBits  = 1 << 16
	windowWords = windowBits / 64
	// reach is how far the window tells counters apart, whatever their place
	// within a word.
	reach = windowBits - 64
	// attachMax is the highest first counter of a session that is taken for a
	// late start with losses; above, the receiver was attached to a running
	// session and what came before is not its business.
	attachMax = 1024
)

// InBandStats are the receiver's cumulative counts of one path.
type InBandStats struct {
	// Received packets; keepalives are not among them.
	Received uint64 `json:"received"`
	// Missing counters: gaps that no packet has filled and no keepalive
	// explains. It falls again when a late packet arrives.
	Missing uint64 `json:"missing"`
	// Reordered packets came after one with a higher counter (RFC 4737, 3.3).
	Reordered uint64 `json:"reordered"`
	// Duplicates that the transport refused.
	Duplicates uint64 `json:"duplicates"`
}

// InBand counts loss and reordering of a path's packets by the counter that
// WireGuard gives each transport packet. One goroutine, the one that receives
// the path's packets, calls Observe, Publish and Stats; any other may call
// Snapshot, Keepalive and Duplicate.
type InBand struct {
	cur, prev session
	received  uint64
	reordered uint64
	gone      uint64 // counters that left the windows without having arrived
	again     uint64 // duplicates seen by Observe

	keepalives, duplicates atomic.Uint64

	// seq is odd while pub is being written (a seqlock).
	seq atomic.Uint64
	pub [4]atomic.Uint64
}

// session is one WireGuard session's window. Two are kept, since packets of the
// last one may arrive after the first of the next.
type session struct {
	index uint32
	live  bool
	next  uint64 // highest counter seen, plus 1
	open  uint64 // counters within the window that have not arrived
	words []uint64
}

// NewInBand returns a counter; it holds 16 kB.
func NewInBand() *InBand {
	return &InBand{
		cur:  session{words: make([]uint64, windowWords)},
		prev: session{words: make([]uint64, windowWords)},
	}
}

// Observe counts one data packet by its receiver index and counter. Owner only;
// it does not allocate.
func (r *InBand) Observe(receiverIndex uint32, counter uint64) {
	s := &r.cur
	if s.index != receiverIndex || !s.live {
		s = r.session(receiverIndex, counter)
	}
	if counter == s.next { // in order
		s.next++
		r.received++
		w := &s.words[counter/64%windowWords]
		if counter%64 == 0 {
			r.evict(s, w)
		}
		*w |= 1 << (counter % 64)
		return
	}
	r.outOfOrder(s, counter)
}

func (r *InBand) outOfOrder(s *session, counter uint64) {
	w := &s.words[counter/64%windowWords]
	bit := uint64(1) << (counter % 64)
	switch {
	case counter >= s.next+reach:
		r.jump(s, counter)
		r.received++
	case counter >= s.next: // a gap opens
		r.advance(s, counter)
		r.received++
	case counter+reach < s.next: // long given up
		r.received++
		r.reordered++
		r.gone -= min(r.gone, 1)
	case *w&bit != 0:
		r.again++
	default:
		*w |= bit
		s.open--
		r.received++
		r.reordered++
	}
}

// advance moves the window up to counter, less than reach ahead, and marks it.
func (r *InBand) advance(s *session, counter uint64) {
	for c := (s.next + 63) / 64 * 64; c <= counter; c += 64 {
		r.evict(s, &s.words[c/64%windowWords])
	}
	s.open += counter - s.next
	s.words[counter/64%windowWords] |= 1 << (counter % 64)
	s.next = counter + 1
}

// jump gives up everything before counter.
func (r *InBand) jump(s *session, counter uint64) {
	r.gone += s.open + counter - s.next
	s.begin(counter)
	s.words[counter/64%windowWords] |= 1 << (counter % 64)
	s.next = counter + 1
}

// begin sets the window so that counter is the next one and none is missing.
func (s *session) begin(counter uint64) {
	for i := range s.words {
		s.words[i] = ^uint64(0)
	}
	s.words[counter/64%windowWords] = 1<<(counter%64) - 1
	s.next, s.open = counter, 0
}

// evict reuses the oldest word; what has not arrived of it never will.
func (r *InBand) evict(s *session, w *uint64) {
	n := min(uint64(64-bits.OnesCount64(*w)), s.open)
	s.open -= n
	r.gone += n
	*w = 0
}

// session finds or begins the window of a session that is not the current one.
func (r *InBand) session(index uint32, counter uint64) *session {
	if r.prev.live && r.prev.index == index {
		return &r.prev
	}
	r.gone += r.prev.open
	r.prev, r.cur = r.cur, r.prev
	s := &r.cur
	s.index, s.live = index, true
	if counter <= attachMax {
		s.begin(0)
	} else {
		s.begin(counter)
	}
	return s
}

// Keepalive tells of n empty transport packets, which use up counters but are
// not delivered.
func (r *InBand) Keepalive(n uint64) { r.keepalives.Add(n) }

// Duplicate tells of n packets that the transport refused as replayed.
func (r *InBand) Duplicate(n uint64) { r.duplicates.Add(n) }

// Stats are the counts up to the last Observe. Owner only.
func (r *InBand) Stats() InBandStats {
	missing := r.gone + r.cur.open + r.prev.open
	missing -= min(missing, r.keepalives.Load())
	return InBandStats{
		Received: r.received, Missing: missing, Reordered: r.reordered,
		Duplicates: r.again + r.duplicates.Load(),
	}
}

// Publish makes the counts visible to Snapshot: once a batch. Owner only.
func (r *InBand) Publish() {
	s := r.Stats()
	r.seq.Add(1)
	r.pub[0].Store(s.Received)
	r.pub[1].Store(s.Missing)
	r.pub[2].Store(s.Reordered)
	r.pub[3].Store(s.Duplicates)
	r.seq.Add(1)
}

// Snapshot are the counts of the last Publish, consistent with each other. It
// is safe for concurrent use.
func (r *InBand) Snapshot() InBandStats {
	for {
		seq := r.seq.Load()
		s := InBandStats{
			Received: r.pub[0].Load(), Missing: r.pub[1].Load(),
			Reordered: r.pub[2].Load(), Duplicates: r.pub[3].Load(),
		}
		if seq&1 == 0 && r.seq.Load() == seq {
			return s
		}
	}
}
