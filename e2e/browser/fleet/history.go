package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"patronus/configs"
	"patronus/dashboard"
	"patronus/dashboard/auth"
	"patronus/netstack/flow"
	"patronus/netstack/path"
)

// noise is the same for the same moment, whoever asks.
func noise(seed string, at int64) float64 {
	h := uint64(14695981039346656037)
	for _, b := range []byte(seed) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	h ^= uint64(at)
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return float64(h%10000) / 10000
}

func (w *world) value(metric string, id path.ID, at time.Time) float64 {
	base := w.base[id]
	s := at.Unix()
	spike := 0.0
	if m := s / 60 % 97; m > 40 && m < 46 {
		spike = 1
	}
	n := noise(string(id)+metric, s)
	switch metric {
	case "latency_ms":
		return base*(1+0.12*math.Sin(float64(s)/700+base)) + 2*n + 40*spike*n
	case "jitter_ms":
		return 0.4 + n + 6*spike
	case "packet_loss_pct":
		return max(0, n-0.96) + 1.8*spike*n
	case "bandwidth_mbps", "tx_mbps", "rx_mbps":
		return (6 + base/3) * (1 + 0.5*math.Sin(float64(s)/1100+base/9)) * (0.8 + 0.4*n)
	case "score":
		return 97 - 30*spike
	}
	return n
}

func (w *world) Points(_ context.Context, q dashboard.PointQuery) ([]dashboard.Series, error) {
	var out []dashboard.Series
	for _, id := range w.paths {
		ends, err := path.ParseID(string(id))
		if err != nil || q.Path != "" && q.Path != id || q.Site != "" && ends.LocalSite != q.Site || q.Sees != nil && !q.Sees(ends.LocalSite) {
			continue
		}
		s := dashboard.Series{Site: ends.LocalSite, Path: id}
		for at := q.From.Truncate(q.Step); at.Before(q.To); at = at.Add(q.Step) {
			v := w.value(q.Metric, id, at)
			p := dashboard.Point{At: at, Min: path.Value(v * 0.85), Mean: path.Value(v), Max: path.Value(v * 1.25), P95: path.Value(v * 1.2), Count: int(q.Step / time.Second)}
			if m := at.Unix() / 60 % 97; m == 60 || m == 61 { // nothing was recorded
				nan := path.Value(math.NaN())
				p.Min, p.Mean, p.Max, p.P95, p.Count = nan, nan, nan, nan, 0
			}
			s.Points = append(s.Points, p)
		}
		out = append(out, s)
	}
	return out, nil
}

func (w *world) makeFlows(n *configs.Network) {
	if len(w.paths) == 0 {
		return
	}
	amount := 120
	if len(n.Sites) > 100 {
		amount = 6000
	}
	for i := range amount {
		id := w.paths[(i*29)%len(w.paths)]
		ends, err := path.ParseID(string(id))
		if err != nil {
			continue
		}
		s, d := n.Site(ends.LocalSite), n.Site(ends.RemoteSite)
		src, dst := s.Prefixes[0].Addr().As4(), d.Prefixes[0].Addr().As4()
		src[3], dst[3] = byte(5+i%200), byte(3+i%90)
		service := []struct {
			proto string
			port  uint16
			class string
		}{{"tcp", 443, "default"}, {"udp", 5060, "voice"}, {"tcp", 8080, "default"}, {"tcp", 22, "default"}, {"udp", 53, "default"}}[i%5]
		f := dashboard.Flow{
			Site: ends.LocalSite, Src: netip.AddrFrom4(src), Dst: netip.AddrFrom4(dst), SrcPort: uint16(32768 + i), Port: service.port, Protocol: service.proto, State: "established", Status: "active", Class: service.class,
			Path: id, Policy: []string{"", "NetworkPolicy/default/backend-ingress-policy"}[i%2], Packets: uint64(9000 / (1 + i%50)), Bytes: uint64(4_000_000 / (1 + i%97)),
			Reverse: flow.Counts{Packets: uint64(11000 / (1 + i%50)), Bytes: uint64(52_000_000 / (1 + i%97))}, Created: w.began.Add(-time.Duration(i) * time.Second), Seen: w.began.Add(-time.Duration(i/4) * time.Second),
		}
		f.Key = fmt.Sprintf("%s-%s-%d-%s-%d", f.Protocol, f.Src, f.SrcPort, f.Dst, f.Port)
		f.Decision = &flow.Record{
			At: f.Created, RulesVersion: 1, Policy: f.Policy, Rule: 0, Reason: "allowed-by-rule", Class: f.Class, Winner: string(id), Why: "the best score of those that meet the SLA", Egress: true, Admitted: true,
			Candidates: []flow.Candidate{{Path: string(id), Score: 97, State: "up", Usable: true}, {Path: strings.ReplaceAll(string(id), "wan0", "lte0"), Score: 61, State: "degraded"}},
			From:       flow.Party{Site: ends.LocalSite, Namespace: "default", Name: "frontend-1"}, To: flow.Party{Site: ends.RemoteSite}, FromLabels: map[string]string{"app": "frontend"},
		}
		if i%9 == 3 {
			f.Status, f.Policy, f.Path = "blocked", "NetworkPolicy/default/block-ssh", ""
			f.Decision.Reason, f.Decision.Winner, f.Decision.Policy, f.Decision.Candidates, f.Decision.Admitted = "no-rule-allows", "", f.Policy, nil, false
		}
		w.flows = append(w.flows, f)
	}
}

func (w *world) Flows(_ context.Context, q dashboard.FlowQuery) ([]dashboard.Flow, string, error) {
	start, _ := strconv.Atoi(q.Cursor)
	out := []dashboard.Flow{}
	for i := start; i < len(w.flows); i++ {
		f := &w.flows[i]
		text := strings.ToLower(fmt.Sprintf("%s %s %s %s", f.Src, f.Dst, f.Policy, f.Path))
		switch {
		case q.Sees != nil && !q.Sees(f.Site), q.Site != "" && q.Site != f.Site, q.Status != "" && q.Status != f.Status, q.Protocol != "" && q.Protocol != f.Protocol, q.Port != 0 && q.Port != f.Port,
			q.Path != "" && q.Path != f.Path, q.Policy != "" && q.Policy != f.Policy, q.Src.IsValid() && !q.Src.Contains(f.Src), q.Dst.IsValid() && !q.Dst.Contains(f.Dst), q.Text != "" && !strings.Contains(text, strings.ToLower(q.Text)):
			continue
		}
		if len(out) == q.Limit {
			return out, strconv.Itoa(i), nil
		}
		out = append(out, *f)
	}
	return out, "", nil
}

func (w *world) Flow(_ context.Context, site, key string, _ time.Time) (dashboard.Flow, error) {
	for i := range w.flows {
		if w.flows[i].Key == key && (site == "" || site == w.flows[i].Site) {
			return w.flows[i], nil
		}
	}
	return dashboard.Flow{}, fmt.Errorf("flow: %w", dashboard.ErrNotFound)
}

func (w *world) FlowStats(context.Context, time.Time, time.Time, int, func(string) bool) (dashboard.FlowStats, error) {
	return dashboard.FlowStats{Total: uint64(len(w.flows))}, nil
}

func (w *world) StatesAt(context.Context, time.Time) (map[string]*dashboard.SiteState, error) {
	s, _ := w.States()
	return s, nil
}

func (w *world) Blocked(context.Context, time.Time) (map[string]uint64, error) {
	return map[string]uint64{"NetworkPolicy/default/backend-ingress-policy": 47, "NetworkPolicy/default/database-egress-policy": 0}, nil
}

func (w *world) Events(_ context.Context, q dashboard.EventQuery) ([]dashboard.Event, string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	start, _ := strconv.Atoi(q.Cursor)
	out := []dashboard.Event{}
	for i := start; i < len(w.events); i++ {
		e := &w.events[i]
		switch {
		case q.Sees != nil && !q.Sees(e.Site), q.Type != "" && q.Type != e.Type, q.Severity != "" && q.Severity != e.Severity, q.Site != "" && q.Site != e.Site, q.Source != "" && q.Source != e.Source,
			q.Acknowledged != nil && *q.Acknowledged != e.Acknowledged, !q.From.IsZero() && e.At.Before(q.From), !q.To.IsZero() && e.At.After(q.To):
			continue
		}
		if len(out) == q.Limit {
			return out, strconv.Itoa(i), nil
		}
		out = append(out, *e)
	}
	return out, "", nil
}

func (w *world) Event(_ context.Context, id string) (dashboard.Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.ID == id {
			return e, nil
		}
	}
	return dashboard.Event{}, fmt.Errorf("event: %w", dashboard.ErrNotFound)
}

func (w *world) Acknowledge(_ context.Context, id, by string, at time.Time) (dashboard.Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.events {
		if w.events[i].ID == id {
			w.events[i].Acknowledged, w.events[i].AcknowledgedBy, w.events[i].AcknowledgedAt = true, by, at
			return w.events[i], nil
		}
	}
	return dashboard.Event{}, dashboard.ErrNotFound
}

func (w *world) Explain(_ context.Context, _ string, q dashboard.Question) (json.RawMessage, error) {
	return json.Marshal(map[string]any{
		"verdict": "forward", "reason": "", "class": "default", "route": "10.0.1.0/24", "site": "east", "winner": "hq.wan0~east.wan0", "why": "the best score of those that meet the SLA",
		"policy":     map[string]any{"allowed": true, "egress": map[string]any{"allowed": true, "reason": "not-selected", "considered": []any{}}, "ingress": map[string]any{"allowed": true, "reason": "allowed-by-rule", "policy": "NetworkPolicy/default/backend-ingress-policy", "considered": []any{map[string]any{"policy": "NetworkPolicy/default/backend-ingress-policy", "why": "rule 1 allows " + q.To.String()}}}},
		"candidates": []any{map[string]any{"Path": "hq.wan0~east.wan0", "State": "up", "Score": 97, "Usable": true}},
	})
}

func (w *world) Reevaluate(context.Context, string, string) error { return nil }

func (w *world) TestPath(_ context.Context, id path.ID, o dashboard.TestOptions) (dashboard.TestResult, error) {
	low, mid, high := 11.8, 12.5, 19.1
	r := dashboard.TestResult{Path: id, At: time.Now().UTC(), Sent: 20, Received: 20, MinMs: &low, MedianMs: &mid, MaxMs: &high}
	if o.Throughput {
		tx, rx := 93.4, 88.1
		r.TxMbps, r.RxMbps = &tx, &rx
	}
	return r, nil
}

func (w *world) Nodes(context.Context) ([]dashboard.Node, error) {
	if len(w.paths) == 0 {
		return nil, nil
	}
	return []dashboard.Node{{ID: "hq", Site: "hq", Role: "dashboard", Self: true, Version: "0.9.0", SeenAt: w.began}, {ID: "east", Site: "east", Role: "edge", Version: "0.9.0", SeenAt: w.began}}, nil
}

func (w *world) Promote(_ context.Context, _ auth.Actor, site string) (dashboard.Node, error) {
	return dashboard.Node{ID: site, Site: site, Role: "dashboard"}, nil
}

func (w *world) Demote(_ context.Context, _ auth.Actor, site string) (dashboard.Node, error) {
	return dashboard.Node{ID: site, Site: site, Role: "edge"}, nil
}

func (w *world) Capture(_ context.Context, _ dashboard.CaptureOptions, out io.Writer) error {
	_, err := out.Write([]byte{0x0a, 0x0d, 0x0d, 0x0a})
	return err
}
