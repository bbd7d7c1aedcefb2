package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"patronus/appliance/store"
	"patronus/configs"
	"patronus/dashboard"
	"patronus/dashboard/control"
	"patronus/dashboard/live"
	"patronus/netstack"
	"patronus/netstack/capture"
	"patronus/netstack/path"
)

var began = time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)

// edge is a site that answers from memory.
type edge struct {
	mu     sync.Mutex
	status *netstack.Status // nil: it is away
	err    error            // of what is asked of it
	asked  []string
}

var errAway = errors.New("no route to host")

func (e *edge) Status(context.Context) (*netstack.Status, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.status == nil {
		return nil, errAway
	}
	return e.status, nil
}

func (e *edge) note(what string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, what)
	return e.err
}

func (e *edge) Explain(_ context.Context, q netstack.Question) (*netstack.Explanation, error) {
	return &netstack.Explanation{Verdict: "forward"}, e.note(fmt.Sprint("explain ", q.To, q.Port))
}

func (e *edge) Reevaluate(_ context.Context, key string) error { return e.note("reevaluate " + key) }

func (e *edge) TestPath(_ context.Context, id string) (*netstack.PathTest, error) {
	return &netstack.PathTest{Sent: 10, Received: 8, Min: time.Millisecond, Median: 2 * time.Millisecond, Max: 3 * time.Millisecond}, e.note("test " + id)
}

func (e *edge) Capture(_ context.Context, o netstack.CaptureOptions, w io.Writer) (capture.Result, error) {
	_, err := io.WriteString(w, "packets")
	return capture.Result{}, errors.Join(err, e.note("capture "+o.Point+o.Duration.String()))
}

type plane struct{ network *configs.Network }

func (p plane) Current() *control.State { return &control.State{Network: p.network} }

// rig is a console of the sites hq and east over a real store.
type rig struct {
	*Console
	store *store.Store
	edges map[string]*edge
	hub   *live.Hub
}

func newRig(t *testing.T) *rig {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{Dashboard: true, Site: "*", Now: func() time.Time { return began.Add(time.Minute) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{store: s, edges: map[string]*edge{"hq": {}, "east": {}}, hub: live.NewHub()}
	n := &configs.Network{Sites: []configs.NetworkSite{{Site: configs.Site{Name: "hq"}}, {Site: configs.Site{Name: "east"}}}}
	r.Console = New(Options{
		Store: s, Plane: plane{n}, Hub: r.hub, Now: func() time.Time { return began },
		Edge:    func(site string) Edge { return r.edges[site] },
		Applied: func(site string) (uint64, string) { return 7, map[string]string{"east": "refused"}[site] },
	})
	return r
}

func TestStates(t *testing.T) {
	r := newRig(t)
	r.edges["hq"].status = &netstack.Status{
		Uptime: 60, Uplinks: []netstack.UplinkStatus{{Name: "wan0", Carrier: true}},
		Paths:    []netstack.PathStatus{{ID: "hq.wan0~east.wan0", State: "up", MTU: 1400}},
		Policies: []netstack.PolicyHits{{Policy: "NetworkPolicy/shop/web", Denied: 3}},
		Flows:    netstack.FlowsStatus{Live: 9},
	}
	r.round(t.Context(), []string{"hq", "east"})
	states, version := r.States()
	hq := states["hq"]
	if len(states) != 1 || hq.Revision != 7 || hq.Flows != 9 || !hq.SeenAt.Equal(began) || !hq.Started.Equal(began.Add(-time.Minute)) ||
		len(hq.Paths) != 1 || hq.Paths[0].MTU != 1400 || hq.Policies[0].Denied != 3 || !hq.Uplinks[0].Carrier {
		t.Errorf("%+v", hq)
	}
	// One that does not answer keeps what it said; one that is gone is forgotten.
	r.edges["hq"].status = nil
	r.edges["east"].status = &netstack.Status{}
	r.round(t.Context(), []string{"hq", "east"})
	now, newer := r.States()
	if len(now) != 2 || now["hq"] != hq || now["east"].Failed != "refused" || newer == version || len(states) != 1 {
		t.Errorf("%+v, version %d after %d", now, newer, version)
	}
	r.round(t.Context(), []string{"east"})
	if left, _ := r.States(); len(left) != 1 || left["east"] == nil {
		t.Errorf("%+v", left)
	}
}

func TestSites(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	text, err := r.Explain(ctx, "east", dashboard.Question{To: netip.MustParseAddr("10.2.0.9"), Port: 443})
	if err != nil || !json.Valid(text) {
		t.Errorf("%s, %v", text, err)
	}
	res, err := r.TestPath(ctx, "hq.wan0~east.wan0", dashboard.TestOptions{})
	if err != nil || res.Sent != 10 || res.LossPct != 20 || *res.MedianMs != 2 {
		t.Errorf("%+v, %v", res, err)
	}
	for name, tc := range map[string]struct {
		do   func() error
		edge error
		want error
	}{
		"no such site": {func() error { return r.Reevaluate(ctx, "west", "k") }, nil, dashboard.ErrNotFound},
		"no such flow": {func() error { return r.Reevaluate(ctx, "hq", "k") }, errors.New("edge refused: not found"), dashboard.ErrNotFound},
		"away":         {func() error { return r.Reevaluate(ctx, "hq", "k") }, errAway, dashboard.ErrUnreachable},
		"no such path": {func() error { _, err := r.TestPath(ctx, "hq.x~east.y", dashboard.TestOptions{}); return err }, netstack.ErrUnknownPath, dashboard.ErrNotFound},
		"not a path":   {func() error { _, err := r.TestPath(ctx, "x", dashboard.TestOptions{}); return err }, nil, dashboard.ErrNotFound},
		"throughput": {func() error {
			_, err := r.TestPath(ctx, "hq.x~east.y", dashboard.TestOptions{Throughput: true})
			return err
		}, nil, dashboard.ErrUnavailable},
		"capture is out": {func() error { return r.Capture(ctx, dashboard.CaptureOptions{Site: "hq"}, io.Discard) }, errAway, dashboard.ErrUnreachable},
	} {
		r.edges["hq"].err = tc.edge
		if err := tc.do(); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func TestHistory(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	at := began.UnixMilli()
	var v [store.NumMetrics]int32
	for i := range v {
		v[i] = store.Missing
	}
	v[store.Latency] = store.Latency.Quantise(12.5)
	for _, site := range []string{"hq", "east"} {
		b := store.Batch{Site: site, At: at, Samples: []store.SeriesSample{{
			Series: store.Series{Site: site, Path: path.ID(site + ".wan0~west.wan0")}, Sample: store.Sample{At: at, V: v},
		}}, Events: []store.Event{
			{ID: site + "1", At: at, Type: "policy_block", Severity: "warning", Data: json.RawMessage(`{"source_ip":"10.1.0.5","dest_ip":"10.2.0.9","dest_port":22,"protocol":"tcp","policy":"NetworkPolicy/shop/web"}`)},
		}}
		if err := r.store.Append(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	only := func(site string) bool { return site == "east" }
	series, err := r.Points(ctx, dashboard.PointQuery{Metric: "latency_ms", From: began.Add(-time.Minute), To: began.Add(time.Minute), Sees: only})
	if err != nil || len(series) != 1 || series[0].Site != "east" || series[0].Points[0].Mean != 12.5 {
		t.Errorf("%+v, %v", series, err)
	}
	events, _, err := r.Events(ctx, dashboard.EventQuery{Limit: 10, Sees: only})
	if err != nil || len(events) != 1 || events[0].ID != "east1" || events[0].Acknowledged {
		t.Errorf("%+v, %v", events, err)
	}
	seen, err := r.Acknowledge(ctx, "east1", "alice", began)
	if err != nil || !seen.Acknowledged || seen.AcknowledgedBy != "alice" {
		t.Errorf("%+v, %v", seen, err)
	}
	if _, err := r.Event(ctx, "nothing"); !errors.Is(err, dashboard.ErrNotFound) {
		t.Errorf("no such event: %v", err)
	}
	yes := true
	if events, _, err := r.Events(ctx, dashboard.EventQuery{Limit: 10, Acknowledged: &yes}); err != nil || len(events) != 1 || events[0].ID != "east1" {
		t.Errorf("acknowledged: %+v, %v", events, err)
	}
}

// What is live has the seed's fields.
func TestFields(t *testing.T) {
	f := fieldsOf(&store.Event{ID: "1", Type: "policy_block", Data: json.RawMessage(
		`{"flow_key":"k","source_ip":"10.1.0.5","dest_ip":"10.2.0.9","dest_port":22,"protocol":"tcp","policy":"NetworkPolicy/shop/web"}`)})
	flow, _ := f["flow"].(map[string]any)
	if flow["src"] != "10.1.0.5" || flow["dst"] != "10.2.0.9" || flow["port"] != 22.0 || f["policy_id"] != "shop~web" || f["policy_name"] != "web" || f["source_ip"] != nil {
		t.Errorf("%v", f)
	}
}
