package appliance

import (
	"context"
	"testing"
	"testing/synctest"

	"patronus/netstack"
)

// The ring never holds up who puts, and counts what nobody came for.
func TestTelemetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTelemetry(10)
		put := func(n int) {
			for range n {
				r.put(netstack.Event{Rev: r.next})
			}
		}
		put(25) // nobody listens
		if r.Dropped() != 15 {
			t.Errorf("%d dropped", r.Dropped())
		}
		ctx, cancel := context.WithCancel(t.Context())
		var got []uint64
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.follow(ctx, 0, func(_ uint64, batch []netstack.Event) bool {
				for _, ev := range batch {
					got = append(got, ev.Rev)
				}
				return true
			})
		}()
		synctest.Wait()
		put(3)
		synctest.Wait()
		if len(got) != 13 || got[0] != 15 || got[12] != 27 || r.Dropped() != 15 {
			t.Errorf("%v, %d dropped", got, r.Dropped())
		}
		cancel()
		<-done
		put(12) // and again nobody
		if r.Dropped() != 17 {
			t.Errorf("%d dropped", r.Dropped())
		}
		calls := 0
		r.follow(t.Context(), 0, func(_ uint64, batch []netstack.Event) bool { calls += len(batch); return false })
		if calls != 10 {
			t.Errorf("a new reader got %d", calls)
		}
	})
}
