package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A block is the samples or rollups of one series in one span of time, in
// chunks of up to maxChunk rows that are decoded one by one. See FORMAT.md.
const blockVersion = 1

// rawColumns are At, Offset and each metric. rollupColumns are At and, for each
// metric, count, mean, mean-min, max-mean and max-p95, which is 0 for few samples.
const (
	rawColumns    = 2 + NumMetrics
	rollupColumns = 1 + rollupParts*NumMetrics
	rollupParts   = 5
)

// The parts of a rollup.
const (
	partCount = iota
	partMean
	partBelow
	partAbove
	partP95
)

var errBlock = errors.New("malformed block")

// chunk is a coded run of rows. data is immutable.
type chunk struct {
	first, last int64 // At of the first and the last row
	n           int
	data        []byte
}

// grid is decoded rows, column by column.
type grid struct {
	n    int
	cols [][]int64
	room []int64
}

// resize makes room for n rows; their numbers are undefined.
func (g *grid) resize(columns, n int) {
	if cap(g.room) < columns*n {
		g.room = make([]int64, columns*n)
	}
	if cap(g.cols) < columns {
		g.cols = make([][]int64, columns)
	}
	g.n, g.cols = n, g.cols[:columns]
	for i := range g.cols {
		g.cols[i] = g.room[i*n : (i+1)*n : (i+1)*n]
	}
}

// appendChunk codes rows from to to (excluded) of g: the lengths of the coded
// columns, then the columns.
func (c *columnCoder) appendChunk(dst []byte, g *grid, from, to int) []byte {
	var lengths [rollupColumns]int
	body := make([]byte, 0, 2048)
	for i, col := range g.cols {
		before := len(body)
		body = c.append(body, col[from:to])
		lengths[i] = len(body) - before
	}
	for i := range g.cols {
		dst = binary.AppendUvarint(dst, uint64(lengths[i]))
	}
	return append(dst, body...)
}

// newChunk codes rows of g in a slice of its own.
func (c *columnCoder) newChunk(g *grid, from, to int) chunk {
	data := c.appendChunk(nil, g, from, to)
	return chunk{first: g.cols[0][from], last: g.cols[0][to-1], n: to - from, data: slices.Clip(data)}
}

// columns finds the coded columns of a chunk. out has one slot for each.
func (ch *chunk) columns(out [][]byte) error {
	b := ch.data
	var lengths [rollupColumns]int
	total := 0
	for i := range out {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(ch.data)) {
			return errBlock
		}
		lengths[i], total, b = int(n), total+int(n), b[size:]
	}
	if total != len(b) {
		return errBlock
	}
	for i := range out {
		out[i], b = b[:lengths[i]], b[lengths[i]:]
	}
	return nil
}

// decode reads the whole chunk into g.
func (ch *chunk) decode(g *grid, columns int) error {
	var coded [rollupColumns][]byte
	if err := ch.columns(coded[:columns]); err != nil {
		return err
	}
	g.resize(columns, ch.n)
	for i := range columns {
		if err := decodeColumn(g.cols[i], coded[i]); err != nil {
			return err
		}
	}
	return nil
}

// encodeBlock joins chunks and seals them under the block's key.
//
//	version tier chunks { first-before span rows bytes }... data... sum
func encodeBlock(id BlockID, chunks []chunk) []byte {
	size := 16
	for i := range chunks {
		size += len(chunks[i].data) + 12
	}
	b := make([]byte, 0, size)
	b = append(b, blockVersion, byte(id.Tier))
	b = binary.AppendUvarint(b, uint64(len(chunks)))
	before := id.Start
	for i := range chunks {
		ch := &chunks[i]
		b = binary.AppendVarint(b, ch.first-before)
		b = binary.AppendUvarint(b, uint64(ch.last-ch.first))
		b = binary.AppendUvarint(b, uint64(ch.n))
		b = binary.AppendUvarint(b, uint64(len(ch.data)))
		before = ch.last
	}
	for i := range chunks {
		b = append(b, chunks[i].data...)
	}
	return seal(id.key(), b)
}

// decodeBlock checks the seal and lists the chunks, appended to chunks. Their
// data is part of b.
func decodeBlock(chunks []chunk, id BlockID, b []byte) ([]chunk, error) {
	key := id.key()
	b, err := unseal(key, b)
	if err != nil {
		return nil, err
	}
	out, err := decodeChunks(chunks, id, b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", damaged(key), err)
	}
	return out, nil
}

func decodeChunks(chunks []chunk, id BlockID, b []byte) ([]chunk, error) {
	if len(b) < 3 || b[0] != blockVersion || Tier(b[1]) != id.Tier {
		return nil, errBlock
	}
	b = b[2:]
	count, size := binary.Uvarint(b)
	if size <= 0 || count > uint64(len(b)) {
		return nil, errBlock
	}
	b = b[size:]
	at, before, total := len(chunks), id.Start, uint64(0)
	var lengths []uint64
	for range count {
		gap, n1 := binary.Varint(b)
		if n1 <= 0 {
			return nil, errBlock
		}
		b = b[n1:]
		var v [3]uint64
		for i := range v {
			n, size := binary.Uvarint(b)
			if size <= 0 {
				return nil, errBlock
			}
			v[i], b = n, b[size:]
		}
		if v[1] == 0 || v[1] > maxChunk || v[0] > uint64(dayMs) {
			return nil, errBlock
		}
		ch := chunk{first: before + gap, n: int(v[1])}
		ch.last = ch.first + int64(v[0])
		before = ch.last
		if ch.first < id.Start || ch.last >= id.Start+id.Tier.Span() {
			return nil, errBlock
		}
		chunks = append(chunks, ch)
		lengths = append(lengths, v[2])
		total += v[2]
		if v[2] > uint64(len(b)) {
			return nil, errBlock
		}
	}
	if total != uint64(len(b)) {
		return nil, errBlock
	}
	for i, n := range lengths {
		chunks[at+i].data, b = b[:n:n], b[n:]
	}
	return chunks, nil
}

// columnsOf is how many columns a block of a tier has.
func (t Tier) columnsOf() int {
	if t == Raw {
		return rawColumns
	}
	return rollupColumns
}

// Span is how much time a block of the tier covers, ms.
func (t Tier) Span() int64 {
	if t == Hour {
		return dayMs
	}
	return hourMs
}

// Step is the distance of points that the tier has at least, ms; 1 for raw.
func (t Tier) Step() int64 {
	switch t {
	case Minute:
		return minuteMs
	case Hour:
		return hourMs
	default:
		return 1
	}
}

// Key is the key that the block is kept and federated under.
func (b *Block) Key() []byte { return b.ID.key() }

// ParseBlock takes a record of [KindBlock] apart and checks it.
func ParseBlock(r Record) (Block, error) {
	id, err := parseBlockKey(r.Key)
	if err != nil {
		return Block{}, err
	}
	if _, err := decodeBlock(nil, id, r.Value); err != nil {
		return Block{}, err
	}
	return Block{ID: id, Data: r.Value}, nil
}

const (
	minuteMs = int64(60_000)
	hourMs   = 60 * minuteMs
	dayMs    = 24 * hourMs
)
