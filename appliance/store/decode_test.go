package store

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawSample is a sample after at, of any values.
func drawSample(t *rapid.T, at int64) Sample {
	s := Sample{At: at, Offset: rapid.Int32().Draw(t, "offset")}
	for m := range s.V {
		s.V[m] = rapid.OneOf(rapid.Int32(), rapid.Just(Missing), rapid.Int32Range(0, 100)).Draw(t, "v")
	}
	return s
}

func TestBlockRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := BlockID{series(rapid.IntRange(0, 9).Draw(t, "path")), Raw, noon}
		var want []Sample
		o := &openBlock{start: noon}
		var c columnCoder
		var g grid
		at := noon - 1
		for range rapid.IntRange(1, 300).Draw(t, "rows") {
			at += rapid.Int64Range(1, 11_000).Draw(t, "step")
			s := drawSample(t, at)
			want = append(want, s)
			o.append(&s, &c, &g)
		}
		o.pack(&c, &g)
		b := encodeBlock(id, o.chunks)
		chunks, err := decodeBlock(nil, id, b)
		if err != nil {
			t.Fatal(err)
		}
		var got []Sample
		for i := range chunks {
			if err := chunks[i].decode(&g, rawColumns); err != nil {
				t.Fatal(err)
			}
			for row := range g.n {
				got = append(got, g.sample(row))
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
		// Under another name it is not what it says.
		other := id
		other.Start += hourMs
		if _, err := decodeBlock(nil, other, b); !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := decodeBlock(nil, id, b); !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	})
}

func TestKeyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tier := rapid.SampledFrom([]Tier{Raw, Minute, Hour}).Draw(t, "tier")
		id := BlockID{series(rapid.IntRange(0, 99).Draw(t, "path")), tier, rapid.Int64Range(0, 1<<20).Draw(t, "start") * tier.Span()}
		got, err := parseBlockKey(id.key())
		if err != nil || got != id {
			t.Fatalf("%+v, %v", got, err)
		}
		at := rapid.Int64Range(0, 1<<45).Draw(t, "at")
		k := timed(KindEvent, at, "hq", "id")
		if a, site, tail, err := parseTimed(k); err != nil || a != at || site != "hq" || tail != "id" {
			t.Fatal(a, site, tail, err)
		}
	})
}

func TestLogRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := appendLog{table: castagnoli()}
		var file []byte
		var want []Batch
		for n := range rapid.IntRange(1, 6).Draw(t, "records") {
			b := Batch{Site: "hq", At: noon + int64(n)}
			var heads []*head
			for p := range rapid.IntRange(0, 5).Draw(t, "samples") {
				b.Samples = append(b.Samples, SeriesSample{series(p), drawSample(t, b.At)})
				heads = append(heads, &head{id: uint32(p + 1)})
			}
			if n%2 == 1 {
				b.Events = []Event{{ID: "x", At: 1, Type: "y"}}
			}
			want = append(want, b)
			payload, err := appendBatch(make([]byte, logHeader), &b, definitions{heads, 1})
			if err != nil {
				t.Fatal(err)
			}
			file = append(file, frame(&l, payload, uint64(n+1))...)
		}
		var got []Batch
		defined := map[uint32]Series{}
		lost, torn, err := readSegment(append(file, 'P', 'L'), l.table, func(_ uint64, payload []byte) error {
			b, missed, err := readBatch(payload, defined)
			if missed != 0 {
				t.Fatal("samples are missing")
			}
			got = append(got, b)
			return err
		})
		if err != nil || lost != 0 || torn != 2 {
			t.Fatal(lost, torn, err)
		}
		for i := range got {
			if len(got[i].Samples) == 0 {
				got[i].Samples = nil
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzBlock(f *testing.F) {
	id := BlockID{series(1), Raw, noon}
	var c columnCoder
	var g grid
	o := &openBlock{start: noon}
	for at := noon; at < noon+300_000; at += 1000 {
		s := synthetic(1, at)
		o.append(&s, &c, &g)
	}
	o.pack(&c, &g)
	b := encodeBlock(id, o.chunks)
	f.Add(b[:len(b)-sumSize])
	f.Fuzz(func(_ *testing.T, b []byte) {
		chunks, err := decodeChunks(nil, id, b)
		if err != nil {
			return
		}
		var g grid
		for i := range chunks {
			_ = chunks[i].decode(&g, rawColumns)
		}
	})
}

func FuzzRecord(f *testing.F) {
	b := tick(2, noon)
	b.Flows = []FlowRecord{flowAt(1, noon)}
	payload, err := appendBatch(nil, &b, definitions{[]*head{{id: 1}, {id: 2}}, 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Fuzz(func(_ *testing.T, b []byte) {
		defined := map[uint32]Series{}
		_, _, _ = readBatch(b, defined)
		_, _, _ = readSegment(b, castagnoli(), func(uint64, []byte) error { return nil })
		_, _ = parseBlockKey(b)
		_, _, _, _ = parseTimed(b)
	})
}
