package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// Reader is one consumer of a queue, with its own durable cursor.
type Reader struct {
	q    *Queue
	name string
}

// Batch is what Next found: records in the order in which they were appended.
type Batch struct {
	Records []Record
	end     position
	// skipped is the damage between and before the records.
	skipped Loss
}

// Limit bounds a batch. At least one record is returned whatever its size.
type Limit struct {
	Records int
	Bytes   int64
}

// Reader returns the reader of a name of Options.Readers.
func (q *Queue) Reader(name string) (*Reader, error) {
	q.state.Lock()
	defer q.state.Unlock()
	if q.state.cursors[name] == nil {
		return nil, fmt.Errorf("queue: no reader %q", name)
	}
	return &Reader{q: q, name: name}, nil
}

// Next waits for records after the cursor and returns them. Until Ack or Fail
// is called with the batch, a segment that it came from may be removed: it is
// then the outcome of the delivery that says whether anything was lost. Next
// returns the same records again until they are acknowledged.
func (r *Reader) Next(ctx context.Context, limit Limit) (*Batch, error) {
	s := &r.q.state
	for {
		s.Lock()
		if s.closed {
			s.Unlock()
			return nil, ErrClosed
		}
		more := s.more
		at := s.cursors[r.name].at
		segments := append([]segment(nil), s.segments...)
		s.Unlock()

		b, err := r.q.read(segments, at, limit)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed meanwhile: the cursor has moved
		}
		if err != nil {
			return nil, err
		}
		if b.end != at {
			s.Lock()
			c := s.cursors[r.name]
			moved := c.at != at
			if !moved {
				c.flying = b.end
			}
			s.Unlock()
			if moved {
				continue
			}
			if len(b.Records) > 0 {
				return b, nil
			}
			// Nothing but damage.
			if err := r.Ack(b); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-more:
		}
	}
}

// read collects records after a position.
func (q *Queue) read(segments []segment, at position, limit Limit) (*Batch, error) {
	b := &Batch{end: at}
	var size int64
	for _, s := range segments {
		if s.number < at.Segment {
			continue
		}
		if s.number > at.Segment {
			at = position{s.number, segmentHead}
		}
		if at.Offset >= s.size {
			continue
		}
		f, err := os.Open(segmentPath(q.dir, s.number))
		if errors.Is(err, os.ErrNotExist) && q.holds(s.number) {
			// Somebody else took the file away.
			b.skipped.Unknown += uint64(s.size - at.Offset)
			b.end = position{s.number, s.size}
			continue
		}
		if err != nil {
			return nil, err
		}
		full, err := b.fill(f, s, at.Offset, &size, limit)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("segment %d: %w", s.number, err)
		}
		if full {
			return b, nil
		}
	}
	return b, nil
}

// holds reports whether the queue has not removed a segment itself.
func (q *Queue) holds(n uint64) bool {
	q.state.Lock()
	defer q.state.Unlock()
	return q.state.segments[0].number <= n
}

func (b *Batch) fill(f io.ReaderAt, s segment, at int64, size *int64, limit Limit) (full bool, err error) {
	for at < s.size {
		h, err := headAt(f, s.number, at, s.size)
		if errors.Is(err, errDamaged) {
			next, err := resync(f, s.number, at, s.size)
			if err != nil {
				return false, err
			}
			b.skipped.Unknown += uint64(next - at)
			at = next
			b.end = position{s.number, at}
			continue
		}
		if err != nil {
			return false, err
		}
		if len(b.Records) > 0 && (len(b.Records) >= limit.Records || *size+h.length > limit.Bytes) {
			return true, nil
		}
		payload, err := payloadAt(f, h, at)
		switch {
		case errors.Is(err, errDamaged):
			b.skipped.addFrame(&h)
		case err != nil:
			return false, err
		default:
			b.Records = append(b.Records, Record{From: h.from, To: h.to, Items: h.items, Payload: payload})
			*size += h.length
		}
		at += frameHead + h.length
		b.end = position{s.number, at}
	}
	return false, nil
}

// Ack says that the batch was delivered: the cursor moves past it, durably.
func (r *Reader) Ack(b *Batch) error { return r.Refuse(b, Items{}) }

// Refuse says that the batch was delivered, but for some items that will never
// be taken. The cursor moves past it, durably, and they are counted as lost.
func (r *Reader) Refuse(b *Batch, refused Items) error {
	s := &r.q.state
	s.Lock()
	defer s.Unlock()
	if s.closed {
		return ErrClosed
	}
	c := s.cursors[r.name]
	clear(c.doubtful)
	c.flying = position{}
	c.count(Damaged, b.skipped)
	if refused != (Items{}) {
		l := Loss{Items: refused}
		for _, rec := range b.Records {
			l.add(Loss{Records: 1, From: rec.From, To: rec.To})
		}
		c.count(Refused, l)
	}
	if b.end.compare(c.at) > 0 {
		c.at = b.end
	}
	if err := c.save(r.q.dir); err != nil {
		return err
	}
	return r.q.retire()
}

// Fail says that the batch was not delivered. What was removed meanwhile is
// now lost; the rest comes again.
func (r *Reader) Fail(*Batch) {
	s := &r.q.state
	s.Lock()
	defer s.Unlock()
	c := s.cursors[r.name]
	c.flying = position{}
	c.settle()
}

// Stats is what a queue says of itself.
type Stats struct {
	Bytes    int64 // of all segments
	MaxBytes int64
	Segments int
	Appended uint64 // records, since Open
	Torn     int64  // bytes of a torn tail that Open cut off
	Readers  map[string]ReaderStats
}

// ReaderStats is one reader's account.
type ReaderStats struct {
	// Backlog is how many bytes lie after the cursor.
	Backlog int64
	// Lost is by Loss.Why, since the reader exists.
	Lost map[string]Loss
}

// Stats returns a copy of the queue's account.
func (q *Queue) Stats() Stats {
	s := &q.state
	s.Lock()
	defer s.Unlock()
	st := Stats{Bytes: q.bytesLocked(), MaxBytes: q.o.MaxBytes, Segments: len(s.segments), Appended: s.appended, Torn: s.torn, Readers: map[string]ReaderStats{}}
	for name, c := range s.cursors {
		r := ReaderStats{Lost: map[string]Loss{}}
		for _, g := range s.segments {
			switch {
			case g.number > c.at.Segment:
				r.Backlog += g.size - segmentHead
			case g.number == c.at.Segment:
				r.Backlog += g.size - max(c.at.Offset, segmentHead)
			}
		}
		for why, l := range c.lost {
			l.Reader, l.Why = name, why
			r.Lost[why] = l
		}
		st.Readers[name] = r
	}
	return st
}

// Losses takes what was lost since it was last called and hands it to report,
// which says whether it was noted durably. What was not is offered again, after
// a restart too.
func (q *Queue) Losses(report func(Loss) bool) error {
	s := &q.state
	var found []Loss
	s.Lock()
	for name, c := range s.cursors {
		for why, l := range c.unreported {
			l.Reader, l.Why = name, why
			found = append(found, l)
		}
		clear(c.unreported)
	}
	s.Unlock()
	// report may append to this very queue.
	var errs []error
	for _, l := range found {
		ok := report(l)
		s.Lock()
		if c := s.cursors[l.Reader]; c != nil && !ok {
			sum := c.unreported[l.Why]
			sum.add(l)
			c.unreported[l.Why] = sum
		} else if c != nil && !s.closed {
			errs = append(errs, c.save(q.dir))
		}
		s.Unlock()
	}
	return errors.Join(errs...)
}
