package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// A value at rest:
//
//	0     version of the envelope, 1
//	1     flags: bit 0, the payload is a zstd frame
//	2-5   length of the plain value, big endian
//	6-37  SHA-256, see sumOf
//	38-   payload
const (
	envelopeVersion = 1
	flagZstd        = 1
	envelopeHead    = 6 + sha256.Size
)

// MaxValue is the greatest length of a value, in bytes.
const MaxValue = 16 << 20

// packFrom is the length from which a value is compressed when that helps.
const packFrom = 512

// sum identifies a key together with its value.
type sum [sha256.Size]byte

// sumOf binds a plain value to the key it belongs to, so that a value that is
// found under another key is as wrong as one with a flipped bit.
func sumOf(key string, value []byte) sum {
	h := sha256.New()
	h.Write([]byte("patronus ledger value 1\n"))
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(key)))
	h.Write(n[:])
	h.Write([]byte(key))
	h.Write(value)
	var s sum
	h.Sum(s[:0])
	return s
}

// codec packs and unpacks payloads; it is safe for concurrent use.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCodec() (*codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("value compressor: %w", err)
	}
	// A frame may claim any size: the bound is what a value may have.
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxValue+1<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("value decompressor: %w", err)
	}
	return &codec{enc, dec}, nil
}

func (c *codec) close() {
	c.dec.Close()
	_ = c.enc.Close() // it has no writer that could fail
}

// seal makes the envelope of a value.
func (c *codec) seal(key string, value []byte) ([]byte, sum) {
	s := sumOf(key, value)
	out := make([]byte, envelopeHead, envelopeHead+len(value))
	out[0] = envelopeVersion
	binary.BigEndian.PutUint32(out[2:], uint32(len(value)))
	copy(out[6:], s[:])
	if len(value) >= packFrom {
		packed := c.enc.EncodeAll(value, out)
		if len(packed)-envelopeHead < len(value) {
			packed[1] = flagZstd
			return packed, s
		}
	}
	return append(out[:envelopeHead], value...), s
}

var errEnvelope = errors.New("envelope does not match")

// open checks an envelope and gives a copy of the value in it. Whatever it
// returns without an error is exactly what was sealed under that key.
func (c *codec) open(key string, data []byte) ([]byte, sum, error) {
	var want sum
	if len(data) < envelopeHead || data[0] != envelopeVersion || data[1]&^flagZstd != 0 {
		return nil, want, errEnvelope
	}
	n := int(binary.BigEndian.Uint32(data[2:]))
	copy(want[:], data[6:envelopeHead])
	payload := data[envelopeHead:]
	if n > MaxValue {
		return nil, want, errEnvelope
	}
	var value []byte
	if data[1]&flagZstd != 0 {
		var err error
		if value, err = c.dec.DecodeAll(payload, make([]byte, 0, min(n, 64*len(payload)+1024))); err != nil {
			return nil, want, errEnvelope
		}
	} else {
		value = append([]byte{}, payload...)
	}
	if len(value) != n || sumOf(key, value) != want {
		return nil, want, errEnvelope
	}
	return value, want, nil
}
