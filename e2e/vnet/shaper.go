package vnet

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Stats is what a Shaper did: exact counts of packets, except where a name says
// bytes. Offered = Delivered + Lost + QueueFull + TooBig + Blackholed.
type Stats struct {
	Offered      uint64 `json:"offered"`
	OfferedBytes uint64 `json:"offered_bytes"`
	// Delivered counts originals, DeliveredBytes too; copies are Duplicated.
	Delivered      uint64 `json:"delivered"`
	DeliveredBytes uint64 `json:"delivered_bytes"`
	Duplicated     uint64 `json:"duplicated"`
	// Reordered counts packets that arrive after one that was sent later
	// (RFC 4737, section 3.3), not those that were merely held back.
	Reordered uint64 `json:"reordered"`
	// Queued counts packets that had to wait for the transmitter.
	Queued uint64 `json:"queued"`

	Lost       uint64 `json:"lost"`       // by chance
	QueueFull  uint64 `json:"queue_full"` // tail drop
	TooBig     uint64 `json:"too_big"`
	Blackholed uint64 `json:"blackholed"` // while Down
}

// Missing is the number of packets that were offered and never arrive.
func (s Stats) Missing() uint64 { return s.Lost + s.QueueFull + s.TooBig + s.Blackholed }

// Sub is what happened since an earlier reading of the same Shaper.
func (s Stats) Sub(earlier Stats) Stats {
	return Stats{
		Offered: s.Offered - earlier.Offered, OfferedBytes: s.OfferedBytes - earlier.OfferedBytes,
		Delivered: s.Delivered - earlier.Delivered, DeliveredBytes: s.DeliveredBytes - earlier.DeliveredBytes,
		Duplicated: s.Duplicated - earlier.Duplicated, Reordered: s.Reordered - earlier.Reordered,
		Queued: s.Queued - earlier.Queued, Lost: s.Lost - earlier.Lost, QueueFull: s.QueueFull - earlier.QueueFull,
		TooBig: s.TooBig - earlier.TooBig, Blackholed: s.Blackholed - earlier.Blackholed,
	}
}

// Fate says why a packet is not delivered by a Shaper.
type Fate uint8

// The fates, in the order in which a link decides.
const (
	Arrives    Fate = iota
	Blackholed      // Impairment.Down
	TooBig          // Impairment.MTU
	QueueFull       // Impairment.Queue
	Lost            // Impairment.Loss
)

// Shaper decides what becomes of each packet of one direction of a link. It
// holds no packet and reads no clock: the caller delivers at the times it is
// told. The same seed, settings and calls give the same answers.
type Shaper struct {
	mu    sync.Mutex
	rng   *rand.Rand
	imp   Impairment
	burst bool // the bad state of Gilbert's model

	busy     time.Time // the transmitter is free from here on
	rest     float64   // ns beyond busy
	busyRate int64     // the rate that busy was worked out with
	last     time.Time // latest delivery of a packet that keeps its place
	held     []time.Time
	stats    Stats
}

// NewShaper returns a Shaper that behaves as i says, drawing from a PCG with
// this seed. It panics if i is not valid: impairments come from code or were
// validated when they were parsed.
func NewShaper(i Impairment, seed uint64) *Shaper {
	s := &Shaper{rng: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))}
	s.Set(i)
	return s
}

// Set changes the impairment for packets that are offered from now on. What is
// under way keeps its time, and nothing overtakes it. It panics if i is not valid.
func (s *Shaper) Set(i Impairment) {
	if err := i.Validate(); err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.imp = i
}

// Impairment returns what is in force.
func (s *Shaper) Impairment() Impairment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.imp
}

// Update changes the impairment by a function, atomically. It panics if the
// result is not valid.
func (s *Shaper) Update(change func(*Impairment)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.imp
	change(&i)
	if err := i.Validate(); err != nil {
		panic(err)
	}
	s.imp = i
}

// SetDown makes or heals a black hole.
func (s *Shaper) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.imp.Down = down
}

// Stats returns the counts so far.
func (s *Shaper) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Plan decides about a packet of size bytes that is offered at now, and returns
// the times at which its n copies arrive; n is 0 if none does. Calls must be in
// the order of now.
func (s *Shaper) Plan(size int, now time.Time) (at [2]time.Time, n int) {
	at, n, _ = s.PlanFate(size, now)
	return at, n
}

// PlanFate is Plan with the reason why nothing arrives.
func (s *Shaper) PlanFate(size int, now time.Time) (at [2]time.Time, n int, fate Fate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Offered++
	s.stats.OfferedBytes += uint64(size)
	if s.imp.Down {
		s.stats.Blackholed++
		return at, 0, Blackholed
	}
	if s.imp.MTU > 0 && size > s.imp.MTU {
		s.stats.TooBig++
		return at, 0, TooBig
	}
	depart, ok := s.transmit(size, now)
	if !ok {
		s.stats.QueueFull++
		return at, 0, QueueFull
	}
	// Loss comes after the transmitter: a packet lost on the line used it.
	if s.lose() {
		s.stats.Lost++
		return at, 0, Lost
	}
	at[0] = s.arrive(depart, now)
	n = 1
	if s.chance(s.imp.Duplicate) {
		at[1] = at[0]
		n = 2
		s.stats.Duplicated++
	}
	s.stats.Delivered++
	s.stats.DeliveredBytes += uint64(size)
	return at, n, Arrives
}

// transmit returns when the last bit leaves, or false if the queue is full.
func (s *Shaper) transmit(size int, now time.Time) (time.Time, bool) {
	rate := s.imp.Rate
	if rate != s.busyRate {
		s.rebase(now)
	}
	if rate == 0 {
		return now, true
	}
	start := now
	if s.busy.After(now) {
		start = s.busy
		backlog := bytesIn(s.busy.Sub(now), rate)
		if backlog+int64(size) > s.imp.queue() {
			return now, false
		}
		s.stats.Queued++
	}
	// The part of a nanosecond is carried over, or small packets on a fast line
	// would add up to more than its rate.
	ns := timeFor(int64(size), rate) + s.rest
	whole := math.Floor(ns)
	s.rest = ns - whole
	s.busy = start.Add(time.Duration(whole))
	return s.busy, true
}

// rebase keeps the queue's bytes when the rate changes.
func (s *Shaper) rebase(now time.Time) {
	left := s.busy.Sub(now)
	if left > 0 && s.busyRate > 0 && s.imp.Rate > 0 {
		s.busy = now.Add(time.Duration(timeFor(bytesIn(left, s.busyRate), s.imp.Rate)))
	} else {
		s.busy = time.Time{}
	}
	s.busyRate = s.imp.Rate
}

// timeFor is how long bytes take at rate bit/s, in ns.
func timeFor(bytes, rate int64) float64 {
	return float64(bytes) * 8 * float64(time.Second) / float64(rate)
}

func bytesIn(d time.Duration, rate int64) int64 {
	return int64(d.Seconds() * float64(rate) / 8)
}

func (s *Shaper) chance(p float64) bool { return p > 0 && s.rng.Float64() < p }

// lose draws from Gilbert's model: with mean burst B and average loss l the bad
// state is left with probability 1/B and entered with l/((1-l)B).
func (s *Shaper) lose() bool {
	l, burst := s.imp.Loss, s.imp.LossBurst
	switch {
	case l <= 0:
		s.burst = false
		return false
	case burst <= 1 || l >= 1:
		return s.chance(l)
	case s.burst:
		s.burst = !s.chance(1 / burst)
	default:
		s.burst = s.chance(l / ((1 - l) * burst))
	}
	return s.burst
}

// arrive turns a departure into an arrival and keeps the account of overtaking.
func (s *Shaper) arrive(depart, now time.Time) time.Time {
	t := depart.Add(s.imp.Delay)
	if j := s.imp.Jitter; j > 0 {
		t = t.Add(time.Duration((2*s.rng.Float64() - 1) * float64(j)))
		if t.Before(depart) {
			t = depart
		}
	}
	hold := s.chance(s.imp.Reorder)
	switch {
	case hold:
		t = t.Add(s.imp.reorderBy())
	case t.Before(s.last):
		t = s.last
	}
	if len(s.held) > 0 {
		s.held = slices.DeleteFunc(s.held, func(h time.Time) bool {
			if h.After(t) {
				s.stats.Reordered++
				return true
			}
			return !h.After(now)
		})
	}
	if hold {
		s.held = append(s.held, t)
	} else {
		s.last = t
	}
	return t
}
