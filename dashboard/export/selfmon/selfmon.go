package selfmon

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Other is the label value of what is not among the known ones.
const Other = "other"

// maxRoutes bounds the path label: routes are templates, "/api/v1/sites/:id",
// and the table of routes is shorter than this.
const maxRoutes = 256

// buckets of request and query durations, seconds. The server's target is 0.1.
var (
	requestBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}
	queryBuckets   = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1}
)

// Totals are how many of each the dashboard knows at the moment.
type Totals struct {
	Sites, Paths, ActiveFlows, Policies int
}

// Metrics is a prometheus.Collector of the dashboard's own metrics.
type Metrics struct {
	requests    *prometheus.CounterVec
	requestTime *prometheus.HistogramVec
	sockets     *prometheus.GaugeVec
	messages    *prometheus.CounterVec
	queryTime   *prometheus.HistogramVec
	queries     prometheus.Gauge
	totals      [4]*prometheus.Desc
	read        func() Totals

	mu     sync.Mutex
	routes map[string]bool
}

// New builds the metrics. totals is called at each scrape; it must be quick.
func New(totals func() Totals) *Metrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("dashboard_"+name, help, nil, nil)
	}
	return &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dashboard_http_requests_total", Help: "HTTP requests answered, by route template.",
		}, []string{"method", "path", "status"}),
		requestTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dashboard_http_request_duration_seconds", Help: "Time to answer an HTTP request, by route template.",
			Buckets: requestBuckets,
		}, []string{"method", "path"}),
		sockets: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "dashboard_websocket_connections", Help: "Open WebSocket connections, by stream.",
		}, []string{"type"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dashboard_websocket_messages_total", Help: "WebSocket messages, by stream; inbound is from the client, dropped were too many for a slow one.",
		}, []string{"type", "direction"}),
		queryTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dashboard_db_query_duration_seconds", Help: "Time of a query to the dashboard's store.", Buckets: queryBuckets,
		}, []string{"query"}),
		queries: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dashboard_db_connections_active", Help: "Queries to the dashboard's store that are being answered. The store is embedded: it has no other connections.",
		}),
		totals: [4]*prometheus.Desc{
			desc("sites_total", "Sites that the dashboard knows. It may fall: the name is a contract, the type is untyped."),
			desc("paths_total", "Paths that the dashboard knows. It may fall."),
			desc("active_flows_total", "Flows that are active at all sites. It may fall."),
			desc("policies_total", "Policies of the newest revision. It may fall."),
		},
		read: totals, routes: map[string]bool{},
	}
}

// Request counts an answered request. route is the template, never the URL that
// the client sent.
func (m *Metrics) Request(method, route string, status int, took time.Duration) {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
	default:
		method = Other
	}
	code := Other
	if status >= 100 && status <= 599 {
		code = strconv.Itoa(status)
	}
	route = m.known(route)
	m.requests.WithLabelValues(method, route, code).Inc()
	m.requestTime.WithLabelValues(method, route).Observe(took.Seconds())
}

// known bounds the values of a label.
func (m *Metrics) known(route string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.routes[route] {
		if route == "" || len(m.routes) >= maxRoutes {
			return Other
		}
		m.routes[route] = true
	}
	return route
}

// Socket counts a WebSocket that opened (+1) or closed (-1). stream is
// "metrics" or "events".
func (m *Metrics) Socket(stream string, delta int) {
	m.sockets.WithLabelValues(m.known(stream)).Add(float64(delta))
}

// Direction is where a WebSocket message went.
type Direction string

// The directions.
const (
	Inbound  Direction = "inbound"
	Outbound Direction = "outbound"
	Dropped  Direction = "dropped"
)

// Messages counts WebSocket messages of a stream.
func (m *Metrics) Messages(stream string, d Direction, n int) {
	m.messages.WithLabelValues(m.known(stream), string(d)).Add(float64(n))
}

// Query begins a query of the store; call the answer when it is done.
//
//	defer m.Query("list_sites")()
func (m *Metrics) Query(name string) (done func()) {
	began := time.Now()
	m.queries.Inc()
	return func() {
		m.queries.Dec()
		m.queryTime.WithLabelValues(m.known(name)).Observe(time.Since(began).Seconds())
	}
}

func (m *Metrics) parts() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.requestTime, m.sockets, m.messages, m.queryTime, m.queries}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.parts() {
		c.Describe(ch)
	}
	for _, d := range m.totals {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.parts() {
		c.Collect(ch)
	}
	t := m.read()
	for i, n := range []int{t.Sites, t.Paths, t.ActiveFlows, t.Policies} {
		ch <- prometheus.MustNewConstMetric(m.totals[i], prometheus.UntypedValue, float64(n))
	}
}
