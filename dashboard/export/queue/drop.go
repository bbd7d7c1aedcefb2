package queue

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrDiskFull is returned when even a queue without any older segment would
// eat into the reserve of the file system.
var ErrDiskFull = errors.New("queue: the file system is at its reserve")

// makeRoom removes the oldest segments until n more bytes fit in the bound and
// leave the file system its reserve.
func (q *Queue) makeRoom(n int64) error {
	for q.bytes()+n > q.o.MaxBytes {
		if err := q.dropOldest(Bound); err != nil {
			return err
		}
	}
	for q.o.Reserve > 0 {
		free, err := q.o.Free(q.dir)
		if err != nil {
			return fmt.Errorf("queue: free space: %w", err)
		}
		if free-n >= q.o.Reserve {
			return nil
		}
		if q.bytes() <= segmentHead {
			return ErrDiskFull
		}
		if err := q.dropOldest(Disk); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) bytes() int64 {
	q.state.Lock()
	defer q.state.Unlock()
	return q.bytesLocked()
}

func (q *Queue) bytesLocked() (sum int64) {
	for _, s := range q.state.segments {
		sum += s.size
	}
	return sum
}

// dropOldest removes the oldest segment and counts it for each reader that had
// not passed it.
func (q *Queue) dropOldest(why string) error {
	s := &q.state
	s.Lock()
	alone := len(s.segments) == 1
	oldest := s.segments[0]
	s.Unlock()
	if alone {
		if err := q.roll(); err != nil {
			return err
		}
	}
	f, err := os.Open(segmentPath(q.dir, oldest.number))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("queue: %w", err)
	}
	if f != nil {
		defer f.Close()
	}
	s.Lock()
	defer s.Unlock()
	// Rolling may have retired it already.
	if s.segments[0].number != oldest.number {
		return nil
	}
	next := position{s.segments[1].number, segmentHead}
	for _, c := range s.cursors {
		if c.at.compare(next) >= 0 {
			continue
		}
		if f != nil {
			if err := c.forfeit(f, oldest, why); err != nil {
				return err
			}
		}
		c.at = next
		// Before the file goes: a cursor into nothing would count nothing.
		if err := c.save(q.dir); err != nil {
			return err
		}
	}
	return q.removeFirst()
}

// forfeit counts what of a segment its reader had still to get. What is being
// delivered right now is doubtful until that ends.
func (c *cursor) forfeit(r io.ReaderAt, s segment, why string) error {
	var lost, doubtful Loss
	for at := max(c.at.Offset, segmentHead); at < s.size; {
		h, err := headAt(r, s.number, at, s.size)
		if errors.Is(err, errDamaged) {
			next, err := resync(r, s.number, at, s.size)
			if err != nil {
				return err
			}
			lost.Unknown += uint64(next - at)
			at = next
			continue
		}
		if err != nil {
			return err
		}
		if (position{s.number, at}).compare(c.flying) < 0 {
			doubtful.addFrame(&h)
		} else {
			lost.addFrame(&h)
		}
		at += frameHead + h.length
	}
	c.count(why, lost)
	if !doubtful.empty() {
		sum := c.doubtful[why]
		sum.add(doubtful)
		c.doubtful[why] = sum
	}
	return nil
}

// retire removes the segments that every reader has passed. The state is
// locked.
func (q *Queue) retire() error {
	s := &q.state
	for len(s.segments) > 1 {
		for _, c := range s.cursors {
			if c.at.Segment < s.segments[1].number && !(c.at.Segment == s.segments[0].number && c.at.Offset >= s.segments[0].size) {
				return nil
			}
		}
		for _, c := range s.cursors {
			if c.at.Segment < s.segments[1].number {
				c.at = position{s.segments[1].number, segmentHead}
			}
		}
		if err := q.removeFirst(); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) removeFirst() error {
	s := &q.state
	err := os.Remove(segmentPath(q.dir, s.segments[0].number))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("queue: %w", err)
	}
	s.segments = s.segments[1:]
	return nil
}
