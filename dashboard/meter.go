package dashboard

import (
	"bytes"
	"context"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// meter measures the dashboard itself. Paths are those of the table, never a
// client's: their number is bounded.
type meter struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	streams  *prometheus.GaugeVec
	messages *prometheus.CounterVec
	queries  *prometheus.HistogramVec
	active   prometheus.Gauge
}

func newMeter(registry *prometheus.Registry, s *Server) (*meter, error) {
	m := &meter{
		registry: registry,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dashboard_http_requests_total", Help: "Requests by method, route and status."}, []string{"method", "path", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dashboard_http_request_duration_seconds", Help: "Time that handlers take.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "path"}),
		streams:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "dashboard_websocket_connections", Help: "Open live streams."}, []string{"type"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dashboard_websocket_messages_total", Help: "Messages of live streams."}, []string{"type", "direction"}),
		queries: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dashboard_db_query_duration_seconds", Help: "Time that the store takes.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"query"}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{Name: "dashboard_db_connections_active", Help: "Queries that the store is answering."}),
	}
	all := []prometheus.Collector{m.requests, m.duration, m.streams, m.messages, m.queries, m.active}
	for _, g := range []struct {
		name, help string
		of         func(*view) int
	}{
		{"dashboard_sites_total", "Sites of the fabric.", func(v *view) int { return len(v.config.Sites) }},
		{"dashboard_paths_total", "Paths that sites report.", func(v *view) int { return len(v.paths.list()) }},
		{"dashboard_policies_total", "Network policies.", func(v *view) int { return len(v.config.Policies) }},
		{"dashboard_active_flows_total", "Flows that are live.", func(v *view) int {
			n := 0
			for i := range v.sites.list() {
				n += v.sites.list()[i].Flows
			}
			return n
		}},
	} {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, func() float64 {
			v, err := s.view(context.Background())
			if err != nil {
				return 0 // readyz says that there is no view
			}
			return float64(g.of(v))
		}))
	}
	for _, c := range all {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// request counts a request under the route that answered it.
func (m *meter) request(c *fiber.Ctx, took time.Duration) {
	method, route := c.Method(), c.Route().Path
	if route == "/" || route == "/*" {
		route = "other"
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(c.Response().StatusCode())).Inc()
	m.duration.WithLabelValues(method, route).Observe(took.Seconds())
}

// query measures a question to the store; call what it returns at the end.
func (m *meter) query(name string) (end func()) {
	began := time.Now()
	m.active.Inc()
	return func() {
		m.active.Dec()
		m.queries.WithLabelValues(name).Observe(time.Since(began).Seconds())
	}
}

func (s *Server) prometheus(r *request) error {
	families, err := s.meter.registry.Gather()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return err
		}
	}
	r.Set(fiber.HeaderContentType, string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	return r.Send(b.Bytes())
}
