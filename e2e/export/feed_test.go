package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	prom "github.com/prometheus/client_golang/prometheus"

	"patronus/appliance/store"
	"patronus/dashboard/export"
	"patronus/netstack/flow"
	"patronus/netstack/path"
)

const paths = 10

// ticks come one second apart and have ended by now, within what a fresh
// Prometheus takes.
func base() time.Time { return time.Now().Add(-20 * time.Minute).Truncate(time.Second) }

// batch is tick i: one sample of each path, two flow records, one event.
func batch(at time.Time, i int) store.Batch {
	ms := at.Add(time.Duration(i) * time.Second).UnixMilli()
	b := store.Batch{Site: "hq", At: ms}
	for p := range paths {
		s := store.SeriesSample{Series: store.Series{Site: "hq", Path: path.NewID("hq", "wan0", fmt.Sprintf("branch-%d", p), "lte0")}}
		s.At = ms
		for m := range s.V {
			s.V[m] = int32(i + p + m)
		}
		s.V[store.State] = int32(path.Up)
		b.Samples = append(b.Samples, s)
	}
	for n := range 2 {
		b.Flows = append(b.Flows, store.FlowRecord{
			At: ms, ID: fmt.Sprintf("tcp/10.0.0.%d:%d/10.1.0.1:443", n, i), Site: "hq", Change: "ended", End: "fin",
			Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.1.0.1"), SrcPort: uint16(i), DstPort: 443,
			Protocol: "TCP", Status: "active", Class: "bulk", Policy: `allow "web", all\`, Rule: n, Reason: "zürich\n",
			Forward: flow.Counts{Packets: 3, Bytes: uint64(i)}, Started: ms - 500, Seen: ms, Ended: ms, Decision: &flow.Record{Policy: "p"},
		})
	}
	b.Events = []store.Event{{
		ID: fmt.Sprintf("event-%d", i), At: ms, Type: "path_status_change", Severity: "warning", Site: "hq",
		Source: "hq.wan0~branch-1.lte0", Data: json.RawMessage(`{"old_status":"up","new_status":"down","n":1}`),
	}}
	return b
}

// exporter runs an export.Exporter and keeps what it reports.
type exporter struct {
	*export.Exporter
	stop func()
	mu   sync.Mutex
	told []export.Dropped
}

func run(t *testing.T, o export.Options) *exporter {
	t.Helper()
	e := &exporter{}
	report := func(_ context.Context, ev store.Event) error {
		var d export.Dropped
		if err := json.Unmarshal(ev.Data, &d); err != nil || ev.Type != "export_dropped" {
			t.Errorf("event %s: %v", ev.Type, err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.told = append(e.told, d)
		return nil
	}
	o.Reserve, o.ReportEvery = -1, 200*time.Millisecond
	for i := range o.Sinks {
		o.Sinks[i].Private = true
		o.Sinks[i].Retry = export.Retry{Min: 50 * time.Millisecond, Max: time.Second}
	}
	var err error
	if e.Exporter, err = export.New(o, report, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(e.stop)
	return e
}

// metric reports whether a metric of the exporter has at least a value.
func (e *exporter) metric(name string, least float64) error {
	r := prom.NewRegistry()
	if err := r.Register(e.Exporter); err != nil {
		return err
	}
	all, err := r.Gather()
	if err != nil {
		return err
	}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if fmt.Sprintf("%s{%s}", f.GetName(), strings.Join(labels, ",")) == name && v >= least {
				return nil
			}
		}
	}
	return fmt.Errorf("no %s of at least %v", name, least)
}

// lost is what was reported.
func (e *exporter) lost() (n int, from, to int64, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range e.told {
		if n == 0 || d.From < from {
			from = d.From
		}
		n += int(d.Samples)
		to, why = max(to, d.To), why+d.Message+"\n"
	}
	return n, from, to, why
}

// counts are how many there are in an engine, of samples of one metric, flow
// records and events. Negative: the engine has no such thing.
type counts struct{ samples, flows, events int }

// engine is one engine under test.
type engine struct {
	server *server
	sink   export.Sink
	kill   syscall.Signal
	// count counts what is there.
	count func(context.Context) (counts, error)
}

// survives kills the engine in the middle, and the exporter too; nothing is
// missing afterwards and nothing is there twice.
func (e *engine) survives(t *testing.T) {
	const before, while, after = 60, 120, 60
	o := export.Options{Dir: filepath.Join(t.TempDir(), "queue"), Sinks: []export.Sink{e.sink}}
	x := run(t, o)
	start := base()
	feed := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if err := x.Put(t.Context(), batch(start, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	feed(0, before)
	if err := eventually(t, 30*time.Second, e.has(1)); err != nil {
		t.Fatal(err)
	}
	e.server.end(t, e.kill)
	feed(before, before+while/2)
	x.stop()
	x = run(t, o)
	feed(before+while/2, before+while)
	e.server.start(t)
	feed(before+while, before+while+after)
	if err := eventually(t, 60*time.Second, e.has(before+while+after)); err != nil {
		t.Fatal(err)
	}
	// Once more: what comes twice is there once.
	feed(0, before)
	feed(before+while+after, before+while+after+1)
	if err := eventually(t, 30*time.Second, e.has(before+while+after+1)); err != nil {
		t.Fatal(err)
	}
	x.stop()
	if _, _, _, why := x.lost(); why != "" && e.sink.RemoteWrite == nil {
		t.Errorf("reported as lost: %s", why)
	}
}

// overflows lets more wait than the queue holds: what is in the engine and what
// was reported as dropped is together what was put.
func (e *engine) overflows(t *testing.T) {
	const ticks = 900
	e.server.end(t, e.kill)
	x := run(t, export.Options{Dir: filepath.Join(t.TempDir(), "queue"), MaxBytes: 256 << 10, Sinks: []export.Sink{e.sink}})
	start := base()
	for i := range ticks {
		if err := x.Put(t.Context(), batch(start, i)); err != nil {
			t.Fatal(err)
		}
	}
	e.server.start(t)
	if err := eventually(t, 60*time.Second, func(ctx context.Context) error {
		got, err := e.count(ctx)
		if err != nil {
			return err
		}
		n, _, _, _ := x.lost()
		if n == 0 || got.samples+n != ticks*paths {
			return fmt.Errorf("%d samples are there, %d were dropped, of %d", got.samples, n, ticks*paths)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	n, from, to, why := x.lost()
	t.Logf("said: %s", why)
	if from != start.UnixMilli() || to != start.Add(time.Duration(n/paths-1)*time.Second).UnixMilli() {
		t.Errorf("dropped %d samples from %d to %d; the oldest are from %d", n, from, to, start.UnixMilli())
	}
}

// has waits for at least n ticks, and for no more than there can be.
func (e *engine) has(n int) func(context.Context) error {
	want := counts{n * paths, n * 2, n}
	return func(ctx context.Context) error {
		got, err := e.count(ctx)
		if err != nil {
			return err
		}
		short := got.samples < want.samples || got.flows >= 0 && got.flows < want.flows || got.events >= 0 && got.events < want.events
		if n > 1 {
			short = short || got.samples > want.samples || got.flows > want.flows || got.events > want.events
		}
		if short {
			return fmt.Errorf("there are %+v, want %+v", got, want)
		}
		return nil
	}
}
