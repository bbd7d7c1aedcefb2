package appliance

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"time"

	"patronus/appliance/store"
	"patronus/netstack"
	"patronus/netstack/path"
)

// What waits for the store is bounded: past it the oldest tick is dropped and
// counted.
const (
	// blocksPerTick is how many policy_block events of one tick are kept as
	// events; a scan makes thousands. Its flow records are all kept.
	blocksPerTick = 20
	waitingMost   = 32 // ticks
)

// recorder makes ticks for the store of the edge's telemetry. It is owned by
// one goroutine.
type recorder struct {
	site   string
	batch  store.Batch
	blocks int
}

// add takes one event of the edge.
func (r *recorder) add(ev netstack.Event) {
	at := ev.At.UnixMilli()
	switch ev.Kind {
	case netstack.PathMetric:
		if ev.Metrics == nil {
			return
		}
		var state path.State
		if state.UnmarshalText([]byte(ev.New)) != nil {
			state = path.Unknown // of an edge that does not say
		}
		sample := store.FromMetrics(at, ev.Metrics, state)
		r.batch.Samples = append(r.batch.Samples, store.SeriesSample{Series: store.Series{Site: r.site, Path: ev.Path}, Sample: sample})
	case netstack.FlowRecord:
		r.flow(&ev)
	case netstack.PolicyBlock:
		r.flow(&ev)
		if r.blocks++; r.blocks <= blocksPerTick && ev.Flow != nil {
			f := ev.Flow
			r.event(&ev, "warning", f.ID, map[string]any{
				"flow_key": f.ID, "source_ip": f.Src, "dest_ip": f.Dst, "dest_port": f.Port, "protocol": f.Protocol, "policy": f.Policy,
			})
		}
	case netstack.PathStatusChange:
		severity := map[string]string{"down": "critical", "degraded": "warning"}[ev.New]
		if severity == "" {
			severity = "info"
		}
		r.event(&ev, severity, string(ev.Path), map[string]any{
			"path_id": ev.Path, "old_status": ev.Old, "new_status": ev.New, "reason": ev.Reason,
		})
		r.change(at, "path/"+string(ev.Path), map[string]any{"status": ev.New, "reason": ev.Reason})
	case netstack.CarrierChange:
		severity := "info"
		if ev.New == "down" {
			severity = "warning"
		}
		r.event(&ev, severity, ev.Uplink, map[string]any{"uplink": ev.Uplink, "old_status": ev.Old, "new_status": ev.New})
		r.change(at, "uplink/"+ev.Uplink, map[string]any{"carrier": ev.New})
	case netstack.RevisionApplied:
		r.event(&ev, "info", r.site, map[string]any{"revision": ev.Rev})
		r.change(at, "revision", ev.Rev)
	}
}

func (r *recorder) flow(ev *netstack.Event) {
	f := ev.Flow
	if f == nil {
		return
	}
	rec := store.FlowRecord{
		At: ev.At.UnixMilli(), ID: f.ID, Site: r.site, Change: ev.Change, Src: f.Src, Dst: f.Dst, SrcPort: f.SrcPort, DstPort: f.Port,
		Protocol: f.Protocol, Status: f.Status, Path: f.Path, Class: f.Class, Policy: f.Policy, Rule: -1, Moves: f.Moves,
		Reverse: f.Reverse, Started: f.Created.UnixMilli(), Seen: f.Seen.UnixMilli(), Decision: f.Decision,
	}
	rec.Forward.Packets, rec.Forward.Bytes = f.Packets, f.Bytes
	if d := f.Decision; d != nil {
		rec.Rule, rec.Reason = d.Rule, d.Reason
	}
	if ev.Change == "ended" {
		rec.Ended, rec.End = rec.At, ev.Reason
	}
	r.batch.Flows = append(r.batch.Flows, rec)
}

// event adds an event under a name that is the same when the edge tells it
// again, so that it is stored once.
func (r *recorder) event(ev *netstack.Event, severity, source string, data map[string]any) {
	text, err := json.Marshal(data)
	if err != nil {
		return // names and numbers always encode
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s\x00%d\x00%s\x00%s", r.site, ev.Kind, ev.At.UnixNano(), source, text)
	at := ev.At.UnixMilli()
	r.batch.Events = append(r.batch.Events, store.Event{
		ID: fmt.Sprintf("%012x%016x", at, h.Sum64()), At: at, Type: string(ev.Kind), Severity: severity, Site: r.site, Source: source, Data: text,
	})
}

func (r *recorder) change(at int64, key string, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		return
	}
	r.batch.Changes = append(r.batch.Changes, store.Change{At: at, Key: key, Value: text})
}

// take is the tick so far; the recorder begins another one. ok is false if
// nothing happened.
func (r *recorder) take(now time.Time) (b store.Batch, ok bool) {
	b, r.batch, r.blocks = r.batch, store.Batch{}, 0
	b.Site, b.At = r.site, now.UnixMilli()
	return b, len(b.Samples)+len(b.Flows)+len(b.Events)+len(b.Changes) > 0
}
