package store

import (
	"errors"
	"fmt"
)

// job is an open block that is being sealed.
type job struct {
	head *head
	open *openBlock
}

const (
	// graceMs is how long after its hour a block waits for late samples.
	graceMs = 10_000
	// foreignGraceMs is how long the block of another site waits: the site's own
	// sealed block, which takes its place, is better.
	foreignGraceMs = 10 * minuteMs
	// sealBatch is how many blocks are written together.
	sealBatch = 64
)

// sealer has the scratch space of sealing.
type sealer struct {
	coder          columnCoder
	roller         roller
	rows, old      grid
	minute, hour   grid
	part, day      grid
	chunks, stored []chunk
	entries        []entry
	sequences      []uint64
	// Of this batch: rows that go from memory to the base, rows that leave memory
	// for a block that is there already, and those of them that are new in it.
	fresh, opened, late fleetDelta
}

// ripe lists the open blocks whose hour was over at now, and marks them.
func (s *Store) ripe(now int64) []job {
	s.mu.Lock()
	defer s.mu.Unlock()
	var jobs []job
	for _, h := range s.ids[1:] {
		grace := int64(graceMs)
		if !s.own(h.series.Site) {
			grace = foreignGraceMs
		}
		for _, o := range h.open {
			end := o.start + hourMs
			// A series that has gone on to another hour is not late.
			if end+grace <= now || h.last.At >= end+grace || h.last.At < o.start {
				o.sealing = true
				jobs = append(jobs, job{h, o})
			}
		}
	}
	s.ended = 0
	return jobs
}

// sealBlocks writes the blocks whose hour was over at now, with their rollups.
func (s *Store) sealBlocks(now int64) error {
	jobs := s.ripe(now)
	var w sealer
	done := 0
	for done < len(jobs) {
		n := min(sealBatch, len(jobs)-done)
		if err := s.sealSome(&w, jobs[done:done+n]); err != nil {
			s.mu.Lock()
			for _, j := range jobs[done:] {
				j.open.sealing = false
			}
			s.mu.Unlock()
			return fmt.Errorf("seal: %w", err)
		}
		done += n
	}
	return nil
}

// sealSome writes some blocks in one transaction, and forgets the open ones.
func (s *Store) sealSome(w *sealer, jobs []job) error {
	w.entries = w.entries[:0]
	w.fresh, w.opened, w.late = fleetDelta{}, fleetDelta{}, fleetDelta{}
	w.sequences = make([]uint64, len(jobs))
	for i, j := range jobs {
		if err := s.sealOne(w, j, &w.sequences[i]); err != nil {
			return err
		}
	}
	if err := s.putBlocks(w.entries, &w.fresh, &w.late); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live.subtract(&w.fresh)
	s.live.subtract(&w.opened)
	for i, j := range jobs {
		if w.sequences[i] != 0 {
			j.head.hourSeq = w.sequences[i]
		}
		kept := j.head.open[:0]
		for _, o := range j.head.open {
			if o != j.open {
				kept = append(kept, o)
			}
		}
		clear(j.head.open[len(kept):])
		j.head.open = kept
	}
	return nil
}

// sealOne adds the entries of one block. The open block does not change: it is
// marked.
func (s *Store) sealOne(w *sealer, j job, hourSeq *uint64) error {
	id := BlockID{j.head.series, Raw, j.open.start}
	w.chunks = append(w.chunks[:0], j.open.chunks...)
	if j.open.n > 0 {
		unpackRows(&w.part, j.open.start, j.open.n, j.open.rows)
		w.chunks = append(w.chunks, w.coder.newChunk(&w.part, 0, w.part.n))
	}
	if err := w.load(&w.rows, w.chunks, rawColumns); err != nil {
		return err
	}
	key := id.key()
	err := s.base.view(key, func(v []byte) error {
		stored, err := decodeChunks(w.stored[:0], id, v)
		if err != nil {
			return err
		}
		return w.load(&w.old, stored, rawColumns)
	})
	switch {
	case err == nil:
		if s.options.Dashboard {
			w.opened.add(nil, &w.rows, nil)
		}
		var added []int
		var both grid
		both, added = mergeGrids(&w.old, &w.rows)
		if len(added) == 0 {
			return nil // read back from the log, and sealed before
		}
		w.rows = both
		w.chunks = w.cut(w.chunks[:0], &w.rows)
		if s.options.Dashboard {
			w.late.add(nil, &w.rows, added)
		}
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrDamaged), errors.Is(err, errBlock):
		if s.options.Dashboard {
			w.fresh.add(key, &w.rows, nil)
		}
	default:
		return err
	}
	feed := s.own(j.head.series.Site)
	w.entries = append(w.entries, entry{key: key, value: encodeBlock(id, w.chunks), feed: feed})
	return s.sealRollups(w, j, feed, hourSeq)
}

// sealRollups adds the entries of the minute and the hour tier for w.rows.
func (s *Store) sealRollups(w *sealer, j job, feed bool, hourSeq *uint64) error {
	w.roller.roll(&w.minute, &w.rows, minuteMs)
	id := BlockID{j.head.series, Minute, j.open.start}
	w.chunks = w.cut(w.chunks[:0], &w.minute)
	w.entries = append(w.entries, entry{key: id.key(), value: encodeBlock(id, w.chunks), feed: feed})

	w.roller.roll(&w.hour, &w.rows, hourMs)
	id = BlockID{j.head.series, Hour, floor(j.open.start, dayMs)}
	key := id.key()
	all := &w.hour
	// Two hours of a day may be sealed in one batch: the day is then in the
	// entries, not in the base yet.
	for i := len(w.entries) - 1; i >= 0; i-- {
		e := &w.entries[i]
		if string(e.key) == string(key) {
			day, err := w.withHour(id, e.value[:len(e.value)-sumSize])
			if err != nil {
				return err
			}
			w.chunks = w.cut(w.chunks[:0], day)
			e.value = encodeBlock(id, w.chunks)
			return nil
		}
	}
	err := s.base.view(key, func(v []byte) error {
		day, err := w.withHour(id, v)
		if err == nil {
			all = day
		}
		return err
	})
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) && !errors.Is(err, errBlock) {
		return err
	}
	w.chunks = w.cut(w.chunks[:0], all)
	w.entries = append(w.entries, entry{key: key, value: encodeBlock(id, w.chunks), feed: feed, old: j.head.hourSeq, seq: hourSeq})
	return nil
}

// withHour is a stored day with w.hour in it.
func (w *sealer) withHour(id BlockID, stored []byte) (*grid, error) {
	chunks, err := decodeChunks(w.stored[:0], id, stored)
	if err != nil {
		return nil, err
	}
	if err := w.load(&w.old, chunks, rollupColumns); err != nil {
		return nil, err
	}
	both, _ := mergeGrids(&w.hour, &w.old)
	w.day = both
	return &w.day, nil
}

// load decodes chunks into g, one after the other.
func (w *sealer) load(g *grid, chunks []chunk, columns int) error {
	n := 0
	for i := range chunks {
		n += chunks[i].n
	}
	g.resize(columns, n)
	at := 0
	for i := range chunks {
		if err := chunks[i].decode(&w.part, columns); err != nil {
			return err
		}
		for c := range g.cols {
			copy(g.cols[c][at:], w.part.cols[c])
		}
		at += chunks[i].n
	}
	return nil
}

// cut codes g as chunks, appended to dst.
func (w *sealer) cut(dst []chunk, g *grid) []chunk {
	for at := 0; at < g.n; at += maxChunk {
		dst = append(dst, w.coder.newChunk(g, at, min(at+maxChunk, g.n)))
	}
	return dst
}
