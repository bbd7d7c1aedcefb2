package store

import (
	"encoding/binary"
	"math/bits"
)

// head is what is in memory of a series: its newest sample, and blocks that
// are not sealed yet. The store's mutex guards it.
type head struct {
	series  Series
	id      uint32 // in the log
	segment uint64 // of the log that knows the id, 0 if none
	last    Sample
	seen    bool         // last is set
	open    []*openBlock // by start; mostly one
	day     int64        // of the newest block of the hour tier, when the store was opened
	hourSeq uint64       // feed entry of the newest block of the hour tier
}

// openBlock is a raw block that grows: full chunks in their final form, and the
// rows of the next chunk packed one after the other.
type openBlock struct {
	start   int64
	lsn     uint64 // of the batch with its first row
	chunks  []chunk
	rows    []byte
	n       int    // rows in rows
	first   int64  // At of the first row in rows
	prev    Sample // of the last row, from which the next one differs
	sealing bool   // a sealer reads it: no more rows
}

// rowOffset is the bit of a row's mask that says that Offset changed; lower
// bits are the metrics.
const rowOffset = 1 << NumMetrics

// appendRow packs s as its difference from prev: At, a mask of what changed,
// the changes.
func appendRow(b []byte, prev, s *Sample) []byte {
	b = binary.AppendVarint(b, s.At-prev.At)
	mask := uint16(0)
	at := len(b)
	b = append(b, 0, 0)
	for m := range s.V {
		if d := int64(s.V[m]) - int64(prev.V[m]); d != 0 {
			mask |= 1 << m
			b = binary.AppendVarint(b, d)
		}
	}
	if d := int64(s.Offset) - int64(prev.Offset); d != 0 {
		mask |= rowOffset
		b = binary.AppendVarint(b, d)
	}
	binary.LittleEndian.PutUint16(b[at:], mask)
	return b
}

// readRow applies the next row of b to s and returns the rest of b.
func readRow(b []byte, s *Sample) ([]byte, error) {
	d, size := binary.Varint(b)
	if size <= 0 || len(b) < size+2 {
		return nil, errShort
	}
	s.At += d
	mask := binary.LittleEndian.Uint16(b[size:])
	b = b[size+2:]
	for mask != 0 {
		m := bits.TrailingZeros16(mask)
		mask &= mask - 1
		d, size := binary.Varint(b)
		if size <= 0 {
			return nil, errShort
		}
		b = b[size:]
		switch {
		case m < NumMetrics:
			s.V[m] = int32(int64(s.V[m]) + d)
		case m == NumMetrics:
			s.Offset = int32(int64(s.Offset) + d)
		default:
			return nil, errBlock
		}
	}
	return b, nil
}

// append adds a sample that is newer than the newest of the block.
func (o *openBlock) append(s *Sample, c *columnCoder, g *grid) {
	if o.n == 0 {
		o.first, o.prev = s.At, Sample{At: o.start}
	}
	o.rows = appendRow(o.rows, &o.prev, s)
	o.prev = *s
	o.n++
	if o.n == maxChunk {
		o.pack(c, g)
	}
}

// pack turns the packed rows into a chunk.
func (o *openBlock) pack(c *columnCoder, g *grid) {
	if o.n == 0 {
		return
	}
	unpackRows(g, o.start, o.n, o.rows)
	o.chunks = append(o.chunks, c.newChunk(g, 0, o.n))
	o.rows, o.n = o.rows[:0], 0
}

// unpackRows fills g with n packed rows of a block that starts at start.
func unpackRows(g *grid, start int64, n int, rows []byte) {
	g.resize(rawColumns, n)
	s := Sample{At: start}
	for i := range n {
		rest, err := readRow(rows, &s)
		if err != nil {
			// Rows are written by appendRow alone and never leave memory.
			panic("store: rows of an open block are malformed")
		}
		rows = rest
		g.put(i, &s)
	}
}

// put writes a sample into row i of a raw grid.
func (g *grid) put(i int, s *Sample) {
	g.cols[0][i], g.cols[1][i] = s.At, int64(s.Offset)
	for m, v := range s.V {
		g.cols[2+m][i] = int64(v)
	}
}

// sample reads row i of a raw grid.
func (g *grid) sample(i int) Sample {
	s := Sample{At: g.cols[0][i], Offset: int32(g.cols[1][i])}
	for m := range s.V {
		s.V[m] = int32(g.cols[2+m][i])
	}
	return s
}

// block finds or makes the open block that at falls into; nil if it is not
// after the block's newest row.
func (h *head) block(at int64) *openBlock {
	start := floor(at, hourMs)
	for i := len(h.open) - 1; i >= 0; i-- {
		if o := h.open[i]; o.start == start && !o.sealing {
			if at <= o.newest() {
				return nil
			}
			return o
		}
	}
	o := &openBlock{start: start}
	h.open = append(h.open, o)
	return o
}

// newest is the At of the newest row.
func (o *openBlock) newest() int64 {
	if o.n > 0 {
		return o.prev.At
	}
	if len(o.chunks) > 0 {
		return o.chunks[len(o.chunks)-1].last
	}
	return o.start - 1
}

// snapshot is a copy for readers outside of
// the lock; chunks are immutable and shared.
func (o *openBlock) snapshot() openBlock {
	return openBlock{start: o.start, chunks: o.chunks[:len(o.chunks):len(o.chunks)], rows: append([]byte(nil), o.rows...), n: o.n, first: o.first, prev: o.prev}
}
