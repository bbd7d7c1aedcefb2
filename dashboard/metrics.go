package dashboard

import (
	"math"
	"net/http"
	"time"

	"patronus/dashboard/auth"
	"patronus/netstack/path"
)

// Summary is the fabric in a few numbers.
type Summary struct {
	At             time.Time  `json:"at"`
	Revision       uint64     `json:"revision"`
	TotalSites     int        `json:"total_sites"`
	SitesUp        int        `json:"sites_up"`
	SitesDegraded  int        `json:"sites_degraded"`
	SitesDown      int        `json:"sites_down"`
	SitesUnknown   int        `json:"sites_unknown"`
	TotalPaths     int        `json:"total_paths"`
	ActivePaths    int        `json:"active_paths"` // up or degraded
	Paths          PathCounts `json:"paths"`
	AvgLatency     path.Value `json:"avg_latency_ms"`
	AvgLoss        path.Value `json:"avg_packet_loss_pct"`
	AvgScore       path.Value `json:"avg_score"`
	Throughput     path.Value `json:"throughput_mbps"`
	ActiveFlows    int        `json:"active_flows"`
	Policies       int        `json:"policies"`
	BlocksLastHour *uint64    `json:"blocks_last_hour"`
}

func metricRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/metrics/summary", Name: "metricsSummary", Access: needs(auth.ViewMetrics), Status: 200, Past: true,
			Doc: "The fabric in a few numbers.", Answer: Summary{}, handle: (*Server).metricsSummary,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/metrics/timeseries", Name: "metricsTimeseries", Access: needs(auth.ViewMetrics), Status: 200, Past: true,
			Doc: "A metric over time, of a site's paths or of all.", Answer: TimeSeries{},
			Query:  append(spanQuery(), Param{"metric", "string", "latency, jitter, loss, bandwidth, score, ..."}, Param{"site", "string", "site id; default all"}, Param{"path", "string", "path id; default all"}),
			handle: (*Server).metricsTimeseries,
		},
	}
}

// mean is an average that knows when there was nothing.
type mean struct {
	sum float64
	n   int
}

func (m *mean) add(v float64) {
	if !math.IsNaN(v) {
		m.sum += v
		m.n++
	}
}

func (m *mean) value() path.Value { return path.Value(m.sum / float64(m.n)) } // 0/0 is NaN: unknown

func (s *Server) metricsSummary(r *request) error {
	v, err := s.seen(r)
	if err != nil {
		return err
	}
	return r.answer(http.StatusOK, v.summary(&r.actor))
}

// summary counts what an actor sees.
func (v *view) summary(a *auth.Actor) Summary {
	out := Summary{At: v.at.UTC(), Revision: v.revision.Number}
	for i := range v.sites.list() {
		x := &v.sites.list()[i]
		if !v.sees(a, x.ID) {
			continue
		}
		out.TotalSites++
		out.ActiveFlows += x.Flows
		switch x.Status {
		case stateUp:
			out.SitesUp++
		case stateDegraded:
			out.SitesDegraded++
		case stateDown:
			out.SitesDown++
		default:
			out.SitesUnknown++
		}
	}
	var latency, loss, score mean
	sent := 0.0
	for i := range v.paths.list() {
		p := &v.paths.list()[i]
		if !v.sees(a, p.Source.ID) {
			continue
		}
		out.Paths.count(p.Status)
		if p.Status != stateUp && p.Status != stateDegraded {
			continue
		}
		latency.add(float64(p.Metrics.Latency))
		loss.add(float64(p.Metrics.PacketLoss))
		if p.Metrics.Score >= 0 {
			score.add(float64(p.Metrics.Score))
		}
		if tx := float64(p.Metrics.Tx); !math.IsNaN(tx) {
			sent += tx // each path's other end counts what it sends itself
		}
	}
	out.TotalPaths, out.ActivePaths = out.Paths.Total, out.Paths.Up+out.Paths.Degraded
	out.AvgLatency, out.AvgLoss, out.AvgScore, out.Throughput = latency.value(), loss.value(), score.value(), path.Value(sent)
	var blocks uint64
	counted := false
	for i := range v.policies.list() {
		if n := v.policies.list()[i].BlocksLastHour; n != nil {
			blocks += *n
			counted = true
		}
		out.Policies++
	}
	if counted && a.Everywhere() {
		out.BlocksLastHour = &blocks
	}
	return out
}

func (s *Server) metricsTimeseries(r *request) error {
	v, err := s.view(r.UserContext())
	if err != nil {
		return err
	}
	name, err := metricName(r.Query("metric", "latency"))
	if err != nil {
		return err
	}
	q := PointQuery{Site: r.Query("site"), Path: path.ID(r.Query("path")), Sees: v.scope(&r.actor)}
	if q.Site != "" {
		if err := inScope(v, &r.actor, q.Site); err != nil {
			return err
		}
	}
	if q.Path != "" {
		ends, err := path.ParseID(string(q.Path))
		if err != nil {
			return invalid("path", "is not a path's id")
		}
		if err := inScope(v, &r.actor, ends.LocalSite); err != nil {
			return err
		}
	}
	return s.points(r, q, []string{name})
}
