package house

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"patronus/appliance/metrics"
	"patronus/appliance/store"
	"patronus/dashboard/export"
	"patronus/dashboard/export/selfmon"
	"patronus/netstack"
	"patronus/netstack/path"
)

// one is an edge that has one of everything, and a store.
type one struct{}

func (one) Status(context.Context) (*netstack.Status, error) {
	now := time.Unix(1, 0)
	return &netstack.Status{
		Uplinks: make([]netstack.UplinkStatus, 1), Ports: make([]netstack.PortStatus, 1), Policies: make([]netstack.PolicyHits, 1),
		Devices: []netstack.DeviceStatus{{LastHandshake: now}},
		Paths:   []netstack.PathStatus{{State: "up", Since: now, Handshake: now, Scores: map[string]path.Score{"bulk": 1}}},
	}, nil
}

func (one) Stats() store.Stats { return store.Stats{} }

// description takes a description apart, which has no other way to be read.
var description = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "((?:[^"\\]|\\.)*)", (?:unit: "[^"]*", )?constLabels: \{\}, variableLabels: \{([^}]*)\}\}$`)

// The reference of metrics says what the collectors say of themselves.
func TestMetricsReference(t *testing.T) {
	x, err := export.New(export.Options{Dir: t.TempDir(), Sinks: []export.Sink{{
		Name: "a", Influx: &export.Influx{URL: "http://127.0.0.1", Database: "d"},
	}}}, func(context.Context, store.Event) error { return nil }, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	self := selfmon.New(func() selfmon.Totals { return selfmon.Totals{} })
	self.Request("GET", "/", 200, 0)
	self.Socket("metrics", 1)
	self.Messages("metrics", selfmon.Inbound, 1)
	self.Query("list_sites")()

	var b strings.Builder
	b.WriteString("# Metrics\n\n" + generated)
	b.WriteString("What `/metrics` of an appliance says, in Prometheus' base units: seconds, bytes, ratios. Counters of the edge begin at 0\n")
	b.WriteString("when it starts. A value that nobody knows has no sample. Reasons and faults are those of\n")
	b.WriteString("[Reading the counters](reading-the-counters.md). Remote write sends the quantities of paths under the same names.\n\n")
	b.WriteString("Examples: [scrape configuration](../../configs/prometheus/prometheus.yml), [alert rules](../../configs/prometheus/alerts.yml),\n")
	b.WriteString("[Grafana dashboard](../../configs/grafana/patronus.json).\n")
	for _, part := range []struct {
		name string
		from prometheus.Collector
	}{
		{"The edge", metrics.NewCollector(one{}, "", metrics.Limits{})},
		{"The store", metrics.NewStoreCollector(one{})},
		{"The export", x},
		{"The dashboard", self},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n| metric | type | labels | |\n| --- | --- | --- | --- |\n", part.name)
		for _, row := range familiesOf(t, part.from) {
			b.WriteString(row)
		}
	}
	b.WriteString("\n## The program\n\nThe families `go_*` and `process_*` are those of every Go program with Prometheus' own client library.\n")
	fresh(t, "appliance/docs/metrics.md", b.String())
}

// familiesOf are the rows of a collector, by name. What it describes it must
// also collect here, or nobody knows its type.
func familiesOf(t *testing.T, c prometheus.Collector) []string {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for _, f := range all {
		kinds[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	descs := make(chan *prometheus.Desc)
	go func() {
		c.Describe(descs)
		close(descs)
	}()
	var rows []string
	for d := range descs {
		m := description.FindStringSubmatch(d.String())
		if m == nil {
			t.Errorf("description %s", d)
			continue
		}
		if kinds[m[1]] == "" {
			t.Errorf("%s is described, but not collected here", m[1])
		}
		var labels []string
		for l := range strings.SplitSeq(m[3], ",") {
			if l != "" {
				labels = append(labels, "`"+l+"`")
			}
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |\n", m[1], kinds[m[1]], strings.Join(labels, " "), cell(m[2])))
	}
	slices.Sort(rows)
	return slices.Compact(rows)
}
