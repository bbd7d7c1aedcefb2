package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"sync"
)

// Store keeps what a site remembers.
type Store struct {
	options Options
	node    string
	epoch   uint64

	mu      sync.Mutex
	series  map[Series][]Sample
	flows   []FlowRecord
	events  []Event
	changes map[string][]Change
	records []Record
	cursors map[string][]byte
	tails   map[*tail]struct{}
	closed  bool
}

type tail struct {
	site string
	ch   chan Batch
}

// Open opens the store in dir, and makes one if there is none.
func Open(dir string, o Options) (*Store, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return &Store{
		options: o.withDefaults(), node: hex.EncodeToString(id[:8]), epoch: binary.BigEndian.Uint64(id[8:]),
		series: map[Series][]Sample{}, changes: map[string][]Change{}, cursors: map[string][]byte{}, tails: map[*tail]struct{}{},
	}, nil
}

// Close flushes and closes.
func (s *Store) Close() error { return nil }

// Run seals, rolls up and retires until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// String names the task.
func (s *Store) String() string { return "store" }

// Identity is what cursors into this store are bound to: random at creation.
func (s *Store) Identity() (node string, epoch uint64) { return s.node, s.epoch }

// Append stores a tick. It is durable when it returns.
func (s *Store) Append(ctx context.Context, b Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b.Samples {
		s.series[b.Samples[i].Series] = append(s.series[b.Samples[i].Series], b.Samples[i].Sample)
	}
	s.flows = append(s.flows, b.Flows...)
	for i := range b.Events {
		e := b.Events[i]
		if e.ID == "" {
			e.ID = fmt.Sprintf("%012x%08x", e.At, len(s.events))
		}
		s.events = append(s.events, e)
		v, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("append event: %w", err)
		}
		s.records = append(s.records, Record{Seq: uint64(len(s.records) + 1), Kind: KindEvent, Key: []byte("e" + b.Site + "\x00" + e.ID), Value: v})
	}
	s.changes[b.Site] = append(s.changes[b.Site], b.Changes...)
	for t := range s.tails {
		if t.site == "" || t.site == b.Site {
			select {
			case t.ch <- b:
			default:
			}
		}
	}
	return nil
}

// Head is the newest sequence number of the change feed, 0 if it is empty.
func (s *Store) Head() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.records))
}

// Records lists the change feed from sequence number from to to, both
// included, at most max records.
func (s *Store) Records(from, to uint64, newestFirst bool, max int) ([]Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Record
	for _, r := range s.records {
		if r.Seq >= from && r.Seq <= to {
			out = append(out, r)
		}
	}
	if newestFirst {
		slices.Reverse(out)
	}
	return out[:min(len(out), max)], nil
}

// Import stores records of another store, and the cursor with them. What is
// there already is skipped.
func (s *Store) Import(site string, recs []Record, cursor []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range recs {
		var e Event
		if r.Kind == KindEvent && json.Unmarshal(r.Value, &e) == nil {
			s.events = append(s.events, e)
		}
	}
	s.cursors[site] = slices.Clone(cursor)
	return nil
}

// Cursor is what the last [Store.Import] of a site brought, nil if none did.
func (s *Store) Cursor(site string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.cursors[site]), nil
}

// Tail passes batches of a site on as they are appended, until ctx ends; the
// empty site is all. A slow f loses the oldest, counted.
func (s *Store) Tail(ctx context.Context, site string, f func(Batch)) error {
	t := &tail{site: site, ch: make(chan Batch, 256)}
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
		case b := <-t.ch:
			f(b)
		}
	}
}

// Last is the newest sample of each series, from memory.
func (s *Store) Last() []SeriesSample {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]SeriesSample, 0, len(s.series))
	for k, v := range s.series {
		out = append(out, SeriesSample{Series: k, Sample: v[len(v)-1]})
	}
	return out
}

// Series lists all series of a site, or of all sites if it is empty.
func (s *Store) Series(site string) []Series {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Series
	for k := range s.series {
		if site == "" || site == k.Site {
			out = append(out, k)
		}
	}
	return out
}

// Samples yields the raw samples of a series from from to to (excluded), Unix ms.
func (s *Store) Samples(series Series, from, to int64) iter.Seq2[Sample, error] {
	s.mu.Lock()
	all := slices.Clone(s.series[series])
	s.mu.Unlock()
	return func(yield func(Sample, error) bool) {
		for _, v := range all {
			if v.At >= from && v.At < to && !yield(v, nil) {
				return
			}
		}
	}
}

// Range yields the points of a query in order of time. A damaged block yields
// an error that wraps [ErrDamaged]; what follows it is still yielded.
func (s *Store) Range(q Query) iter.Seq2[Point, error] {
	return func(yield func(Point, error) bool) {
		for v := range s.Samples(q.Series, q.From, q.To) {
			if v.V[q.Metric] == Missing {
				continue
			}
			x := q.Metric.Value(v.V[q.Metric])
			if !yield(Point{At: v.At, Min: x, Max: x, Mean: x, P95: x, Count: 1}, nil) {
				return
			}
		}
	}
}

// FleetQuantile is the p-quantile (0..1) of a metric over all samples of all
// series in each step; the relative error is at most 1 %.
func (s *Store) FleetQuantile(m Metric, from, to, step int64, p float64) ([]Quantile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	buckets := map[int64][]int32{}
	for _, all := range s.series {
		for _, v := range all {
			if v.At >= from && v.At < to && v.V[m] != Missing {
				at := v.At - v.At%step
				buckets[at] = append(buckets[at], v.V[m])
			}
		}
	}
	var out []Quantile
	for at, v := range buckets {
		slices.Sort(v)
		out = append(out, Quantile{At: at, Value: m.Value(v[int(p*float64(len(v)-1))]), Count: uint64(len(v))})
	}
	slices.SortFunc(out, func(a, b Quantile) int { return cmp.Compare(a.At, b.At) })
	return out, nil
}

// Flows lists flow records, newest first. next is the After of the next page,
// empty if there is none.
func (s *Store) Flows(f FlowFilter, p Page) (flows []FlowRecord, next string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	flows = slices.Clone(s.flows)
	slices.Reverse(flows)
	return flows, "", nil
}

// FlowTotals lists what flows carried, by site and minute, in order of time.
func (s *Store) FlowTotals(site string, from, to int64) ([]Totals, error) { return nil, nil }

// Events lists events, newest first. next is the After of the next page, empty
// if there is none.
func (s *Store) Events(f EventFilter, p Page) (events []Event, next string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events = slices.Clone(s.events)
	slices.Reverse(events)
	return events, "", nil
}

// Acknowledge notes that somebody has seen an event; [ErrNotFound] if there is
// no such event.
func (s *Store) Acknowledge(id, by string, at int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.events {
		if s.events[i].ID == id {
			s.events[i].Ack = &Ack{By: by, At: at}
			return nil
		}
	}
	return ErrNotFound
}

// StateAt rebuilds what was known of each site at a time, Unix ms.
func (s *Store) StateAt(t int64) (*FleetState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &FleetState{At: t}
	for site, all := range s.changes {
		st := SiteState{Site: site, Values: map[string]json.RawMessage{}}
		for _, c := range all {
			if c.At <= t {
				st.Values[c.Key], st.KnownAt = c.Value, c.At
			}
		}
		out.Sites = append(out.Sites, st)
	}
	return out, nil
}

// Stats are counters and sizes.
type Stats struct {
	Batches, Samples uint64 // appended since Open
	Duplicates       uint64 // samples that were there already
	TailDropped      uint64 // batches that slow tails lost
	Damaged          uint64 // values that failed their checksum
	Refused          uint64 // writes for want of space
	Series           int
	Bytes            uint64 // on disk
	Free             uint64 // of the file system
	Full             bool   // writes are refused
}

// Stats is a picture of the counters.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Series: len(s.series)}
}

// Span is how much time a block of the tier covers, ms.
func (t Tier) Span() int64 {
	switch t {
	case Raw, Minute:
		return hourMs
	default:
		return dayMs
	}
}

const (
	minuteMs = int64(60_000)
	hourMs   = 60 * minuteMs
	dayMs    = 24 * hourMs
)
