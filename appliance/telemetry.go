package appliance

import (
	"context"
	"sync"

	"patronus/netstack"
)

// telemetryRing is how many events an edge keeps for a node that is away: at
// 20 paths and 100 flows a second, half a minute of samples and flow records.
const telemetryRing = 8192

// telemetry is a bounded ring of events between the packet path, which never
// waits, and the node, which may be dead. What no reader came for in time is
// counted.
type telemetry struct {
	mu      sync.Mutex
	ring    []netstack.Event
	next    uint64 // sequence number of the next event
	taken   uint64 // that some reader has got up to
	dropped uint64
	more    chan struct{} // closed and replaced when something was put, if anybody waits
	waiting bool
}

func newTelemetry(n int) *telemetry {
	return &telemetry{ring: make([]netstack.Event, n), more: make(chan struct{})}
}

// put adds an event; the oldest one goes if nobody has taken it.
func (t *telemetry) put(ev netstack.Event) {
	t.mu.Lock()
	if size := uint64(len(t.ring)); t.next >= size && t.next-size >= t.taken {
		t.dropped++
	}
	t.ring[t.next%uint64(len(t.ring))] = ev
	t.next++
	if t.waiting {
		t.waiting = false
		close(t.more)
		t.more = make(chan struct{})
	}
	t.mu.Unlock()
}

// follow passes events to sink, in batches, from number at on or from the
// oldest kept one, until ctx ends or sink answers false. first is the number of
// a batch's first event.
func (t *telemetry) follow(ctx context.Context, at uint64, sink func(first uint64, batch []netstack.Event) bool) {
	t.mu.Lock()
	at = min(at, t.next)
	if size := uint64(len(t.ring)); t.next-at > size {
		at = t.next - size
	}
	t.mu.Unlock()
	batch := make([]netstack.Event, 0, 256)
	for {
		t.mu.Lock()
		if size := uint64(len(t.ring)); t.next-at > size {
			at = t.next - size
		}
		batch = batch[:0]
		for at < t.next && len(batch) < cap(batch) {
			batch = append(batch, t.ring[at%uint64(len(t.ring))])
			at++
		}
		t.taken = max(t.taken, at)
		more := t.more
		if len(batch) == 0 {
			t.waiting = true
		}
		t.mu.Unlock()
		if len(batch) > 0 {
			if !sink(at-uint64(len(batch)), batch) {
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-more:
		}
	}
}

// Dropped is how many events no reader got.
func (t *telemetry) Dropped() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropped
}
