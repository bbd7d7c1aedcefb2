package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
)

// fleetHour has a sketch of each metric over all series in one hour.
type fleetHour [NumMetrics]hourSketch

func (f *fleetHour) addRow(g *grid, row int) {
	at := g.cols[0][row]
	for m := range f {
		if v := g.cols[2+m][row]; v != missing {
			f[m].add(at, int32(v))
		}
	}
}

// fleetDelta is what some blocks contribute to the sketches, by hour, and which
// blocks those are.
type fleetDelta struct {
	hours  map[int64]*fleetHour
	blocks map[int64][][]byte // by hour; keys
}

// add counts rows of a raw grid of one hour: all, or those listed. The key is
// noted, so that a crash is made good; nil if it cannot be.
func (d *fleetDelta) add(key []byte, g *grid, rows []int) {
	if g.n == 0 {
		return
	}
	hour := floor(g.cols[0][0], hourMs)
	if d.hours == nil {
		d.hours, d.blocks = map[int64]*fleetHour{}, map[int64][][]byte{}
	}
	f := d.hours[hour]
	if f == nil {
		f = new(fleetHour)
		d.hours[hour] = f
	}
	if key != nil {
		d.blocks[hour] = append(d.blocks[hour], key)
	}
	if rows != nil {
		for _, i := range rows {
			f.addRow(g, i)
		}
		return
	}
	at := g.cols[0]
	for m := range f {
		h := &f[m]
		for i, v := range g.cols[2+m] {
			if v != missing {
				h.add(at[i], int32(v))
			}
		}
	}
}

// liveSketches count the samples that are in memory alone. The store's mutex
// guards them.
type liveSketches struct {
	on    bool
	hours map[int64]*fleetHour
}

func (l *liveSketches) add(s *Sample) {
	if !l.on {
		return
	}
	hour := floor(s.At, hourMs)
	f := l.hours[hour]
	if f == nil {
		if l.hours == nil {
			l.hours = map[int64]*fleetHour{}
		}
		f = new(fleetHour)
		l.hours[hour] = f
	}
	minute := (s.At - hour) / minuteMs
	for m, v := range s.V {
		if v != Missing {
			f[m].minutes[minute].add(v)
		}
	}
}

// subtract takes out what is no longer in memory alone.
func (l *liveSketches) subtract(d *fleetDelta) {
	for hour, f := range d.hours {
		live := l.hours[hour]
		if live == nil {
			continue
		}
		total := uint64(0)
		for m := range f {
			for i := range f[m].minutes {
				live[m].minutes[i].subtract(&f[m].minutes[i])
				total += live[m].minutes[i].total
			}
		}
		if total == 0 {
			delete(l.hours, hour)
		}
	}
}

// subtract takes out counts that were added before.
func (s *sketch) subtract(o *sketch) {
	for i, n := range o.counts {
		if at := o.low + i - s.low; at >= 0 && at < len(s.counts) {
			n = min(n, s.counts[at])
			s.counts[at] -= n
			s.total -= uint64(n)
		}
	}
}

// fleetBook has what is in the base's blocks but not in the base's sketches
// yet. Each part is also noted in the base, under a pending key, in the
// transaction of its blocks: after a crash it is counted again from them.
type fleetBook struct {
	mu    sync.Mutex
	hours map[int64]*fleetHour
	notes map[int64][][]byte // by hour: pending keys that the hour accounts for
	next  uint64             // number of the next pending key
}

// putBlocks writes entries, and counts in the sketches what is new: fresh, which
// a crash does not lose, and late, which it may. s.sealing is held.
func (s *Store) putBlocks(entries []entry, fresh, late *fleetDelta) error {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	notes := map[int64][]byte{}
	for hour, keys := range fresh.blocks {
		k := pendingKey(s.fleet.next)
		s.fleet.next++
		b := binary.BigEndian.AppendUint64(nil, uint64(hour))
		for _, key := range keys {
			b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
		}
		entries = append(entries, entry{key: k, value: seal(k, b)})
		notes[hour] = k
	}
	if len(entries) == 0 {
		return nil
	}
	if err := s.base.put(entries); err != nil {
		return err
	}
	s.fleet.merge(fresh.hours)
	s.fleet.merge(late.hours)
	for hour, k := range notes {
		s.fleet.note(hour, k)
	}
	return nil
}

func (b *fleetBook) note(hour int64, key []byte) {
	if b.notes == nil {
		b.notes = map[int64][][]byte{}
	}
	b.notes[hour] = append(b.notes[hour], key)
}

func (b *fleetBook) merge(hours map[int64]*fleetHour) {
	for hour, f := range hours {
		mine := b.hours[hour]
		if mine == nil {
			if b.hours == nil {
				b.hours = map[int64]*fleetHour{}
			}
			b.hours[hour] = f
			continue
		}
		for m := range f {
			for i := range f[m].minutes {
				mine[m].minutes[i].merge(&f[m].minutes[i])
			}
		}
	}
}

// flushFleet brings the sketches of the base up to its blocks.
func (s *Store) flushFleet() error {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	for hour, f := range s.fleet.hours {
		var entries []entry
		for m := range f {
			key := fleetKey(hour, Metric(m))
			err := s.base.view(key, f[m].mergeMinutes)
			if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
				return fmt.Errorf("flush sketches: %w", err)
			}
			if v := f[m].encode(); f[m].hour.total > 0 {
				entries = append(entries, entry{key: key, value: seal(key, v)})
			}
		}
		for _, k := range s.fleet.notes[hour] {
			entries = append(entries, entry{key: k, remove: true})
		}
		if err := s.base.put(entries); err != nil {
			// What was merged in from the base must not be merged twice.
			s.fleet.hours, s.fleet.notes = nil, nil
			return errors.Join(fmt.Errorf("flush sketches: %w", err), s.recount())
		}
		delete(s.fleet.hours, hour)
		delete(s.fleet.notes, hour)
	}
	return nil
}

// recount counts the blocks that pending keys name. s.fleet.mu is held, or
// nobody else has the store yet.
func (s *Store) recount() error {
	type noted struct {
		key  []byte
		hour int64
		keys [][]byte
	}
	var all []noted
	err := s.base.scan([]byte{kindPending}, nil, false, func(key, sealed []byte) bool {
		v, err := unseal(key, sealed)
		if err != nil || len(v) < 8 || len(key) != 9 {
			return true
		}
		n := noted{key: append([]byte(nil), key...), hour: int64(binary.BigEndian.Uint64(v))}
		r := reader{b: append([]byte(nil), v[8:]...)}
		for len(r.b) > 0 && !r.bad {
			n.keys = append(n.keys, r.bytes(r.uvarint()))
		}
		all = append(all, n)
		return true
	})
	if err != nil {
		return fmt.Errorf("count sketches: %w", err)
	}
	var w sealer
	for _, n := range all {
		s.fleet.next = max(s.fleet.next, binary.BigEndian.Uint64(n.key[1:])+1)
		var d fleetDelta
		for _, key := range n.keys {
			id, err := parseBlockKey(key)
			if err != nil || id.Tier != Raw {
				continue
			}
			_ = s.base.view(key, func(v []byte) error {
				chunks, err := decodeChunks(w.stored[:0], id, v)
				if err != nil {
					return err
				}
				if err := w.load(&w.rows, chunks, rawColumns); err != nil {
					return err
				}
				d.add(nil, &w.rows, nil)
				return nil
			})
		}
		s.fleet.merge(d.hours)
		s.fleet.note(n.hour, n.key)
	}
	return nil
}

// FleetQuantile is the p-quantile (0..1, nearest rank) of a metric over all
// samples of all series in each step; the relative error is at most 1 %. Steps
// are whole minutes. A store that is not a dashboard's keeps no sketches and
// computes them.
func (s *Store) FleetQuantile(m Metric, from, to, stepMs int64, p float64) ([]Quantile, error) {
	if m >= NumMetrics || stepMs < minuteMs || stepMs%minuteMs != 0 || !(p >= 0 && p <= 1) {
		return nil, fmt.Errorf("fleet quantile: step %d ms, p %g, metric %d", stepMs, p, m)
	}
	var out []Quantile
	var sum sketch
	at := int64(math.MinInt64)
	emit := func() {
		if sum.total > 0 {
			out = append(out, Quantile{At: at, Value: sum.quantile(p) * m.Scale(), Count: sum.total})
		}
		sum = sketch{}
	}
	collect := func(t int64, sk *sketch) {
		if start := floor(t, stepMs); start != at {
			emit()
			at = start
		}
		sum.merge(sk)
	}
	for hour := floor(from, hourMs); hour < to; hour += hourMs {
		whole := stepMs%hourMs == 0 && hour >= from && hour+hourMs <= to
		h, err := s.fleetHour(hour, m, whole)
		if err != nil {
			return nil, err
		}
		if whole {
			collect(hour, &h.hour)
			continue
		}
		for i := range h.minutes {
			if t := hour + int64(i)*minuteMs; t >= floor(from, minuteMs) && t < to && h.minutes[i].total > 0 {
				collect(t, &h.minutes[i])
			}
		}
	}
	emit()
	return out, nil
}

// fleetHour is the sketch of one metric and hour, from wherever its samples are.
// If whole is set only its hour is filled.
func (s *Store) fleetHour(hour int64, m Metric, whole bool) (*hourSketch, error) {
	h := new(hourSketch)
	if !s.options.Dashboard {
		return h, s.scanHour(h, hour, m)
	}
	add := func(from *hourSketch) {
		for i := range from.minutes {
			if whole {
				h.hour.merge(&from.minutes[i])
			} else {
				h.minutes[i].merge(&from.minutes[i])
			}
		}
	}
	// For the moment between the writing of a block and its leaving memory, its
	// samples count twice.
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	if f := s.live.hours[hour]; f != nil {
		add(&f[m])
	}
	if f := s.fleet.hours[hour]; f != nil {
		add(&f[m])
	}
	err := s.base.view(fleetKey(hour, m), func(v []byte) error {
		if whole && len(v) > 0 && v[0] == sketchVersion {
			_, err := readSketch(&h.hour, v[1:])
			return err
		}
		return h.mergeMinutes(v)
	})
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return h, err
}

// scanHour counts one metric of all series in one hour, sample by sample.
func (s *Store) scanHour(h *hourSketch, hour int64, m Metric) error {
	for _, series := range s.Series("") {
		for p, err := range s.Range(Query{Series: series, Metric: m, From: hour, To: hour + hourMs, Tier: Raw}) {
			if err != nil {
				continue // counted where it was found
			}
			h.add(p.At, m.Quantise(p.Mean))
		}
	}
	h.close()
	return nil
}
