package vnet

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// sinkOut notes what is emitted; calls must not overlap.
type sinkOut struct {
	mu   sync.Mutex
	busy bool
	seqs []uint32
	at   []time.Time
}

func (s *sinkOut) Emit(packets [][]byte) {
	s.mu.Lock()
	if s.busy {
		panic("two calls of Emit at once")
	}
	s.busy = true
	s.mu.Unlock()
	for _, p := range packets {
		s.seqs = append(s.seqs, binary.BigEndian.Uint32(p))
		s.at = append(s.at, time.Now())
	}
	s.mu.Lock()
	s.busy = false
	s.mu.Unlock()
}

func runLine(t *testing.T, l *DelayLine) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func numbered(from, n int) (packets [][]byte) {
	for i := range n {
		packets = append(packets, binary.BigEndian.AppendUint32(make([]byte, 0, 100), uint32(from+i)))
	}
	return packets
}

// Whatever the links do from one moment to the next, what is not lost arrives
// once and in order, and the account is right.
func TestDelayLineKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewDelayLine(1 << 20)
		runLine(t, l)
		// rapid asks for a Deadline if it sees one, which a bubble forbids.
		rapid.Check(struct{ rapid.TB }{t}, func(t *rapid.T) {
			first, second := NewShaper(Impairment{}, 1), NewShaper(Impairment{}, 2)
			var out sinkOut
			lane := l.Lane(&out, first, second)
			sent := 0
			for range rapid.IntRange(1, 20).Draw(t, "steps") {
				for _, s := range []*Shaper{first, second} {
					s.Set(Impairment{
						Delay: time.Duration(rapid.IntRange(0, 3).Draw(t, "delay")) * time.Millisecond,
						Loss:  float64(rapid.IntRange(0, 1).Draw(t, "loss")) / 3,
						Rate:  int64(rapid.IntRange(0, 1).Draw(t, "rate")) * 1e7,
					})
				}
				n := rapid.IntRange(0, 40).Draw(t, "burst")
				lane.Enter(numbered(sent, n), 28, time.Now())
				sent += n
				time.Sleep(time.Duration(rapid.IntRange(0, 2000).Draw(t, "pause")) * time.Microsecond)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			for i := 1; i < len(out.seqs); i++ {
				if out.seqs[i] <= out.seqs[i-1] {
					t.Fatalf("%d arrives after %d", out.seqs[i], out.seqs[i-1])
				}
			}
			a, b := first.Stats(), second.Stats()
			if a.Offered != uint64(sent) || b.Offered != a.Delivered || uint64(len(out.seqs)) != b.Delivered {
				t.Fatalf("sent %d, %d arrived, counted %+v and %+v", sent, len(out.seqs), a, b)
			}
		})
		if l.bytes != 0 || len(l.heap) != 0 {
			t.Errorf("%d bytes, %d packets are left behind", l.bytes, len(l.heap))
		}
	})
}

func TestDelayLineTimesAndLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewDelayLine(10 * 4)
		runLine(t, l)
		var out sinkOut
		lane := l.Lane(&out, NewShaper(Impairment{Delay: 5 * time.Millisecond}, 1), NewShaper(Impairment{Delay: 7 * time.Millisecond, Duplicate: 1}, 1))
		start := time.Now()
		lane.Enter(numbered(0, 2), 0, start)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(out.at) != 4 || out.at[0].Sub(start) != 12*time.Millisecond {
			t.Errorf("%d copies, the first after %v", len(out.at), out.at[0].Sub(start))
		}
		lane.Enter(numbered(0, 12), 0, time.Now())
		time.Sleep(time.Second)
		synctest.Wait()
		if got := len(out.at) - 4; l.Dropped() == 0 || l.bytes != 0 || got >= 24 {
			t.Errorf("%d arrived, %d dropped", got, l.Dropped())
		}
	})
}
