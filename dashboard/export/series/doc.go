// Package series owns what a path's quality is called in Prometheus: names,
// base units and labels, the same whether an appliance is scraped or its history
// is written by remote write, so that one Grafana dashboard reads both.
//
// It holds no values and does not send anything.
package series
