package store

import (
	"encoding/json"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// packer compresses what is not numbers: flow records, totals, states. It is
// safe for concurrent use.
type packer struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// maxUnpacked bounds what a record unpacks to: one of another site may lie.
const maxUnpacked = 16 << 20

func newPacker() (*packer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("compression: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxUnpacked))
	if err != nil {
		return nil, fmt.Errorf("compression: %w", err)
	}
	return &packer{enc, dec}, nil
}

func (p *packer) close() {
	_ = p.enc.Close()
	p.dec.Close()
}

const packVersion = 1

// seal codes v as JSON, compressed, sealed under key.
func (p *packer) seal(key []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("code %.1q: %w", key, err)
	}
	return seal(key, p.enc.EncodeAll(b, []byte{packVersion})), nil
}

// unseal decodes what seal wrote.
func (p *packer) unseal(key, sealed []byte, v any) error {
	b, err := unseal(key, sealed)
	if err != nil {
		return err
	}
	if len(b) == 0 || b[0] != packVersion {
		return fmt.Errorf("%w: unknown version", damaged(key))
	}
	plain, err := p.dec.DecodeAll(b[1:], nil)
	if err != nil {
		return fmt.Errorf("%w: %w", damaged(key), err)
	}
	if err := json.Unmarshal(plain, v); err != nil {
		return fmt.Errorf("%w: %w", damaged(key), err)
	}
	return nil
}
