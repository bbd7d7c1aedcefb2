package store

import (
	"errors"
	"iter"
	"slices"
)

// section is part of a series in order of time: chunks, and rows that are not
// packed into one yet.
type section struct {
	start  int64
	chunks []chunk
	rows   []byte
	n      int
	first  int64
	err    error
}

// sections passes a series' raw chunks of a time to f: from the base, hour by
// hour, and from memory. What it passes is borrowed until f returns.
func (s *Store) sections(series Series, from, to int64, f func(*section) bool) {
	s.mu.Lock()
	var open []openBlock
	if h := s.heads[series]; h != nil {
		for _, o := range h.open {
			if o.start < to && o.start+hourMs > from {
				open = append(open, o.snapshot())
			}
		}
	}
	s.mu.Unlock()
	slices.SortStableFunc(open, func(a, b openBlock) int { return int((a.start - b.start) / hourMs) })
	var chunks []chunk
	var value []byte
	from, end := s.bounds(from, to)
	for hour := floor(from, hourMs); hour < end; hour += hourMs {
		id := BlockID{series, Raw, hour}
		more := true
		var err error
		if value, err = s.base.copySealed(value[:0], id.key()); err == nil {
			chunks, err = decodeBlock(chunks[:0], id, value)
		}
		switch {
		case err == nil:
			more = f(&section{start: hour, chunks: chunks})
		case !errors.Is(err, ErrNotFound):
			more = f(&section{start: hour, err: s.note(err)})
		}
		for ; more && len(open) > 0 && open[0].start <= hour; open = open[1:] {
			o := &open[0]
			more = f(&section{start: o.start, chunks: o.chunks, rows: o.rows, n: o.n, first: o.first})
		}
		if !more {
			return
		}
	}
	for i := range open {
		o := &open[i]
		if !f(&section{start: o.start, chunks: o.chunks, rows: o.rows, n: o.n, first: o.first}) {
			return
		}
	}
}

// bounds cuts a stretch of time to where the store has anything.
func (s *Store) bounds(from, to int64) (int64, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(from, s.earliest), min(to, s.latest+1)
}

// note counts an error if it is damage, and returns it.
func (s *Store) note(err error) error {
	if errors.Is(err, ErrDamaged) {
		s.base.damaged.Add(1)
	}
	return err
}

// Samples yields the raw samples of a series from from to to (excluded), Unix
// ms, in order of time. A damaged block yields an error that wraps
// [ErrDamaged]; what follows it is still yielded.
func (s *Store) Samples(series Series, from, to int64) iter.Seq2[Sample, error] {
	return func(yield func(Sample, error) bool) {
		var g grid
		last := int64(-1 << 62)
		s.sections(series, from, to, func(sec *section) bool {
			if sec.err != nil {
				return yield(Sample{}, sec.err)
			}
			for i := range sec.chunks {
				ch := &sec.chunks[i]
				if ch.last < from || ch.first >= to {
					continue
				}
				if err := ch.decode(&g, rawColumns); err != nil {
					if !yield(Sample{}, errors.Join(ErrDamaged, err)) {
						return false
					}
					continue
				}
				if !yieldRows(&g, from, to, &last, yield) {
					return false
				}
			}
			if sec.n > 0 && sec.first < to {
				unpackRows(&g, sec.start, sec.n, sec.rows)
				return yieldRows(&g, from, to, &last, yield)
			}
			return true
		})
	}
}

func yieldRows(g *grid, from, to int64, last *int64, yield func(Sample, error) bool) bool {
	for i, at := range g.cols[0] {
		// The open block may have rows that the sealed one of the same hour has.
		if at < from || at >= to || at <= *last {
			continue
		}
		*last = at
		if !yield(g.sample(i), nil) {
			return false
		}
	}
	return true
}

// Range yields the points of a query in order of time. A damaged block yields
// an error that wraps [ErrDamaged]; what follows it is still yielded. Points of
// steps that are coarser than their tier are merged: their P95 is then the
// greatest of their parts', an upper bound.
func (s *Store) Range(q Query) iter.Seq2[Point, error] {
	return func(yield func(Point, error) bool) {
		if q.Metric >= NumMetrics || q.From >= q.To {
			return
		}
		tier := s.tier(&q)
		m := merger{step: q.Step, scale: q.Metric.Scale(), yield: yield}
		if tier == Raw {
			s.rangeRaw(&q, &m)
		} else {
			s.rangeRollup(&q, tier, &m)
		}
		m.flush()
	}
}

// tier chooses where to read: the coarsest tier that is fine enough, or a
// coarser one where the finer ones were retired already.
func (s *Store) tier(q *Query) Tier {
	if q.Tier != Auto {
		return q.Tier
	}
	now := s.options.Now().UnixMilli()
	t := Raw
	switch {
	case q.Step >= hourMs && q.Step%hourMs == 0:
		t = Hour
	case q.Step >= minuteMs && q.Step%minuteMs == 0:
		t = Minute
	}
	for t < Hour && q.From < now-s.options.Keep.tier(t).Milliseconds() && q.From < now-dayMs {
		t++
	}
	return t
}

// rangeRaw reads one column beside the times.
func (s *Store) rangeRaw(q *Query, m *merger) {
	var at, v [maxChunk]int64
	var coded [rawColumns][]byte
	var g grid
	last := int64(-1 << 62)
	points := func(at, v []int64) bool {
		for i, t := range at {
			if t < q.From || t >= q.To || t <= last {
				continue
			}
			last = t
			if v[i] != missing && !m.add(t, rollup{1, v[i], v[i], v[i], v[i]}) {
				return false
			}
		}
		return true
	}
	s.sections(q.Series, q.From, q.To, func(sec *section) bool {
		if sec.err != nil {
			return m.fail(sec.err)
		}
		for i := range sec.chunks {
			ch := &sec.chunks[i]
			if ch.last < q.From || ch.first >= q.To {
				continue
			}
			err := ch.columns(coded[:])
			if err == nil {
				err = errors.Join(decodeColumn(at[:ch.n], coded[0]), decodeColumn(v[:ch.n], coded[2+q.Metric]))
			}
			if err != nil {
				if !m.fail(errors.Join(ErrDamaged, err)) {
					return false
				}
				continue
			}
			if !points(at[:ch.n], v[:ch.n]) {
				return false
			}
		}
		if sec.n > 0 && sec.first < q.To {
			unpackRows(&g, sec.start, sec.n, sec.rows)
			return points(g.cols[0], g.cols[2+q.Metric])
		}
		return true
	})
}

// rangeRollup reads a rollup tier; what is not sealed yet is rolled up from the
// raw rows.
func (s *Store) rangeRollup(q *Query, tier Tier, m *merger) {
	var at [maxChunk]int64
	var parts [rollupParts][maxChunk]int64
	var coded [rollupColumns][]byte
	var chunks []chunk
	next := q.From // what is before it was yielded
	span := tier.Span()
	from, end := s.bounds(q.From, q.To)
	var value []byte
	for start := floor(from, span); start < end; start += span {
		id := BlockID{q.Series, tier, start}
		var err error
		if value, err = s.base.copySealed(value[:0], id.key()); err == nil {
			chunks, err = decodeBlock(chunks[:0], id, value)
		}
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			if !m.fail(s.note(err)) {
				return
			}
			continue
		}
		for i := range chunks {
			ch := &chunks[i]
			if ch.last < floor(q.From, tier.Step()) || ch.first >= q.To {
				continue
			}
			err := ch.columns(coded[:])
			if err == nil {
				err = decodeColumn(at[:ch.n], coded[0])
			}
			for p := range parts {
				if err == nil {
					err = decodeColumn(parts[p][:ch.n], coded[1+rollupParts*int(q.Metric)+p])
				}
			}
			if err != nil {
				if !m.fail(errors.Join(s.note(damaged(id.key())), err)) {
					return
				}
				continue
			}
			for i, t := range at[:ch.n] {
				if t < floor(q.From, tier.Step()) || t >= q.To {
					continue
				}
				// Rows between what was yielded and t that are not sealed come first.
				if !s.rangeOpen(q, tier, next, t, m) {
					return
				}
				row := [rollupParts]int64{}
				for p := range parts {
					row[p] = parts[p][i]
				}
				if r := rollupOf(&row); r.count > 0 && !m.add(t, r) {
					return
				}
				next = t + tier.Step()
			}
		}
	}
	s.rangeOpen(q, tier, next, q.To, m)
}

// rangeOpen rolls up rows in memory from from to to (excluded).
func (s *Store) rangeOpen(q *Query, tier Tier, from, to int64, m *merger) bool {
	if from >= to {
		return true
	}
	s.mu.Lock()
	var open []openBlock
	if h := s.heads[q.Series]; h != nil {
		for _, o := range h.open {
			if o.start < to && o.newest() >= from {
				open = append(open, o.snapshot())
			}
		}
	}
	s.mu.Unlock()
	if len(open) == 0 {
		return true
	}
	slices.SortStableFunc(open, func(a, b openBlock) int { return int((a.start - b.start) / hourMs) })
	var w sealer
	for i := range open {
		o := &open[i]
		if o.n > 0 {
			o.pack(&w.coder, &w.part)
		}
		if err := w.load(&w.rows, o.chunks, rawColumns); err != nil {
			return m.fail(err)
		}
		w.roller.roll(&w.minute, &w.rows, tier.Step())
		for row, t := range w.minute.cols[0] {
			if t < floor(from, tier.Step()) || t >= to {
				continue
			}
			var parts [rollupParts]int64
			for p := range parts {
				parts[p] = w.minute.cols[1+rollupParts*int(q.Metric)+p][row]
			}
			if r := rollupOf(&parts); r.count > 0 && !m.add(t, r) {
				return false
			}
		}
	}
	return true
}

// merger joins rollups into points of a step.
type merger struct {
	step  int64
	scale float64
	yield func(Point, error) bool
	done  bool

	open  bool
	at    int64
	sum   float64
	total rollup
}

// add takes the next rollup; false: stop.
func (m *merger) add(t int64, r rollup) bool {
	at := t
	if m.step > 0 {
		at = floor(t, m.step)
	}
	if m.open && at == m.at {
		m.total.count += r.count
		m.total.min, m.total.max = min(m.total.min, r.min), max(m.total.max, r.max)
		m.total.p95 = max(m.total.p95, r.p95)
		m.sum += float64(r.mean) * float64(r.count)
		return true
	}
	if !m.flush() {
		return false
	}
	m.open, m.at, m.total, m.sum = true, at, r, float64(r.mean)*float64(r.count)
	return true
}

func (m *merger) flush() bool {
	if m.done || !m.open {
		return !m.done
	}
	m.open = false
	r := &m.total
	return m.give(Point{
		At: m.at, Min: float64(r.min) * m.scale, Max: float64(r.max) * m.scale,
		Mean: m.sum / float64(r.count) * m.scale, P95: float64(r.p95) * m.scale, Count: uint64(r.count),
	}, nil)
}

func (m *merger) fail(err error) bool { return m.flush() && m.give(Point{}, err) }

func (m *merger) give(p Point, err error) bool {
	if !m.done && !m.yield(p, err) {
		m.done = true
	}
	return !m.done
}
