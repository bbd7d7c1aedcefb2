// Package export owns the tests of the export against the engines themselves:
// PostgreSQL, Prometheus, InfluxDB and VictoriaMetrics of the distribution,
// each started in a directory of the test's own on a free port of loopback and
// ended by its process id.
//
// The tests run with PATRONUS_LONG=1; an engine that is not installed is said
// to be skipped. As root, engines run as nobody.
package export
