package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Record is one unit of the queue: a payload, and what it says of itself so
// that its loss can be reported without understanding it.
type Record struct {
	// From and To are the times that the payload covers, Unix ms.
	From, To int64
	// Items counts what is inside.
	Items Items
	// Payload is opaque here. Appended: borrowed until Append returns. Read:
	// the caller's to keep.
	Payload []byte
}

// Items counts the contents of records by kind.
type Items struct {
	Samples uint64 `json:"samples,omitempty"`
	Flows   uint64 `json:"flows,omitempty"`
	Events  uint64 `json:"events,omitempty"`
}

func (i *Items) add(o Items) {
	i.Samples += o.Samples
	i.Flows += o.Flows
	i.Events += o.Events
}

// Sum is how many items there are of any kind.
func (i Items) Sum() uint64 { return i.Samples + i.Flows + i.Events }

const (
	// segmentMagic begins a file; its last byte is the version of the layout.
	segmentMagic = "ptrnsq\x00\x01"
	segmentHead  = int64(len(segmentMagic))
	frameMagic   = 0x31515850 // "PXQ1"
	frameHead    = 48
	// maxPayload bounds what a damaged length can make us read.
	maxPayload = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged: no valid frame head stands here.
var errDamaged = errors.New("damaged frame")

// ErrVersion is returned by Open for segments of a newer layout.
var ErrVersion = errors.New("queue was written by a newer version")

// frame is a decoded frame head.
type frame struct {
	length   int64
	sum      uint32 // CRC32C of the payload
	from, to int64
	items    Items
}

// appendFrame adds r's frame, as it stands at an offset of a segment. The
// head's checksum covers that place, so that bytes of another file or of an
// older life of this one are never taken for a record.
func appendFrame(b []byte, segment uint64, offset int64, r *Record) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, frameMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Payload)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(r.Payload, castagnoli))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.From))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.To))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.Items.Samples))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.Items.Flows))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.Items.Events))
	b = binary.LittleEndian.AppendUint32(b, 0) // reserved
	b = binary.LittleEndian.AppendUint32(b, headSum(b[start:], segment, offset))
	return append(b, r.Payload...)
}

func headSum(head []byte, segment uint64, offset int64) uint32 {
	var place [16]byte
	binary.LittleEndian.PutUint64(place[:8], segment)
	binary.LittleEndian.PutUint64(place[8:], uint64(offset))
	return crc32.Update(crc32.Checksum(head[:frameHead-4], castagnoli), castagnoli, place[:])
}

// parseHead decodes the frame head in b, which has at least frameHead bytes.
func parseHead(b []byte, segment uint64, offset int64) (frame, error) {
	if binary.LittleEndian.Uint32(b) != frameMagic || binary.LittleEndian.Uint32(b[frameHead-4:]) != headSum(b, segment, offset) {
		return frame{}, errDamaged
	}
	f := frame{
		length: int64(binary.LittleEndian.Uint32(b[4:])), sum: binary.LittleEndian.Uint32(b[8:]),
		from: int64(binary.LittleEndian.Uint64(b[12:])), to: int64(binary.LittleEndian.Uint64(b[20:])),
		items: Items{
			Samples: uint64(binary.LittleEndian.Uint32(b[28:])),
			Flows:   uint64(binary.LittleEndian.Uint32(b[32:])),
			Events:  uint64(binary.LittleEndian.Uint32(b[36:])),
		},
	}
	if f.length > maxPayload {
		return frame{}, errDamaged
	}
	return f, nil
}

// headAt reads the frame head at offset of a segment whose records end at end.
// It returns io.EOF there, and errDamaged where no whole frame can stand.
func headAt(r io.ReaderAt, segment uint64, offset, end int64) (frame, error) {
	if offset >= end {
		return frame{}, io.EOF
	}
	if end-offset < frameHead {
		return frame{}, errDamaged
	}
	var b [frameHead]byte
	if _, err := r.ReadAt(b[:], offset); err != nil {
		return frame{}, fmt.Errorf("read head: %w", err)
	}
	f, err := parseHead(b[:], segment, offset)
	if err == nil && offset+frameHead+f.length > end {
		return frame{}, errDamaged
	}
	return f, err
}

// payloadAt reads and checks the payload of the frame at offset.
func payloadAt(r io.ReaderAt, f frame, offset int64) ([]byte, error) {
	b := make([]byte, f.length)
	if _, err := r.ReadAt(b, offset+frameHead); err != nil {
		return nil, fmt.Errorf("read payload: %w", err)
	}
	if crc32.Checksum(b, castagnoli) != f.sum {
		return nil, errDamaged
	}
	return b, nil
}

// resync finds the next valid frame head after a damaged one, or end.
func resync(r io.ReaderAt, segment uint64, offset, end int64) (int64, error) {
	const window = 256 << 10
	var magic [4]byte
	binary.LittleEndian.PutUint32(magic[:], frameMagic)
	b := make([]byte, window+frameHead)
	for at := offset + 1; at < end; at += window {
		n, err := r.ReadAt(b[:min(int64(len(b)), end-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("look for the next record: %w", err)
		}
		part := b[:n]
		for i := 0; i < min(window, n); i++ {
			j := bytes.Index(part[i:], magic[:])
			if j < 0 || i+j >= window || n-(i+j) < frameHead {
				break
			}
			i += j
			if f, err := parseHead(part[i:], segment, at+int64(i)); err == nil && at+int64(i)+frameHead+f.length <= end {
				return at + int64(i), nil
			}
		}
	}
	return end, nil
}
