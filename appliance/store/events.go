package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// pendingEvent is an event that is in memory and in the log alone.
type pendingEvent struct {
	event Event
	lsn   uint64
}

// eventKey ends in the id, so that listings are in order of time and a second
// writing of the same event changes nothing.
func eventKey(e *Event) []byte { return timed(KindEvent, e.At, e.Site, e.ID) }

func (s *Store) eventEntries(events []pendingEvent) ([]entry, error) {
	out := make([]entry, 0, len(events))
	for i := range events {
		e := &events[i].event
		key := eventKey(e)
		value, err := s.pack.seal(key, e)
		if err != nil {
			return nil, err
		}
		out = append(out, entry{key: key, value: value, feed: s.own(e.Site)})
	}
	return out, nil
}

func (f *EventFilter) matches(e *Event) bool {
	return e.At >= f.From && (f.To == 0 || e.At < f.To) && (f.Type == "" || f.Type == e.Type) &&
		(f.Severity == "" || f.Severity == e.Severity) && (f.Site == "" || f.Site == e.Site) &&
		(f.Source == "" || f.Source == e.Source) && !(f.Unacked && e.Ack != nil)
}

// Events lists events, newest first. next is the After of the next page, empty
// if there is none. Damaged values are skipped and counted.
func (s *Store) Events(f EventFilter, page Page) (events []Event, next string, err error) {
	from, err := parsePlace(page.After)
	if err != nil {
		return nil, "", err
	}
	// An event that is still in memory is listed where its time puts it: both
	// lists are in order of keys.
	s.mu.Lock()
	pending := make([]Event, len(s.events))
	for i := range s.events {
		pending[i] = s.events[i].event
	}
	s.mu.Unlock()
	slices.SortFunc(pending, func(a, b Event) int { return bytes.Compare(eventKey(&b), eventKey(&a)) })
	limit := page.limit()
	full := func(e *Event, key []byte) bool {
		if from.key != nil && bytes.Compare(key, from.key) > 0 {
			return false
		}
		if ack, err := s.ack(e.Site, e.ID); err == nil {
			e.Ack = ack
		}
		if !f.matches(e) {
			return false
		}
		if len(events) == limit {
			next = place{key: slices.Clone(key)}.String()
			return true
		}
		events = append(events, *e)
		return false
	}
	done := false
	older := func(key []byte) bool { // pending events that come before key
		for len(pending) > 0 && !done {
			k := eventKey(&pending[0])
			if key != nil && bytes.Compare(k, key) < 0 {
				return done
			}
			if key == nil || !bytes.Equal(k, key) {
				done = full(&pending[0], k)
			}
			pending = pending[1:]
		}
		return done
	}
	bound := f.To
	if bound == 0 {
		bound = forever
	}
	err = s.back(KindEvent, f.From, bound, from.key, func(key, sealed []byte) bool {
		if older(key) {
			return false
		}
		var e Event
		if err := s.pack.unseal(key, sealed, &e); err != nil {
			s.base.damaged.Add(1)
			return true
		}
		done = full(&e, key)
		return !done
	})
	if err != nil {
		return nil, "", fmt.Errorf("events: %w", err)
	}
	older(nil)
	return events, next, nil
}

// ack reads an acknowledgement.
func (s *Store) ack(site, event string) (*Ack, error) {
	key := ackKey(site, event)
	var a Ack
	err := s.base.viewSealed(key, func(sealed []byte) error { return s.pack.unseal(key, sealed, &a) })
	if err != nil {
		return nil, err
	}
	return &a, nil
}

// Acknowledge notes that somebody has seen an event, at a time in Unix ms; the
// first one stays. [ErrNotFound] if there is no such event.
func (s *Store) Acknowledge(id, by string, at int64) error {
	e, err := s.event(id)
	if err != nil {
		return fmt.Errorf("acknowledge %.60q: %w", id, err)
	}
	if _, err := s.ack(e.Site, e.ID); err == nil {
		return nil
	} else if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("acknowledge: %w", err)
	}
	key := ackKey(e.Site, e.ID)
	value, err := s.pack.seal(key, Ack{By: by, At: at})
	if err != nil {
		return err
	}
	if err := s.base.put([]entry{{key: key, value: value, feed: true}}); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return s.base.sync()
}

// event finds an event by its id: ids that the store gave begin with the time.
func (s *Store) event(id string) (Event, error) {
	s.mu.Lock()
	for i := range s.events {
		if s.events[i].event.ID == id {
			e := s.events[i].event
			s.mu.Unlock()
			return e, nil
		}
	}
	s.mu.Unlock()
	var found Event
	err := ErrNotFound
	suffix := append([]byte{0}, id...)
	visit := func(key, sealed []byte) bool {
		if !bytes.HasSuffix(key, suffix) {
			return true
		}
		err = s.pack.unseal(key, sealed, &found)
		return false
	}
	var at int64
	if n, scanErr := fmt.Sscanf(id, "%12x", &at); n == 1 && scanErr == nil && len(id) == 28 && at < forever {
		prefix := timed(KindEvent, at, "", "")[:13]
		if err := s.base.scan(prefix, nil, false, visit); err != nil {
			return Event{}, err
		}
	}
	if errors.Is(err, ErrNotFound) {
		if err := s.base.scan([]byte{byte(KindEvent)}, nil, true, visit); err != nil {
			return Event{}, err
		}
	}
	return found, err
}
