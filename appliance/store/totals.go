package store

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// totalsBook adds up what flow records say, by site and minute, until the
// minute is over. The store's mutex guards it.
type totalsBook struct {
	minutes map[minuteOf]*openMinute
	known   map[flowOf]carried // what a flow had carried by its last record
}

type minuteOf struct {
	site string
	at   int64
}

type openMinute struct {
	totals  Totals
	talkers map[netip.Addr]uint64
	lsn     uint64 // of the first record in it
}

type flowOf struct {
	site, id string
	started  int64
}

type carried struct{ bytes, packets uint64 }

const (
	maxKnown   = 1 << 16 // flows whose counts are remembered
	maxShares  = 256
	maxTalkers = 20
	maxAddrs   = 4096 // addresses of one minute
	otherShare = "other"
)

// add counts a record. Counts of flows are totals since their start: what is
// new is their difference from the record before.
func (t *totalsBook) add(r *FlowRecord, lsn uint64) {
	if t.minutes == nil {
		t.minutes, t.known = map[minuteOf]*openMinute{}, map[flowOf]carried{}
	}
	key := flowOf{r.Site, r.ID, r.Started}
	now := carried{r.Forward.Bytes + r.Reverse.Bytes, r.Forward.Packets + r.Reverse.Packets}
	before := t.known[key]
	if r.Ended != 0 {
		delete(t.known, key)
	} else {
		if len(t.known) >= maxKnown {
			for k := range t.known { // any one: its rest is counted again when it ends
				delete(t.known, k)
				break
			}
		}
		t.known[key] = now
	}
	bytes, packets := now.bytes-min(before.bytes, now.bytes), now.packets-min(before.packets, now.packets)
	at := floor(r.At, minuteMs)
	m := t.minutes[minuteOf{r.Site, at}]
	if m == nil {
		m = &openMinute{totals: Totals{At: at, Site: r.Site}, talkers: map[netip.Addr]uint64{}, lsn: lsn}
		t.minutes[minuteOf{r.Site, at}] = m
	}
	share := Share{Bytes: bytes, Packets: packets}
	if r.Change == "started" {
		share.Flows = 1
		if r.Status == "blocked" {
			m.totals.Blocked++
		}
	}
	m.totals.Flows += share.Flows
	m.totals.Bytes += bytes
	m.totals.Packets += packets
	m.totals.ByPath = addShare(m.totals.ByPath, string(r.Path), share)
	m.totals.ByPolicy = addShare(m.totals.ByPolicy, r.Policy, share)
	m.totals.ByClass = addShare(m.totals.ByClass, r.Class, share)
	for _, a := range [...]netip.Addr{r.Src, r.Dst} {
		if _, ok := m.talkers[a]; a.IsValid() && bytes > 0 && (ok || len(m.talkers) < maxAddrs) {
			m.talkers[a] += bytes
		}
	}
}

func addShare(m map[string]Share, key string, s Share) map[string]Share {
	if m == nil {
		m = map[string]Share{}
	}
	if _, ok := m[key]; !ok && len(m) >= maxShares {
		key = otherShare
	}
	v := m[key]
	v.Flows += s.Flows
	v.Bytes += s.Bytes
	v.Packets += s.Packets
	m[key] = v
	return m
}

// final is the minute with its talkers.
func (m *openMinute) final() Totals {
	t := m.totals
	for a, n := range m.talkers {
		t.Talkers = append(t.Talkers, Talker{a, n})
	}
	slices.SortFunc(t.Talkers, func(a, b Talker) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), a.Addr.Compare(b.Addr))
	})
	t.Talkers = slices.Clip(t.Talkers[:min(len(t.Talkers), maxTalkers)])
	return t
}

// totalsKey is where the totals of a minute are kept.
func totalsKey(k minuteOf) []byte { return timed(KindTotals, k.at, k.site, "") }

// totalsEntries codes the minutes that were over at now. What is in the base
// already, before a crash, stays as it is.
func (s *Store) totalsEntries(over map[minuteOf]Totals) ([]entry, error) {
	var out []entry
	for k, t := range over {
		key := totalsKey(k)
		err := s.base.view(key, func([]byte) error { return nil })
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		value, err := s.pack.seal(key, t)
		if err != nil {
			return nil, err
		}
		out = append(out, entry{key: key, value: value, feed: s.own(k.site)})
	}
	slices.SortFunc(out, func(a, b entry) int { return slices.Compare(a.key, b.key) })
	return out, nil
}

// FlowTotals lists what flows carried from from to to (excluded), by minute and
// site, in order of time; the empty site is all.
func (s *Store) FlowTotals(site string, from, to int64) ([]Totals, error) {
	var out []Totals
	have := map[minuteOf]bool{}
	err := s.base.scan([]byte{byte(KindTotals)}, timed(KindTotals, floor(max(from, 0), minuteMs), "", "")[:13], false, func(key, sealed []byte) bool {
		at, of, _, err := parseTimed(key)
		if err != nil {
			return true
		}
		if at >= to {
			return false
		}
		if site != "" && site != of {
			return true
		}
		var t Totals
		if err := s.pack.unseal(key, sealed, &t); err != nil {
			s.base.damaged.Add(1)
			return true
		}
		have[minuteOf{of, at}] = true
		out = append(out, t)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("flow totals: %w", err)
	}
	s.mu.Lock()
	for k, m := range s.totals.minutes {
		if k.at+minuteMs > from && k.at < to && (site == "" || site == k.site) && !have[k] {
			out = append(out, m.final())
		}
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b Totals) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Site, b.Site)) })
	return out, nil
}
