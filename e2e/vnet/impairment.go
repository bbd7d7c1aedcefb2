package vnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// Impairment says what one direction of a link does to packets. The zero value
// is a perfect link.
type Impairment struct {
	// Delay is the one-way propagation time. Jitter is added to it, uniform in
	// [-Jitter, +Jitter]; it never lets packets overtake each other.
	Delay, Jitter time.Duration
	// Loss, Duplicate and Reorder are probabilities, 0..1, by packet.
	Loss, Duplicate, Reorder float64
	// LossBurst is the mean number of packets that are lost together; up to 1
	// losses are independent. More than 1 is the two-state model of Gilbert
	// (1960) with the same average loss.
	LossBurst float64
	// ReorderBy is how much longer a reordered packet takes; 0 means half of
	// Delay, but at least 5 ms. Packets sent closer together than that overtake.
	ReorderBy time.Duration
	// Rate is the transmitter's speed in bit/s; 0 is unlimited.
	Rate int64
	// Queue is the transmitter's buffer in bytes, the packet being sent
	// included; what does not fit is dropped (tail drop). 0 means 100 ms of
	// Rate, at least 16 KiB.
	Queue int
	// MTU is the largest packet in bytes (IP packet, headers included); larger
	// ones vanish silently. 0 is unlimited.
	MTU int
	// Down makes a black hole of the link; carrier is not affected.
	Down bool
}

// Validate reports every field that is out of range.
func (i Impairment) Validate() error {
	var errs []error
	bad := func(field string, v any) {
		errs = append(errs, fmt.Errorf("%w: %s %v", ErrImpairment, field, v))
	}
	if i.Delay < 0 {
		bad("delay", i.Delay)
	}
	if i.Jitter < 0 {
		bad("jitter", i.Jitter)
	}
	if i.ReorderBy < 0 {
		bad("reorder by", i.ReorderBy)
	}
	for _, p := range []struct {
		name string
		v    float64
	}{{"loss", i.Loss}, {"duplicate", i.Duplicate}, {"reorder", i.Reorder}} {
		if math.IsNaN(p.v) || p.v < 0 || p.v > 1 {
			bad(p.name, p.v)
		}
	}
	if math.IsNaN(i.LossBurst) || i.LossBurst < 0 {
		bad("loss burst", i.LossBurst)
	}
	if i.Rate < 0 {
		bad("rate", i.Rate)
	}
	if i.Queue < 0 {
		bad("queue", i.Queue)
	}
	if i.MTU < 0 {
		bad("mtu", i.MTU)
	}
	return errors.Join(errs...)
}

// ErrImpairment is wrapped by every error of [Impairment.Validate].
var ErrImpairment = errors.New("impairment out of range")

// queue is the buffer in bytes that is in force.
func (i *Impairment) queue() int64 {
	if i.Queue > 0 {
		return int64(i.Queue)
	}
	return max(i.Rate/8/10, 16<<10)
}

func (i *Impairment) reorderBy() time.Duration {
	if i.ReorderBy > 0 {
		return i.ReorderBy
	}
	return max(i.Delay/2, 5*time.Millisecond)
}

// impairmentJSON is the form on the wire: times in milliseconds.
type impairmentJSON struct {
	Delay     float64 `json:"delay_ms,omitempty"`
	Jitter    float64 `json:"jitter_ms,omitempty"`
	Loss      float64 `json:"loss,omitempty"`
	LossBurst float64 `json:"loss_burst,omitempty"`
	Duplicate float64 `json:"duplicate,omitempty"`
	Reorder   float64 `json:"reorder,omitempty"`
	ReorderBy float64 `json:"reorder_by_ms,omitempty"`
	Rate      int64   `json:"rate,omitempty"`
	Queue     int     `json:"queue,omitempty"`
	MTU       int     `json:"mtu,omitempty"`
	Down      bool    `json:"down,omitempty"`
}

// MarshalJSON writes times in milliseconds ("delay_ms").
func (i Impairment) MarshalJSON() ([]byte, error) {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return json.Marshal(impairmentJSON{
		Delay: ms(i.Delay), Jitter: ms(i.Jitter), ReorderBy: ms(i.ReorderBy),
		Loss: i.Loss, LossBurst: i.LossBurst, Duplicate: i.Duplicate, Reorder: i.Reorder,
		Rate: i.Rate, Queue: i.Queue, MTU: i.MTU, Down: i.Down,
	})
}

// UnmarshalJSON reads what MarshalJSON writes; fields that are absent are zero.
// The result is validated.
func (i *Impairment) UnmarshalJSON(b []byte) error {
	var j impairmentJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("impairment: %w", err)
	}
	// A day keeps the conversion to nanoseconds inside int64.
	const day = float64(24 * time.Hour / time.Millisecond)
	for _, ms := range []float64{j.Delay, j.Jitter, j.ReorderBy} {
		if ms < 0 || ms > day {
			return fmt.Errorf("%w: %v ms", ErrImpairment, ms)
		}
	}
	dur := func(ms float64) time.Duration { return time.Duration(math.Round(ms * float64(time.Millisecond))) }
	got := Impairment{
		Delay: dur(j.Delay), Jitter: dur(j.Jitter), ReorderBy: dur(j.ReorderBy),
		Loss: j.Loss, LossBurst: j.LossBurst, Duplicate: j.Duplicate, Reorder: j.Reorder,
		Rate: j.Rate, Queue: j.Queue, MTU: j.MTU, Down: j.Down,
	}
	if err := got.Validate(); err != nil {
		return err
	}
	*i = got
	return nil
}
