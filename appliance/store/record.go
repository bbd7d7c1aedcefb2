package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/bits"

	"patronus/netstack/path"
)

// logged is what a record of the log carries: one batch, placed on the
// timeline.
//
//	1 at site rest | samples... | flows, events and changes as JSON, if any
type logged struct {
	Flows   []FlowRecord `json:"flows,omitempty"`
	Events  []Event      `json:"events,omitempty"`
	Changes []Change     `json:"changes,omitempty"`
}

const logVersion = 1

// appendBatch codes b.
func appendBatch(dst []byte, b *Batch, d definitions) ([]byte, error) {
	dst = append(dst, logVersion)
	dst = binary.AppendVarint(dst, b.At)
	dst = appendString(dst, b.Site)
	dst = binary.AppendUvarint(dst, uint64(len(b.Samples)))
	for i := range b.Samples {
		s := &b.Samples[i]
		id, known := d.define(i)
		if known {
			dst = binary.AppendUvarint(dst, uint64(id)<<1)
		} else {
			dst = binary.AppendUvarint(dst, uint64(id)<<1|1)
			dst = appendString(dst, s.Site)
			dst = appendString(dst, string(s.Path))
		}
		dst = appendSample(dst, b.At, &s.Sample)
	}
	if len(b.Flows)+len(b.Events)+len(b.Changes) == 0 {
		return dst, nil
	}
	rest, err := json.Marshal(logged{b.Flows, b.Events, b.Changes})
	if err != nil {
		return nil, fmt.Errorf("code batch: %w", err)
	}
	return append(dst, rest...), nil
}

// appendSample codes a sample by itself: At, Offset, a mask of values that are
// not 0, a mask of those missing, the values.
func appendSample(dst []byte, at int64, s *Sample) []byte {
	dst = binary.AppendVarint(dst, s.At-at)
	dst = binary.AppendVarint(dst, int64(s.Offset))
	pos := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	var some, none uint16
	for m, v := range s.V {
		switch v {
		case 0:
		case Missing:
			none |= 1 << m
		default:
			some |= 1 << m
			dst = binary.AppendVarint(dst, int64(v))
		}
	}
	binary.LittleEndian.PutUint16(dst[pos:], some)
	binary.LittleEndian.PutUint16(dst[pos+2:], none)
	return dst
}

// reader takes a record apart. The first thing that does not fit sets bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) varint() int64 {
	v, size := binary.Varint(r.b)
	if size <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return v
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) string() string { return string(r.bytes(r.uvarint())) }

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// readBatch decodes what appendBatch wrote. defined has the series of the
// segment by number; a sample of one that it lacks (its definition was damaged)
// is left out and counted in lost.
func readBatch(payload []byte, defined map[uint32]Series) (b Batch, lost int, err error) {
	r := reader{b: payload}
	if v := r.bytes(1); v == nil || v[0] != logVersion {
		return b, 0, fmt.Errorf("log record: unknown version")
	}
	b.At, b.Site = r.varint(), r.string()
	count := r.uvarint()
	if count > uint64(len(payload)) {
		return b, 0, errShort
	}
	b.Samples = make([]SeriesSample, 0, count)
	for range count {
		ref := r.uvarint()
		id := uint32(ref >> 1)
		if ref&1 != 0 {
			s := Series{Site: r.string()}
			s.Path = path.ID(r.string())
			if !r.bad {
				defined[id] = s
			}
		}
		s := SeriesSample{}
		r.sample(b.At, &s.Sample)
		if r.bad {
			return b, lost, errShort
		}
		var ok bool
		if s.Series, ok = defined[id]; !ok || ref>>1 > math.MaxUint32 {
			lost++
			continue
		}
		b.Samples = append(b.Samples, s)
	}
	if len(r.b) > 0 {
		var l logged
		if err := json.Unmarshal(r.b, &l); err != nil {
			return b, lost, fmt.Errorf("log record: %w", err)
		}
		b.Flows, b.Events, b.Changes = l.Flows, l.Events, l.Changes
	}
	return b, lost, nil
}

func (r *reader) sample(at int64, s *Sample) {
	s.At = at + r.varint()
	s.Offset = int32(r.varint())
	some, none := r.uint16(), r.uint16()
	if (some|none)>>NumMetrics != 0 {
		r.bad = true
		return
	}
	for ; none != 0; none &= none - 1 {
		s.V[bits.TrailingZeros16(none)] = Missing
	}
	for ; some != 0; some &= some - 1 {
		s.V[bits.TrailingZeros16(some)] = int32(r.varint())
	}
}
