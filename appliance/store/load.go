package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
)

// load brings a store that was opened up to what is on the disk.
func (s *Store) load(m *mark, moved []string) error {
	s.earliest, s.latest = math.MaxInt64/2, math.MinInt64/2
	s.live.on = s.options.Dashboard
	if err := s.identify(m); err != nil {
		return err
	}
	if err := migrate(s.base, migrations(), Format); err != nil {
		return err
	}
	lost := m.Seq > s.Head()
	if !m.Clean || lost {
		// Numbers that a reader may have seen are never given again, even if power
		// failed before they were on the disk.
		s.base.next = max(s.base.next, m.Seq+1) + seqGap
	}
	if err := errors.Join(s.loadSeries(), s.loadStates(), s.loadLines(), s.recount()); err != nil {
		return err
	}
	if v, err := s.base.get(metaKey("flushed")); err == nil && len(v) == 8 {
		s.flushed = binary.BigEndian.Uint64(v)
	}
	s.sealed = m.Sealed
	newest, damagedLog, torn, err := s.replay(s.flushed)
	if err != nil {
		return err
	}
	short := m.LSN > m.Sealed && newest < m.LSN
	s.log.lsn.Store(max(s.log.lsn.Load(), m.LSN))
	for _, e := range [...]struct {
		on       bool
		severity string
		data     any
	}{
		{len(moved) > 0, "critical", map[string]any{"quarantined": moved}},
		{lost, "critical", map[string]any{"records_lost_up_to": m.Seq}},
		{damagedLog > 0, "critical", map[string]any{"log_octets_damaged": damagedLog}},
		{short, "critical", map[string]any{"log_lost_up_to": m.LSN}},
		// The usual trace of a crash in the middle of a write.
		{torn > 0, "info", map[string]any{"log_octets_torn": torn}},
	} {
		if e.on {
			s.tell(e.severity, e.data)
		}
	}
	return nil
}

// seqGap is more than what is ever put between two syncs.
const seqGap = 1 << 20

// tell makes an event of what happened to the store. It is in memory until the
// next flush; if the process ends before, the damage is gone all the same.
func (s *Store) tell(severity string, what any) {
	data, err := json.Marshal(what)
	if err != nil {
		return
	}
	b := Batch{Site: s.options.Site, At: s.now()}
	e := Event{Type: "store_damaged", Severity: severity, Data: data}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleEvent(&e, &b, 0)
	s.events = append(s.events, pendingEvent{e, s.log.lsn.Load()})
}

// identify finds out who the store is: by its mark, else by its base, else it
// is new.
func (s *Store) identify(m *mark) error {
	key := metaKey("identity")
	v, err := s.base.get(key)
	switch {
	case err == nil && len(v) > 8:
		s.node, s.epoch = string(v[8:]), binary.BigEndian.Uint64(v)
		return nil
	case err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged):
		return err
	}
	// An empty base beside an old mark: what readers have counted is gone, so
	// their cursors must not fit any more.
	if s.node, s.epoch, err = newIdentity(); err != nil {
		return err
	}
	if m.Node != "" {
		s.node = m.Node
	}
	v = append(binary.BigEndian.AppendUint64(nil, s.epoch), s.node...)
	if err := s.base.put([]entry{{key: key, value: seal(key, v)}}); err != nil {
		return fmt.Errorf("new identity: %w", err)
	}
	if _, err := s.base.get(metaKey("format")); errors.Is(err, ErrNotFound) {
		return setFormat(s.base, Format)
	}
	return s.base.sync()
}

// loadSeries finds the series and the last sample of each, by the blocks of the
// hour tier.
func (s *Store) loadSeries() error {
	err := s.base.scan([]byte{byte(KindBlock), byte(Hour)}, nil, false, func(key, _ []byte) bool {
		if id, err := parseBlockKey(key); err == nil {
			h := s.head(&id.Series)
			h.day = max(h.day, id.Start)
			s.extend(id.Start, id.Start)
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("load series: %w", err)
	}
	// A dashboard may have backfilled finer tiers further.
	for _, t := range [...]Tier{Raw, Minute} {
		days, err := s.days([]byte{byte(KindBlock), byte(t)})
		if err != nil {
			return fmt.Errorf("load series: %w", err)
		}
		if len(days) > 0 {
			s.extend(int64(days[0])*dayMs, int64(days[len(days)-1])*dayMs)
		}
	}
	var w sealer
	for _, h := range s.ids[1:] {
		id := BlockID{h.series, Hour, h.day}
		hour := int64(-1)
		_ = s.base.view(id.key(), func(v []byte) error {
			chunks, err := decodeChunks(w.chunks[:0], id, v)
			if err == nil && len(chunks) > 0 {
				hour = chunks[len(chunks)-1].last
			}
			return err
		})
		if hour < 0 {
			continue
		}
		s.extend(hour, hour+hourMs-1)
		id = BlockID{h.series, Raw, hour}
		_ = s.base.view(id.key(), func(v []byte) error {
			chunks, err := decodeChunks(w.chunks[:0], id, v)
			if err != nil || len(chunks) == 0 {
				return err
			}
			if err := w.load(&w.rows, chunks[len(chunks)-1:], rawColumns); err != nil {
				return err
			}
			h.last, h.seen = w.rows.sample(w.rows.n-1), true
			return nil
		})
	}
	return nil
}

// loadLines reads the timelines that saveLines wrote.
func (s *Store) loadLines() error {
	v, err := s.base.get(metaKey("timelines"))
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load timelines: %w", err)
	}
	var all map[string][][2]int64
	if err := json.Unmarshal(v, &all); err != nil {
		return nil // as damaged: what the log has follows
	}
	for site, spans := range all {
		t := new(timeline)
		for _, sp := range spans {
			t.wrote(sp[0])
			t.extend(sp[1])
		}
		s.lines[site] = t
	}
	return nil
}

func (s *Store) saveLines() error {
	all := map[string][][2]int64{}
	s.mu.Lock()
	for site, t := range s.lines {
		for _, sp := range t.spans {
			all[site] = append(all[site], [2]int64{sp.from, sp.to})
		}
	}
	s.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	v, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("save timelines: %w", err)
	}
	key := metaKey("timelines")
	return s.base.put([]entry{{key: key, value: seal(key, v)}})
}

// replay reads the log back. It begins a new segment for what comes next.
// newest is the number of the newest record in it, damaged how many octets were
// lost in the middle of it, torn how many at the end.
func (s *Store) replay(flushed uint64) (newest uint64, damaged, torn int, err error) {
	s.log = appendLog{dir: filepath.Join(s.dir, logDir), table: castagnoli(), buf: make([]byte, logHeader, 64<<10)}
	s.log.lsn.Store(flushed)
	numbers, err := listSegments(s.log.dir)
	if err != nil {
		return 0, 0, 0, err
	}
	for _, n := range numbers {
		name := filepath.Join(s.log.dir, segmentName(n))
		b, err := os.ReadFile(name)
		if err != nil {
			return newest, damaged, torn, fmt.Errorf("read log: %w", err)
		}
		last, lost, tail, err := s.replaySegment(b, flushed)
		if err != nil {
			return newest, damaged, torn, err
		}
		newest = max(newest, last)
		torn += tail
		if lost > 0 {
			damaged += lost
			s.counts.lost.Add(uint64(lost))
			in := inspector{quarantine: filepath.Join(s.dir, quarantineDir), now: s.options.Now(), log: s.options.Log}
			if err := in.copyAway(name, b); err != nil && !errors.Is(err, ErrNoSpace) {
				return newest, damaged, torn, err
			}
		}
		s.log.segment = n
		s.log.segments = append(s.log.segments, segment{n, s.log.lsn.Load()})
	}
	s.log.synced = s.log.lsn.Load()
	s.counts.samples.Store(0)
	return newest, damaged, torn, nil
}

func (s *Store) replaySegment(b []byte, flushed uint64) (newest uint64, lost, torn int, err error) {
	defined := map[uint32]Series{}
	lost, torn, err = readSegment(b, s.log.table, func(lsn uint64, payload []byte) error {
		batch, missed, err := readBatch(payload, defined)
		if err != nil {
			s.counts.lost.Add(1) // its checksum fits: another program wrote it
			return nil
		}
		s.counts.lost.Add(uint64(missed))
		s.resolved = s.resolved[:0]
		for i := range batch.Samples {
			s.resolved = append(s.resolved, s.head(&batch.Samples[i].Series))
		}
		if s.own(batch.Site) && len(batch.Samples) > 0 {
			t := s.lines[batch.Site]
			if t == nil {
				t = new(timeline)
				s.lines[batch.Site] = t
			}
			t.wrote(batch.At)
		}
		s.apply(&batch, s.resolved, lsn, lsn > flushed)
		newest = max(newest, lsn)
		return nil
	})
	s.log.lsn.Store(max(s.log.lsn.Load(), newest))
	return newest, lost, torn, err
}
