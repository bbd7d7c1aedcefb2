package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"patronus/appliance/store"
)

// Store is what the store's metrics are read from.
type Store interface {
	Stats() store.Stats
}

// StoreCollector tells what the store says of itself. It is safe for concurrent
// use.
type StoreCollector struct {
	from  Store
	parts []storePart
}

type storePart struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*store.Stats) float64
}

// NewStoreCollector builds a collector of a store's counters, which begin at 0
// when it is opened.
func NewStoreCollector(from Store) *StoreCollector {
	part := func(kind prometheus.ValueType, name, help string, read func(*store.Stats) float64) storePart {
		return storePart{prometheus.NewDesc("patronus_store_"+name, help, nil, nil), kind, read}
	}
	const count, gauge = prometheus.CounterValue, prometheus.GaugeValue
	return &StoreCollector{from, []storePart{
		part(count, "batches_total", "Batches that were made durable.", func(s *store.Stats) float64 { return float64(s.Batches) }),
		part(count, "samples_total", "Samples that were made durable.", func(s *store.Stats) float64 { return float64(s.Samples) }),
		part(count, "duplicate_samples_total", "Samples that came again and were left out.", func(s *store.Stats) float64 { return float64(s.Duplicates) }),
		part(count, "tail_dropped_batches_total", "Batches that slow readers of the live stream lost; they are stored.", func(s *store.Stats) float64 { return float64(s.TailDropped) }),
		part(count, "damaged_values_total", "Values that did not match their checksum; they are never served.", func(s *store.Stats) float64 { return float64(s.Damaged) }),
		part(count, "unforwarded_batches_total", "Batches that the queue of the export did not take; they are stored.", func(s *store.Stats) float64 { return float64(s.Unforwarded) }),
		part(count, "refused_writes_total", "Writes that were refused because the disk is at its reserve.", func(s *store.Stats) float64 { return float64(s.Refused) }),
		part(count, "lost_log_bytes_total", "Bytes of the log that were damaged, and the samples in them.", func(s *store.Stats) float64 { return float64(s.Lost) }),
		part(gauge, "disk_reserve_bytes", "Bytes that the store leaves free on its file system.", func(s *store.Stats) float64 { return float64(s.Reserve) }),
		part(gauge, "series", "Paths that the store has samples of.", func(s *store.Stats) float64 { return float64(s.Series) }),
		part(gauge, "disk_bytes", "Bytes that the store takes on the disk.", func(s *store.Stats) float64 { return float64(s.Bytes) }),
		part(gauge, "disk_free_bytes", "Bytes that are free on the store's file system.", func(s *store.Stats) float64 { return float64(s.Free) }),
		part(gauge, "full", "1 while writes are refused because the disk is at its reserve.", func(s *store.Stats) float64 {
			if s.Full {
				return 1
			}
			return 0
		}),
	}}
}

// Describe implements prometheus.Collector.
func (c *StoreCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, p := range c.parts {
		ch <- p.desc
	}
}

// Collect implements prometheus.Collector.
func (c *StoreCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.from.Stats()
	for _, p := range c.parts {
		ch <- prometheus.MustNewConstMetric(p.desc, p.kind, p.read(&s))
	}
}
