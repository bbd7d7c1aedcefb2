// Package metrics owns what an appliance tells Prometheus about its edge: the
// families patronus_*, in base units, read from one Status at each scrape.
//
// It counts nothing itself, holds no state between scrapes and opens no socket.
// The number of series is bounded whatever the configuration: see Limits.
//
// A Collector is safe for concurrent use.
package metrics
