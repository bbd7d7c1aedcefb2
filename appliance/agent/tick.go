package agent

import (
	"encoding/json"
	"fmt"

	"patronus/appliance/store"
)

// encodeTick writes a batch that is not sealed yet.
func encodeTick(b *store.Batch) ([]byte, error) {
	text, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode tick: %w", err)
	}
	return text, nil
}

// DecodeTick reads the Tick of a [TailEvent].
func DecodeTick(tick []byte) (store.Batch, error) {
	var b store.Batch
	if err := json.Unmarshal(tick, &b); err != nil {
		return store.Batch{}, fmt.Errorf("decode tick: %w", err)
	}
	return b, nil
}
