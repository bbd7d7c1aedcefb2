package live

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"patronus/netstack/path"
)

// ErrClosed means that the hub is closed.
var ErrClosed = errors.New("no more live messages")

// queueSize is how many events wait for a slow subscriber.
const queueSize = 256

// Filter says what a subscriber wants; empty fields are all.
type Filter struct {
	Sites      []string `json:"sites,omitempty"`
	Paths      []string `json:"paths,omitempty"`
	Types      []string `json:"types,omitempty"`
	Severities []string `json:"severities,omitempty"`
}

func (f *Filter) fits(m *Message) bool {
	return (len(f.Sites) == 0 || slices.Contains(f.Sites, m.Site)) &&
		(len(f.Paths) == 0 || slices.Contains(f.Paths, m.Path)) &&
		(len(f.Types) == 0 || slices.Contains(f.Types, m.Type)) &&
		(len(f.Severities) == 0 || slices.Contains(f.Severities, m.Severity))
}

// Subscription is one subscriber's share.
type Subscription struct {
	hub     *Hub
	metrics bool
	wake    chan struct{} // holds one token while something waits

	mu      sync.Mutex
	filter  Filter
	sees    func(*Message) bool
	values  map[string]*Message // newest of each path
	queue   []*Message
	dropped uint64
}

// Subscribe begins a subscription to metrics, or to events. sees says what the
// subscriber may see, nil is all; it must be safe for concurrent use and quick.
// Events after the number from are sent first if they are still there; what
// is missing is counted as dropped. from 0 begins with now. Metrics begin with
// the newest value of each path.
func (h *Hub) Subscribe(metrics bool, f Filter, sees func(*Message) bool, from uint64) *Subscription {
	s := &Subscription{hub: h, metrics: metrics, wake: make(chan struct{}, 1), filter: f, sees: sees, values: map[string]*Message{}}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[s] = struct{}{}
	if metrics {
		s.offer(h.newest())
		return s
	}
	if from == 0 || from >= h.seq.Load() {
		return s
	}
	var missed []*Message
	for i := range h.ring {
		if m := h.ring[(h.next+i)%len(h.ring)]; m.Seq > from {
			missed = append(missed, m)
		}
	}
	if len(h.ring) == ringSize {
		if oldest := h.ring[h.next].Seq; oldest > from+1 {
			s.dropped += oldest - from - 1
		}
	}
	s.offer(missed)
	return s
}

func (h *Hub) newest() []*Message {
	all := make([]*Message, 0, len(h.latest))
	for _, m := range h.latest {
		all = append(all, m)
	}
	return all
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	delete(s.hub.subs, s)
	s.hub.mu.Unlock()
}

// Set changes what is wanted and seen. Metrics begin anew with the newest
// values.
func (s *Subscription) Set(f Filter, sees func(*Message) bool) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.mu.Lock()
	s.filter, s.sees = f, sees
	clear(s.values)
	s.queue = nil
	s.mu.Unlock()
	if s.metrics {
		s.offer(s.hub.newest())
	}
}

// offer takes messages; it never waits. A value that was not fetched in time
// is replaced, the oldest event makes room; both are counted.
func (s *Subscription) offer(batch []*Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	any := false
	for _, m := range batch {
		if !s.filter.fits(m) || s.sees != nil && !s.sees(m) {
			continue
		}
		any = true
		if s.metrics {
			if s.values[m.Path] != nil {
				s.dropped++
			}
			s.values[m.Path] = m
			continue
		}
		if len(s.queue) == queueSize {
			s.queue = s.queue[1:]
			s.dropped++
		}
		s.queue = append(s.queue, m)
	}
	if any {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Wake has a token when there may be something for Take.
func (s *Subscription) Wake() <-chan struct{} { return s.wake }

// Done is closed when the hub is.
func (s *Subscription) Done() <-chan struct{} { return s.hub.closed }

// Take is what waits, at most limit messages (0 is all), and how many were
// lost since the last call.
func (s *Subscription) Take(limit int) (batch []*Message, dropped uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dropped, s.dropped = s.dropped, 0
	if s.metrics {
		for id, m := range s.values {
			if limit > 0 && len(batch) == limit {
				break
			}
			batch = append(batch, m)
			delete(s.values, id)
		}
		slices.SortFunc(batch, func(a, b *Message) int { return cmp.Compare(a.Path, b.Path) })
	} else {
		n := len(s.queue)
		if limit > 0 {
			n = min(n, limit)
		}
		batch = append(batch, s.queue[:n]...)
		s.queue = s.queue[n:]
	}
	if len(s.values)+len(s.queue) > 0 {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return batch, dropped
}

// Next waits for something and takes it all.
func (s *Subscription) Next(ctx context.Context) (batch []*Message, dropped uint64, err error) {
	for {
		if batch, dropped = s.Take(0); len(batch) > 0 || dropped > 0 {
			return batch, dropped, nil
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-s.hub.closed:
			return nil, 0, ErrClosed
		case <-s.wake:
		}
	}
}

// Latest is the newest metric of a path, nil if there is none.
func (h *Hub) Latest(id path.ID) *Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.latest[id]
}
