package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"patronus/configs"
	"patronus/dashboard"
	"patronus/dashboard/live"
	"patronus/netstack/path"
)

// world is the invented fabric.
type world struct {
	name  string
	began time.Time
	paths []path.ID // in order

	mu      sync.Mutex
	rng     *rand.Rand
	states  map[string]*dashboard.SiteState
	version uint64
	byID    map[path.ID]*dashboard.PathState
	base    map[path.ID]float64 // usual latency, ms
	flows   []dashboard.Flow    // newest first
	events  []dashboard.Event   // newest first
	count   int
}

func newWorld(name string, n *configs.Network) *world {
	w := &world{name: name, began: time.Now().UTC(), rng: rand.New(rand.NewPCG(7, 11)), states: map[string]*dashboard.SiteState{}, version: 1, byID: map[path.ID]*dashboard.PathState{}, base: map[path.ID]float64{}}
	for i := range n.Sites {
		st := &dashboard.SiteState{SeenAt: w.began, Revision: 1, Version: "0.9.0", Started: w.began.Add(-26 * time.Hour), Flows: 3 + i%40}
		for _, u := range n.Sites[i].Uplinks {
			st.Uplinks = append(st.Uplinks, dashboard.UplinkState{Name: u.Name, Carrier: true})
		}
		w.states[n.Sites[i].Name] = st
	}
	if len(n.Sites) > 100 {
		w.spokes(n)
	} else {
		w.mesh(n)
	}
	w.trouble(n)
	for range 40 {
		w.walk()
	}
	w.makeFlows(n)
	w.makeEvents(n)
	for _, st := range w.states {
		st.Policies = []dashboard.PolicyCount{{Policy: "NetworkPolicy/default/backend-ingress-policy", Allowed: 1204, Denied: 47}, {Policy: "NetworkPolicy/default/block-ssh", Staged: 31}}
		break
	}
	return w
}

// mesh is few sites, each pair by two uplinks, seen from both ends.
func (w *world) mesh(n *configs.Network) {
	for i := range n.Sites {
		for j := range n.Sites {
			if i == j {
				continue
			}
			for _, u := range []string{"wan0", "lte0"} {
				w.path(n.Sites[i].Name, u, n.Sites[j].Name, u, 8+9*float64(i+j)+map[string]float64{"lte0": 28}[u])
			}
		}
	}
}

// spokes is many branches with a path to each of three hubs: 2,991 paths.
func (w *world) spokes(n *configs.Network) {
	for i := 3; i < len(n.Sites); i++ {
		for h := range 3 {
			w.path(n.Sites[i].Name, []string{"wan0", "lte0"}[(i+h)%2], n.Sites[h].Name, "wan0", 6+float64((i*7+h*53)%120))
		}
	}
}

func (w *world) path(from, u, to, v string, latency float64) {
	id := path.NewID(from, u, to, v)
	st := w.states[from]
	st.Paths = append(st.Paths, dashboard.PathState{
		ID: id, State: "up", Since: w.began.Add(-5 * time.Hour), Endpoint: "198.18.0.9:51820", MTU: 1420, HandshakeAt: w.began.Add(-40 * time.Second),
		Scores: map[string]path.Score{"default": 98}, TxBytes: 5 << 30, RxBytes: 7 << 30,
	})
	w.paths = append(w.paths, id)
	w.base[id] = latency
}

// trouble is what is wrong from the start.
func (w *world) trouble(n *configs.Network) {
	for _, st := range w.states {
		for i := range st.Paths {
			w.byID[st.Paths[i].ID] = &st.Paths[i]
		}
	}
	set := func(id path.ID, state, why string, ago time.Duration) {
		if p := w.byID[id]; p != nil {
			p.State, p.Why, p.Since = state, why, w.began.Add(-ago)
		}
	}
	switch w.name {
	case "three":
		set("west.lte0~hq.lte0", "degraded", "High packet loss (2.3%)", 11*time.Minute)
		set("hq.lte0~west.lte0", "degraded", "High packet loss (2.3%)", 11*time.Minute)
		set("west.lte0~east.lte0", "down", "3 probes in a row unanswered", 4*time.Minute)
		set("east.lte0~west.lte0", "down", "3 probes in a row unanswered", 4*time.Minute)
	case "hostile":
		set("west.lte0~hq.lte0", "degraded", attack, time.Minute)
	case "thousand":
		for i := 3; i < len(n.Sites); i += 41 {
			name := n.Sites[i].Name
			st := w.states[name]
			switch i % 3 {
			case 0:
				st.SeenAt = w.began.Add(-time.Duration(i) * time.Minute)
			default:
				set(st.Paths[i%3].ID, []string{"", "degraded", "down"}[i%3], []string{"", "Latency above 150 ms", "3 probes in a row unanswered"}[i%3], time.Duration(i)*time.Second)
			}
		}
	}
}

// walk moves every measurement a little. mu is held, or nobody knows of w yet.
func (w *world) walk() {
	for _, id := range w.paths {
		p := w.byID[id]
		base := w.base[id] * (1 + 0.1*math.Sin(float64(w.count)/30+w.base[id]))
		lat := base + w.rng.ExpFloat64()*1.2
		loss := 0.0
		score := path.Score(96 + w.rng.IntN(4))
		if w.rng.IntN(40) == 0 {
			loss = 0.1
		}
		switch p.State {
		case "degraded":
			lat, loss, score = lat*2.2, 2+w.rng.Float64(), 61
		case "down":
			lat, loss, score = math.NaN(), 100, path.NoScore
		}
		tx, rx := (4+base/4)*(0.6+w.rng.Float64()), (9+base/3)*(0.6+w.rng.Float64())
		if p.State == "down" {
			tx, rx = 0, 0
		}
		p.Metrics = path.Metrics{
			Latency: path.Value(lat), Jitter: path.Value(0.3 + w.rng.Float64()), PDVp95: path.Value(lat * 0.1), PacketLoss: path.Value(loss), LossOut: path.Value(loss), LossIn: path.Value(loss / 2),
			Bandwidth: path.Value(max(tx, rx)), Tx: path.Value(tx), Rx: path.Value(rx), MTU: 1420, Score: score,
		}
	}
	w.count++
}

// States is a copy, since ours change; it is made once per tick.
func (w *world) States() (map[string]*dashboard.SiteState, uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[string]*dashboard.SiteState, len(w.states))
	for name, st := range w.states {
		c := *st
		c.Paths = slices.Clone(st.Paths)
		out[name] = &c
	}
	return out, w.version
}

// live ticks once a second, and lets something happen now and then.
func (w *world) live(ctx context.Context, hub *live.Hub) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now().UTC()
		w.mu.Lock()
		w.walk()
		w.version++
		out := make([]live.Metric, 0, len(w.paths))
		for name, st := range w.states {
			if w.began.Sub(st.SeenAt) < time.Minute {
				st.SeenAt = now
			} else {
				continue // it is silent
			}
			for i := range st.Paths {
				out = append(out, live.Metric{Site: name, Path: st.Paths[i].ID, At: now, Metrics: st.Paths[i].Metrics, State: st.Paths[i].State})
			}
		}
		var e *dashboard.Event
		if w.count%7 == 0 && len(w.paths) > 0 {
			e = w.happen(now)
		}
		w.mu.Unlock()
		hub.Metrics(out)
		if e != nil {
			var fields map[string]any
			if json.Unmarshal(e.Data, &fields) == nil {
				_ = hub.Publish(live.Event{Type: e.Type, At: e.At, Severity: e.Severity, Site: e.Site, Path: path.ID(e.Source), Fields: fields})
			}
		}
	}
}

// happen is a path that has a bad moment, or its end. mu is held.
func (w *world) happen(now time.Time) *dashboard.Event {
	id := w.paths[(w.count/14*3)%len(w.paths)]
	p := w.byID[id]
	old, state, why, severity := p.State, "degraded", "Jitter above 30 ms", "warning"
	if w.count%14 == 0 {
		state, why, severity = "up", "", "info"
	}
	if w.name == "hostile" {
		why = attack
	}
	if old == state || old == "down" {
		return nil
	}
	p.State, p.Why, p.Since = state, why, now
	ends, err := path.ParseID(string(id))
	if err != nil {
		return nil
	}
	e := w.event(now, "path_status_change", severity, ends.LocalSite, string(id), map[string]any{"old_status": old, "new_status": state, "reason": why})
	w.events = slices.Insert(w.events, 0, e)
	w.events = w.events[:min(len(w.events), 5000)]
	return &e
}

func (w *world) event(at time.Time, kind, severity, site, source string, data map[string]any) dashboard.Event {
	text, err := json.Marshal(data)
	if err != nil {
		text = []byte("{}")
	}
	w.count++
	return dashboard.Event{ID: fmt.Sprintf("e%06d", w.count), At: at, Type: kind, Severity: severity, Site: site, Source: source, Data: text}
}

func (w *world) makeEvents(n *configs.Network) {
	if len(w.paths) == 0 {
		return
	}
	amount := 60
	if len(n.Sites) > 100 {
		amount = 2000
	}
	for i := range amount {
		at := w.began.Add(-time.Duration(i*i/40+i*3) * time.Second)
		id := w.paths[(i*13)%len(w.paths)]
		ends, _ := path.ParseID(string(id))
		text := ""
		if w.name == "hostile" {
			text = attack
		}
		switch i % 5 {
		case 0:
			w.events = append(w.events, w.event(at, "path_status_change", "info", ends.LocalSite, string(id), map[string]any{"old_status": "degraded", "new_status": "up", "reason": text}))
		case 1:
			w.events = append(w.events, w.event(at, "policy_block", "warning", ends.LocalSite, "default~block-ssh", map[string]any{"policy_id": "NetworkPolicy/default/block-ssh", "policy_name": "block-ssh" + text, "flow": map[string]any{"src": "10.1.1.5", "dst": "10.2.3.10", "port": 22}}))
		case 2:
			w.events = append(w.events, w.event(at, "path_status_change", "warning", ends.LocalSite, string(id), map[string]any{"old_status": "up", "new_status": "degraded", "reason": "High packet loss (2.3%)" + text}))
		case 3:
			w.events = append(w.events, w.event(at, "site_joined", "info", ends.LocalSite, ends.LocalSite, map[string]any{"site_name": ends.LocalSite + text}))
		default:
			w.events = append(w.events, w.event(at, "path_status_change", "critical", ends.LocalSite, string(id), map[string]any{"old_status": "up", "new_status": "down", "reason": "3 probes in a row unanswered"}))
		}
	}
}
