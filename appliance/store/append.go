package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// write places a batch on its timeline, writes it to the log and takes it into
// memory.
func (s *Store) write(ctx context.Context, b *Batch) (lsn uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	s.settle(b)
	if s.options.Forward != nil {
		if s.forward(ctx, b); s.closed {
			return 0, ErrClosed
		}
	}
	s.resolved = s.resolved[:0]
	for i := range b.Samples {
		s.resolved = append(s.resolved, s.head(&b.Samples[i].Series))
	}
	if s.log.file == nil || s.log.size >= logSegment {
		if err := s.log.rotate(); err != nil {
			return 0, err
		}
	}
	s.log.buf, err = appendBatch(s.log.buf[:logHeader], b, definitions{s.resolved, s.log.segment})
	if err != nil {
		return 0, err
	}
	if lsn, err = s.log.write(); err != nil {
		// The definitions in it were not written either.
		for _, h := range s.resolved {
			h.segment = 0
		}
		return 0, err
	}
	s.apply(b, s.resolved, lsn, true)
	s.counts.batches.Add(1)
	s.pass(b)
	return lsn, nil
}

// definitions numbers the series of a batch that is written to a segment.
type definitions struct {
	heads   []*head
	segment uint64
}

func (d definitions) define(i int) (id uint32, known bool) {
	h := d.heads[i]
	known = h.segment == d.segment
	h.segment = d.segment
	return h.id, known
}

// head finds or makes the head of a series.
func (s *Store) head(series *Series) *head {
	h := s.heads[*series]
	if h == nil {
		h = &head{series: *series, id: uint32(len(s.ids))}
		s.heads[*series] = h
		s.ids = append(s.ids, h)
	}
	return h
}

// settle fills in what a batch leaves open: times, on the timeline of the
// site, ids and sites. The caller's slices are copied where they change.
func (s *Store) settle(b *Batch) {
	shift := int64(0)
	if s.own(b.Site) {
		line := s.lines[b.Site]
		if line == nil {
			line = new(timeline)
			s.lines[b.Site] = line
		}
		if len(b.Samples) > 0 {
			at, st, stepped := line.place(b.At)
			if stepped {
				data, _ := json.Marshal(struct {
					By    int64 `json:"clock_moved_ms"`
					Ahead int64 `json:"timeline_ahead_ms"`
				}{st.by, st.ahead})
				b.Events = append(slices.Clone(b.Events), Event{Type: "clock_step", Severity: "warning", At: b.At, Data: data})
			}
			shift = at - b.At
		} else {
			shift = line.ahead
		}
	}
	if shift != 0 {
		b.At += shift
		b.Samples = slices.Clone(b.Samples)
		for i := range b.Samples {
			sm := &b.Samples[i].Sample
			sm.At += shift
			sm.Offset = clampOffset(int64(sm.Offset) + shift)
		}
	}
	if len(b.Events) > 0 {
		b.Events = slices.Clone(b.Events)
		for i := range b.Events {
			s.settleEvent(&b.Events[i], b, shift)
		}
	}
	if len(b.Flows) > 0 {
		b.Flows = slices.Clone(b.Flows)
		for i := range b.Flows {
			f := &b.Flows[i]
			f.Site = b.Site
			if f.At == 0 {
				f.At = b.At
			} else {
				f.At += shift
			}
		}
	}
	if len(b.Changes) > 0 {
		b.Changes = slices.Clone(b.Changes)
		for i := range b.Changes {
			c := &b.Changes[i]
			if c.At == 0 {
				c.At = b.At
			} else {
				c.At += shift
			}
		}
	}
}

func (s *Store) settleEvent(e *Event, b *Batch, shift int64) {
	e.Site = b.Site
	if e.At == 0 {
		e.At = b.At
	} else {
		e.At += shift
	}
	e.Ack = nil
	if e.ID == "" {
		s.eventN++
		d := xxhash.New()
		_, _ = fmt.Fprintf(d, "%s/%d/%s/%d", s.node, s.options.Now().UnixNano(), e.Site, s.eventN)
		e.ID = fmt.Sprintf("%012x%016x", uint64(e.At)&(1<<48-1), d.Sum64())
	}
}

// apply takes a settled batch into memory. heads are those of its samples. rest
// is false for a batch that is read back whose events and flows are in the base.
func (s *Store) apply(b *Batch, heads []*head, lsn uint64, rest bool) {
	own := s.own(b.Site)
	for i := range b.Samples {
		sm := &b.Samples[i].Sample
		h := heads[i]
		o := h.block(sm.At)
		if o == nil {
			s.counts.duplicates.Add(1)
			continue
		}
		if o.lsn == 0 {
			o.lsn = lsn
			if len(h.open) > 1 {
				s.ended++
			}
		}
		o.append(sm, &s.coder, &s.grid)
		if !h.seen || sm.At > h.last.At || own {
			h.last, h.seen = *sm, true
		}
		s.extend(sm.At, sm.At)
		s.live.add(sm)
		s.counts.samples.Add(1)
	}
	if own {
		for i := range b.Flows {
			s.totals.add(&b.Flows[i], lsn)
		}
	}
	if !rest {
		return
	}
	for i := range b.Events {
		s.events = append(s.events, pendingEvent{b.Events[i], lsn})
	}
	if !own {
		return // the site's own flow records and states come by Import
	}
	for i := range b.Flows {
		s.flows = append(s.flows, pendingFlow{b.Flows[i], lsn})
	}
	for i := range b.Changes {
		s.change(b.Site, &b.Changes[i])
	}
}

// extend notes that there are samples from from to to.
func (s *Store) extend(from, to int64) {
	s.earliest, s.latest = min(s.earliest, from), max(s.latest, to)
}

// Last is the newest sample of each series, from memory.
func (s *Store) Last() []SeriesSample {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]SeriesSample, 0, len(s.heads))
	for _, h := range s.ids[1:] {
		if h.seen {
			out = append(out, SeriesSample{h.series, h.last})
		}
	}
	return out
}

// LastOf is the newest sample of one series.
func (s *Store) LastOf(series Series) (Sample, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.heads[series]; h != nil && h.seen {
		return h.last, true
	}
	return Sample{}, false
}

// Series lists the series of a site, of all sites if it is empty, in the order
// in which the store came to know them.
func (s *Store) Series(site string) []Series {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Series, 0, len(s.heads))
	for _, h := range s.ids[1:] {
		if site == "" || site == h.series.Site {
			out = append(out, h.series)
		}
	}
	return out
}
