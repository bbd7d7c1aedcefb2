package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
)

const (
	flushEvery  = 10 * time.Second
	sealEvery   = time.Minute
	retireEvery = time.Hour
	// maxEnded is how many blocks may wait for a sealer until Append seals
	// itself: a store that nobody runs must not grow without bound.
	maxEnded = 4096
	// maxPending is the same for flow records and events.
	maxPending = 8192
	// maxLog is the same for segments of the log.
	maxLog = 64
)

// Run flushes, seals, rolls up and retires until ctx ends. What fails is
// logged and tried again.
func (s *Store) Run(ctx context.Context) error {
	flush, seal, retire := time.NewTicker(flushEvery), time.NewTicker(sealEvery), time.NewTicker(retireEvery)
	defer flush.Stop()
	defer seal.Stop()
	defer retire.Stop()
	s.report(s.Retire())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-flush.C:
			s.report(s.flush())
		case <-seal.C:
			s.report(s.Seal())
		case <-s.kick:
			s.report(s.Seal())
		case <-retire.C:
			s.report(s.Retire())
		}
	}
}

// report logs an error, except that the disk is full: that is shown by Stats,
// and by whoever could not append.
func (s *Store) report(err error) {
	if err != nil && !errors.Is(err, ErrNoSpace) && !errors.Is(err, ErrClosed) {
		s.options.Log.Error("store", "err", err)
	}
}

// relieve seals or flushes in Append if too much waits for it.
func (s *Store) relieve() error {
	s.mu.Lock()
	ended, pending := s.ended, len(s.flows)+len(s.events)
	long := len(s.log.segments) > maxLog
	s.mu.Unlock()
	var err error
	switch {
	case ended >= maxEnded:
		err = s.Seal()
	case pending >= maxPending || long && ended > 0:
		err = s.flush()
	case ended > 0:
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
	if errors.Is(err, ErrNoSpace) {
		return nil // it is in the log
	}
	return err
}

// Seal writes the blocks whose hour is over, with their rollups, flushes what
// else is in memory, and drops what the log need not keep. [Store.Run] calls it
// each minute.
func (s *Store) Seal() error {
	s.sealing.Lock()
	defer s.sealing.Unlock()
	if err := s.sealBlocks(s.now()); err != nil {
		return err
	}
	if err := s.flushLocked(); err != nil {
		return err
	}
	if err := s.flushFleet(); err != nil {
		return err
	}
	return s.truncate()
}

// now is the store's clock, Unix ms.
func (s *Store) now() int64 { return s.options.Now().UnixMilli() }

// flush writes flow records, events, totals and states to the base.
func (s *Store) flush() error {
	s.sealing.Lock()
	defer s.sealing.Unlock()
	return s.flushLocked()
}

func (s *Store) flushLocked() error {
	now := s.now()
	s.mu.Lock()
	lsn := s.log.lsn.Load()
	flows, events := slices.Clone(s.flows), slices.Clone(s.events)
	over := map[minuteOf]Totals{}
	for k, m := range s.totals.minutes {
		if k.at+minuteMs+graceMs <= max(now, s.latest) {
			over[k] = m.final()
		}
	}
	works := s.stateWorks(max(now, s.latest))
	s.mu.Unlock()
	if len(flows)+len(events)+len(over)+len(works) == 0 {
		return nil
	}
	f, err1 := s.flowEntries(flows)
	e, err2 := s.eventEntries(events)
	t, err3 := s.totalsEntries(over)
	st, err4 := s.stateEntries(works)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	key := metaKey("flushed")
	upTo := []entry{{key: key, value: seal(key, binary.BigEndian.AppendUint64(nil, lsn))}}
	if err := s.base.put(slices.Concat(f, e, t, st, upTo)); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	s.mu.Lock()
	s.flows, s.events = slices.Delete(s.flows, 0, len(flows)), slices.Delete(s.events, 0, len(events))
	for k := range over {
		delete(s.totals.minutes, k)
	}
	s.stateDone(works)
	s.flushed = lsn
	s.mu.Unlock()
	return nil
}

// truncate makes the base durable, notes how far, and drops the log's segments
// that hold nothing more.
func (s *Store) truncate() error {
	s.mu.Lock()
	upTo := s.flushed
	if len(s.flows)+len(s.events) == 0 {
		upTo = s.log.lsn.Load()
	}
	for _, t := range s.totals.minutes {
		upTo = min(upTo, t.lsn-1)
	}
	for _, h := range s.ids[1:] {
		for _, o := range h.open {
			upTo = min(upTo, o.lsn-1)
		}
	}
	s.sealed = upTo
	m := s.markLocked()
	s.mu.Unlock()
	if err := s.base.sync(); err != nil {
		return err
	}
	if err := s.saveLines(); err != nil {
		return err
	}
	if err := m.write(s.dir); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.drop(upTo)
}

// mark is what the mark must say now.
func (s *Store) mark() mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.markLocked()
}

func (s *Store) markLocked() mark {
	return mark{Format: Format, Node: s.node, Epoch: s.epoch, Seq: s.Head(), LSN: s.log.lsn.Load(), Sealed: s.sealed}
}

// Retire deletes the days that are beyond retention, and frees their space.
// [Store.Run] calls it each hour.
func (s *Store) Retire() error {
	s.sealing.Lock()
	defer s.sealing.Unlock()
	prefixes, err := s.retired()
	if err != nil {
		return fmt.Errorf("retire: %w", err)
	}
	if len(prefixes) > 0 {
		if err := s.base.drop(prefixes); err != nil {
			return fmt.Errorf("retire: %w", err)
		}
		if err := s.prune(); err != nil {
			return fmt.Errorf("retire: %w", err)
		}
	}
	// Nothing is ever put into the value log, so that there is never anything to
	// collect; if that ever changed, the disk must not fill up for it.
	if err := s.base.db.RunValueLogGC(0.5); err != nil && !errors.Is(err, badger.ErrNoRewrite) && !errors.Is(err, badger.ErrRejected) {
		return fmt.Errorf("retire: %w", err)
	}
	return layBallast(s.ballast(), s.space, need(s.options.Dashboard))
}

// retired lists the prefixes of days that are there and beyond retention, or
// so far ahead of the clock that only a wrong clock can have written them.
func (s *Store) retired() ([][]byte, error) {
	k := &s.options.Keep
	now := s.now()
	var out [][]byte
	for _, c := range [...]struct {
		prefix []byte
		keep   time.Duration
	}{
		{[]byte{byte(KindBlock), byte(Raw)}, k.Raw},
		{[]byte{byte(KindBlock), byte(Minute)}, k.Minute},
		{[]byte{byte(KindBlock), byte(Hour)}, k.Hour},
		{[]byte{byte(KindFlows)}, k.Flows},
		{[]byte{byte(KindTotals)}, k.Totals},
		{[]byte{byte(KindEvent)}, k.Events},
		{[]byte{byte(KindState)}, k.States},
		{[]byte{kindFleet}, k.Sketches},
	} {
		oldest := dayOf(now - c.keep.Milliseconds())
		newest := dayOf(now) + 400
		days, err := s.days(c.prefix)
		if err != nil {
			return nil, err
		}
		for _, d := range days {
			if d < oldest || d > newest {
				out = append(out, appendDay(c.prefix, d))
			}
		}
	}
	return out, nil
}

// days lists the days that a kind or tier has keys of.
func (s *Store) days(prefix []byte) ([]uint32, error) {
	var out []uint32
	var from []byte
	for {
		d, found := uint32(0), false
		err := s.base.scan(prefix, from, false, func(key, _ []byte) bool {
			if len(key) >= len(prefix)+4 {
				d, found = dayIn(key, len(prefix)), true
			}
			return false
		})
		if err != nil || !found || d == 1<<32-1 {
			return out, err
		}
		out = append(out, d)
		from = appendDay(prefix, d+1)
	}
}

// prune deletes feed entries whose records were retired, and acknowledgements
// of events that were.
func (s *Store) prune() error {
	var dead []entry
	now := s.now()
	err := s.base.scan([]byte{kindFeed}, nil, false, func(key, sealed []byte) bool {
		of, err := unseal(key, sealed)
		if err == nil && s.gone(of, now) {
			dead = append(dead, entry{key: slices.Clone(key), remove: true})
		}
		return true
	})
	if err != nil || len(dead) == 0 {
		return err
	}
	for part := range slices.Chunk(dead, 1000) {
		if err := s.base.put(part); err != nil {
			return err
		}
	}
	return nil
}

// gone reports whether a record is beyond retention.
func (s *Store) gone(key []byte, now int64) bool {
	if len(key) < 6 {
		return true
	}
	k := &s.options.Keep
	at := 1
	var keep time.Duration
	switch Kind(key[0]) {
	case KindBlock:
		at, keep = 2, k.tier(Tier(key[1]))
	case KindFlows:
		keep = k.Flows
	case KindTotals:
		keep = k.Totals
	case KindEvent:
		keep = k.Events
	case KindState:
		keep = k.States
	default:
		return false
	}
	return cmp.Less(dayIn(key, at), dayOf(now-keep.Milliseconds()))
}
