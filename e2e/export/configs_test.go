package export

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	prom "github.com/prometheus/client_golang/prometheus"

	"patronus/appliance/metrics"
	"patronus/appliance/store"
	"patronus/dashboard/export"
	"patronus/dashboard/export/selfmon"
	"patronus/netstack"
	"patronus/netstack/path"
)

const (
	promDir = "../../configs/prometheus"
	grafana = "../../configs/grafana/patronus.json"
)

// lively is an edge and a store whose counters grow.
type lively struct{ n atomic.Uint64 }

func (l *lively) Status(context.Context) (*netstack.Status, error) {
	n := l.n.Add(7)
	at := time.Now().Add(-time.Minute)
	st := &netstack.Status{Fabric: "f", Site: "hq", Revision: 3, Uptime: 60}
	st.Uplinks = []netstack.UplinkStatus{{Name: "wan0", Carrier: true}}
	st.Ports = []netstack.PortStatus{{Name: "lan0", RxBytes: n, Dropped: map[string]uint64{"not-ours": n}}}
	for _, remote := range []string{"east", "west"} {
		st.Paths = append(st.Paths, netstack.PathStatus{
			ID: path.NewID("hq", "wan0", remote, "wan0"), Site: remote, Uplink: "wan0", RemoteUplink: "wan0", State: "up", Since: at, Handshake: at,
			Metrics: path.Metrics{Latency: 10, Jitter: 1, PDVp95: 2, Score: 90}, Scores: map[string]path.Score{"voice": 80}, MTU: 1420, TxBytes: n,
		})
	}
	st.Flows = netstack.FlowsStatus{Live: 4, Created: n}
	st.Policies = []netstack.PolicyHits{{Policy: "p", Denied: n}}
	st.Counters.ToWAN = netstack.DirectionCounters{Bytes: n, Dropped: map[string]uint64{"denied": n}}
	return st, nil
}

func (l *lively) Stats() store.Stats {
	return store.Stats{Samples: l.n.Load(), Bytes: 1 << 20, Free: 1 << 30}
}

// collectors are all that an appliance with a dashboard has on /metrics.
func allCollectors(t *testing.T) []prom.Collector {
	t.Helper()
	x, err := export.New(export.Options{Dir: t.TempDir(), Sinks: []export.Sink{{Name: "a", Influx: &export.Influx{URL: "http://127.0.0.1", Database: "d"}}}},
		func(context.Context, store.Event) error { return nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	self := selfmon.New(func() selfmon.Totals { return selfmon.Totals{Sites: 3} })
	self.Request("GET", "/api/v1/sites", 200, 20*time.Millisecond)
	self.Request("GET", "/api/v1/sites", 503, time.Millisecond)
	self.Socket("metrics", 1)
	self.Messages("metrics", selfmon.Outbound, 1)
	self.Query("list_sites")()
	l := &lively{}
	return []prom.Collector{metrics.NewCollector(l, "test", metrics.Limits{}), metrics.NewStoreCollector(l), x, self}
}

var (
	described = regexp.MustCompile(`fqName: "([^"]*)"`)
	metric    = regexp.MustCompile(`\b(?:patronus|dashboard)_[a-z0-9_]+`)
	histogram = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// names are the metrics that exist.
func names(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, c := range allCollectors(t) {
		descs := make(chan *prom.Desc)
		go func() {
			c.Describe(descs)
			close(descs)
		}()
		for d := range descs {
			out[described.FindStringSubmatch(d.String())[1]] = true
		}
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// query is one of the Grafana dashboard's.
type query struct{ panel, expr string }

func queries(t *testing.T) (all []query) {
	t.Helper()
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Definition string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, grafana)), &d); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			all = append(all, query{p.Title, q.Expr})
		}
	}
	for _, v := range d.Templating.List {
		if inner, ok := strings.CutPrefix(v.Definition, "label_values("); ok {
			all = append(all, query{"variable", inner[:strings.LastIndex(inner, ",")]})
		}
	}
	if len(all) < 30 {
		t.Fatalf("only %d queries found", len(all))
	}
	return all
}

// Whatever the dashboard and the alerts ask for exists.
func TestQueriesNameMetrics(t *testing.T) {
	known := names(t)
	check := func(where, text string) {
		for _, name := range metric.FindAllString(text, -1) {
			if !known[name] && !known[histogram.ReplaceAllString(name, "")] {
				t.Errorf("%s: there is no metric %s", where, name)
			}
		}
	}
	for _, q := range queries(t) {
		check(q.panel, q.expr)
	}
	check("alerts", read(t, promDir+"/alerts.yml"))
	check("tests of alerts", read(t, promDir+"/alerts.test.yml"))
}

// Prometheus' own tool accepts the example and the alerts, and their tests pass.
func TestPromtool(t *testing.T) {
	promtool := program(t, "promtool")
	dir := t.TempDir()
	for _, name := range []string{"prometheus.yml", "alerts.yml", "alerts.test.yml"} {
		write(t, dir, name, read(t, filepath.Join(promDir, name)))
	}
	// What the operator is told to put beside them.
	write(t, dir, "token", "x")
	write(t, dir, "ca.pem", "")
	for _, args := range [][]string{{"check", "config", "prometheus.yml"}, {"check", "rules", "alerts.yml"}, {"test", "rules", "alerts.test.yml"}} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cmd := exec.CommandContext(ctx, promtool, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
		cancel()
	}
}

// Every query of the Grafana dashboard has an answer from a real Prometheus that
// scrapes an appliance, and every alert rule can be evaluated there.
func TestQueriesAnswer(t *testing.T) {
	long(t)
	h, err := metrics.Handler(allCollectors(t)...)
	if err != nil {
		t.Fatal(err)
	}
	appliance := httptest.NewServer(h)
	defer appliance.Close()
	bin, dir, p := program(t, "prometheus"), home(t), port(t)
	api := fmt.Sprintf("http://127.0.0.1:%d", p)
	write(t, dir, "alerts.yml", read(t, promDir+"/alerts.yml"))
	config := write(t, dir, "prometheus.yml", fmt.Sprintf("global:\n  scrape_interval: %s\n  evaluation_interval: 1s\nrule_files: [alerts.yml]\nscrape_configs:\n  - job_name: patronus\n    static_configs: [{targets: [%q]}]\n",
		"500ms", strings.TrimPrefix(appliance.URL, "http://")))
	s := &server{
		dir: dir, ready: up(api + "/-/ready"),
		args: []string{bin, "--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"), fmt.Sprintf("--web.listen-address=127.0.0.1:%d", p)},
	}
	s.start(t)
	variables := strings.NewReplacer("$__rate_interval", "1m", "$site", ".*", "$path", ".*", "$instance", ".*")
	for _, q := range queries(t) {
		expr := variables.Replace(q.expr)
		if err := eventually(t, 20*time.Second, func(ctx context.Context) error {
			v, err := ask(ctx, api, expr)
			if err == nil && len(v.Data.Result) == 0 {
				err = fmt.Errorf("no answer")
			}
			return err
		}); err != nil {
			t.Errorf("%s: %s: %v", q.panel, expr, err)
		}
	}
	// Rules of a site that is well.
	if err := eventually(t, 20*time.Second, func(ctx context.Context) error {
		text, err := get(ctx, api+"/api/v1/rules")
		if err != nil {
			return err
		}
		var v struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Health, LastError, State string }
				}
			}
		}
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return err
		}
		n := 0
		for _, g := range v.Data.Groups {
			for _, r := range g.Rules {
				if n++; r.Health != "ok" {
					return fmt.Errorf("rule %s: %s %s", r.Name, r.Health, r.LastError)
				}
				if slices.Contains([]string{"PatronusEdgeDown", "PatronusPathDown", "PatronusSiteIsolated", "PatronusStoreFull"}, r.Name) && r.State != "inactive" {
					return fmt.Errorf("rule %s is %s", r.Name, r.State)
				}
			}
		}
		if n < 15 {
			return fmt.Errorf("%d rules", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
