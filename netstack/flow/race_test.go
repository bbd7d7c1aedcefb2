package flow

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"patronus/netstack/packet"
)

// TestConcurrentUse has readers, peers, a scanner, the ticker and a snapshot
// at work on one full table, and then takes the accounts. It is made for -race.
func TestConcurrentUse(t *testing.T) {
	const (
		most    = 500
		steady  = 200 // flows that everybody talks on
		packets = 5000
	)
	var begun, over atomic.Int64
	table := New(Options{Max: most, Shards: 4, Sink: func(e Event) {
		if e.Kind == Started {
			begun.Add(1)
		}
		if e.Kind == Ended {
			over.Add(1)
		}
	}})
	var clock atomic.Int64
	var counted atomic.Uint64
	var workers, watchers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for i := range packets {
				now := clock.Add(granule / 8)
				k := numbered(packet.TCP, r.IntN(steady))
				flags := uint8(ack)
				switch {
				case w == 3: // the scanner
					k = numbered(packet.UDP, 10_000+i)
				case w%2 == 1:
					k = k.Reverse()
				}
				switch r.IntN(200) {
				case 0:
					flags = rst
				case 1, 2, 3:
					flags = syn
				}
				f, forward := table.Lookup(&k)
				if f == nil || f.Reopens(flags) {
					f, _ = table.Insert(&k, now, 100, flags)
				} else {
					f.Observe(forward, 1, 100, flags, now)
				}
				if !f.Forward(&k) && f.Key() != k.Reverse() {
					t.Errorf("asked for %s, got %s", FormatKey(&k), f.View().ID())
					return
				}
				counted.Add(1)
				f.SetRecord(&Record{Rule: i})
				f.Bind(NewBinding(uint32(i/100), 1, 0, uint16(i%3), uint32(w)))
				if r.IntN(500) == 0 {
					table.Remove(&k)
				}
			}
		})
	}
	done := make(chan struct{})
	watchers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			table.Expire(clock.Load(), 100)
			n := 0
			for v := range table.All() {
				n++
				if v.Forward.Packets == 0 {
					t.Errorf("%s has no first packet", v.ID())
					return
				}
			}
			if table.Len() > most {
				t.Errorf("%d flows", table.Len())
			}
		}
	})
	workers.Wait()
	close(done)
	watchers.Wait()

	live, whole := 0, 0
	for v := range table.All() {
		live++
		f, forward := table.Lookup(&v.Key)
		if f == nil || !forward {
			t.Errorf("%s is in the index, but not found", v.ID())
			continue
		}
		if worthOf(f.state.Load(), v.Key.Proto) == established {
			whole++
		}
	}
	c := table.Counters()
	if c.Live != live || c.Established != whole || c.Created != uint64(live)+c.Evicted+c.Expired+c.Replaced+c.Removed {
		t.Errorf("%d live, %d of them established: %+v", live, whole, c)
	}
	if begun.Load()-over.Load() != int64(live) {
		t.Errorf("%d started, %d ended, %d live", begun.Load(), over.Load(), live)
	}
	table.Expire(1<<62, 1<<20)
	for i := range table.buckets {
		if ctrl := table.buckets[i].ctrl.Load(); ctrl != 0 {
			t.Errorf("bucket %d of an empty table: %#x", i, ctrl)
		}
	}
	if c := table.Counters(); c.Live != 0 || c.Established != 0 {
		t.Errorf("%+v", c)
	}
}

// TestOneFlowOneEntry has goroutines insert both directions of the same keys
// at once: each key gets one flow and no packet is lost.
func TestOneFlowOneEntry(t *testing.T) {
	const flows, workers = 500, 8
	table := New(Options{Max: 10 * flows})
	var fresh atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range flows {
				k := numbered(packet.UDP, i)
				if w%2 == 1 {
					k = k.Reverse()
				}
				if _, first := table.Insert(&k, second, 10, 0); first {
					fresh.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if fresh.Load() != flows || table.Len() != flows {
		t.Errorf("%d were new, %d live", fresh.Load(), table.Len())
	}
	for v := range table.All() {
		if n := v.Forward.Packets + v.Reverse.Packets; n != workers || v.Forward.Packets != workers/2 {
			t.Errorf("%s: %d of %d packets", v.ID(), n, workers)
		}
	}
}
