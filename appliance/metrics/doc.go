// Package metrics owns what an appliance tells Prometheus about its edge and its
// store: the families patronus_*, in base units, read from one Status and one
// Stats at each scrape.
//
// It counts nothing itself, holds no state between scrapes and opens no socket.
// The number of series is bounded whatever the configuration: see Limits. What
// the dashboard says of itself is dashboard/export/selfmon's, and of the export
// dashboard/export's.
//
// A Collector is safe for concurrent use.
package metrics
