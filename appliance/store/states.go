package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// stateHour is what is kept of a site's state in one hour: a snapshot of when
// it began, and what changed since.
type stateHour struct {
	Base    map[string]json.RawMessage `json:"base,omitempty"`
	BaseAt  int64                      `json:"base_at,omitempty"` // of the newest change in Base
	Changes []Change                   `json:"changes,omitempty"`
}

// siteStates is the state of a site that grows. The store's mutex guards it.
type siteStates struct {
	values map[string]json.RawMessage
	at     int64 // of the newest change in values
	hour   int64
	open   stateHour
	dirty  bool   // open has what the base has not
	seq    uint64 // feed entry of the open hour
	over   []overHour
}

// overHour is an hour that is over and not in the base yet.
type overHour struct {
	hour  int64
	state stateHour
	seq   uint64
}

// maxStateHours is how long an hour without a record says that the site was
// off: its last state before is then what was known.
const maxStateHours = 48

func stateKey(hour int64, site string) []byte { return timed(KindState, hour, site, "") }

// change takes a change into memory.
func (s *Store) change(site string, c *Change) {
	st := s.states[site]
	if st == nil {
		st = &siteStates{values: map[string]json.RawMessage{}, hour: floor(c.At, hourMs)}
		s.states[site] = st
	}
	st.advance(floor(c.At, hourMs))
	if null(c.Value) {
		delete(st.values, c.Key)
	} else {
		st.values[c.Key] = slices.Clone(c.Value)
	}
	st.at = max(st.at, c.At)
	st.open.Changes = append(st.open.Changes, Change{c.At, c.Key, slices.Clone(c.Value)})
	st.dirty = true
}

// advance begins a later hour.
func (st *siteStates) advance(hour int64) {
	if hour <= st.hour {
		return
	}
	if st.dirty {
		st.over = append(st.over, overHour{st.hour, st.open, st.seq})
	}
	st.hour, st.seq = hour, 0
	st.open = stateHour{Base: maps.Clone(st.values), BaseAt: st.at}
	st.dirty = len(st.values) > 0
}

func null(v json.RawMessage) bool { return len(v) == 0 || string(v) == "null" }

// at is the state at a time, and when the newest thing in it was.
func (h *stateHour) at(t int64) (values map[string]json.RawMessage, known int64) {
	values, known = maps.Clone(h.Base), h.BaseAt
	if values == nil {
		values = map[string]json.RawMessage{}
	}
	for i := range h.Changes {
		c := &h.Changes[i]
		if c.At > t {
			continue
		}
		known = max(known, c.At)
		if null(c.Value) {
			delete(values, c.Key)
		} else {
			values[c.Key] = c.Value
		}
	}
	return values, known
}

// stateWork is what a flush writes of states.
type stateWork struct {
	site string
	over []overHour
	hour int64
	open stateHour
	live bool // open is to be written, too
	seq  uint64
	next []uint64 // sequence numbers of what was written; the last is open's
}

// stateWorks lists what is to be written. The store's mutex is held.
func (s *Store) stateWorks(now int64) []stateWork {
	var out []stateWork
	for site, st := range s.states {
		if s.own(site) {
			st.advance(floor(now, hourMs))
		}
		if !st.dirty && len(st.over) == 0 {
			continue
		}
		w := stateWork{site: site, over: slices.Clone(st.over), hour: st.hour, live: st.dirty, seq: st.seq}
		w.open = stateHour{Base: st.open.Base, BaseAt: st.open.BaseAt, Changes: slices.Clone(st.open.Changes)}
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b stateWork) int { return cmp.Compare(a.site, b.site) })
	return out
}

func (s *Store) stateEntries(works []stateWork) ([]entry, error) {
	var out []entry
	for i := range works {
		w := &works[i]
		w.next = make([]uint64, len(w.over)+1)
		add := func(hour int64, h *stateHour, old uint64, seq *uint64) error {
			key := stateKey(hour, w.site)
			value, err := s.pack.seal(key, h)
			if err != nil {
				return err
			}
			out = append(out, entry{key: key, value: value, feed: s.own(w.site), old: old, seq: seq})
			return nil
		}
		for k := range w.over {
			if err := add(w.over[k].hour, &w.over[k].state, w.over[k].seq, &w.next[k]); err != nil {
				return nil, err
			}
		}
		if w.live {
			if err := add(w.hour, &w.open, w.seq, &w.next[len(w.over)]); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// stateDone notes what was written. The store's mutex is held.
func (s *Store) stateDone(works []stateWork) {
	for i := range works {
		w := &works[i]
		st := s.states[w.site]
		st.over = slices.Delete(st.over, 0, min(len(w.over), len(st.over)))
		if !w.live {
			continue
		}
		seq := w.next[len(w.over)]
		if st.hour == w.hour {
			st.seq = seq
			st.dirty = len(st.open.Changes) > len(w.open.Changes)
		} else if len(st.over) > 0 && st.over[0].hour == w.hour {
			st.over[0].seq = seq
		}
	}
}

// loadStates finds the newest state of the store's own sites.
func (s *Store) loadStates() error {
	newest := int64(-1)
	return s.base.scan([]byte{byte(KindState)}, nil, true, func(key, sealed []byte) bool {
		hour, site, _, err := parseTimed(key)
		if err != nil || !s.own(site) {
			return true
		}
		if newest < 0 {
			newest = hour
		}
		if hour < newest-maxStateHours*hourMs {
			return false
		}
		if s.states[site] != nil {
			return true
		}
		var h stateHour
		if err := s.pack.unseal(key, sealed, &h); err != nil {
			s.base.damaged.Add(1)
			return true
		}
		st := &siteStates{hour: hour, open: h}
		st.values, st.at = h.at(forever)
		s.states[site] = st
		return true
	})
}

// StateAt rebuilds what was known of each site at a time, Unix ms: the values
// of its [Change] keys, and the last sample of each path in the 5 minutes
// before. Flows of that time are found by [FlowFilter.AliveAt].
func (s *Store) StateAt(t int64) (*FleetState, error) {
	found := map[string]*SiteState{}
	take := func(site string, h *stateHour) {
		if found[site] == nil {
			st := &SiteState{Site: site}
			st.Values, st.KnownAt = h.at(t)
			if st.KnownAt > 0 {
				found[site] = st
			}
		}
	}
	s.mu.Lock()
	for site, st := range s.states {
		if st.hour <= t {
			take(site, &st.open)
		}
		for i := len(st.over) - 1; i >= 0; i-- {
			if st.over[i].hour <= t {
				take(site, &st.over[i].state)
			}
		}
	}
	s.mu.Unlock()
	hour := floor(t, hourMs)
	from := append(timed(KindState, hour, "", "")[:13], 0xff)
	err := s.base.scan([]byte{byte(KindState)}, from, true, func(key, sealed []byte) bool {
		at, site, _, err := parseTimed(key)
		if err != nil {
			return true
		}
		if at < hour-maxStateHours*hourMs {
			return false
		}
		if found[site] != nil {
			return true
		}
		var h stateHour
		if err := s.pack.unseal(bytes.Clone(key), sealed, &h); err != nil {
			s.base.damaged.Add(1)
			return true
		}
		take(site, &h)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("state at %d: %w", t, err)
	}
	if err := s.pathsAt(t, found); err != nil {
		return nil, fmt.Errorf("state at %d: %w", t, err)
	}
	out := &FleetState{At: t}
	for _, site := range slices.Sorted(maps.Keys(found)) {
		out.Sites = append(out.Sites, *found[site])
	}
	return out, nil
}

// pathsAt adds the last sample of each series in the minutes before t.
func (s *Store) pathsAt(t int64, found map[string]*SiteState) error {
	for _, series := range s.Series("") {
		var last Sample
		ok := false
		for sm, err := range s.Samples(series, t-5*minuteMs, t+1) {
			if errors.Is(err, ErrDamaged) {
				continue
			}
			if err != nil {
				return err
			}
			last, ok = sm, true
		}
		if !ok {
			continue
		}
		st := found[series.Site]
		if st == nil {
			st = &SiteState{Site: series.Site, Values: map[string]json.RawMessage{}}
			found[series.Site] = st
		}
		st.KnownAt = max(st.KnownAt, last.At)
		st.Paths = append(st.Paths, SeriesSample{series, last})
	}
	return nil
}
