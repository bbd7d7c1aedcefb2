package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"patronus/appliance/store"
	"patronus/dashboard/export/outbound"
	"patronus/dashboard/export/queue"
	"patronus/dashboard/export/syslog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is an engine whose answers a test chooses.
type fake struct {
	mu      sync.Mutex
	answer  func(n int, b []store.Batch) error
	calls   int
	at      []time.Time
	got     []int64 // times of batches that were taken
	partial queue.Items
}

func (f *fake) send(_ context.Context, b []store.Batch) (queue.Items, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	f.at = append(f.at, time.Now())
	if err := f.answer(f.calls, b); err != nil {
		return queue.Items{}, err
	}
	for i := range b {
		f.got = append(f.got, b[i].At)
	}
	return f.partial, nil
}

func (f *fake) close() error { return nil }

// exporter is an Exporter over a fake engine, and what it reported.
func newTestExporter(t *testing.T, f *fake) (*Exporter, *[]Dropped) {
	t.Helper()
	var told []Dropped
	e, err := New(Options{Dir: t.TempDir(), Reserve: -1, Sinks: []Sink{{Name: "a", Syslog: &Syslog{Network: syslog.UDP, Addr: "127.0.0.1:9"}}}},
		func(_ context.Context, ev store.Event) error {
			var d Dropped
			if err := json.Unmarshal(ev.Data, &d); err != nil {
				t.Error(err)
			}
			told = append(told, d)
			return nil
		}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	e.runs[0].engine = f
	// It takes everything, unlike the syslog that it stands for.
	e.runs[0].sink = &Sink{Name: "a", Retry: e.runs[0].sink.Retry}
	return e, &told
}

// during runs the exporter for a while of the bubble's time.
func during(t *testing.T, e *Exporter, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := e.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("run: %v", err)
	}
}

func put(t *testing.T, e *Exporter, from, to int64) {
	t.Helper()
	for i := from; i < to; i++ {
		b := store.Batch{Site: "hq", At: i, Samples: []store.SeriesSample{aSample("hq", "p", i, 1)}, Events: []store.Event{{At: i, Type: "x"}}}
		if err := e.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(n int, _ []store.Batch) error {
			if n <= 12 {
				return errors.New("down")
			}
			return nil
		}}
		e, _ := newTestExporter(t, f)
		put(t, e, 0, 5)
		during(t, e, 20*time.Minute)
		if len(f.got) != 5 || f.calls != 13 {
			t.Errorf("%d calls, got %v", f.calls, f.got)
		}
		for i := 1; i < len(f.at); i++ {
			gap := f.at[i].Sub(f.at[i-1])
			if most := min(500*time.Millisecond<<i, time.Minute); gap < 250*time.Millisecond || gap > most {
				t.Errorf("waited %s after %d failures, at most %s wanted", gap, i, most)
			}
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestEngineSaysWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(n int, _ []store.Batch) error {
			if n == 1 {
				return &later{errors.New("busy"), 90 * time.Second}
			}
			return nil
		}}
		e, _ := newTestExporter(t, f)
		put(t, e, 0, 1)
		during(t, e, 5*time.Minute)
		if len(f.at) != 2 || f.at[1].Sub(f.at[0]) < 90*time.Second {
			t.Errorf("tried at %v", f.at)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What an engine will never take is found, left out alone, and reported.
func TestRefusedRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(_ int, all []store.Batch) error {
			for i := range all {
				if all[i].At == 37 {
					return &refusal{errors.New("not 37")}
				}
			}
			return nil
		}}
		e, told := newTestExporter(t, f)
		put(t, e, 0, 100)
		during(t, e, time.Minute)
		if len(f.got) != 99 || f.calls > 40 {
			t.Errorf("%d were taken in %d calls", len(f.got), f.calls)
		}
		if len(*told) != 1 || (*told)[0].Why != queue.Refused || (*told)[0].Samples != 1 || (*told)[0].From != 37 || (*told)[0].To != 37 {
			t.Errorf("reported %+v", *told)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestPartlyRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(int, []store.Batch) error { return nil }, partial: queue.Items{Samples: 2}}
		e, told := newTestExporter(t, f)
		put(t, e, 0, 10)
		during(t, e, time.Minute)
		want := "a: dropped 2 samples, 0 flow records and 0 events from 1970-01-01T00:00:00Z to 1970-01-01T00:00:00Z: the engine refused them"
		if len(*told) != 1 || (*told)[0].Message != want {
			t.Errorf("reported %+v", *told)
		}
		want = `
# HELP patronus_export_delivered_items_total Samples, flow records and events that a sink has taken.
# TYPE patronus_export_delivered_items_total counter
patronus_export_delivered_items_total{kind="events",sink="a"} 10
patronus_export_delivered_items_total{kind="flows",sink="a"} 0
patronus_export_delivered_items_total{kind="samples",sink="a"} 8
`
		if err := testutil.CollectAndCompare(e, strings.NewReader(want), "patronus_export_delivered_items_total"); err != nil {
			t.Error(err)
		}
		if problems, err := testutil.CollectAndLint(e); err != nil || len(problems) > 0 {
			t.Errorf("lint: %v, %v", problems, err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestEventsGetNames(t *testing.T) {
	a := []store.Event{{At: 1, Type: "x", Data: json.RawMessage(`{}`)}, {At: 1, Type: "y"}, {ID: "kept", At: 1}}
	b := append([]store.Event(nil), a...)
	nameEvents(a)
	nameEvents(b)
	if a[0].ID == "" || a[0].ID != b[0].ID || a[0].ID == a[1].ID || a[2].ID != "kept" {
		t.Errorf("named %q, %q, %q", a[0].ID, a[1].ID, a[2].ID)
	}
}

func TestValidate(t *testing.T) {
	good := func() Sink { return Sink{Name: "a", Influx: &Influx{URL: "http://h", Database: "d"}} }
	tests := []struct {
		field string // of the error; empty: it is accepted
		edit  func(*Options)
	}{
		{"", func(*Options) {}},
		{"Dir", func(o *Options) { o.Dir = "" }},
		{"Name", func(o *Options) { o.Sinks[0].Name = "A b" }},
		{"Name", func(o *Options) { o.Sinks = append(o.Sinks, good()) }},
		{"Sink", func(o *Options) { o.Sinks[0].Influx = nil }},
		{"Sink", func(o *Options) { o.Sinks[0].Syslog = &Syslog{Network: "udp", Addr: "h:1"} }},
		{"URL", func(o *Options) { o.Sinks[0].Influx.URL = "ftp://h" }},
		{"URL", func(o *Options) { o.Sinks[0].Influx.URL = "http://" }},
		{"URL", func(o *Options) { o.Sinks[0].Influx.URL = "http://u:p@h" }},
		{"URL", func(o *Options) { o.Sinks[0].Influx.URL = "http://h/?u=x&p=y" }},
		{"URL", func(o *Options) { o.Sinks[0].Influx.URL = "http://h:port" }},
		{"Database", func(o *Options) { o.Sinks[0].Influx.Bucket = "b" }},
		{"Retry", func(o *Options) { o.Sinks[0].Retry.Min = -1 }},
		{"Schema", func(o *Options) {
			o.Sinks[0] = Sink{Name: "p", Postgres: &Postgres{URL: "postgres://h/d", Schema: `x"; DROP`}}
		}},
		{"Keep", func(o *Options) {
			o.Sinks[0] = Sink{Name: "p", Postgres: &Postgres{URL: "postgres://h/d", Keep: time.Hour}}
		}},
		{"Syslog", func(o *Options) { o.Sinks[0] = Sink{Name: "s", Syslog: &Syslog{Network: "x", Addr: "h:1"}} }},
		{"Headers", func(o *Options) {
			o.Sinks[0] = Sink{Name: "r", RemoteWrite: &RemoteWrite{URL: "http://h", Headers: map[string]string{"X": "a\r\nb"}}}
		}},
		{"Token", func(o *Options) {
			o.Sinks[0] = Sink{Name: "r", RemoteWrite: &RemoteWrite{URL: "http://h", User: "u", Token: outbound.Secret("t")}}
		}},
	}
	for i, tt := range tests {
		o := Options{Dir: "d", Sinks: []Sink{good()}}
		tt.edit(&o)
		err := o.Validate()
		var f *FieldError
		if tt.field == "" && err != nil || tt.field != "" && (!errors.As(err, &f) || f.Field != tt.field) {
			t.Errorf("case %d: %v, want one of %s", i, err, tt.field)
		}
	}
}

func TestSyslogMessage(t *testing.T) {
	s, err := newSyslog(&Sink{Syslog: &Syslog{Network: syslog.UDP, Addr: "h:514"}})
	if err != nil {
		t.Fatal(err)
	}
	e := anEvent(1_800_000_000_123)
	e.Data = json.RawMessage(`{"why":"probes","lost":3,"gone":true,"deep":{"x":1}}`)
	m := s.message(&e)
	want := `<130>1 2027-01-15T08:00:00.123Z hq patronus - path_down [patronus@32473 id="e1" site="hq" source_id="hq.wan0~east.lte0" severity="critical" gone="true" lost="3" why="probes"] path_down hq.wan0~east.lte0: {"why":"probes","lost":3,"gone":true,"deep":{"x":1}}`
	if got := string(m.Append(nil, 0)); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestInfluxLines(t *testing.T) {
	s := aSample("hq", "hq.wan0~east.lte0", 1000, 12)
	for m := range s.V {
		if store.Metric(m) != store.Latency && store.Metric(m) != store.LossIn {
			s.V[m] = store.Missing
		}
	}
	nothing := aSample("hq", "x", 1, 0)
	for m := range nothing.V {
		nothing.V[m] = store.Missing
	}
	f := aFlow(1000)
	f.Policy, f.Reason, f.Class = "a b,c=d\\\ne", "say \"no\"\\\nnow", ""
	e := anEvent(1000)
	b := store.Batch{Samples: []store.SeriesSample{s, nothing}, Flows: []store.FlowRecord{f}, Events: []store.Event{e}}
	want := []string{
		`patronus_path,site=hq,path=hq.wan0~east.lte0,uplink=wan0,remote_site=east,remote_uplink=lte0 latency_ms=0.12,loss_in_pct=0.017 1000000000`,
		`patronus_flow,site=hq,path=hq.wan0~east.lte0,policy=a\ b\,c\=d/?e,protocol=TCP,status=active,change=ended flow_key="tcp/10.0.0.1:1/10.1.0.1:443",src="10.0.0.1",dst="10.1.0.1",src_port=1i,dst_port=443i,forward_packets=3i,forward_bytes=4i,reverse_packets=5i,reverse_bytes=6i,moves=0i,reason="say \"no\"\\ now" `,
		`patronus_event,site=hq,event_type=path_down,severity=critical id="e1",source_id="hq.wan0~east.lte0",data="{\"why\":\"probes\"}" `,
	}
	got := strings.Split(strings.TrimSuffix(string(appendLines(nil, &b)), "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("lines %q", got)
	}
	for i := range want {
		rest, ok := strings.CutPrefix(got[i], want[i])
		var ns int64
		if i > 0 && ok {
			if _, err := fmt.Sscan(rest, &ns); err != nil || ns/1e6 != 1000 {
				t.Errorf("time %q", rest)
			}
		} else if !ok || rest != "" {
			t.Errorf("\n got %s\nwant %s", got[i], want[i])
		}
	}
	if n, ok := partial(400, `{"error":"partial write: points beyond retention policy dropped=3"}`); !ok || n != 3 {
		t.Errorf("partial write: %d, %v", n, ok)
	}
}

func TestPostgresValues(t *testing.T) {
	if got := document(json.RawMessage(`{"a":"x\u0000y"}`)); got != `{"a":"xy"}` {
		t.Errorf("NUL: %v", got)
	}
	if got := document(json.RawMessage(`{"a":"\\u0000","b":"\u0000"}`)); got != `{"a":"\\u0000","b":""}` {
		t.Errorf("an escaped backslash: %v", got)
	}
	if got := document(json.RawMessage(`{broken`)); got != `"{broken"` {
		t.Errorf("no JSON: %v", got)
	}
	if got := document(nil); got != nil {
		t.Errorf("nothing: %v", got)
	}
	if got := text("a\x00\xffb"); got != "a\ufffdb" {
		t.Errorf("text: %q", got)
	}
}
