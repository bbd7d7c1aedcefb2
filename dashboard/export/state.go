package export

import (
	"time"

	"patronus/dashboard/export/queue"
)

// State is how one sink stands.
type State struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Up is false while deliveries fail; Err is why.
	Up  bool   `json:"up"`
	Err string `json:"error,omitempty"`
	// LastSuccessAt is when the sink last took something since the start.
	LastSuccessAt time.Time `json:"last_success_at,omitzero"`
	// BacklogBytes wait for the sink on the disk.
	BacklogBytes int64 `json:"backlog_bytes"`
	// Delivered counts since the start, Lost since the queue was made.
	Delivered queue.Items `json:"delivered"`
	Lost      queue.Items `json:"lost"`
}

// States are those of all sinks, in the order of the options.
func (e *Exporter) States() []State {
	st := e.queue.Stats()
	out := make([]State, len(e.runs))
	for i, r := range e.runs {
		q := st.Readers[r.sink.Name]
		r.mu.Lock()
		s := r.seen
		r.mu.Unlock()
		out[i] = State{
			Name: r.sink.Name, Kind: r.sink.kind(), Up: !s.failing, Err: s.why, LastSuccessAt: s.lastSuccess,
			BacklogBytes: q.Backlog, Delivered: s.delivered,
		}
		for _, l := range q.Lost {
			lost := e.missed(l).Items
			out[i].Lost.Samples += lost.Samples
			out[i].Lost.Flows += lost.Flows
			out[i].Lost.Events += lost.Events
		}
	}
	return out
}

func (s *Sink) kind() string {
	switch {
	case s.RemoteWrite != nil:
		return "prometheus"
	case s.Influx != nil:
		return "influxdb"
	case s.Postgres != nil:
		return "postgres"
	default:
		return "syslog"
	}
}
