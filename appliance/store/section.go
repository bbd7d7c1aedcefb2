package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Section is a part of the change feed, without a hole: every number from First
// to Last is in Records, or cannot be read and is in Damaged, or does not exist
// any more.
type Section struct {
	First, Last uint64
	Records     []Record // newest first
	Damaged     []uint64
}

// Section reads the newest part of the feed from number from to number to, both
// included: at most limit records, and no more than about size bytes of them.
func (s *Store) Section(from, to uint64, limit, size int) (Section, error) {
	sec := Section{First: from, Last: to}
	type item struct {
		seq uint64
		key []byte
	}
	var items []item
	err := s.base.scan([]byte{kindFeed}, feedKey(min(to, s.Head())), true, func(key, sealed []byte) bool {
		if len(key) != 9 {
			return true
		}
		seq := binary.BigEndian.Uint64(key[1:])
		if seq < from {
			return false
		}
		if len(items) == limit {
			sec.First = items[limit-1].seq
			return false
		}
		of, err := unseal(key, sealed)
		if err != nil {
			of = nil
		}
		items = append(items, item{seq, bytes.Clone(of)})
		return true
	})
	if err != nil {
		return Section{}, fmt.Errorf("section: %w", err)
	}
	got := 0
	for _, it := range items {
		err := ErrDamaged
		var value []byte
		if len(it.key) > 0 {
			if value, err = s.base.copySealed(nil, it.key); err == nil {
				_, err = unseal(it.key, value)
			}
		}
		switch {
		case err == nil:
			sec.Records = append(sec.Records, Record{Seq: it.seq, Kind: Kind(it.key[0]), Key: it.key, Value: value})
			got += len(it.key) + len(value)
		case errors.Is(err, ErrDamaged):
			s.base.damaged.Add(1)
			sec.Damaged = append(sec.Damaged, it.seq)
		case !errors.Is(err, ErrNotFound): // not found: retired
			return Section{}, fmt.Errorf("section: %w", err)
		}
		if got >= size {
			sec.First = it.seq
			break
		}
	}
	return sec, nil
}
