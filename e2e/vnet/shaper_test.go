package vnet

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

// arrival is one copy of packet seq.
type arrival struct {
	seq  int
	sent time.Time
	at   time.Time
}

// offer sends n packets of size at a fixed spacing and returns the arrivals in
// the order of time, as a receiver sees them.
func offer(s *Shaper, n, size int, every time.Duration) []arrival {
	var got []arrival
	now := epoch
	for seq := range n {
		at, copies := s.Plan(size, now)
		for _, t := range at[:copies] {
			got = append(got, arrival{seq, now, t})
		}
		now = now.Add(every)
	}
	slices.SortStableFunc(got, func(a, b arrival) int { return a.at.Compare(b.at) })
	return got
}

func TestShaperFates(t *testing.T) {
	for _, c := range []struct {
		name string
		imp  Impairment
		size int
		fate Fate
	}{
		{"perfect", Impairment{}, 1500, Arrives},
		{"down", Impairment{Down: true}, 1, Blackholed},
		{"fits", Impairment{MTU: 1400}, 1400, Arrives},
		{"too big", Impairment{MTU: 1400}, 1401, TooBig},
		{"lost", Impairment{Loss: 1}, 1, Lost},
		{"lost in a burst", Impairment{Loss: 1, LossBurst: 5}, 1, Lost},
		{"all lost burst of one", Impairment{Loss: 1, LossBurst: 1}, 1, Lost},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := NewShaper(c.imp, 1)
			_, n, fate := s.PlanFate(c.size, epoch)
			if fate != c.fate || (n > 0) != (fate == Arrives) {
				t.Errorf("n %d fate %d, want %d", n, fate, c.fate)
			}
			if st := s.Stats(); st.Delivered+st.Missing() != 1 {
				t.Errorf("counted %+v", st)
			}
		})
	}
}

func TestShaperRateAndQueue(t *testing.T) {
	// 10 Mb/s carries a 1250-byte packet in exactly 1 ms.
	s := NewShaper(Impairment{Rate: 10e6, Queue: 12500}, 1)
	var last time.Time
	delivered := 0
	for range 30 {
		at, n := s.Plan(1250, epoch)
		if n == 0 {
			continue
		}
		delivered++
		last = at[0]
	}
	if delivered != 10 {
		t.Errorf("%d packets fit a queue of 10", delivered)
	}
	if got := last.Sub(epoch); got != 10*time.Millisecond {
		t.Errorf("last of the queue leaves after %v", got)
	}
	if st := s.Stats(); st.QueueFull != 20 || st.Queued != 9 {
		t.Errorf("counted %+v", st)
	}
	// Twice the rate halves what is left, and nothing overtakes.
	s.Update(func(i *Impairment) { i.Rate = 20e6 })
	at, n := s.Plan(1250, epoch.Add(5*time.Millisecond))
	if n != 1 || at[0].Before(last) {
		t.Errorf("after the change: %d copies at %v, last was %v", n, at[0].Sub(epoch), last.Sub(epoch))
	}
	for range 100 {
		at, _ = s.Plan(1250, epoch.Add(time.Second))
	}
	if got := at[0]; !got.IsZero() {
		t.Errorf("queue of 10 took 100 packets: %v", got)
	}
}

func TestShaperRateProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Int64Range(64e3, 10e9).Draw(t, "rate")
		size := rapid.IntRange(40, 9000).Draw(t, "size")
		s := NewShaper(Impairment{Rate: rate, Queue: 20 * size, Delay: 7 * time.Millisecond}, 1)
		// Offer twice what the line carries.
		every := time.Duration(float64(size) * 8 / float64(rate) / 2 * 1e9)
		if every == 0 {
			t.Skip("faster than the clock")
		}
		got := offer(s, 1000, size, every)
		if len(got) < 450 {
			t.Fatalf("only %d delivered", len(got))
		}
		span := got[len(got)-1].at.Sub(got[0].at)
		measured := float64((len(got)-1)*size*8) / span.Seconds()
		if math.Abs(measured/float64(rate)-1) > 0.01 {
			t.Fatalf("asked for %d bit/s, carried %.0f", rate, measured)
		}
	})
}

func TestShaperLossProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loss := rapid.Float64Range(0, 0.5).Draw(t, "loss")
		burst := rapid.Float64Range(0, 8).Draw(t, "burst")
		const n = 10000
		s := NewShaper(Impairment{Loss: loss, LossBurst: burst}, rapid.Uint64().Draw(t, "seed"))
		got := offer(s, n, 100, time.Millisecond)
		// Losses of a burst are correlated: the variance grows by about 2B-1.
		sigma := math.Sqrt(loss * (1 - loss) / n * (2*max(burst, 1) + 1))
		measured := 1 - float64(len(got))/n
		if math.Abs(measured-loss) > 5*sigma+1e-4 {
			t.Fatalf("asked for %.4f, lost %.4f", loss, measured)
		}
		if st := s.Stats(); st.Lost != uint64(n-len(got)) || st.Delivered != uint64(len(got)) {
			t.Fatalf("counted %+v, delivered %d", st, len(got))
		}
	})
}

func TestShaperBurstLength(t *testing.T) {
	s := NewShaper(Impairment{Loss: 0.05, LossBurst: 6}, 3)
	bursts, lost, in := 0, 0, false
	for range 200000 {
		_, n := s.Plan(100, epoch)
		if n == 0 {
			lost++
			if !in {
				bursts++
			}
		}
		in = n == 0
	}
	if mean := float64(lost) / float64(bursts); math.Abs(mean-6) > 0.4 {
		t.Errorf("mean burst %.2f, want 6", mean)
	}
}

// reordered counts as RFC 4737 section 3.3 does: arrivals below the next expected.
func reordered(got []arrival) (n uint64) {
	next := -1
	for _, a := range got {
		if a.seq < next {
			n++
		} else {
			next = a.seq
		}
	}
	return n
}

func TestShaperOrder(t *testing.T) {
	for _, c := range []struct {
		name  string
		imp   Impairment
		every time.Duration
		none  bool
	}{
		{"jitter keeps order", Impairment{Delay: 20 * time.Millisecond, Jitter: 15 * time.Millisecond}, time.Millisecond, true},
		{"jitter beyond delay", Impairment{Delay: time.Millisecond, Jitter: 15 * time.Millisecond}, 100 * time.Microsecond, true},
		{"reorder", Impairment{Delay: 20 * time.Millisecond, Reorder: 0.05}, time.Millisecond, false},
		{"reorder without delay", Impairment{Reorder: 0.25}, time.Millisecond, false},
		{"reorder and jitter", Impairment{Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Reorder: 0.3}, time.Millisecond, false},
		{"too sparse to overtake", Impairment{Delay: 20 * time.Millisecond, Reorder: 0.2}, 11 * time.Millisecond, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := NewShaper(c.imp, 5)
			got := offer(s, 20000, 200, c.every)
			want := reordered(got)
			if have := s.Stats().Reordered; have != want {
				t.Errorf("counted %d reordered, a receiver sees %d", have, want)
			}
			if c.none != (want == 0) {
				t.Errorf("a receiver sees %d reordered", want)
			}
			if asked := c.imp.Reorder * 20000; !c.none && math.Abs(float64(want)/asked-1) > 0.1 {
				t.Errorf("%d of 20000 reordered, asked for %.0f", want, asked)
			}
			for _, a := range got {
				if a.at.Before(a.sent) {
					t.Fatalf("packet %d arrives before it is sent", a.seq)
				}
			}
		})
	}
}

func TestShaperJitterAndDuplicates(t *testing.T) {
	s := NewShaper(Impairment{Delay: 50 * time.Millisecond, Jitter: 10 * time.Millisecond, Duplicate: 0.1}, 9)
	got := offer(s, 20000, 200, 30*time.Millisecond) // sparse: order costs nothing
	var sum time.Duration
	for _, a := range got {
		d := a.at.Sub(a.sent)
		if d < 40*time.Millisecond || d > 60*time.Millisecond {
			t.Fatalf("delay %v", d)
		}
		sum += d
	}
	if mean := sum / time.Duration(len(got)); (mean - 50*time.Millisecond).Abs() > 200*time.Microsecond {
		t.Errorf("mean delay %v", mean)
	}
	st := s.Stats()
	if uint64(len(got)) != st.Delivered+st.Duplicated || math.Abs(float64(st.Duplicated)/2000-1) > 0.1 {
		t.Errorf("%d arrivals, counted %+v", len(got), st)
	}
}

func TestShaperDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		imp := Impairment{
			Delay: 30 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.1, LossBurst: rapid.Float64Range(0, 4).Draw(t, "burst"),
			Duplicate: 0.1, Reorder: 0.1, Rate: rapid.Int64Range(0, 1e8).Draw(t, "rate"),
		}
		seed := rapid.Uint64().Draw(t, "seed")
		a, b := NewShaper(imp, seed), NewShaper(imp, seed)
		if x, y := offer(a, 500, 300, time.Millisecond), offer(b, 500, 300, time.Millisecond); !slices.Equal(x, y) {
			t.Fatal("same seed, different fates")
		}
		if a.Stats() != b.Stats() {
			t.Fatalf("same seed, different counts: %+v and %+v", a.Stats(), b.Stats())
		}
	})
}

func TestShaperAllocates(t *testing.T) {
	s := NewShaper(Impairment{Delay: time.Millisecond, Jitter: time.Millisecond, Loss: 0.1, Rate: 1e9}, 1)
	now := epoch
	if n := testing.AllocsPerRun(1000, func() { now = now.Add(time.Millisecond); s.Plan(1400, now) }); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
}

func TestImpairmentValidate(t *testing.T) {
	for _, bad := range []Impairment{
		{Delay: -1},
		{Jitter: -1},
		{ReorderBy: -1},
		{Loss: 1.1},
		{Loss: -0.1},
		{Loss: math.NaN()},
		{Duplicate: 2},
		{Reorder: 2},
		{LossBurst: -1},
		{Rate: -1},
		{Queue: -1},
		{MTU: -1},
	} {
		if bad.Validate() == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

func FuzzImpairmentJSON(f *testing.F) {
	f.Add([]byte(`{"delay_ms":20,"loss":0.01,"rate":1000000,"down":true}`))
	f.Add([]byte(`{"delay_ms":1e300}`))
	f.Add([]byte(`{"loss":"much"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var i Impairment
		if json.Unmarshal(b, &i) != nil {
			return
		}
		if err := i.Validate(); err != nil {
			t.Fatalf("read an invalid impairment: %v", err)
		}
		out, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		var again Impairment
		if err := json.Unmarshal(out, &again); err != nil || again != i {
			t.Fatalf("%+v came back as %+v (%v)", i, again, err)
		}
	})
}

func BenchmarkShaperPlan(b *testing.B) {
	for _, c := range []struct {
		name string
		imp  Impairment
	}{
		{"perfect", Impairment{}},
		{"wan", Impairment{Delay: 20 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.01, Rate: 1e10}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			s := NewShaper(c.imp, 1)
			now := epoch
			for b.Loop() {
				now = now.Add(10 * time.Microsecond)
				s.Plan(1400, now)
			}
		})
	}
}
