package dashboard

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"patronus/dashboard/auth"
	"patronus/netstack/path"
)

func pathRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/paths", Name: "listPaths", Access: needs(auth.ViewPaths), Status: 200, Past: true,
			Doc: "List the paths, each as the site at its local end sees it.", Answer: Page[Path]{}, Query: listQuery(pathFields(), false), handle: (*Server).listPaths,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/paths/:id", Name: "showPath", Access: needs(auth.ViewPaths), Status: 200, Past: true,
			Doc: "Show one path.", Answer: Path{}, handle: (*Server).showPath,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/paths/:id/metrics", Name: "pathMetrics", Access: needs(auth.ViewMetrics), Status: 200, Past: true,
			Doc: "A path's metrics over time.", Answer: TimeSeries{}, Query: append(spanQuery(), Param{"metric", "string", "names, separated by commas; default latency_ms,jitter_ms,packet_loss_pct,bandwidth_mbps,score"}),
			handle: (*Server).pathMetrics,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/paths/:id/test", Name: "testPath", Access: needs(auth.TestPaths), Status: 200,
			Doc: "Measure a path now: delay and loss by probes, throughput if asked for.", Body: TestOptions{}, Answer: TestResult{}, handle: (*Server).testPath,
		},
	}
}

func pathFields() fields[Path] {
	metric := func(pick func(*path.Metrics) path.Value) func(*Path) value {
		return func(p *Path) value { return number(float64(pick(&p.Metrics))) }
	}
	return fields[Path]{
		"id":              func(p *Path) value { return text(string(p.ID)) },
		"source":          func(p *Path) value { return text(p.Source.ID) },
		"destination":     func(p *Path) value { return text(p.Destination.ID) },
		"uplink":          func(p *Path) value { return text(p.Uplink) },
		"remote_uplink":   func(p *Path) value { return text(p.RemoteUplink) },
		"status":          func(p *Path) value { return text(p.Status) },
		"score":           func(p *Path) value { return number(float64(p.Metrics.Score)) },
		"latency_ms":      metric(func(m *path.Metrics) path.Value { return m.Latency }),
		"jitter_ms":       metric(func(m *path.Metrics) path.Value { return m.Jitter }),
		"packet_loss_pct": metric(func(m *path.Metrics) path.Value { return m.PacketLoss }),
		"bandwidth_mbps":  metric(func(m *path.Metrics) path.Value { return m.Bandwidth }),
	}
}

// seesPath reports whether one of a path's ends is in the actor's scope.
func (v *view) seesPath(a *auth.Actor, p *Path) bool {
	return v.sees(a, p.Source.ID) || v.sees(a, p.Destination.ID)
}

func (s *Server) listPaths(r *request) error {
	v, err := s.seen(r)
	if err != nil {
		return err
	}
	l := listing[Path]{fields: pathFields()}
	l.fields["site"] = func(p *Path) value { return text(p.Source.ID) }
	if !r.actor.Everywhere() {
		l.sees = func(p *Path) bool { return v.seesPath(&r.actor, p) }
	}
	return listed(r, v.paths, l)
}

// path finds the path of a request's URL, in the actor's scope.
func (s *Server) path(r *request) (*view, *Path, error) {
	v, err := s.seen(r)
	if err != nil {
		return nil, nil, err
	}
	id := r.Params("id")
	if _, err := path.ParseID(id); err != nil {
		return nil, nil, notFound("path", id)
	}
	p, ok := v.paths.find(id)
	if !ok || !v.seesPath(&r.actor, p) {
		return nil, nil, notFound("path", id)
	}
	return v, p, nil
}

func (s *Server) showPath(r *request) error {
	_, p, err := s.path(r)
	if err != nil {
		return err
	}
	return r.answer(http.StatusOK, p)
}

func (s *Server) testPath(r *request) error {
	v, p, err := s.path(r)
	if err != nil {
		return err
	}
	if !v.sees(&r.actor, p.Source.ID) {
		return problem(http.StatusForbidden, "forbidden", "the path is measured from site "+p.Source.ID+", which is outside of your scope")
	}
	o := TestOptions{Seconds: 3, MaxMbps: 100}
	if len(r.Body()) > 0 {
		if err := r.body(&o); err != nil {
			return err
		}
	}
	switch {
	case o.Seconds < 1 || o.Seconds > 10:
		return invalid("seconds", "is not from 1 to 10")
	case o.MaxMbps < 1 || o.MaxMbps > 1000:
		return invalid("max_mbps", "is not from 1 to 1000")
	case s.o.Sites == nil:
		return ErrUnavailable
	case !s.tests.enter(string(p.ID)):
		return problem(http.StatusConflict, "busy", "the path is being measured already")
	}
	defer s.tests.leave(string(p.ID))
	result, err := s.o.Sites.TestPath(r.UserContext(), p.ID, o)
	if err := s.audit(r, "test_path", "path", string(p.ID), nil, o, err); err != nil {
		return err
	}
	return r.answer(http.StatusOK, result)
}

// TimeSeries is one or more metrics over time.
type TimeSeries struct {
	From    time.Time      `json:"from"`
	To      time.Time      `json:"to"`
	Step    float64        `json:"step_seconds"`
	Metrics []MetricSeries `json:"metrics"`
}

// MetricSeries is one metric of several paths.
type MetricSeries struct {
	Metric string   `json:"metric"`
	Series []Series `json:"series"`
}

// metricNames are the metrics that are recorded, by the names of path.Metrics.
func metricNames() []string {
	return []string{
		"latency_ms", "jitter_ms", "pdv_p95_ms", "packet_loss_pct", "loss_out_pct", "loss_in_pct", "reordered",
		"bandwidth_mbps", "tx_mbps", "rx_mbps", "mtu", "score", "state",
	}
}

// metricName accepts a metric's name, and the short ones that people type.
func metricName(name string) (string, error) {
	short := map[string]string{
		"latency": "latency_ms", "jitter": "jitter_ms", "loss": "packet_loss_pct", "packet_loss": "packet_loss_pct", "bandwidth": "bandwidth_mbps",
	}
	if long, ok := short[name]; ok {
		name = long
	}
	if !slices.Contains(metricNames(), name) {
		return "", invalid("metric", "is none of "+strings.Join(metricNames(), ", "))
	}
	return name, nil
}

func spanQuery() []Param {
	return []Param{
		{"from", "date-time", "start"},
		{"to", "date-time", "end; default now"},
		{"duration", "string", "length before to, as 15m, 1h or 7d; default 1h"},
		{"step", "string", "length of one point; default a 300th of the span"},
	}
}

// maxPoints bounds the points of one answer, over all its series.
const maxPoints = 200_000

func (r *request) step(from, to time.Time) (time.Duration, error) {
	span := to.Sub(from)
	step := max(time.Second, (span / 300).Truncate(time.Second))
	if text := r.Query("step"); text != "" {
		d, err := parseSpan(text)
		if err != nil || d < time.Second {
			return 0, invalid("step", "is not a duration of a second or more, such as 10s or 5m")
		}
		step = d
	}
	if span/step > 10_000 {
		return 0, invalid("step", "would give more than 10000 points")
	}
	return step, nil
}

// points answers with metrics over time.
func (s *Server) points(r *request, q PointQuery, names []string) error {
	if s.o.History == nil {
		return ErrUnavailable
	}
	from, to, err := r.span()
	if err != nil {
		return err
	}
	step, err := r.step(from, to)
	if err != nil {
		return err
	}
	defer s.meter.query("points")()
	q.From, q.To, q.Step = from, to, step
	out := TimeSeries{From: from, To: to, Step: step.Seconds(), Metrics: []MetricSeries{}}
	n := 0
	for _, name := range names {
		if q.Metric, err = metricName(name); err != nil {
			return err
		}
		series, err := s.o.History.Points(r.UserContext(), q)
		if err != nil {
			return err
		}
		for i := range series {
			n += len(series[i].Points)
		}
		if n > maxPoints {
			return invalid("step", fmt.Sprintf("is too short: the answer would have more than %d points", maxPoints))
		}
		if series == nil {
			series = []Series{}
		}
		out.Metrics = append(out.Metrics, MetricSeries{Metric: q.Metric, Series: series})
	}
	return r.answer(http.StatusOK, out)
}

func (s *Server) pathMetrics(r *request) error {
	_, p, err := s.path(r)
	if err != nil {
		return err
	}
	names := []string{"latency_ms", "jitter_ms", "packet_loss_pct", "bandwidth_mbps", "score"}
	if text := r.Query("metric"); text != "" {
		names = strings.Split(text, ",")
		if len(names) > len(metricNames()) {
			return invalid("metric", "names too many")
		}
	}
	return s.points(r, PointQuery{Site: p.Source.ID, Path: p.ID}, names)
}
