package export

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"patronus/appliance/store"
	"patronus/netstack/flow"
	"patronus/netstack/path"
)

func aSample(site string, id path.ID, at int64, v int32) store.SeriesSample {
	s := store.SeriesSample{Series: store.Series{Site: site, Path: id}}
	s.At = at
	for m := range s.V {
		s.V[m] = v + int32(m)
	}
	return s
}

func aFlow(at int64) store.FlowRecord {
	return store.FlowRecord{
		At: at, ID: "tcp/10.0.0.1:1/10.1.0.1:443", Site: "hq", Change: "ended", Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.1.0.1"),
		SrcPort: 1, DstPort: 443, Protocol: "TCP", Status: "active", Path: "hq.wan0~east.lte0", Class: "bulk", Policy: "p", Rule: 1,
		Forward: flow.Counts{Packets: 3, Bytes: 4}, Reverse: flow.Counts{Packets: 5, Bytes: 6}, Started: at - 10, Seen: at, Ended: at,
	}
}

func anEvent(at int64) store.Event {
	return store.Event{ID: "e1", At: at, Type: "path_down", Severity: "critical", Site: "hq", Source: "hq.wan0~east.lte0", Data: json.RawMessage(`{"why":"probes"}`)}
}

func newTestCodec(t interface {
	Helper()
	Fatal(...any)
	Cleanup(func())
},
) *codec {
	t.Helper()
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return c
}

// What goes in comes out, whatever the values.
func TestCodecRoundTrip(t *testing.T) {
	c := newTestCodec(t)
	rapid.Check(t, func(t *rapid.T) {
		b := store.Batch{Site: rapid.String().Draw(t, "site"), At: rapid.Int64Range(-1<<50, 1<<50).Draw(t, "at")}
		from, to := b.At, b.At
		for range rapid.IntRange(0, 20).Draw(t, "samples") {
			s := store.SeriesSample{Series: store.Series{Site: rapid.String().Draw(t, "s"), Path: path.ID(rapid.String().Draw(t, "p"))}}
			s.At = rapid.Int64Range(-1<<50, 1<<50).Draw(t, "t")
			s.Offset = rapid.Int32().Draw(t, "offset")
			for m := range s.V {
				s.V[m] = rapid.Int32().Draw(t, "v") // store.Missing is one of them
			}
			from, to = min(from, s.At), max(to, s.At)
			b.Samples = append(b.Samples, s)
		}
		if rapid.Bool().Draw(t, "flow") {
			b.Flows = []store.FlowRecord{aFlow(b.At)}
		}
		if rapid.Bool().Draw(t, "event") {
			b.Events = []store.Event{anEvent(b.At)}
		}
		r, err := c.encode(&b)
		if err != nil {
			t.Fatal(err)
		}
		if r.From != from || r.To != to || int(r.Items.Samples) != len(b.Samples) || int(r.Items.Flows) != len(b.Flows) || int(r.Items.Events) != len(b.Events) {
			t.Fatalf("record %+v", r)
		}
		got, err := c.decode(r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(b, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Fatal(d)
		}
	})
}

// Whatever stands in the queue, decode answers and does not eat the memory.
func FuzzDecode(f *testing.F) {
	c := newTestCodec(f)
	b := store.Batch{Site: "hq", At: 1, Samples: []store.SeriesSample{aSample("hq", "a", 1, 2)}, Events: []store.Event{anEvent(1)}}
	r, err := c.encode(&b)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Payload)
	f.Add([]byte{codecVersion})
	f.Add([]byte{})
	// Fuzzed without compression too, which a fuzzer does not get through.
	f.Add([]byte("\x02hq\x02\x01"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, p := range [][]byte{payload, c.enc.EncodeAll(payload, []byte{codecVersion})} {
			got, err := c.decode(p)
			if err != nil {
				if !errors.Is(err, errPayload) {
					t.Fatal(err)
				}
				continue
			}
			if _, err := c.encode(&got); err != nil {
				t.Fatalf("decoded, but not to be encoded: %v", err)
			}
		}
	})
}

// A program that knows fewer or more metrics reads what both know.
func TestCodecVersions(t *testing.T) {
	c := newTestCodec(t)
	for _, k := range []int{0, 2, store.NumMetrics + 3} {
		raw := appendString(nil, "hq")
		raw = append(raw, 0, 1) // at 0, one sample
		raw = appendString(appendString(raw, "hq"), "p")
		raw = append(raw, 0, 0, byte(k))
		for i := range k {
			raw = append(raw, byte(zigzag(int64(i))+1))
		}
		b, err := c.decode(c.enc.EncodeAll(raw, []byte{codecVersion}))
		if err != nil {
			t.Fatal(err)
		}
		for m, v := range b.Samples[0].V {
			want := store.Missing
			if m < k {
				want = int32(m)
			}
			if v != want {
				t.Errorf("of %d: value %d is %d, want %d", k, m, v, want)
			}
		}
	}
	if _, err := c.decode([]byte{codecVersion + 1, 0}); !errors.Is(err, errPayload) {
		t.Errorf("a newer version: %v", err)
	}
}

func BenchmarkCodec(b *testing.B) {
	c := newTestCodec(b)
	batch := store.Batch{Site: "hq", At: 1e12}
	for i := range 100 {
		batch.Samples = append(batch.Samples, aSample("hq", path.NewID("hq", "wan0", "east", string(rune('a'+i%26))), 1e12, int32(i)))
	}
	r, err := c.encode(&batch)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.encode(&batch); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(r.Payload))/100, "B/sample")
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.decode(r.Payload); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("remote-write-2", func(b *testing.B) {
		b.ReportAllocs()
		var n int
		for b.Loop() {
			n = len(encode2(gather([]store.Batch{batch})))
		}
		b.ReportMetric(float64(n)/100, "B/sample")
	})
	b.Run("influx", func(b *testing.B) {
		b.ReportAllocs()
		var lines []byte
		for b.Loop() {
			lines = appendLines(lines[:0], &batch)
		}
	})
}
