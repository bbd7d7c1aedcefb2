package probe

import (
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func TestInBand(t *testing.T) {
	type pkt struct {
		index   uint32
		counter uint64
	}
	run := func(from, to uint64) (ps []pkt) {
		for c := from; c < to; c++ {
			ps = append(ps, pkt{1, c})
		}
		return ps
	}
	for _, c := range []struct {
		name string
		in   []pkt
		want InBandStats
	}{
		{"in order", run(0, 1000), InBandStats{Received: 1000}},
		{"a gap", append(run(0, 10), run(15, 20)...), InBandStats{Received: 15, Missing: 5}},
		{"filled late", append(append(run(0, 10), run(11, 20)...), pkt{1, 10}), InBandStats{Received: 20, Reordered: 1}},
		{"twice", append(run(0, 10), pkt{1, 5}), InBandStats{Received: 10, Duplicates: 1}},
		{"late start", run(3, 10), InBandStats{Received: 7, Missing: 3}},
		{"attached to a running session", run(50_000, 50_010), InBandStats{Received: 10}},
		{"around the window", run(0, 200_000), InBandStats{Received: 200_000}},
		{"a gap that left the window", append(run(0, 10), run(20, 100_000)...), InBandStats{Received: 99_990, Missing: 10}},
		{"a gap beyond the window", append(run(0, 10), run(100_000, 100_100)...), InBandStats{Received: 110, Missing: 99_990}},
		{"rekeyed", append(run(0, 10), pkt{2, 0}, pkt{2, 1}), InBandStats{Received: 12}},
		{"rekeyed with a straggler", append(run(0, 10), pkt{2, 0}, pkt{1, 11}, pkt{1, 10}, pkt{2, 1}), InBandStats{Received: 14, Reordered: 1}},
		{"rekeyed twice with a gap", append(run(0, 10), pkt{1, 12}, pkt{2, 0}, pkt{3, 0}, pkt{4, 0}), InBandStats{Received: 14, Missing: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewInBand()
			for _, p := range c.in {
				r.Observe(p.index, p.counter)
			}
			if got := r.Stats(); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if got := r.Snapshot(); got != (InBandStats{}) {
				t.Errorf("visible before Publish: %+v", got)
			}
			r.Publish()
			if got := r.Snapshot(); got != c.want {
				t.Errorf("published %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestInBandKeepalives(t *testing.T) {
	r := NewInBand()
	r.Keepalive(1) // counter 0 confirmed the handshake
	r.Observe(1, 1)
	r.Observe(1, 3)
	r.Duplicate(2)
	if got, want := r.Stats(), (InBandStats{Received: 2, Missing: 1, Duplicates: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Any sequence of counters within WireGuard's replay window counts as a plain
// map would have it.
func TestInBandAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := NewInBand()
		var top, received, reordered, dup uint64
		seen := map[uint64]bool{}
		base := uint64(0)
		if rapid.Bool().Draw(t, "late") {
			base = rapid.Uint64Range(attachMax+1, 1<<40).Draw(t, "base")
		}
		top = base
		steps := rapid.SliceOfN(rapid.IntRange(-8128, 40_000), 1, 30).Draw(t, "steps")
		for i, d := range steps {
			c := top + uint64(max(d, -int(min(top-base, 8128))))
			if i == 0 {
				c = base
			}
			for range rapid.IntRange(1, 100).Draw(t, "run") {
				r.Observe(1, c)
				switch {
				case seen[c]:
					dup++
				case c < top:
					reordered++
					received++
				default:
					received++
					top = c + 1
				}
				seen[c] = true
				c++
			}
		}
		want := InBandStats{Received: received, Missing: top - base - received, Reordered: reordered, Duplicates: dup}
		if got := r.Stats(); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

// A snapshot is never a mix of two publications.
func TestSnapshotIsConsistent(t *testing.T) {
	r := NewInBand()
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if s := r.Snapshot(); s.Received != s.Missing {
				t.Errorf("torn: %+v", s)
				return
			}
		}
	})
	for c := range uint64(20_000) { // every other counter is lost
		r.Observe(1, 2*c+1)
		r.Publish()
	}
	close(done)
	wg.Wait()
}
