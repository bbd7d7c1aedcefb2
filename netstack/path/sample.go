package path

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Sample is a path at one time: what is stored, sent and charted.
type Sample struct {
	Path       ID
	At         time.Time
	State      State
	Suppressed bool
	// Quality is that of the normal window.
	Quality Quality
	// Score is the default class's; Metric is what limits it.
	Score  Score
	Metric string
	// Classes has a score for each class, in the order of the configuration.
	Classes []ClassScore
}

// ClassScore is the score of one class.
type ClassScore struct {
	Class    string `json:"class"`
	Score    Score  `json:"score"`
	Metric   string `json:"metric,omitempty"`
	Violates bool   `json:"violates,omitempty"`
}

func (t *Tracker) sample(now time.Time) Sample {
	s := Sample{
		Path: t.id, At: now, State: t.state, Suppressed: t.damper.suppressed, Quality: t.quality,
		Classes: make([]ClassScore, len(t.judged)),
	}
	for i := range t.judged {
		j := &t.judged[i]
		s.Classes[i] = ClassScore{Class: t.classes.list[i].Name, Score: j.Score, Metric: j.metric, Violates: j.Violates}
	}
	d := s.Classes[t.classes.Default()]
	s.Score, s.Metric = d.Score, d.Metric
	return s
}

// Value is a number that may be unknown: NaN, null in JSON.
type Value float64

// unknown is the number that nobody knows.
func unknown() Value { return Value(math.NaN()) }

// MarshalJSON writes three decimals at most, or null.
func (v Value) MarshalJSON() ([]byte, error) {
	f := float64(v)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(math.Round(f*1000) / 1000)
}

// UnmarshalJSON reads a number or null.
func (v *Value) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*v = unknown()
		return nil
	}
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("not a value: %w", err)
	}
	*v = Value(f)
	return nil
}

// Metrics is a sample as the API and the metrics stream show it. Unknown
// values are null.
type Metrics struct {
	Latency       Value `json:"latency_ms"`
	Jitter        Value `json:"jitter_ms"` // RFC 3550
	PDVp95        Value `json:"pdv_p95_ms"`
	PacketLoss    Value `json:"packet_loss_pct"` // of the worse direction
	PacketLossLow Value `json:"packet_loss_pct_low"`
	PacketLossHi  Value `json:"packet_loss_pct_high"`
	LossOut       Value `json:"loss_out_pct"`
	LossOutLow    Value `json:"loss_out_pct_low"`
	LossOutHigh   Value `json:"loss_out_pct_high"`
	LossIn        Value `json:"loss_in_pct"`
	LossInLow     Value `json:"loss_in_pct_low"`
	LossInHigh    Value `json:"loss_in_pct_high"`
	// Bandwidth is the greater one of both carried rates: a throughput seen,
	// not a capacity.
	Bandwidth Value  `json:"bandwidth_mbps"`
	Tx        Value  `json:"tx_mbps"`
	Rx        Value  `json:"rx_mbps"`
	Reordered uint64 `json:"reordered"`
	Duplicate uint64 `json:"duplicates"`
	MTU       int    `json:"mtu,omitempty"`
	Score     Score  `json:"score"`
}

// Metrics converts to the units of the API.
func (s *Sample) Metrics() Metrics {
	q := &s.Quality
	m := Metrics{
		Latency: unknown(), Jitter: unknown(), PDVp95: unknown(),
		Tx: Value(q.TxRate / 1e6), Rx: Value(q.RxRate / 1e6), Bandwidth: Value(max(q.TxRate, q.RxRate) / 1e6),
		Reordered: q.Reorder, Duplicate: q.Dup, MTU: q.MTU, Score: s.Score,
	}
	if q.Samples > 0 {
		m.Latency, m.Jitter, m.PDVp95 = millis(q.Delay), millis(q.Jitter3550), millis(q.PDVp95)
	}
	m.PacketLoss, m.PacketLossLow, m.PacketLossHi = percents(q.WorstLoss())
	m.LossOut, m.LossOutLow, m.LossOutHigh = percents(q.LossOut)
	m.LossIn, m.LossInLow, m.LossInHigh = percents(q.LossIn)
	return m
}

func millis(d time.Duration) Value { return Value(float64(d) / float64(time.Millisecond)) }

func percents(l Loss) (p, low, high Value) {
	if l.Total == 0 {
		return unknown(), unknown(), unknown()
	}
	return Value(l.Percent), Value(l.Low), Value(l.High)
}

// sampleJSON is a sample on the wire: the fields of the stream's path_metric
// message, and what the paths page needs beside them.
type sampleJSON struct {
	Path       ID           `json:"path_id"`
	At         time.Time    `json:"timestamp"`
	State      State        `json:"state"`
	Suppressed bool         `json:"suppressed,omitempty"`
	Limit      string       `json:"limited_by,omitempty"`
	Metrics    Metrics      `json:"metrics"`
	Classes    []ClassScore `json:"classes,omitempty"`
}

// MarshalJSON writes path_id, timestamp, state, metrics and classes. It is a
// view: counts behind percentages are not in it, so it is not read back.
func (s Sample) MarshalJSON() ([]byte, error) {
	return json.Marshal(sampleJSON{
		Path: s.Path, At: s.At, State: s.State, Suppressed: s.Suppressed, Limit: s.Metric,
		Metrics: s.Metrics(), Classes: s.Classes,
	})
}
