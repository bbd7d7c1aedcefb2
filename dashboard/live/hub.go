package live

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"patronus/netstack/path"
)

// ringSize is how many events are kept for subscribers that come back.
const ringSize = 4096

// Metric is the newest sample of one path.
type Metric struct {
	Site    string
	Path    path.ID
	At      time.Time
	Metrics path.Metrics
	State   string
}

// Message is one message as it goes out, encoded once.
type Message struct {
	Seq  uint64
	Type string
	// Site and Path are what filters and scopes look at, "" for none.
	Site, Path string
	Severity   string
	Text       []byte // JSON; must not be changed
}

// pathMetric is the stream's message of one path.
type pathMetric struct {
	Type    string       `json:"type"`
	Seq     uint64       `json:"seq"`
	At      time.Time    `json:"timestamp"`
	Path    path.ID      `json:"path_id"`
	Site    string       `json:"site_id"`
	Status  string       `json:"status,omitempty"`
	Metrics path.Metrics `json:"metrics"`
}

// Hub numbers what is published and wakes who subscribed.
type Hub struct {
	seq    atomic.Uint64 // of events
	epoch  string
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	tick   uint64               // number of the newest tick of metrics
	latest map[path.ID]*Message // newest metric of each path
	ring   []*Message           // events, oldest first when full from next on
	next   int
	subs   map[*Subscription]struct{}
}

// NewHub makes an empty hub. Numbers of another hub mean nothing to it: see
// [Hub.Epoch].
func NewHub() *Hub {
	return &Hub{
		epoch: time.Now().UTC().Format("20060102T150405.000000000"), closed: make(chan struct{}),
		latest: map[path.ID]*Message{}, subs: map[*Subscription]struct{}{},
	}
}

// Epoch names this hub's sequence of numbers: a subscriber that comes back with
// another one has to begin anew.
func (h *Hub) Epoch() string { return h.epoch }

// Seq is the number of the newest event.
func (h *Hub) Seq() uint64 { return h.seq.Load() }

// Close ends all subscriptions.
func (h *Hub) Close() { h.once.Do(func() { close(h.closed) }) }

// Watching is how many subscriptions there are.
func (h *Hub) Watching() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs)
}

// Metrics publishes one tick. All of its messages have the same number, which
// counts ticks. What cannot be encoded is left out; path.Metrics always can be.
func (h *Hub) Metrics(tick []Metric) {
	if len(tick) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tick++
	seq := h.tick
	batch := make([]*Message, 0, len(tick))
	for i := range tick {
		m := &tick[i]
		text, err := json.Marshal(pathMetric{"path_metric", seq, m.At.UTC(), m.Path, m.Site, m.State, m.Metrics})
		if err != nil {
			continue
		}
		out := &Message{Seq: seq, Type: "path_metric", Site: m.Site, Path: string(m.Path), Text: text}
		h.latest[m.Path] = out
		batch = append(batch, out)
	}
	for s := range h.subs {
		if s.metrics {
			s.offer(batch)
		}
	}
}

// Forget drops the newest values of paths that are gone.
func (h *Hub) Forget(gone func(path.ID) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.latest {
		if gone(id) {
			delete(h.latest, id)
		}
	}
}

// Event is what happened, with the fields of its type beside the common ones.
type Event struct {
	Type     string
	At       time.Time
	Severity string
	Site     string
	Path     path.ID
	// Fields are those of the type: old_status, new_status, reason, flow, ...
	Fields map[string]any
}

// Publish publishes an event. It fails if a field cannot be encoded.
func (h *Hub) Publish(e Event) error {
	m := map[string]any{}
	for k, v := range e.Fields {
		m[k] = v
	}
	m["type"], m["timestamp"] = e.Type, e.At.UTC()
	if e.Severity != "" {
		m["severity"] = e.Severity
	}
	if e.Site != "" {
		m["site_id"] = e.Site
	}
	if e.Path != "" {
		m["path_id"] = e.Path
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	seq := h.seq.Load() + 1
	m["seq"] = seq
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	h.seq.Store(seq)
	out := &Message{Seq: seq, Type: e.Type, Site: e.Site, Path: string(e.Path), Severity: e.Severity, Text: text}
	if len(h.ring) < ringSize {
		h.ring = append(h.ring, out)
	} else {
		h.ring[h.next] = out
		h.next = (h.next + 1) % ringSize
	}
	one := []*Message{out}
	for s := range h.subs {
		if !s.metrics {
			s.offer(one)
		}
	}
	return nil
}

// Changed publishes that the configuration has a new revision.
func (h *Hub) Changed(at time.Time, revision uint64, user, action, kind, id string) {
	// Texts and a number always encode.
	_ = h.Publish(Event{Type: "configuration_change", At: at, Severity: "info", Fields: map[string]any{
		"revision": revision, "user": user, "action": action, "resource_type": kind, "resource_id": id,
	}})
}
