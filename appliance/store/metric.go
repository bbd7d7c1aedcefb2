package store

import (
	"fmt"
	"math"
	"time"

	"patronus/netstack/path"
)

// Metric is one number of a [Sample].
type Metric uint8

// The metrics, in the order in which samples and blocks hold them. The order
// is part of the format on disk: new ones go to the end.
const (
	Latency   Metric = iota // round trip, 10 us
	Jitter                  // RFC 3550, 10 us
	PDV                     // 95th percentile (RFC 5481), 10 us
	Loss                    // of the worse direction, 1/1000 %
	LossOut                 // of what the site sends, 1/1000 %
	LossIn                  // of what it receives, 1/1000 %
	Reordered               // packets in the window
	Tx                      // kbit/s
	Rx                      // kbit/s
	Bandwidth               // the greater one of Tx and Rx, kbit/s
	MTU                     // bytes
	Score                   // 0..100
	State                   // a path.State

	// NumMetrics is how many there are.
	NumMetrics = iota
)

// Missing is the value that nobody measured.
const Missing int32 = math.MinInt32

// metrics has the API's name, the unit of the API, and how much of that unit
// one step of the quantised integer is.
var metrics = [NumMetrics]struct {
	name, unit string
	scale      float64
}{
	Latency:   {"latency_ms", "ms", 0.01},
	Jitter:    {"jitter_ms", "ms", 0.01},
	PDV:       {"pdv_p95_ms", "ms", 0.01},
	Loss:      {"packet_loss_pct", "percent", 0.001},
	LossOut:   {"loss_out_pct", "percent", 0.001},
	LossIn:    {"loss_in_pct", "percent", 0.001},
	Reordered: {"reordered", "packets", 1},
	Tx:        {"tx_mbps", "Mbit/s", 0.001},
	Rx:        {"rx_mbps", "Mbit/s", 0.001},
	Bandwidth: {"bandwidth_mbps", "Mbit/s", 0.001},
	MTU:       {"mtu", "bytes", 1},
	Score:     {"score", "points", 1},
	State:     {"state", "state", 1},
}

// Name is the metric's name in JSON, as [path.Metrics] has it.
func (m Metric) Name() string {
	if m < NumMetrics {
		return metrics[m].name
	}
	return fmt.Sprintf("metric(%d)", uint8(m))
}

// Unit is the unit of [Metric.Value].
func (m Metric) Unit() string {
	if m < NumMetrics {
		return metrics[m].unit
	}
	return ""
}

// Scale is how much of [Metric.Unit] one step of the stored integer is.
func (m Metric) Scale() float64 {
	if m < NumMetrics {
		return metrics[m].scale
	}
	return 1
}

// Value turns a stored integer into the metric's unit; [Missing] is NaN.
func (m Metric) Value(v int32) float64 {
	if v == Missing {
		return math.NaN()
	}
	return float64(v) * m.Scale()
}

// Quantise is the nearest stored integer of a value in the metric's unit. NaN
// is [Missing]; what is out of range is the nearest value in it.
func (m Metric) Quantise(v float64) int32 {
	if math.IsNaN(v) {
		return Missing
	}
	return int32(min(max(math.Round(v/m.Scale()), math.MinInt32+1), math.MaxInt32))
}

// ParseMetric finds a metric by [Metric.Name].
func ParseMetric(name string) (Metric, error) {
	for m := range metrics {
		if metrics[m].name == name {
			return Metric(m), nil
		}
	}
	return 0, fmt.Errorf("no such metric: %.40q", name)
}

// NewSample quantises a sample of the tracker. offset is the estimate of the
// own clock minus the fabric's.
func NewSample(s *path.Sample, offset time.Duration) Sample {
	m := s.Metrics()
	out := FromMetrics(s.At.UnixMilli(), &m, s.State)
	out.Offset = clampOffset(offset.Milliseconds())
	return out
}

// FromMetrics quantises what the API and the telemetry stream show of a path.
func FromMetrics(at int64, m *path.Metrics, state path.State) Sample {
	out := Sample{At: at}
	for i, v := range [...]path.Value{
		Latency: m.Latency, Jitter: m.Jitter, PDV: m.PDVp95, Loss: m.PacketLoss, LossOut: m.LossOut, LossIn: m.LossIn,
		Reordered: path.Value(m.Reordered), Tx: m.Tx, Rx: m.Rx, Bandwidth: m.Bandwidth,
	} {
		out.V[i] = Metric(i).Quantise(float64(v))
	}
	out.V[MTU], out.V[Score], out.V[State] = Missing, Missing, int32(state)
	if m.MTU > 0 {
		out.V[MTU] = int32(min(m.MTU, math.MaxInt32))
	}
	if m.Score >= 0 {
		out.V[Score] = int32(m.Score)
	}
	return out
}

// Metrics is the sample as the API shows it; the intervals of loss were not
// stored and are null.
func (s *Sample) Metrics() path.Metrics {
	value := func(m Metric) path.Value { return path.Value(m.Value(s.V[m])) }
	nan := path.Value(math.NaN())
	out := path.Metrics{
		Latency: value(Latency), Jitter: value(Jitter), PDVp95: value(PDV),
		PacketLoss: value(Loss), LossOut: value(LossOut), LossIn: value(LossIn),
		PacketLossLow: nan, PacketLossHi: nan, LossOutLow: nan, LossOutHigh: nan, LossInLow: nan, LossInHigh: nan,
		Bandwidth: value(Bandwidth), Tx: value(Tx), Rx: value(Rx), Score: path.NoScore,
	}
	if v := s.V[Reordered]; v > 0 {
		out.Reordered = uint64(v)
	}
	if v := s.V[MTU]; v > 0 {
		out.MTU = int(v)
	}
	if v := s.V[Score]; v >= 0 {
		out.Score = path.Score(v)
	}
	return out
}

// State is the path's state, Unknown if it was not stored.
func (s *Sample) State() path.State {
	if v := s.V[State]; v >= 0 && v <= int32(path.Down) {
		return path.State(v)
	}
	return path.Unknown
}

func clampOffset(ms int64) int32 {
	return int32(min(max(ms, math.MinInt32), math.MaxInt32))
}
