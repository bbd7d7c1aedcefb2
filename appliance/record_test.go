package appliance

import (
	"net/netip"
	"testing"
	"time"

	"patronus/appliance/store"
	"patronus/netstack"
	"patronus/netstack/flow"
	"patronus/netstack/path"
)

// What the edge tells becomes a tick; told again, it has the same names.
func TestRecorder(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123)
	f := &netstack.FlowStatus{
		ID: "tcp-1", Src: netip.MustParseAddr("10.1.0.1"), Dst: netip.MustParseAddr("10.2.0.1"), Port: 443, Protocol: "TCP",
		Status: "blocked", Policy: "p", Created: at, Seen: at, Decision: &flow.Record{Rule: 3, Reason: "denied"},
	}
	events := []netstack.Event{
		{Kind: netstack.PathMetric, At: at, Path: "a.w~b.w", New: "degraded", Metrics: &path.Metrics{Latency: 12.34, MTU: 1420, Score: 80}},
		{Kind: netstack.PathStatusChange, At: at, Path: "a.w~b.w", Old: "up", New: "down", Reason: "missing"},
		{Kind: netstack.CarrierChange, At: at, Uplink: "w", Old: "up", New: "down"},
		{Kind: netstack.RevisionApplied, At: at, Rev: 7},
		{Kind: netstack.FlowRecord, At: at, Flow: f, Change: "ended", Reason: "idle"},
	}
	for range blocksPerTick + 5 {
		events = append(events, netstack.Event{Kind: netstack.PolicyBlock, At: at, Flow: f, Change: "started"})
	}
	record := func() store.Batch {
		r := recorder{site: "a"}
		for _, ev := range events {
			r.add(ev)
		}
		b, ok := r.take(at)
		if _, again := r.take(at); !ok || again {
			t.Fatal("one tick")
		}
		return b
	}
	b, again := record(), record()
	if len(b.Samples) != 1 || b.Samples[0].V[store.Latency] != 1234 || b.Samples[0].State() != path.Degraded || b.Samples[0].Site != "a" {
		t.Errorf("%+v", b.Samples)
	}
	if len(b.Flows) != blocksPerTick+6 || b.Flows[0].Ended != at.UnixMilli() || b.Flows[0].End != "idle" || b.Flows[0].Rule != 3 {
		t.Errorf("%d flows, %+v", len(b.Flows), b.Flows[0])
	}
	if len(b.Events) != 3+blocksPerTick || len(b.Changes) != 3 {
		t.Errorf("%d events, %d changes", len(b.Events), len(b.Changes))
	}
	if b.Events[0].Severity != "critical" || b.Events[0].Source != "a.w~b.w" {
		t.Errorf("%+v", b.Events[0])
	}
	for i := range b.Events {
		if b.Events[i].ID != again.Events[i].ID {
			t.Errorf("event %d has another name when it is told again", i)
		}
	}
}
