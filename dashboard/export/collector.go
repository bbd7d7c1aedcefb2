package export

import (
	"github.com/prometheus/client_golang/prometheus"

	"patronus/dashboard/export/queue"
)

// family is one metric family of an exporter.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

const (
	queueBytes = iota
	queueBound
	backlogBytes
	delivered
	lostItems
	lostUnknown
	attempts
	failures
	sinkUp
	lastSuccess
	numFamilies
)

func families() [numFamilies]family {
	f := func(kind prometheus.ValueType, name, help string, labels ...string) family {
		return family{prometheus.NewDesc("patronus_export_"+name, help, labels, nil), kind}
	}
	return [numFamilies]family{
		queueBytes:   f(prometheus.GaugeValue, "queue_bytes", "Bytes on disk that wait for sinks."),
		queueBound:   f(prometheus.GaugeValue, "queue_limit_bytes", "Bytes on disk beyond which the oldest are dropped."),
		backlogBytes: f(prometheus.GaugeValue, "backlog_bytes", "Bytes that a sink has still to get.", "sink"),
		delivered:    f(prometheus.CounterValue, "delivered_items_total", "Samples, flow records and events that a sink has taken.", "sink", "kind"),
		lostItems:    f(prometheus.CounterValue, "lost_items_total", "Samples, flow records and events that a sink will never get, by reason; kept over restarts.", "sink", "reason", "kind"),
		lostUnknown:  f(prometheus.CounterValue, "lost_unreadable_bytes_total", "Bytes of damaged records whose contents are not known.", "sink"),
		attempts:     f(prometheus.CounterValue, "attempts_total", "Deliveries that were tried.", "sink"),
		failures:     f(prometheus.CounterValue, "failures_total", "Deliveries that failed or were refused.", "sink"),
		sinkUp:       f(prometheus.GaugeValue, "sink_up", "1 if the last delivery to the sink did not fail.", "sink"),
		lastSuccess:  f(prometheus.GaugeValue, "last_success_timestamp_seconds", "When the sink last took something since the start, Unix time; 0: not yet.", "sink"),
	}
}

// Describe implements prometheus.Collector.
func (e *Exporter) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families() {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (e *Exporter) Collect(ch chan<- prometheus.Metric) {
	table := families()
	put := func(i int, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(table[i].desc, table[i].kind, v, labels...)
	}
	st := e.queue.Stats()
	put(queueBytes, float64(st.Bytes))
	put(queueBound, float64(st.MaxBytes))
	for _, r := range e.runs {
		name := r.sink.Name
		q := st.Readers[name]
		put(backlogBytes, float64(q.Backlog), name)
		unknown := uint64(0)
		for _, why := range []string{queue.Bound, queue.Disk, queue.Damaged, queue.Refused} {
			l := e.missed(q.Lost[why])
			unknown += l.Unknown
			for kind, n := range byKind(l.Items) {
				put(lostItems, float64(n), name, why, kind)
			}
		}
		put(lostUnknown, float64(unknown), name)
		r.mu.Lock()
		s := r.seen
		r.mu.Unlock()
		for kind, n := range byKind(s.delivered) {
			put(delivered, float64(n), name, kind)
		}
		put(attempts, float64(s.attempts), name)
		put(failures, float64(s.failures), name)
		up := 1.0
		if s.failing {
			up = 0
		}
		put(sinkUp, up, name)
		at := 0.0
		if !s.lastSuccess.IsZero() {
			at = float64(s.lastSuccess.UnixMilli()) / 1000
		}
		put(lastSuccess, at, name)
	}
}

func byKind(i queue.Items) map[string]uint64 {
	return map[string]uint64{"samples": i.Samples, "flows": i.Flows, "events": i.Events}
}
