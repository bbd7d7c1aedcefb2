package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// Forward takes what is new in a store on to somewhere else. Its methods may be
// called concurrently.
type Forward interface {
	// From is the time, Unix ms, from which on it wants what is new; ok is false
	// while it wants nothing.
	From() (ms int64, ok bool)
	// Put takes a batch. It is called before the store has it, so that nothing is
	// in the store that was never put, whatever ends the process; what comes twice
	// may be put twice. An error is counted, and the store goes on. The batch is
	// borrowed until Put returns.
	Put(ctx context.Context, b Batch) error
}

// forwardPart is how many samples of imported blocks are put at once.
const forwardPart = 4096

// forwarding reports whether anything is to be put, and from which time on.
func (s *Store) forwarding() (from int64, ok bool) {
	if s.options.Forward == nil {
		return 0, false
	}
	return s.options.Forward.From()
}

// forward puts a settled batch, without what is known to have been put. s.mu is
// held, and let go while the batch is on its way.
func (s *Store) forward(ctx context.Context, b *Batch) {
	from, ok := s.forwarding()
	if !ok {
		return
	}
	f := Batch{Site: b.Site, At: b.At}
	for i := range b.Samples {
		if sm := &b.Samples[i]; sm.At >= from && !s.heads[sm.Series].holds(sm.At) {
			f.Samples = append(f.Samples, *sm)
		}
	}
	f.Flows, f.Events = s.forwarded.filter(from, b.Flows, b.Events)
	s.mu.Unlock()
	defer s.mu.Lock()
	s.put(ctx, &f)
}

func (s *Store) put(ctx context.Context, b *Batch) {
	if len(b.Samples)+len(b.Flows)+len(b.Events) == 0 {
		return
	}
	if err := s.options.Forward.Put(ctx, *b); err != nil {
		s.counts.unforwarded.Add(1)
		s.options.Log.Debug("batch was not forwarded", "site", b.Site, "err", err)
	}
}

// holds reports whether a sample of a time is in memory: the rows of an open
// block are in order of time, and what is not newer than the newest is left out.
func (h *head) holds(at int64) bool {
	if h == nil {
		return false
	}
	hour := floor(at, hourMs)
	for _, o := range h.open {
		if o.start == hour && o.newest() >= at {
			return true
		}
	}
	return false
}

// news gathers what an import brings that was never put.
type news struct {
	s     *Store
	site  string
	from  int64
	batch Batch
	w     sealer
}

func (n *news) record(r *Record, old []byte) {
	switch r.Kind {
	case KindBlock:
		n.block(r, old)
	case KindFlows:
		var flows []FlowRecord
		if n.s.pack.unseal(r.Key, r.Value, &flows) == nil {
			fresh, _ := n.s.forwarded.filter(n.from, flows, nil)
			n.batch.Flows = append(n.batch.Flows, fresh...)
		}
	case KindEvent:
		var e Event
		if old == nil && n.s.pack.unseal(r.Key, r.Value, &e) == nil {
			_, fresh := n.s.forwarded.filter(n.from, nil, []Event{e})
			n.batch.Events = append(n.batch.Events, fresh...)
		}
	}
	if len(n.batch.Samples)+len(n.batch.Flows) >= forwardPart {
		n.put()
	}
}

// block adds the rows of a raw block that are neither in the block that is here
// nor in memory. What cannot be read is for Import to refuse.
func (n *news) block(r *Record, old []byte) {
	id, err := parseBlockKey(r.Key)
	if err != nil || id.Tier != Raw || id.Start+hourMs <= n.from {
		return
	}
	have := map[int64]bool{}
	note := func(value []byte) {
		if stored, err := decodeBlock(n.w.stored[:0], id, value); err == nil && n.w.load(&n.w.old, stored, rawColumns) == nil {
			for i := range n.w.old.n {
				have[n.w.old.cols[0][i]] = true
			}
		}
	}
	if old != nil {
		note(old)
	}
	n.s.mu.Lock()
	if h := n.s.heads[id.Series]; h != nil {
		for _, o := range h.open {
			if o.start != id.Start {
				continue
			}
			copied := o.snapshot()
			copied.pack(&n.w.coder, &n.w.part)
			if n.w.load(&n.w.old, copied.chunks, rawColumns) == nil {
				for i := range n.w.old.n {
					have[n.w.old.cols[0][i]] = true
				}
			}
		}
	}
	n.s.mu.Unlock()
	chunks, err := decodeBlock(n.w.chunks[:0], id, r.Value)
	if err != nil || n.w.load(&n.w.rows, chunks, rawColumns) != nil {
		return
	}
	for i := range n.w.rows.n {
		if at := n.w.rows.cols[0][i]; at >= n.from && !have[at] {
			n.batch.Samples = append(n.batch.Samples, SeriesSample{id.Series, n.w.rows.sample(i)})
		}
	}
}

// put passes on what was gathered.
func (n *news) put() {
	n.batch.Site = n.site
	for i := range n.batch.Samples {
		n.batch.At = max(n.batch.At, n.batch.Samples[i].At)
	}
	for i := range n.batch.Flows {
		n.batch.At = max(n.batch.At, n.batch.Flows[i].At)
	}
	for i := range n.batch.Events {
		n.batch.At = max(n.batch.At, n.batch.Events[i].At)
	}
	n.s.put(context.Background(), &n.batch)
	n.batch = Batch{}
}

// forwardedMost bounds what is remembered of flow records and events that were
// put: 24 octets each. One that is forgotten may be put twice.
const forwardedMost = 1 << 17

// forwardedSet remembers which flow records and events were put.
type forwardedSet struct {
	mu   sync.Mutex
	set  map[uint64]struct{}
	ring []uint64
	next int
}

// filter takes what is older than from, or was put, out of a batch, and
// remembers the rest.
func (f *forwardedSet) filter(from int64, flows []FlowRecord, events []Event) (freshFlows []FlowRecord, freshEvents []Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range flows {
		r := &flows[i]
		if r.At >= from && f.add(fmt.Sprintf("f\x00%s\x00%s\x00%d\x00%s", r.Site, r.ID, r.At, r.Change)) {
			freshFlows = append(freshFlows, *r)
		}
	}
	for i := range events {
		e := &events[i]
		if e.At >= from && f.add("e\x00"+e.Site+"\x00"+e.ID) {
			freshEvents = append(freshEvents, *e)
		}
	}
	return freshFlows, freshEvents
}

func (f *forwardedSet) add(name string) bool {
	h := xxhash.Sum64String(name)
	if _, ok := f.set[h]; ok {
		return false
	}
	if f.set == nil {
		f.set = map[uint64]struct{}{}
	}
	if len(f.ring) < forwardedMost {
		f.ring = append(f.ring, h)
	} else {
		delete(f.set, f.ring[f.next])
		f.ring[f.next] = h
		f.next = (f.next + 1) % forwardedMost
	}
	f.set[h] = struct{}{}
	return true
}
