package agent

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"patronus/appliance/store"
)

// The messages of agent.proto, written and read by hand: see DESIGN.md. Byte
// fields of what was read share one buffer, which nobody uses again: they may
// be kept.

// errMessage is wrapped by what cannot be read.
var errMessage = errors.New("unreadable message")

// message is one message of agent.proto.
type message interface {
	append(b []byte) []byte
	// field takes one field; unknown ones are ignored.
	field(n protowire.Number, f field) error
}

// field is the value of one field: number for varints, bytes for the rest.
type field struct {
	number uint64
	bytes  []byte
}

// IdentifyRequest asks whose store it is.
type IdentifyRequest struct{}

func (*IdentifyRequest) append(b []byte) []byte              { return b }
func (*IdentifyRequest) field(protowire.Number, field) error { return nil }

// Identity is whose store it is and what it holds.
type Identity struct {
	Fabric, Site string
	// Node and Epoch are the store's: another pair means that it was rebuilt
	// and numbers its records anew.
	Node    string
	Epoch   uint64
	Version string
	ClockMS int64 // Unix ms of the appliance's own clock
	Head    uint64
}

func (m *Identity) append(b []byte) []byte {
	b = appendBytes(b, 1, m.Fabric)
	b = appendBytes(b, 2, m.Site)
	b = appendBytes(b, 3, m.Node)
	b = appendNumber(b, 4, m.Epoch)
	b = appendBytes(b, 5, m.Version)
	b = appendNumber(b, 6, uint64(m.ClockMS))
	return appendNumber(b, 7, m.Head)
}

func (m *Identity) field(n protowire.Number, f field) error {
	switch n {
	case 1:
		m.Fabric = string(f.bytes)
	case 2:
		m.Site = string(f.bytes)
	case 3:
		m.Node = string(f.bytes)
	case 4:
		m.Epoch = f.number
	case 5:
		m.Version = string(f.bytes)
	case 6:
		m.ClockMS = int64(f.number)
	case 7:
		m.Head = f.number
	}
	return nil
}

// Terms are signed statements about the dashboard role, and the signing key of
// whoever sends them.
type Terms struct {
	SigningKey []byte
	Signed     [][]byte
}

func (m *Terms) append(b []byte) []byte {
	b = appendBytes(b, 1, m.SigningKey)
	for _, s := range m.Signed {
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendBytes(b, s)
	}
	return b
}

func (m *Terms) field(n protowire.Number, f field) error {
	switch n {
	case 1:
		m.SigningKey = f.bytes
	case 2:
		m.Signed = append(m.Signed, f.bytes)
	}
	return nil
}

// RecordsRequest asks for the records First to Last, both in it, of one store.
type RecordsRequest struct {
	Node        string
	Epoch       uint64
	First, Last uint64
}

func (m *RecordsRequest) append(b []byte) []byte {
	b = appendBytes(b, 1, m.Node)
	b = appendNumber(b, 2, m.Epoch)
	b = appendNumber(b, 3, m.First)
	return appendNumber(b, 4, m.Last)
}

func (m *RecordsRequest) field(n protowire.Number, f field) error {
	switch n {
	case 1:
		m.Node = string(f.bytes)
	case 2:
		m.Epoch = f.number
	case 3:
		m.First = f.number
	case 4:
		m.Last = f.number
	}
	return nil
}

// Records is everything that there is from First to Last, both in it: numbers
// that are missing no longer exist, those in Damaged cannot be read.
type Records store.Section

func (m *Records) append(b []byte) []byte {
	b = appendNumber(b, 1, m.First)
	b = appendNumber(b, 2, m.Last)
	for i := range m.Records {
		r := (*record)(&m.Records[i])
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(r.size()))
		b = r.append(b)
	}
	if len(m.Damaged) > 0 {
		size := 0
		for _, seq := range m.Damaged {
			size += protowire.SizeVarint(seq)
		}
		b = protowire.AppendTag(b, 4, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(size))
		for _, seq := range m.Damaged {
			b = protowire.AppendVarint(b, seq)
		}
	}
	return b
}

func (m *Records) field(n protowire.Number, f field) error {
	switch n {
	case 1:
		m.First = f.number
	case 2:
		m.Last = f.number
	case 3:
		var r record
		if err := decode(f.bytes, &r); err != nil {
			return err
		}
		m.Records = append(m.Records, store.Record(r))
	case 4:
		if f.bytes == nil { // not packed: one number
			m.Damaged = append(m.Damaged, f.number)
			return nil
		}
		for rest := f.bytes; len(rest) > 0; {
			v, size := protowire.ConsumeVarint(rest)
			if size < 0 {
				return protowire.ParseError(size)
			}
			m.Damaged, rest = append(m.Damaged, v), rest[size:]
		}
	}
	return nil
}

// record is a store's record on the wire.
type record store.Record

func (r *record) append(b []byte) []byte {
	b = appendNumber(b, 1, r.Seq)
	b = appendNumber(b, 2, uint64(r.Kind))
	b = appendBytes(b, 3, r.Key)
	return appendBytes(b, 4, r.Value)
}

func (r *record) size() int {
	n := 0
	if r.Seq != 0 {
		n += 1 + protowire.SizeVarint(r.Seq)
	}
	if r.Kind != 0 {
		n += 1 + protowire.SizeVarint(uint64(r.Kind))
	}
	if len(r.Key) > 0 {
		n += 1 + protowire.SizeBytes(len(r.Key))
	}
	if len(r.Value) > 0 {
		n += 1 + protowire.SizeBytes(len(r.Value))
	}
	return n
}

func (r *record) field(n protowire.Number, f field) error {
	switch n {
	case 1:
		r.Seq = f.number
	case 2:
		if f.number > 255 {
			return fmt.Errorf("kind %d", f.number)
		}
		r.Kind = store.Kind(f.number)
	case 3:
		r.Key = f.bytes
	case 4:
		r.Value = f.bytes
	}
	return nil
}

// TailRequest asks for the records after one of one store, and for the samples
// since a time that are not sealed.
type TailRequest struct {
	Node    string
	Epoch   uint64
	After   uint64
	SinceMS int64
}

func (m *TailRequest) append(b []byte) []byte {
	b = appendBytes(b, 1, m.Node)
	b = appendNumber(b, 2, m.Epoch)
	b = appendNumber(b, 3, m.After)
	return appendNumber(b, 4, uint64(m.SinceMS))
}

func (m *TailRequest) field(n protowire.Number, f field) error {
	switch n {
	case 1:
		m.Node = string(f.bytes)
	case 2:
		m.Epoch = f.number
	case 3:
		m.After = f.number
	case 4:
		m.SinceMS = int64(f.number)
	}
	return nil
}

// TailEvent is sealed records, or a tick, or nothing but the clock.
type TailEvent struct {
	ClockMS int64
	Records *Records
	Tick    *Tick
	// CaughtUp is set once, when everything that was not sealed at the time of
	// the call has been sent.
	CaughtUp bool
}

func (m *TailEvent) append(b []byte) []byte {
	b = appendNumber(b, 1, uint64(m.ClockMS))
	if m.Records != nil {
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendBytes(b, m.Records.append(nil))
	}
	if m.Tick != nil {
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendBytes(b, m.Tick.append(nil))
	}
	if m.CaughtUp {
		b = appendNumber(b, 4, 1)
	}
	return b
}

func (m *TailEvent) field(n protowire.Number, f field) error {
	switch n {
	case 1:
		m.ClockMS = int64(f.number)
	case 2:
		m.Records = &Records{}
		return decode(f.bytes, m.Records)
	case 3:
		m.Tick = &Tick{}
		return decode(f.bytes, m.Tick)
	case 4:
		m.CaughtUp = f.number != 0
	}
	return nil
}

// appendNumber writes a varint field; proto3 leaves zeros out.
func appendNumber(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func appendBytes[T string | []byte](b []byte, n protowire.Number, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.BytesType), uint64(len(v)))
	return append(b, v...)
}

// decode reads all fields of b into m.
func decode(b []byte, m message) error {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return fmt.Errorf("%w: %w", errMessage, protowire.ParseError(size))
		}
		b = b[size:]
		var f field
		switch kind {
		case protowire.VarintType:
			f.number, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, size = protowire.ConsumeBytes(b)
		default: // no field of ours: of a newer version
			if size = protowire.ConsumeFieldValue(n, kind, b); size >= 0 {
				b = b[size:]
				continue
			}
		}
		if size < 0 {
			return fmt.Errorf("%w: %w", errMessage, protowire.ParseError(size))
		}
		b = b[size:]
		if err := m.field(n, f); err != nil {
			if errors.Is(err, errMessage) {
				return err
			}
			return fmt.Errorf("%w: %w", errMessage, err)
		}
	}
	return nil
}

// codec gives connect our messages. It implements connect.Codec.
type codec struct{}

// Name implements connect.Codec: these are protobuf's bytes.
func (codec) Name() string { return "proto" }

// Marshal implements connect.Codec.
func (c codec) Marshal(v any) ([]byte, error) { return c.MarshalAppend(nil, v) }

// MarshalAppend is what connect looks for to write into its own buffer.
func (codec) MarshalAppend(b []byte, v any) ([]byte, error) {
	m, ok := v.(message)
	if !ok {
		return nil, fmt.Errorf("%T is no message of the agent API", v)
	}
	return m.append(b), nil
}

// Unmarshal implements connect.Codec. connect reuses its buffer, so what is
// read gets one of its own.
func (codec) Unmarshal(b []byte, v any) error {
	m, ok := v.(message)
	if !ok {
		return fmt.Errorf("%T is no message of the agent API", v)
	}
	return decode(append([]byte(nil), b...), m)
}
