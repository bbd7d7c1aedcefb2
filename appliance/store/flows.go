package store

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// pendingFlow is a record that is in memory and in the log alone.
type pendingFlow struct {
	record FlowRecord
	lsn    uint64
}

// flowsPerValue bounds a value of [KindFlows].
const flowsPerValue = 256

// flowEntries codes flow records by site, so that each value is of one site.
// Keys are the same whenever the same records are written.
func (s *Store) flowEntries(flows []pendingFlow) ([]entry, error) {
	var out []entry
	bySite := map[string][]pendingFlow{}
	var sites []string
	for _, f := range flows {
		if _, ok := bySite[f.record.Site]; !ok {
			sites = append(sites, f.record.Site)
		}
		bySite[f.record.Site] = append(bySite[f.record.Site], f)
	}
	for _, site := range sites {
		for _, part := range parts(bySite[site]) {
			// A value lies under its newest record, so that a scan back from a time
			// finds all that are older.
			newest := part[0].record.At
			records := make([]FlowRecord, len(part))
			for i := range part {
				records[i] = part[i].record
				newest = max(newest, records[i].At)
			}
			key := timed(KindFlows, newest, site, fmt.Sprintf("%x", part[0].lsn))
			value, err := s.pack.seal(key, records)
			if err != nil {
				return nil, err
			}
			out = append(out, entry{key: key, value: value, feed: s.own(site)})
		}
	}
	return out, nil
}

// parts cuts records into values: at most flowsPerValue, at most spreadMs apart.
func parts(flows []pendingFlow) [][]pendingFlow {
	var out [][]pendingFlow
	for from := 0; from < len(flows); {
		low, high := flows[from].record.At, flows[from].record.At
		to := from + 1
		for ; to < len(flows) && to-from < flowsPerValue; to++ {
			at := flows[to].record.At
			if max(high, at)-min(low, at) > spreadMs {
				break
			}
			low, high = min(low, at), max(high, at)
		}
		out = append(out, flows[from:to])
		from = to
	}
	return out
}

func (f *FlowFilter) matches(r *FlowRecord) bool {
	switch {
	case f.Site != "" && f.Site != r.Site, r.At < f.From, f.To != 0 && r.At >= f.To,
		f.ID != "" && f.ID != r.ID, f.Path != "" && f.Path != r.Path, f.Policy != "" && f.Policy != r.Policy,
		f.Class != "" && f.Class != r.Class, f.Status != "" && f.Status != r.Status,
		f.Protocol != "" && !strings.EqualFold(f.Protocol, r.Protocol),
		f.AliveAt != 0 && (r.Started > f.AliveAt || max(r.Seen, r.At) < f.AliveAt):
		return false
	}
	forward := (!f.Src.IsValid() || f.Src == r.Src) && (!f.Dst.IsValid() || f.Dst == r.Dst) && (f.Port == 0 || f.Port == r.DstPort)
	if forward {
		return true
	}
	return f.Src.IsValid() && f.Dst.IsValid() && f.Src == r.Dst && f.Dst == r.Src && (f.Port == 0 || f.Port == r.SrcPort)
}

// place is a position in a listing: the key of a value and how many of its
// records were passed, newest first. The zero place is before everything.
type place struct {
	key []byte
	n   int
}

func (p place) String() string {
	if p.key == nil {
		return fmt.Sprintf("m.%d", p.n)
	}
	return fmt.Sprintf("%s.%d", hex.EncodeToString(p.key), p.n)
}

func parsePlace(s string) (p place, err error) {
	if s == "" {
		return place{}, nil
	}
	key, n, ok := strings.Cut(s, ".")
	if _, err := fmt.Sscanf(n, "%d", &p.n); err != nil || !ok || p.n < 0 {
		return place{}, fmt.Errorf("page: not a position: %.80q", s)
	}
	if key != "m" {
		if p.key, err = hex.DecodeString(key); err != nil {
			return place{}, fmt.Errorf("page: not a position: %.80q", s)
		}
	}
	return p, nil
}

func (p Page) limit() int {
	if p.Limit <= 0 {
		return 100
	}
	return min(p.Limit, 10_000)
}

// Flows lists flow records, newest first by the time they were stored. next is
// the After of the next page, empty if there is none. Damaged values are
// skipped and counted.
func (s *Store) Flows(f FlowFilter, page Page) (flows []FlowRecord, next string, err error) {
	from, err := parsePlace(page.After)
	if err != nil {
		return nil, "", err
	}
	l := lister{limit: page.limit(), latest: f.Latest, seen: map[string]bool{}}
	if from.key == nil {
		s.mu.Lock()
		many := len(s.flows) > l.limit
		s.mu.Unlock()
		if many {
			// Pages must not shift: a position in memory does not last.
			if err := s.flush(); err != nil && !errors.Is(err, ErrNoSpace) {
				return nil, "", fmt.Errorf("flows: %w", err)
			}
		}
		s.mu.Lock()
		pending := slices.Clone(s.flows)
		s.mu.Unlock()
		records := make([]FlowRecord, len(pending))
		for i := range pending {
			records[i] = pending[i].record
		}
		if l.value(nil, from.n, records, &f) {
			return l.flows, l.next, nil
		}
	}
	bound := f.To
	if bound == 0 {
		bound = forever
	}
	err = s.back(KindFlows, max(f.From, f.AliveAt), bound, from.key, func(key, sealed []byte) bool {
		if f.Site != "" {
			if _, site, _, err := parseTimed(key); err != nil || site != f.Site {
				return true
			}
		}
		var records []FlowRecord
		if err := s.pack.unseal(key, sealed, &records); err != nil {
			s.base.damaged.Add(1)
			return true
		}
		skip := 0
		if bytes.Equal(key, from.key) {
			skip = from.n
		}
		return !l.value(key, skip, records, &f)
	})
	if err != nil {
		return nil, "", fmt.Errorf("flows: %w", err)
	}
	return l.flows, l.next, nil
}

// lister gathers a page.
type lister struct {
	limit  int
	latest bool
	seen   map[string]bool
	flows  []FlowRecord
	next   string
}

// value takes what fits the filter of one value, newest first, after the first
// skip. It answers true if the page is full.
func (l *lister) value(key []byte, skip int, records []FlowRecord, f *FlowFilter) bool {
	for n := skip; n < len(records); n++ {
		r := &records[len(records)-1-n]
		if !f.matches(r) {
			continue
		}
		if l.latest {
			id := fmt.Sprintf("%s/%s/%d", r.Site, r.ID, r.Started)
			if l.seen[id] {
				continue
			}
			l.seen[id] = true
		}
		if len(l.flows) == l.limit {
			l.next = place{slices.Clone(key), n}.String()
			return true
		}
		l.flows = append(l.flows, *r)
	}
	return false
}

// spreadMs is how far apart records of one value are at most.
const spreadMs = 10 * minuteMs

// back passes the values of a kind to f, newest first, from the one under at on
// if it is given, that may hold anything of the time from from to to (excluded).
func (s *Store) back(kind Kind, from, to int64, at []byte, f func(key, sealed []byte) bool) error {
	if at == nil && to < forever {
		// Values lie under their newest record.
		at = timed(kind, to+spreadMs, "\xff", "")
	}
	return s.base.scan([]byte{byte(kind)}, at, true, func(key, sealed []byte) bool {
		if len(key) < 13 {
			return true
		}
		if int64(binary.BigEndian.Uint64(key[5:])) < from {
			return false
		}
		return f(key, sealed)
	})
}

// forever is a time after all others.
const forever = int64(1) << 52
