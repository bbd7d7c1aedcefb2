package export

import (
	"cmp"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"patronus/appliance/store"
	"patronus/dashboard/export/series"
	"patronus/netstack/path"
)

// quantities says what each metric of a sample is in Prometheus: its name, and
// how much of its base unit one step of the stored integer is. The loss of the
// worse direction is not among them: it is one of the two that are.
var quantities = [store.NumMetrics]struct {
	series.Quantity
	step float64
}{
	store.Latency:   {series.Latency, 1e-5},
	store.Jitter:    {series.Jitter, 1e-5},
	store.PDV:       {series.PDV, 1e-5},
	store.LossOut:   {series.LossOut, 1e-5},
	store.LossIn:    {series.LossIn, 1e-5},
	store.Reordered: {series.Reordered, 1},
	store.Tx:        {series.RateOut, 125},
	store.Rx:        {series.RateIn, 125},
	store.Bandwidth: {series.Bandwidth, 125},
	store.MTU:       {series.MTU, 1},
	store.Score:     {series.Score, 1},
	store.State:     {series.State, 1},
}

// value is a stored integer in the base unit of its quantity.
func value(v int32, step float64) float64 {
	if step == 1e-5 {
		return float64(v) / 1e5 // exact to the last decimal, which a product is not
	}
	return float64(v) * step
}

// point is one value of one series.
type point struct {
	at int64 // Unix ms
	v  float64
}

// timeSeries is one series with its points in order of time, each time once.
type timeSeries struct {
	labels []series.Label // sorted by name; __name__ among them
	help   string
	points []point
}

// gather turns batches into series.
func gather(batches []store.Batch) []timeSeries {
	byPath := map[store.Series][]*store.Sample{}
	var order []store.Series
	for i := range batches {
		for j := range batches[i].Samples {
			s := &batches[i].Samples[j]
			if _, ok := byPath[s.Series]; !ok {
				order = append(order, s.Series)
			}
			byPath[s.Series] = append(byPath[s.Series], &s.Sample)
		}
	}
	var out []timeSeries
	for _, key := range order {
		samples := byPath[key]
		slices.SortStableFunc(samples, func(a, b *store.Sample) int { return cmp.Compare(a.At, b.At) })
		samples = slices.CompactFunc(samples, func(a, b *store.Sample) bool { return a.At == b.At })
		for m := range quantities {
			q := &quantities[m]
			if q.Name == "" {
				continue
			}
			ts := timeSeries{help: q.Help}
			for _, s := range samples {
				if v := s.V[m]; v != store.Missing {
					ts.points = append(ts.points, point{s.At, value(v, q.step)})
				}
			}
			if len(ts.points) > 0 {
				ts.labels = labels(q.Quantity, key.Site, key.Path)
				out = append(out, ts)
			}
		}
	}
	return out
}

// labels are those of a series, sorted by name, as both versions demand; empty
// ones are the same as none and must not be sent.
func labels(q series.Quantity, site string, id path.ID) []series.Label {
	all := []series.Label{{Name: "__name__", Value: q.Name}}
	if q.Direction != "" {
		all = append(all, series.Label{Name: "direction", Value: q.Direction})
	}
	for _, l := range series.LabelsOf(site, id) {
		if l.Value != "" {
			all = append(all, l)
		}
	}
	return all
}

// appendMessage adds an embedded message.
func appendMessage(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}

func appendText(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// appendPoint adds a Sample, which is the same in both versions: value = 1
// (double), timestamp = 2 (int64).
func appendPoint(b []byte, p point) []byte {
	b = protowire.AppendFixed64(protowire.AppendTag(b, 1, protowire.Fixed64Type), math.Float64bits(p.v))
	return protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(p.at))
}

// symbols is the string table of a 2.0 request: each string once, the empty one
// first.
type symbols struct {
	list []string
	refs map[string]uint64
}

func newSymbols() *symbols { return &symbols{[]string{""}, map[string]uint64{"": 0}} }

func (s *symbols) ref(text string) uint64 {
	n, ok := s.refs[text]
	if !ok {
		n = uint64(len(s.list))
		s.list, s.refs[text] = append(s.list, text), n
	}
	return n
}

// gaugeType is Metadata.METRIC_TYPE_GAUGE.
const gaugeType = 2

// encode2 is an io.prometheus.write.v2.Request (Prometheus Remote-Write 2.0):
//
//	Request    { repeated string symbols = 4; repeated TimeSeries timeseries = 5; }
//	TimeSeries { repeated uint32 labels_refs = 1; repeated Sample samples = 2; Metadata metadata = 5; }
//	Metadata   { MetricType type = 1; uint32 help_ref = 3; uint32 unit_ref = 4; }
func encode2(all []timeSeries) []byte {
	table := newSymbols()
	var body, ts, m []byte
	for i := range all {
		s := &all[i]
		m = m[:0]
		for _, l := range s.labels {
			m = protowire.AppendVarint(m, table.ref(l.Name))
			m = protowire.AppendVarint(m, table.ref(l.Value))
		}
		ts = appendMessage(ts[:0], 1, m)
		for _, p := range s.points {
			m = appendPoint(m[:0], p)
			ts = appendMessage(ts, 2, m)
		}
		m = protowire.AppendVarint(protowire.AppendTag(m[:0], 1, protowire.VarintType), gaugeType)
		m = protowire.AppendVarint(protowire.AppendTag(m, 3, protowire.VarintType), table.ref(s.help))
		ts = appendMessage(ts, 5, m)
		body = appendMessage(body, 5, ts)
	}
	var head []byte
	for _, text := range table.list {
		head = appendText(head, 4, text)
	}
	return append(head, body...)
}

// encode1 is a prometheus.WriteRequest (Prometheus Remote-Write 1.0):
//
//	WriteRequest { repeated TimeSeries timeseries = 1; }
//	TimeSeries   { repeated Label labels = 1; repeated Sample samples = 2; }
//	Label        { string name = 1; string value = 2; }
func encode1(all []timeSeries) []byte {
	var body, ts, m []byte
	for i := range all {
		s := &all[i]
		ts = ts[:0]
		for _, l := range s.labels {
			m = appendText(appendText(m[:0], 1, l.Name), 2, l.Value)
			ts = appendMessage(ts, 1, m)
		}
		for _, p := range s.points {
			m = appendPoint(m[:0], p)
			ts = appendMessage(ts, 2, m)
		}
		body = appendMessage(body, 1, ts)
	}
	return body
}
