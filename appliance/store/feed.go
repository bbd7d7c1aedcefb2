package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Head is the newest sequence number of the change feed, 0 if it is empty.
func (s *Store) Head() uint64 { return s.base.head.Load() }

// Records lists the change feed from sequence number from to to, both
// included, at most limit records (0: 1,000), and less than 8 MiB of them or
// one. Numbers have gaps: what was written anew, or retired, is listed under
// its newest number or not at all. A damaged record is left out and counted.
func (s *Store) Records(from, to uint64, newestFirst bool, limit int) ([]Record, error) {
	if limit <= 0 {
		limit = 1000
	}
	type item struct {
		seq uint64
		key []byte
	}
	var items []item
	start := feedKey(from)
	if newestFirst {
		start = feedKey(min(to, s.Head()))
	}
	err := s.base.scan([]byte{kindFeed}, start, newestFirst, func(key, sealed []byte) bool {
		if len(key) != 9 {
			return true
		}
		seq := binary.BigEndian.Uint64(key[1:])
		if newestFirst && seq < from || !newestFirst && seq > to {
			return false
		}
		if seq < from || seq > to {
			return true
		}
		of, err := unseal(key, sealed)
		if err != nil {
			s.base.damaged.Add(1)
			return true
		}
		items = append(items, item{seq, bytes.Clone(of)})
		return len(items) < limit
	})
	if err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	out := make([]Record, 0, len(items))
	size := 0
	for _, it := range items {
		if len(it.key) == 0 {
			continue
		}
		value, err := s.base.copySealed(nil, it.key)
		if errors.Is(err, ErrNotFound) {
			continue // retired
		}
		if err == nil {
			_, err = unseal(it.key, value)
		}
		if errors.Is(err, ErrDamaged) {
			s.base.damaged.Add(1)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("records: %w", err)
		}
		if size += len(value); size > maxRecords && len(out) > 0 {
			break
		}
		out = append(out, Record{Seq: it.seq, Kind: Kind(it.key[0]), Key: it.key, Value: value})
	}
	return out, nil
}

// maxRecords is how many bytes of values Records gives at once.
const maxRecords = 8 << 20

// Import stores records of another store, and the cursor in the transaction of
// the last of them: it never says more than what is there. Records that are
// there already are skipped. All records must be of the site that they came
// from ([ErrForeign]) and whole ([ErrDamaged]), or none is stored; the
// acknowledgement of an event may come from anywhere. A sealed block takes the
// place of one that was made here from the live tail. A nil cursor leaves the
// old one.
func (s *Store) Import(site string, recs []Record, cursor []byte) error {
	s.sealing.Lock()
	defer s.sealing.Unlock()
	var w sealer
	entries := make([]entry, 0, len(recs)+1)
	var blocks []importedBlock
	from, forwarding := s.forwarding()
	fresh := news{s: s, site: site, from: from}
	for i := range recs {
		r := &recs[i]
		of, err := siteOf(r.Kind, r.Key)
		if err != nil {
			return fmt.Errorf("import from %.80q: %w: %w", site, ErrDamaged, err)
		}
		if of != site && r.Kind != KindAck {
			return fmt.Errorf("import from %.80q: %w: %.80q", site, ErrForeign, of)
		}
		if _, err := unseal(r.Key, r.Value); err != nil {
			return fmt.Errorf("import from %.80q: %w", site, err)
		}
		old, err := s.base.copySealed(nil, r.Key)
		if err == nil && (bytes.Equal(old, r.Value) || r.Kind == KindAck) {
			continue
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("import from %.80q: %w", site, err)
		}
		if forwarding {
			fresh.record(r, old)
		}
		if r.Kind == KindBlock {
			b, err := s.importBlock(&w, r, old)
			if err != nil {
				return fmt.Errorf("import from %.80q: %w", site, err)
			}
			blocks = append(blocks, b)
		}
		entries = append(entries, entry{key: bytes.Clone(r.Key), value: bytes.Clone(r.Value)})
	}
	fresh.put()
	if cursor != nil {
		key := cursorKey(site)
		entries = append(entries, entry{key: key, value: seal(key, bytes.Clone(cursor))})
	}
	if err := s.putBlocks(entries, &w.fresh, &w.late); err != nil {
		return fmt.Errorf("import from %.80q: %w", site, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range blocks {
		s.imported(&w, &blocks[i])
	}
	return nil
}

// importedBlock is what memory must know of a block that was imported.
type importedBlock struct {
	id          BlockID
	last        Sample
	first, upTo int64
}

// importBlock checks a block to its last column, and counts what is new in it.
func (s *Store) importBlock(w *sealer, r *Record, old []byte) (importedBlock, error) {
	id, err := parseBlockKey(r.Key)
	if err != nil {
		return importedBlock{}, err
	}
	chunks, err := decodeBlock(w.chunks[:0], id, r.Value)
	if err != nil {
		return importedBlock{}, err
	}
	w.chunks = chunks
	if err := w.load(&w.rows, chunks, id.Tier.columnsOf()); err != nil {
		return importedBlock{}, errors.Join(damaged(r.Key), err)
	}
	b := importedBlock{id: id}
	if w.rows.n == 0 {
		return b, nil
	}
	b.first, b.upTo = w.rows.cols[0][0], w.rows.cols[0][w.rows.n-1]
	if id.Tier != Raw {
		return b, nil
	}
	if b.first < id.Start || b.upTo >= id.Start+hourMs {
		return importedBlock{}, fmt.Errorf("%w: it has rows outside of its hour", damaged(r.Key))
	}
	b.last = w.rows.sample(w.rows.n - 1)
	if !s.options.Dashboard {
		return b, nil
	}
	stored, err := decodeBlock(w.stored[:0], id, old)
	if err == nil && w.load(&w.old, stored, rawColumns) == nil {
		both, added := mergeGrids(&w.old, &w.rows)
		if added == nil {
			added = []int{}
		}
		w.late.add(nil, &both, added)
	} else {
		w.fresh.add(bytes.Clone(r.Key), &w.rows, nil)
	}
	return b, nil
}

// imported brings memory up to a block that is in the base now: rows of its
// hour that the live tail brought are not needed any more.
func (s *Store) imported(w *sealer, b *importedBlock) {
	h := s.head(&b.id.Series)
	if b.first != 0 {
		s.extend(b.first, b.upTo)
	}
	if b.id.Tier != Raw {
		return
	}
	if b.last.At > h.last.At || !h.seen {
		h.last, h.seen = b.last, b.last.At != 0
	}
	if s.own(b.id.Site) {
		return
	}
	kept := h.open[:0]
	for _, o := range h.open {
		if o.start != b.id.Start || o.sealing {
			kept = append(kept, o)
			continue
		}
		if s.live.on {
			var d fleetDelta
			copied := o.snapshot()
			copied.pack(&s.coder, &s.grid)
			if w.load(&w.rows, copied.chunks, rawColumns) == nil {
				d.add(nil, &w.rows, nil)
			}
			s.live.subtract(&d)
		}
	}
	clear(h.open[len(kept):])
	h.open = kept
}

// Cursor is what the last [Store.Import] of a site brought, nil if none did.
func (s *Store) Cursor(site string) ([]byte, error) {
	v, err := s.base.get(cursorKey(site))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cursor of %.80q: %w", site, err)
	}
	return v, nil
}

// tail is one reader of what is appended: a bounded ring.
type tail struct {
	site string
	mu   sync.Mutex
	ring []Batch
	more chan struct{} // has room for one
}

// tailBatches is how many batches wait for a slow reader.
const tailBatches = 256

// pass gives a batch to the tails. s.mu is held.
func (s *Store) pass(b *Batch) {
	copied := false
	for t := range s.tails {
		if t.site != "" && t.site != b.Site {
			continue
		}
		if !copied {
			c := *b
			c.Samples, c.Flows, c.Events, c.Changes = slices.Clone(b.Samples), slices.Clone(b.Flows), slices.Clone(b.Events), slices.Clone(b.Changes)
			b, copied = &c, true
		}
		t.mu.Lock()
		if len(t.ring) == tailBatches {
			t.ring = slices.Delete(t.ring, 0, 1)
			s.counts.tailDropped.Add(1)
		}
		t.ring = append(t.ring, *b)
		t.mu.Unlock()
		select {
		case t.more <- struct{}{}:
		default:
		}
	}
}

// Tail passes batches of a site on as they are appended, in order, until ctx
// ends; the empty site is all. Times are on the timeline, events have their
// ids. A slow f loses the oldest batches, counted in [Stats]. Batches are
// shared between tails: f must not change them.
func (s *Store) Tail(ctx context.Context, site string, f func(Batch)) error {
	t := &tail{site: site, more: make(chan struct{}, 1)}
	s.mu.Lock()
	s.tails[t] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.tails, t)
		s.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.more:
		}
		t.mu.Lock()
		ring := t.ring
		t.ring = nil
		t.mu.Unlock()
		for i := range ring {
			if ctx.Err() != nil {
				return nil
			}
			f(ring[i])
		}
	}
}
