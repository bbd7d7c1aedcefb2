package metrics

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"patronus/appliance/store"
	"patronus/netstack"
	"patronus/netstack/path"
	"patronus/netstack/probe"
	"patronus/netstack/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden file")

type edge struct {
	status *netstack.Status
	err    error
}

func (e edge) Status(context.Context) (*netstack.Status, error) { return e.status, e.err }

// numbered gives every counter of a struct a value of its own.
func numbered[T any](from uint64) (v T) {
	r := reflect.ValueOf(&v).Elem()
	for i := range r.NumField() {
		r.Field(i).SetUint(from + uint64(i))
	}
	return v
}

func status() *netstack.Status {
	at := time.Date(2026, 11, 25, 3, 4, 5, 0, time.UTC)
	nan := path.Value(math.NaN())
	return &netstack.Status{
		Fabric: "example", Site: "hq", Revision: 7, Uptime: 3600.5,
		Uplinks: []netstack.UplinkStatus{{Name: "wan0", Carrier: true, Counters: numbered[tunnel.Counters](100)}},
		Ports: []netstack.PortStatus{{
			Name: "lan0", RxPackets: 1, RxBytes: 2, TxPackets: 3, TxBytes: 4, Dropped: map[string]uint64{"not-ours": 5},
		}},
		Devices: []netstack.DeviceStatus{{Name: "laptop", Uplink: "wan0", LastHandshake: at, RxBytes: 6, TxBytes: 7}},
		Paths: []netstack.PathStatus{
			{
				ID: "hq.wan0~east.lte0", Site: "east", Uplink: "wan0", RemoteUplink: "lte0", State: "degraded", Since: at, MTU: 1420,
				Metrics: path.Metrics{
					Latency: 12.5, Jitter: 0.4, PDVp95: 3, LossOut: 0.5, LossIn: 2, Tx: 8, Rx: 16, Bandwidth: 16, Reordered: 9, Score: 77,
				},
				Scores: map[string]path.Score{"voice": 60, "bulk": path.NoScore}, Handshake: at,
				TxPackets: 10, TxBytes: 11, RxPackets: 12, RxBytes: 13, InBand: numbered[probe.InBandStats](20),
			},
			{
				ID: "hq.wan0~west.wan0", Site: "west", Uplink: "wan0", RemoteUplink: "wan0", State: "unknown",
				Metrics: path.Metrics{Latency: nan, Jitter: nan, PDVp95: nan, LossOut: nan, LossIn: nan, Tx: 0, Rx: 0, Bandwidth: 0, Score: path.NoScore},
			},
		},
		Flows:    netstack.FlowsStatus{Live: 30, Created: 31, Evicted: 32, Expired: 33},
		Policies: []netstack.PolicyHits{{Policy: "NetworkPolicy/default/web", Allowed: 40, Denied: 41, Staged: 42}},
		Counters: netstack.Counters{
			ToWAN:   netstack.DirectionCounters{Forwarded: 50, Delivered: 51, Answered: 52, Bytes: 53, Dropped: map[string]uint64{"denied": 54}},
			FromWAN: netstack.DirectionCounters{Forwarded: 60, Delivered: 61, Answered: 62, Bytes: 63},
		},
		Malformed: map[string]uint64{"land": 70},
	}
}

func scrape(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	h, err := Handler(c)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var ours strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.Contains(line, "patronus_") && !strings.Contains(line, "_runtime_") {
			ours.WriteString(line)
		}
	}
	return ours.String()
}

// The whole of a scrape, to be read by people who change it.
func TestScrape(t *testing.T) {
	const golden = "testdata/scrape.txt"
	got := scrape(t, NewCollector(edge{status: status()}, "1.2.3", Limits{}))
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got != string(want) {
		t.Errorf("a scrape is not what %s says (%v); run with -update and look at the difference", golden, err)
	}
}

func TestLint(t *testing.T) {
	c := NewCollector(edge{status: status()}, "1.2.3", Limits{})
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if err := prometheus.NewPedanticRegistry().Register(c); err != nil {
		t.Error(err)
	}
}

// Every counter that there is has a series: each has a value of its own here.
func TestEveryCounterIsTold(t *testing.T) {
	text := scrape(t, NewCollector(edge{status: status()}, "1.2.3", Limits{}))
	for n := range reflect.TypeFor[tunnel.Counters]().NumField() {
		if !strings.Contains(text, fmt.Sprintf(" %d\n", 100+n)) {
			t.Errorf("no series of tunnel.Counters.%s", reflect.TypeFor[tunnel.Counters]().Field(n).Name)
		}
	}
	for _, f := range Families() {
		if !strings.Contains(text, "# TYPE "+f.Name+" ") {
			t.Errorf("no series of %s", f.Name)
		}
	}
}

func TestUnknownIsAbsent(t *testing.T) {
	text := scrape(t, NewCollector(edge{status: status()}, "1.2.3", Limits{}))
	for line := range strings.Lines(text) {
		if strings.Contains(line, "~west.") && (strings.Contains(line, "latency") || strings.Contains(line, "score") || strings.Contains(line, "loss")) {
			t.Errorf("a value that nobody knows: %s", line)
		}
		if strings.Contains(line, "NaN") {
			t.Errorf("NaN: %s", line)
		}
	}
}

func TestEdgeAway(t *testing.T) {
	text := scrape(t, NewCollector(edge{err: errors.New("connection refused")}, "1.2.3", Limits{}))
	if !strings.Contains(text, "\npatronus_edge_up 0\n") || strings.Contains(text, "patronus_flows_live") {
		t.Errorf("got\n%s", text)
	}
}

// A scrape stays small however large the fabric is.
func TestLimits(t *testing.T) {
	st := status()
	for i := range 50 {
		p := st.Paths[0]
		p.ID = path.ID(fmt.Sprintf("hq.wan0~east.lte%d", i+1))
		p.Scores = map[string]path.Score{"a": 1, "b": 2, "c": 3}
		st.Paths = append(st.Paths, p)
	}
	c := NewCollector(edge{status: st}, "1.2.3", Limits{Paths: 10, Classes: 2})
	if n := testutil.CollectAndCount(c, "patronus_path_state"); n != 10 {
		t.Errorf("%d paths", n)
	}
	if n := testutil.CollectAndCount(c, "patronus_path_class_score"); n > 20 {
		t.Errorf("%d scores of classes", n)
	}
	if text := scrape(t, c); !strings.Contains(text, `patronus_metrics_left_out{kind="path"} 42`) {
		t.Errorf("what was left out is not said:\n%s", text)
	}
}

func BenchmarkScrape(b *testing.B) {
	st := status()
	for i := range 100 {
		p := st.Paths[0]
		p.ID = path.ID(fmt.Sprintf("hq.wan0~east.lte%d", i+1))
		st.Paths = append(st.Paths, p)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(NewCollector(edge{status: st}, "1.2.3", Limits{}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

type stats store.Stats

func (s stats) Stats() store.Stats { return store.Stats(s) }

func TestStoreCollector(t *testing.T) {
	// Every field a value of its own, so that a new one is missed here.
	var s store.Stats
	r := reflect.ValueOf(&s).Elem()
	for i := range r.NumField() {
		switch f := r.Field(i); f.Kind() {
		case reflect.Uint64:
			f.SetUint(uint64(900 + i))
		case reflect.Int:
			f.SetInt(int64(900 + i))
		case reflect.Bool:
			f.SetBool(true)
		default:
			t.Fatalf("store.Stats.%s is of a kind that nobody tells", r.Type().Field(i).Name)
		}
	}
	c := NewStoreCollector(stats(s))
	text := scrape(t, c)
	for i := range r.NumField() {
		want := fmt.Sprintf(" %d\n", 900+i)
		if r.Field(i).Kind() == reflect.Bool {
			want = "patronus_store_full 1\n"
		}
		if !strings.Contains(text, want) {
			t.Errorf("no series of store.Stats.%s", r.Type().Field(i).Name)
		}
	}
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
