package flow

import (
	"iter"
	"math/bits"
	"sync/atomic"

	"patronus/netstack/packet"
)

// The index is an open hash table of buckets of one cache line. A reader takes
// no lock: it finds candidates by their tags and compares the key in the flow
// itself, which never changes. A flow is never moved to another slot, so a
// reader cannot miss one that is there. Writers hold the shard's mutex.

const (
	bucketSlots = 7
	bucketFill  = 5 // slots in use per bucket at Max, on average, at most
	// maxProbe bounds a lookup and an insertion, whatever keys somebody thinks of.
	maxProbe = 8
)

// Bytes 0..6 of ctrl are the tags of the slots, 0 for a free one. Byte 7
// counts the flows that passed by because the bucket was full: while it is 0 a
// lookup ends here. At 255 it stays.
type bucket struct {
	ctrl  atomic.Uint64
	flows [bucketSlots]atomic.Pointer[Flow]
}

const (
	ones       = 0x0001010101010101 // lowest bit of each tag
	highs      = ones << 7
	passedOne  = 1 << 56
	passedMask = 0xff << 56
)

// home is the bucket at which the search for a hash begins, and its tag.
func (t *Table) home(h uint64) (at uint32, tag uint64) {
	return uint32(h>>32) & t.mask, max(h&0xff, 1)
}

// next is the bucket after at, within its shard.
func (t *Table) next(at uint32) uint32 {
	return at&^t.shardMask | (at+1)&t.shardMask
}

func (t *Table) shardOf(h uint64) *shard {
	at, _ := t.home(h)
	return &t.shards[at>>t.shardShift]
}

// find is the search that [Table.Lookup] describes.
func (t *Table) find(k *packet.Key, h uint64) (f *Flow, forward bool) {
	at, tag := t.home(h)
	tags := tag * ones
	for range maxProbe {
		b := &t.buckets[at]
		ctrl := b.ctrl.Load()
		// A zero byte of x is a tag that matches. The borrow may mark a byte
		// above one that does; the key decides.
		x := ctrl ^ tags
		for m := (x - ones) &^ x & highs; m != 0; m &= m - 1 {
			f := b.flows[bits.TrailingZeros64(m)>>3].Load()
			if f == nil {
				continue
			}
			if Same(k, &f.key) {
				return f, true
			}
			if opposite(k, &f.key) {
				return f, false
			}
		}
		if ctrl&passedMask == 0 {
			break
		}
		at = t.next(at)
	}
	return nil, false
}

// link puts f in the first free slot from its home on. Should maxProbe buckets
// be full, the least worthy flow of the home bucket gives up its slot and is
// returned. The caller holds the shard's mutex and has reserved a place.
func (t *Table) link(f *Flow, h uint64, now int64) (displaced *Flow) {
	home, tag := t.home(h)
	at := home
	for range min(maxProbe, t.shardMask+1) {
		b := &t.buckets[at]
		if i, ok := b.free(); ok {
			for p := home; p != at; p = t.next(p) {
				t.buckets[p].pass(1)
			}
			f.loc = at<<3 | uint32(i)
			b.put(i, f, tag)
			return nil
		}
		at = t.next(at)
	}
	b := &t.buckets[home]
	s := sample{crowd: t.crowd()}
	for c := range b.all() {
		s.add(c, now)
	}
	displaced = s.victim()
	t.unlink(displaced)
	i, _ := b.free()
	f.loc = home<<3 | uint32(i)
	b.put(i, f, tag)
	return displaced
}

// unlink takes f out of the index. The caller holds the shard's mutex and has
// found f under it.
func (t *Table) unlink(f *Flow) {
	at := f.loc >> 3
	t.buckets[at].clear(int(f.loc & 7))
	home, _ := t.home(t.seeds.hash(&f.key))
	for p := home; p != at; p = t.next(p) {
		t.buckets[p].pass(-1)
	}
}

// free finds a free slot.
func (b *bucket) free() (slot int, ok bool) {
	ctrl := b.ctrl.Load()
	m := (ctrl - ones) &^ ctrl & highs // the lowest mark is exact
	return bits.TrailingZeros64(m) >> 3, m != 0
}

// put fills a free slot: the flow first, so that who sees the tag sees the flow.
func (b *bucket) put(slot int, f *Flow, tag uint64) {
	b.flows[slot].Store(f)
	b.ctrl.Store(b.ctrl.Load() | tag<<(8*slot))
}

func (b *bucket) clear(slot int) {
	b.ctrl.Store(b.ctrl.Load() &^ (0xff << (8 * slot)))
	b.flows[slot].Store(nil)
}

// pass counts a flow that went on to a later bucket (1) or has left it (-1).
func (b *bucket) pass(by int64) {
	ctrl := b.ctrl.Load()
	if ctrl&passedMask == passedMask {
		return // no longer known: the bucket stays marked
	}
	b.ctrl.Store(ctrl + uint64(by)*passedOne)
}

// all yields the bucket's flows.
func (b *bucket) all() iter.Seq[*Flow] {
	return func(yield func(*Flow) bool) {
		for i := range b.flows {
			if f := b.flows[i].Load(); f != nil && !yield(f) {
				return
			}
		}
	}
}
