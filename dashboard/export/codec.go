package export

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/klauspost/compress/zstd"

	"patronus/appliance/store"
	"patronus/dashboard/export/queue"
	"patronus/netstack/path"
)

// codecVersion begins a payload: one octet, then zstd of
//
//	site, at                                      string, varint
//	n samples: site, path, at, offset, k, k values
//	JSON of {flows, events}
//
// with strings as length and bytes, numbers as varints, times relative to at,
// and a value as 0 if missing, otherwise its zigzag code plus 1. A reader takes
// fewer values for missing ones and ignores more.
const codecVersion = 1

// maxDecoded bounds what a compressed payload may become.
const maxDecoded = 256 << 20

// errPayload: a payload that this program did not write.
var errPayload = errors.New("not a payload of this version")

// codec turns batches into records of the queue and back. It is safe for
// concurrent use.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCodec() (*codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(256<<10))
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDecoded))
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return &codec{enc, dec}, nil
}

func (c *codec) close() error {
	c.dec.Close()
	return c.enc.Close()
}

// rest is what is not worth a form of its own.
type rest struct {
	Flows  []store.FlowRecord `json:"flows,omitempty"`
	Events []store.Event      `json:"events,omitempty"`
}

// encode makes a record of a batch. State changes are not exported.
func (c *codec) encode(b *store.Batch) (queue.Record, error) {
	r := queue.Record{From: b.At, To: b.At, Items: queue.Items{
		Samples: uint64(len(b.Samples)), Flows: uint64(len(b.Flows)), Events: uint64(len(b.Events)),
	}}
	raw := appendString(nil, b.Site)
	raw = binary.AppendVarint(raw, b.At)
	raw = binary.AppendUvarint(raw, uint64(len(b.Samples)))
	cover := func(at int64) { r.From, r.To = min(r.From, at), max(r.To, at) }
	for i := range b.Samples {
		s := &b.Samples[i]
		cover(s.At)
		raw = appendString(raw, s.Site)
		raw = appendString(raw, string(s.Path))
		raw = binary.AppendVarint(raw, s.At-b.At)
		raw = binary.AppendVarint(raw, int64(s.Offset))
		raw = binary.AppendUvarint(raw, uint64(len(s.V)))
		for _, v := range s.V {
			if v == store.Missing {
				raw = append(raw, 0)
				continue
			}
			raw = binary.AppendUvarint(raw, zigzag(int64(v))+1)
		}
	}
	for i := range b.Flows {
		cover(b.Flows[i].At)
	}
	for i := range b.Events {
		cover(b.Events[i].At)
	}
	if len(b.Flows) > 0 || len(b.Events) > 0 {
		text, err := json.Marshal(rest{b.Flows, b.Events})
		if err != nil {
			return queue.Record{}, fmt.Errorf("export: %w", err)
		}
		raw = append(raw, text...)
	}
	r.Payload = c.enc.EncodeAll(raw, []byte{codecVersion})
	return r, nil
}

// decode is the batch of a payload.
func (c *codec) decode(payload []byte) (store.Batch, error) {
	if len(payload) == 0 || payload[0] != codecVersion {
		return store.Batch{}, errPayload
	}
	raw, err := c.dec.DecodeAll(payload[1:], nil)
	if err != nil {
		return store.Batch{}, fmt.Errorf("%w: %w", errPayload, err)
	}
	d := decoder{b: raw}
	b := store.Batch{Site: d.text(), At: d.varint()}
	n := d.uvarint()
	// A sample takes at least 5 octets.
	if d.bad || n > uint64(len(d.b))/5 {
		return store.Batch{}, errPayload
	}
	if n > 0 {
		b.Samples = make([]store.SeriesSample, n)
	}
	for i := range b.Samples {
		s := &b.Samples[i]
		s.Site, s.Path = d.text(), path.ID(d.text())
		s.At = b.At + d.varint()
		s.Offset = int32(d.varint())
		for m := range s.V {
			s.V[m] = store.Missing
		}
		for m := range d.uvarint() {
			v := d.uvarint()
			if d.bad {
				break
			}
			if n := unzigzag(v - 1); v != 0 && m < uint64(len(s.V)) && n >= math.MinInt32 && n <= math.MaxInt32 {
				s.V[m] = int32(n)
			}
		}
	}
	if d.bad {
		return store.Batch{}, errPayload
	}
	if len(d.b) > 0 {
		var more rest
		if err := json.Unmarshal(d.b, &more); err != nil {
			return store.Batch{}, fmt.Errorf("%w: %w", errPayload, err)
		}
		b.Flows, b.Events = more.Flows, more.Events
	}
	return b, nil
}

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads what encode wrote; bad says that it met something else.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	return advance(d, v, n)
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	return advance(d, v, n)
}

func advance[T any](d *decoder, v T, n int) T {
	if n <= 0 {
		d.bad, d.b = true, nil
		var zero T
		return zero
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) text() string {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}
