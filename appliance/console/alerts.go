package console

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"patronus/appliance/store"
	"patronus/configs"
	"patronus/dashboard"
	"patronus/dashboard/alert"
	"patronus/netstack/path"
)

// silentAfter is how long a site may say nothing before what is known of it is
// old.
const silentAfter = 15 * time.Second

// Facts are what alerts are judged by now. A site is unreachable if it does
// not answer; what it said of its paths is then not known.
func (c *Console) Facts(now time.Time) *alert.Facts {
	f := &alert.Facts{At: now}
	states, _ := c.States()
	for _, name := range c.sites() {
		st := states[name]
		if st == nil {
			// Never heard of since this dashboard began: it may be being asked.
			if now.Sub(c.began) > silentAfter+pollFor {
				f.Sites = append(f.Sites, alert.SiteFact{Site: name, Unreachable: 1})
			}
			continue
		}
		silent := now.Sub(st.SeenAt) > max(silentAfter, 3*time.Duration(len(states))*time.Second/pollRate)
		f.Sites = append(f.Sites, alert.SiteFact{Site: name, Unreachable: truth(silent)})
		for i := range st.Paths {
			p := &st.Paths[i]
			x := alert.PathFact{ID: string(p.ID), Site: name, LatencyMs: math.NaN(), LossPct: math.NaN(), Down: math.NaN()}
			if !silent {
				x.LatencyMs, x.LossPct = float64(p.Metrics.Latency), float64(p.Metrics.PacketLoss)
				x.Down = downOf(p.State)
			}
			f.Paths = append(f.Paths, x)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, n := range c.blocks {
		f.Blocks = append(f.Blocks, alert.BlockFact{Policy: k.policy, Site: k.site, Count: n})
	}
	clear(c.blocks)
	return f
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// downOf is not known of a path that is cold: nobody asks it.
func downOf(state string) float64 {
	switch state {
	case "unknown", "":
		return math.NaN()
	}
	return truth(state == "down")
}

type blockKey struct{ policy, site string }

// countBlock counts an event of a blocked flow until the next Facts.
func (c *Console) countBlock(e *store.Event) {
	key, ok := blockOf(e)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blocks == nil {
		c.blocks = map[blockKey]uint64{}
	}
	c.blocks[key]++
}

func blockOf(e *store.Event) (blockKey, bool) {
	if e.Type != "policy_block" {
		return blockKey{}, false
	}
	var data struct {
		Policy string `json:"policy"`
	}
	if json.Unmarshal(e.Data, &data) != nil || data.Policy == "" {
		return blockKey{}, false
	}
	id, _ := dashboard.PolicyID(data.Policy)
	return blockKey{id, e.Site}, true
}

// Replay implements alert.History over the store.
func (c *Console) Replay(ctx context.Context, w configs.AlertCondition, from, to time.Time, step time.Duration, f func(*alert.Facts, bool)) error {
	switch w.Type {
	case configs.PolicyViolation:
		return c.replayBlocks(ctx, w, from, to, step, f)
	case configs.SiteUnreachable:
		return c.replaySites(ctx, w, from, to, step, f)
	}
	metric := map[configs.AlertKind]store.Metric{configs.PathLatency: store.Latency, configs.PathLoss: store.Loss, configs.PathDown: store.State}[w.Type]
	for _, series := range c.o.Store.Series("") {
		if !w.Matches(w.PathID, string(series.Path)) || !w.Matches(w.SiteID, series.Site) {
			continue
		}
		points, err := c.replayed(ctx, series, metric, from, to, step)
		if err != nil {
			return err
		}
		if len(points) == 0 {
			continue
		}
		for at := range times(points, from, to, step) {
			x := alert.PathFact{ID: string(series.Path), Site: series.Site, LatencyMs: math.NaN(), LossPct: math.NaN(), Down: math.NaN()}
			if p, ok := points[at.UnixMilli()]; ok {
				switch metric {
				case store.Latency:
					x.LatencyMs = p.Mean
				case store.Loss:
					x.LossPct = p.Mean
				default:
					x.Down = downOf(path.State(p.Max).String())
				}
			}
			f(&alert.Facts{At: at, Paths: []alert.PathFact{x}}, false)
		}
		f(nil, true)
	}
	return nil
}

// replayed are the points of a series by their times.
func (c *Console) replayed(ctx context.Context, series store.Series, metric store.Metric, from, to time.Time, step time.Duration) (map[int64]store.Point, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	points := map[int64]store.Point{}
	for p, err := range c.o.Store.Range(store.Query{Series: series, Metric: metric, From: from.UnixMilli(), To: to.UnixMilli(), Step: step.Milliseconds()}) {
		if errors.Is(err, store.ErrDamaged) {
			continue // what is left is judged
		}
		if err != nil {
			return nil, err
		}
		points[p.At] = p
	}
	return points, nil
}

// times are the steps between the first and the last point.
func times(points map[int64]store.Point, from, to time.Time, step time.Duration) func(func(time.Time) bool) {
	first, last := to.UnixMilli(), from.UnixMilli()
	for at := range points {
		first, last = min(first, at), max(last, at)
	}
	return func(yield func(time.Time) bool) {
		for at := first; at <= last; at += step.Milliseconds() {
			if !yield(time.UnixMilli(at).UTC()) {
				return
			}
		}
	}
}

// replaySites takes a site for unreachable while every path that others have
// to it is down: when the dashboard did not hear it is not in the history.
func (c *Console) replaySites(ctx context.Context, w configs.AlertCondition, from, to time.Time, step time.Duration, f func(*alert.Facts, bool)) error {
	inbound := map[string][]store.Series{}
	for _, series := range c.o.Store.Series("") {
		if ends, err := path.ParseID(string(series.Path)); err == nil && w.Matches(w.SiteID, ends.RemoteSite) {
			inbound[ends.RemoteSite] = append(inbound[ends.RemoteSite], series)
		}
	}
	for _, site := range slices.Sorted(maps.Keys(inbound)) {
		alive := map[int64]store.Point{} // Max is 0 while any path lives
		for _, series := range inbound[site] {
			points, err := c.replayed(ctx, series, store.State, from, to, step)
			if err != nil {
				return err
			}
			for at, p := range points {
				down := downOf(path.State(p.Max).String())
				if math.IsNaN(down) {
					continue
				}
				if old, ok := alive[at]; ok {
					down = min(down, old.Max)
				}
				alive[at] = store.Point{Max: down}
			}
		}
		for at := range times(alive, from, to, step) {
			x := alert.SiteFact{Site: site, Unreachable: math.NaN()}
			if p, ok := alive[at.UnixMilli()]; ok {
				x.Unreachable = p.Max
			}
			f(&alert.Facts{At: at, Sites: []alert.SiteFact{x}}, false)
		}
		f(nil, true)
	}
	return nil
}

// replayBlocks counts the events of blocked flows. A site tells at most twenty
// of them in a second, so that a flood counts for less than it was.
func (c *Console) replayBlocks(ctx context.Context, w configs.AlertCondition, from, to time.Time, step time.Duration, f func(*alert.Facts, bool)) error {
	counts := map[string]map[int64]map[string]uint64{} // by policy, step and site
	for next := ""; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		events, after, err := c.o.Store.Events(store.EventFilter{Type: "policy_block", From: from.UnixMilli(), To: to.UnixMilli()}, store.Page{After: next, Limit: 1000})
		if err != nil {
			return err
		}
		for i := range events {
			key, ok := blockOf(&events[i])
			if !ok || !w.Matches(w.PolicyID, key.policy) || !w.Matches(w.SiteID, key.site) {
				continue
			}
			at := events[i].At - events[i].At%step.Milliseconds()
			if counts[key.policy] == nil {
				counts[key.policy] = map[int64]map[string]uint64{}
			}
			if counts[key.policy][at] == nil {
				counts[key.policy][at] = map[string]uint64{}
			}
			counts[key.policy][at][key.site]++
		}
		if next = after; next == "" {
			break
		}
	}
	for _, policy := range slices.Sorted(maps.Keys(counts)) {
		first := from.UnixMilli() - from.UnixMilli()%step.Milliseconds()
		for at := first; at < to.UnixMilli(); at += step.Milliseconds() {
			facts := &alert.Facts{At: time.UnixMilli(at).UTC()}
			for site, n := range counts[policy][at] {
				facts.Blocks = append(facts.Blocks, alert.BlockFact{Policy: policy, Site: site, Count: n})
			}
			f(facts, false)
		}
		f(nil, true)
	}
	return nil
}

// The events of alerts.
const (
	alertFiring   = "alert_firing"
	alertResolved = "alert_resolved"
)

// Tell writes an alert that began or ended among the events, from where it goes
// to who watches, too.
func (c *Console) Tell(ctx context.Context, self string, a *alert.Alert) error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	at, kind, severity := a.FiredAt, alertFiring, string(a.Severity)
	if a.State == alert.Resolved {
		at, kind, severity = a.ResolvedAt, alertResolved, "info"
	}
	id := a.ID + "-" + a.State // the same if it is told again
	return c.o.Store.Append(ctx, store.Batch{Site: self, At: at.UnixMilli(), Events: []store.Event{{
		ID: id, At: at.UnixMilli(), Type: kind, Severity: severity, Site: a.Site, Source: a.Target, Data: text,
	}}})
}

// PastAlerts are the alerts of the last week that began and did not end, as
// the events tell.
func (c *Console) PastAlerts(ctx context.Context) ([]alert.Alert, error) {
	from := c.now().Add(-7 * 24 * time.Hour).UnixMilli()
	read := func(kind string, f func(alert.Alert)) error {
		for next := ""; ; {
			events, after, err := c.o.Store.Events(store.EventFilter{Type: kind, From: from}, store.Page{After: next, Limit: 1000})
			if err != nil {
				return err
			}
			for i := range events {
				var a alert.Alert
				if json.Unmarshal(events[i].Data, &a) == nil && a.ID != "" {
					f(a)
				}
			}
			if next = after; next == "" || ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	over := map[string]bool{}
	if err := read(alertResolved, func(a alert.Alert) { over[a.ID] = true }); err != nil {
		return nil, err
	}
	var out []alert.Alert
	err := read(alertFiring, func(a alert.Alert) {
		if !over[a.ID] {
			out = append(out, a)
		}
	})
	return out, err
}
