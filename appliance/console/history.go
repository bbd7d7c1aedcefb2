package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"patronus/appliance/store"
	"patronus/dashboard"
	"patronus/netstack/path"
)

// Points implements dashboard.History.
func (c *Console) Points(ctx context.Context, q dashboard.PointQuery) ([]dashboard.Series, error) {
	metric, err := store.ParseMetric(q.Metric)
	if err != nil {
		return nil, err
	}
	all := c.o.Store.Series(q.Site)
	slices.SortFunc(all, func(a, b store.Series) int {
		return strings.Compare(a.Site+"\x00"+string(a.Path), b.Site+"\x00"+string(b.Path))
	})
	var out []dashboard.Series
	for _, series := range all {
		if q.Path != "" && series.Path != q.Path || q.Sees != nil && !q.Sees(series.Site) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		points, err := c.points(series, metric, &q)
		if err != nil {
			return nil, err
		}
		if len(points) > 0 {
			out = append(out, dashboard.Series{Site: series.Site, Path: series.Path, Points: points})
		}
	}
	return out, nil
}

func (c *Console) points(series store.Series, metric store.Metric, q *dashboard.PointQuery) ([]dashboard.Point, error) {
	var points []dashboard.Point
	for p, err := range c.o.Store.Range(store.Query{
		Series: series, Metric: metric, From: q.From.UnixMilli(), To: q.To.UnixMilli(), Step: q.Step.Milliseconds(),
	}) {
		if errors.Is(err, store.ErrDamaged) {
			// What is left is shown; the damage has been reported by the store.
			c.log.Warn("a part of the history is damaged", "site", series.Site, "path", series.Path, "err", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		points = append(points, dashboard.Point{
			At: time.UnixMilli(p.At).UTC(), Min: path.Value(p.Min), Mean: path.Value(p.Mean), Max: path.Value(p.Max), P95: path.Value(p.P95),
			Count: int(min(p.Count, math.MaxInt32)),
		})
	}
	return points, nil
}

// sift bounds how many records are read for one page of those that a filter
// leaves.
const sift = 20_000

// Flows implements dashboard.History.
func (c *Console) Flows(ctx context.Context, q dashboard.FlowQuery) ([]dashboard.Flow, string, error) {
	f := store.FlowFilter{
		Site: q.Site, Protocol: q.Protocol, Port: q.Port, Path: q.Path, Policy: q.Policy, Latest: true,
		Src: only(q.Src), Dst: only(q.Dst),
	}
	// A flow that has ended says so on its newest record.
	if q.Status == "blocked" {
		f.Status = q.Status
	}
	if !q.From.IsZero() {
		f.From = q.From.UnixMilli()
	}
	if !q.To.IsZero() {
		f.To = q.To.UnixMilli()
	}
	var out []dashboard.Flow
	next := q.Cursor
	for read := 0; ; {
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		page, after, err := c.o.Store.Flows(f, store.Page{After: next, Limit: q.Limit - len(out)})
		if err != nil {
			return nil, "", err
		}
		for i := range page {
			flow := flowOf(&page[i])
			if (q.Sees == nil || q.Sees(flow.Site)) && matches(&q, &flow) {
				out = append(out, flow)
			}
		}
		read += len(page)
		next = after
		if next == "" || len(out) >= q.Limit || read >= sift {
			return out, next, nil
		}
	}
}

// only is the address of a prefix that has just one.
func only(p netip.Prefix) netip.Addr {
	if p.IsValid() && p.IsSingleIP() {
		return p.Addr()
	}
	return netip.Addr{}
}

// matches sifts by what the store does not.
func matches(q *dashboard.FlowQuery, f *dashboard.Flow) bool {
	if q.Src.IsValid() && !q.Src.Contains(f.Src) || q.Dst.IsValid() && !q.Dst.Contains(f.Dst) || q.Status != "" && q.Status != f.Status {
		return false
	}
	if q.Text == "" {
		return true
	}
	text := strings.ToLower(q.Text)
	for _, s := range []string{f.Src.String(), f.Dst.String(), f.Policy, string(f.Path), f.Protocol, f.Class, f.Site} {
		if strings.Contains(strings.ToLower(s), text) {
			return true
		}
	}
	return false
}

func flowOf(r *store.FlowRecord) dashboard.Flow {
	f := dashboard.Flow{
		Key: r.ID, Site: r.Site, Src: r.Src, Dst: r.Dst, SrcPort: r.SrcPort, Port: r.DstPort, Protocol: r.Protocol,
		Status: r.Status, Class: r.Class, Path: r.Path, Policy: r.Policy, Packets: r.Forward.Packets, Bytes: r.Forward.Bytes,
		Reverse: r.Reverse, Created: time.UnixMilli(r.Started).UTC(), Seen: time.UnixMilli(r.Seen).UTC(), Decision: r.Decision,
	}
	if r.Ended != 0 && f.Status == "active" {
		f.Status, f.State = "ended", r.End
	}
	return f
}

// Flow implements dashboard.History.
func (c *Console) Flow(_ context.Context, site, key string, at time.Time) (dashboard.Flow, error) {
	f := store.FlowFilter{Site: site, ID: key, Latest: true}
	if !at.IsZero() {
		f.To = at.UnixMilli() + 1
	}
	flows, _, err := c.o.Store.Flows(f, store.Page{Limit: 1})
	if err != nil {
		return dashboard.Flow{}, err
	}
	if len(flows) == 0 {
		return dashboard.Flow{}, fmt.Errorf("flow %s: %w", key, dashboard.ErrNotFound)
	}
	return flowOf(&flows[0]), nil
}

// pathValue is what the recorder notes of a path, uplinkValue of an uplink.
type (
	pathValue struct {
		Status string `json:"status"`
		Reason string `json:"reason"`
	}
	uplinkValue struct {
		Carrier string `json:"carrier"`
	}
)

// StatesAt implements dashboard.History.
func (c *Console) StatesAt(_ context.Context, at time.Time) (map[string]*dashboard.SiteState, error) {
	fleet, err := c.o.Store.StateAt(at.UnixMilli())
	if err != nil {
		return nil, err
	}
	out := make(map[string]*dashboard.SiteState, len(fleet.Sites))
	for i := range fleet.Sites {
		out[fleet.Sites[i].Site] = pastState(&fleet.Sites[i])
	}
	return out, nil
}

func pastState(s *store.SiteState) *dashboard.SiteState {
	st := &dashboard.SiteState{SeenAt: time.UnixMilli(s.KnownAt).UTC()}
	why := map[path.ID]pathValue{}
	for key, text := range s.Values {
		kind, name, _ := strings.Cut(key, "/")
		switch kind {
		case "revision":
			// What cannot be read is not known.
			_ = json.Unmarshal(text, &st.Revision)
		case "path":
			var v pathValue
			if json.Unmarshal(text, &v) == nil {
				why[path.ID(name)] = v
			}
		case "uplink":
			var v uplinkValue
			if json.Unmarshal(text, &v) == nil {
				st.Uplinks = append(st.Uplinks, dashboard.UplinkState{Name: name, Carrier: v.Carrier != "down"})
			}
		}
	}
	slices.SortFunc(st.Uplinks, func(a, b dashboard.UplinkState) int { return strings.Compare(a.Name, b.Name) })
	for i := range s.Paths {
		p := &s.Paths[i]
		state := dashboard.PathState{ID: p.Path, State: p.State().String(), Metrics: p.Metrics()}
		if v, ok := why[p.Path]; ok && v.Status == state.State {
			state.Why = v.Reason
		}
		st.Paths = append(st.Paths, state)
	}
	slices.SortFunc(st.Paths, func(a, b dashboard.PathState) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return st
}

// Blocked implements dashboard.History.
func (c *Console) Blocked(ctx context.Context, since time.Time) (map[string]uint64, error) {
	out := map[string]uint64{}
	f := store.FlowFilter{Status: "blocked", From: since.UnixMilli(), Latest: true}
	for next := ""; ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		flows, after, err := c.o.Store.Flows(f, store.Page{After: next, Limit: 1000})
		if err != nil {
			return nil, err
		}
		for i := range flows {
			if flows[i].Policy != "" {
				out[flows[i].Policy]++
			}
		}
		if next = after; next == "" {
			return out, nil
		}
	}
}

// countedFlows bounds how many flows of one talker are counted.
const countedFlows = 1000

// FlowStats implements dashboard.History. Sums are those that sites make each
// minute; of a talker at most countedFlows flows are counted.
func (c *Console) FlowStats(ctx context.Context, from, to time.Time, top int, sees func(site string) bool) (dashboard.FlowStats, error) {
	var out dashboard.FlowStats
	totals, err := c.o.Store.FlowTotals("", from.UnixMilli(), to.UnixMilli())
	if err != nil {
		return out, err
	}
	bytes := map[netip.Addr]uint64{}
	for i := range totals {
		t := &totals[i]
		if sees != nil && !sees(t.Site) {
			continue
		}
		out.Total += t.Flows
		out.Blocked += t.Blocked
		out.Bytes += t.Bytes
		for _, talker := range t.Talkers {
			bytes[talker.Addr] += talker.Bytes
		}
	}
	for addr, n := range bytes {
		out.Talkers = append(out.Talkers, dashboard.Talker{Source: addr, Bytes: n})
	}
	slices.SortFunc(out.Talkers, func(a, b dashboard.Talker) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), a.Source.Compare(b.Source))
	})
	out.Talkers = out.Talkers[:min(top, len(out.Talkers))]
	for i := range out.Talkers {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		flows, _, err := c.o.Store.Flows(store.FlowFilter{
			Src: out.Talkers[i].Source, From: from.UnixMilli(), To: to.UnixMilli(), Latest: true,
		}, store.Page{Limit: countedFlows})
		if err != nil {
			return out, err
		}
		out.Talkers[i].Flows = uint64(len(flows))
	}
	return out, nil
}
