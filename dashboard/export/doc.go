// Package export owns the way of samples, flows and events to engines that
// exist: Prometheus remote write, InfluxDB, PostgreSQL and TimescaleDB, syslog.
//
//	Put(Batch) ──> codec ──> queue on disk ──┬─> sink "archive"  postgres
//	  durable when it returns                ├─> sink "metrics"  remote write
//	                                         └─> sink "soc"      syslog
//	each sink: its own cursor, back-off, account of what it lost
//
// An engine that is down loses nothing within the queue's bound; beyond it the
// oldest go, and an event says exactly what. Delivery is at least once: a
// sample, flow record or event has a key of its own in every engine that has
// keys, so that what comes twice is there once. What the engine itself will
// never take is split down to the record that it does not like, and counted.
//
// It does not collect: whoever appends a batch to the store calls Put beside
// it. It does not chart and does not read back.
//
// Put, Run and Collect of one Exporter may be called concurrently. Run owns one
// goroutine for each sink and one that reports losses.
package export
