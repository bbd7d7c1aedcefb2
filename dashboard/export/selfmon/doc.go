// Package selfmon owns what the dashboard measures of itself: the
// dashboard_* metrics of /metrics.
//
// The server calls its methods as things happen; it knows no web server and no
// database. A Metrics is safe for concurrent use.
package selfmon
