package agent

import (
	"encoding/json"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"patronus/appliance/store"
	"patronus/netstack/path"
)

// Tick is a batch of a store that is not sealed yet.
type Tick store.Batch

// rest is what a tick has beside samples: little, and seldom.
type rest struct {
	Flows   []store.FlowRecord `json:"flows,omitempty"`
	Events  []store.Event      `json:"events,omitempty"`
	Changes []store.Change     `json:"changes,omitempty"`
}

func (t *Tick) append(b []byte) []byte {
	b = appendBytes(b, 1, t.Site)
	b = appendNumber(b, 2, uint64(t.At))
	for i := 0; i < len(t.Samples); {
		j := i + 1
		for j < len(t.Samples) && t.Samples[j].Series == t.Samples[i].Series {
			j++
		}
		s := series{path: t.Samples[i].Path, samples: t.Samples[i:j]}
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendBytes(b, s.append(nil))
		i = j
	}
	if len(t.Flows)+len(t.Events)+len(t.Changes) > 0 {
		text, err := json.Marshal(rest{t.Flows, t.Events, t.Changes})
		if err != nil {
			return b // unreadable JSON in an event is no reason to lose the samples
		}
		b = appendBytes(b, 4, text)
	}
	return b
}

func (t *Tick) field(n protowire.Number, f field) error {
	switch n {
	case 1:
		t.Site = string(f.bytes)
	case 2:
		t.At = int64(f.number)
	case 3:
		var s series
		if err := decode(f.bytes, &s); err != nil {
			return err
		}
		if err := s.rows(func(sm store.Sample) {
			t.Samples = append(t.Samples, store.SeriesSample{Series: store.Series{Path: s.path}, Sample: sm})
		}); err != nil {
			return err
		}
	case 4:
		var r rest
		if err := json.Unmarshal(f.bytes, &r); err != nil {
			return fmt.Errorf("rest of a tick: %w", err)
		}
		t.Flows, t.Events, t.Changes = r.Flows, r.Events, r.Changes
	}
	return nil
}

// Batch is the tick as the store takes it: everything in it is of one site.
func (t *Tick) Batch() store.Batch {
	b := store.Batch(*t)
	for i := range b.Samples {
		b.Samples[i].Site = b.Site
	}
	return b
}

// series are the samples of one path on the wire.
type series struct {
	path    path.ID
	samples []store.SeriesSample // to write
	metrics uint64               // read
	packed  []byte
}

func (s *series) append(b []byte) []byte {
	b = appendBytes(b, 1, string(s.path))
	b = appendNumber(b, 2, store.NumMetrics)
	var packed []byte
	var before store.Sample
	for i := range s.samples {
		now := &s.samples[i].Sample
		packed = appendDifference(packed, now.At, before.At)
		packed = appendDifference(packed, int64(now.Offset), int64(before.Offset))
		for m := range now.V {
			packed = appendDifference(packed, int64(now.V[m]), int64(before.V[m]))
		}
		before = *now
	}
	return appendBytes(b, 3, packed)
}

func appendDifference(b []byte, now, before int64) []byte {
	return protowire.AppendVarint(b, protowire.EncodeZigZag(now-before))
}

func (s *series) field(n protowire.Number, f field) error {
	switch n {
	case 1:
		s.path = path.ID(f.bytes)
	case 2:
		s.metrics = f.number
	case 3:
		s.packed = append(s.packed, f.bytes...)
	}
	return nil
}

// rows passes the samples on. Metrics that we do not know are left out, those
// that the sender does not know are missing.
func (s *series) rows(f func(store.Sample)) error {
	if len(s.packed) > 0 && (s.metrics == 0 || s.metrics > 256) {
		return fmt.Errorf("%d metrics in a row", s.metrics)
	}
	row := make([]int64, 2+s.metrics)
	for b := s.packed; len(b) > 0; {
		for i := range row {
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			row[i] += protowire.DecodeZigZag(v)
			b = b[n:]
		}
		sm := store.Sample{At: row[0], Offset: narrow(row[1])}
		for m := range sm.V {
			sm.V[m] = store.Missing
			if uint64(m) < s.metrics {
				sm.V[m] = narrow(row[2+m])
			}
		}
		f(sm)
	}
	return nil
}

func narrow(v int64) int32 { return int32(min(max(v, math.MinInt32), math.MaxInt32)) }
