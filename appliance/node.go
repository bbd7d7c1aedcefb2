package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"patronus/appliance/agent"
	"patronus/appliance/metrics"
	"patronus/appliance/store"
	"patronus/configs"
	"patronus/dashboard/collect"
	"patronus/netstack"
)

// nodeRecent is how many events a node keeps in memory.
const nodeRecent = 4096

// Waits of the node.
const (
	nodeRetry    = 200 * time.Millisecond // of what needs the edge
	storeRetry   = 2 * time.Second        // doubling to storeMost
	storeMost    = time.Minute
	tickEvery    = time.Second
	lookAtConfig = 2 * time.Second
)

// Node owns what may die without traffic noticing: it keeps the history of its
// site, offers it to the dashboards of the fabric, and is one of them if it was
// promoted. It holds no keys and no sockets of its own: it reaches the overlay
// through the edge only.
//
//	edge --telemetry--> recorder --ticks--> store (node/history)
//	edge --accept-----> agent.Server ---------^            dashboards pull
//	edge <--dial------- collect.Fleet --> store (node/dashboard)   if promoted
//
// The dashboard's store is not the site's own: retention and memory differ, and
// demotion leaves the site's history alone (DESIGN.md).
type Node struct {
	o    NodeOptions
	edge *EdgeClient
	log  *slog.Logger

	history   shelf // the site's own
	dashboard shelf // everybody's, while this node is a dashboard
	roles     atomic.Pointer[Roles]
	fabric    atomic.Pointer[fabricView]
	known     chan struct{} // closed when fabric and roles are set
	fleet     atomic.Pointer[collect.Fleet]
	dropped   atomic.Uint64 // ticks that the store did not take
	outlets   outlets
	asked     atomic.Int64 // when a dashboard asked last, Unix ms

	mu     sync.Mutex
	recent []netstack.Event // ring
	next   uint64
}

// NodeOptions are what a node is made of.
type NodeOptions struct {
	Edge *EdgeClient
	// Dir is the node's own directory; empty keeps nothing.
	Dir    string
	Logger *slog.Logger
	// Keep is the retention of the site's own history.
	Keep store.Keep
	// Dashboard runs what people see, for as long as this node is a dashboard.
	// It may be nil.
	Dashboard func(ctx context.Context, d *DashboardRole) error
}

// DashboardRole is what a node gives to its dashboard while it has the role.
type DashboardRole struct {
	Store *store.Store // everybody's history
	Roles *Roles
	Fleet *collect.Fleet
	Edge  *EdgeClient
	Node  *Node
}

// fabricView is what the node knows of the configuration that the edge runs.
type fabricView struct {
	running *Running
	config  *configs.Config
	sites   map[netip.Addr]string // by overlay address
	overlay map[string]netip.Addr
}

// NewNode builds a node over its edge; it touches nothing yet.
func NewNode(o NodeOptions) *Node {
	n := &Node{o: o, edge: o.Edge, log: o.Logger, recent: make([]netstack.Event, nodeRecent), known: make(chan struct{})}
	n.history.name, n.dashboard.name = "history", "dashboard"
	return n
}

// Run works until ctx ends. An edge that is away is waited for, and so is a
// store that cannot be opened: the edge goes on and buffers.
func (n *Node) Run(ctx context.Context, control net.Listener) error {
	// Children of the composition stop together: none holds what another needs
	// to stop.
	return runTasks(ctx,
		task{"configuration", n.follow},
		task{"history", n.keepHistory},
		task{"agent", n.offer},
		task{"remote", n.offerEdge},
		task{"roles", n.actOnRole},
		task{"gossip", n.gossip},
		task{"control", func(ctx context.Context) error { return n.control(ctx, control) }},
	)
}

// follow learns the running configuration from the edge, and again when it has
// changed.
func (n *Node) follow(ctx context.Context) error {
	for {
		r, err := n.edge.Running(ctx)
		if err == nil {
			err = n.learn(r)
		}
		wait := lookAtConfig
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			n.log.Debug("configuration not known", "err", err)
			wait = nodeRetry
		}
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

func (n *Node) learn(r *Running) error {
	old := n.fabric.Load()
	if old != nil && old.running.Revision == r.Revision && string(old.running.Config) == string(r.Config) {
		return nil
	}
	cfg, err := configs.Decode(r.Config)
	if err != nil {
		return err
	}
	view := &fabricView{running: r, config: cfg, sites: map[netip.Addr]string{}, overlay: map[string]netip.Addr{}}
	for i := range cfg.Sites {
		a := cfg.OverlayAddress(&cfg.Sites[i])
		view.sites[a], view.overlay[cfg.Sites[i].Name] = cfg.Sites[i].Name, a
	}
	roles := n.roles.Load()
	if roles == nil {
		file := ""
		if n.o.Dir != "" {
			file = filepath.Join(n.o.Dir, "roles")
		}
		var damage error
		if roles, damage, err = OpenRoles(file, r.Fabric, r.Site); err != nil {
			return err
		}
		if damage != nil {
			n.log.Error("the record of roles is damaged", "site", r.Site, "err", damage)
		}
	}
	roles.SetSites(cfg.Sites)
	if len(r.SigningKey) > 0 {
		if err := roles.Pin(r.Site, r.SigningKey); err != nil {
			n.log.Error("own signing key", "site", r.Site, "err", err)
		}
	}
	n.fabric.Store(view)
	if n.roles.Swap(roles) == nil {
		close(n.known)
	}
	if f := n.fleet.Load(); f != nil {
		f.SetSites(view.names())
	}
	return nil
}

func (v *fabricView) names() []string {
	names := make([]string, len(v.config.Sites))
	for i := range v.config.Sites {
		names[i] = v.config.Sites[i].Name
	}
	return names
}

// await returns when the configuration is known.
func (n *Node) await(ctx context.Context) (*fabricView, error) {
	select {
	case <-n.known:
		return n.fabric.Load(), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// keepHistory opens the site's store and fills it.
func (n *Node) keepHistory(ctx context.Context) error {
	v, err := n.await(ctx)
	if err != nil {
		return err
	}
	if n.o.Dir == "" {
		return n.record(ctx, v.running.Site, nil)
	}
	site := v.running.Site
	if err := os.MkdirAll(secretsDir(n.o.Dir), 0o700); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	out := n.newOutlet(configs.FromAppliance, site, n.history.open, func() bool { return true })
	n.outlets.add(out)
	defer n.outlets.remove(out)
	return out.keepOpen(ctx, func(ctx context.Context) error {
		return n.history.keep(ctx, n.log, filepath.Join(n.o.Dir, "history"), store.Options{Site: site, Keep: n.o.Keep, Forward: out},
			func(ctx context.Context, s *store.Store) error { return n.record(ctx, site, s) })
	})
}

// record follows the edge's telemetry from where the store got it last.
func (n *Node) record(ctx context.Context, site string, s *store.Store) error {
	events := make(chan marked, 1024)
	mark := n.loadMark()
	return runTasks(ctx,
		task{"telemetry", func(ctx context.Context) error {
			for {
				err := n.edge.TelemetryAfter(ctx, mark, func(m Mark, ev netstack.Event) {
					select {
					case events <- marked{m, ev}:
						mark = m
					case <-ctx.Done():
					}
				})
				if ctx.Err() != nil {
					return ctx.Err()
				}
				n.log.Debug("telemetry interrupted", "err", err)
				if !sleep(ctx, nodeRetry) {
					return ctx.Err()
				}
			}
		}},
		task{"recorder", func(ctx context.Context) error { return n.ticks(ctx, site, s, events) }},
	)
}

// marked is an event and its place in the telemetry.
type marked struct {
	Mark
	netstack.Event
}

// ticks appends what was recorded once a second.
func (n *Node) ticks(ctx context.Context, site string, s *store.Store, events <-chan marked) error {
	second := time.NewTicker(tickEvery)
	defer second.Stop()
	r := recorder{site: site}
	var last, kept Mark
	var waiting []store.Batch
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev := <-events:
			n.take(ev.Event)
			r.add(ev.Event)
			last = ev.Mark
		case now := <-second.C:
			if b, ok := r.take(now); ok {
				waiting = append(waiting, b)
			}
			if s == nil {
				waiting = nil
			}
			for len(waiting) > 0 {
				if err := s.Append(ctx, waiting[0]); err != nil {
					n.log.Debug("tick not kept yet", "err", err)
					break
				}
				waiting = waiting[1:]
			}
			if over := len(waiting) - waitingMost; over > 0 {
				n.dropped.Add(uint64(over))
				waiting = waiting[over:]
			}
			if len(waiting) == 0 && last != kept {
				n.saveMark(last)
				kept = last
			}
		}
	}
}

func (n *Node) markFile() string { return filepath.Join(n.o.Dir, "telemetry-mark") }

// loadMark is where the store got the telemetry last. Without it events come
// twice, and are stored once by their names.
func (n *Node) loadMark() (m Mark) {
	if n.o.Dir == "" {
		return Mark{}
	}
	text, err := os.ReadFile(n.markFile())
	if err != nil {
		return Mark{}
	}
	if _, err := fmt.Sscan(string(text), &m.Boot, &m.Seq); err != nil {
		return Mark{}
	}
	return m
}

func (n *Node) saveMark(m Mark) {
	if n.o.Dir == "" {
		return
	}
	if err := os.WriteFile(n.markFile(), fmt.Appendf(nil, "%s %d\n", m.Boot, m.Seq), 0o600); err != nil {
		n.log.Debug("place in the telemetry not kept", "err", err)
	}
}

func (n *Node) take(ev netstack.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recent[n.next%nodeRecent] = ev
	n.next++
}

// Events are the newest events, oldest first, at most limit.
func (n *Node) Events(limit int) []netstack.Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	have := min(n.next, nodeRecent, uint64(max(limit, 0)))
	out := make([]netstack.Event, 0, have)
	for i := n.next - have; i < n.next; i++ {
		out = append(out, n.recent[i%nodeRecent])
	}
	return out
}

// offer answers the agent API on the overlay.
func (n *Node) offer(ctx context.Context) error {
	if _, err := n.await(ctx); err != nil {
		return err
	}
	server := agent.NewServer(agent.Options{
		Self: func() (string, string) { r := n.fabric.Load().running; return r.Fabric, r.Site },
		Source: func() (agent.Source, bool) {
			s, ok := n.history.open()
			return s, ok
		},
		SiteOf: func(a netip.Addr) (string, bool) { s, ok := n.fabric.Load().sites[a]; return s, ok },
		Allow: func(site string) error {
			if !n.roles.Load().Dashboard(site) {
				return fmt.Errorf("%s: %w", site, ErrNotDashboard)
			}
			return nil
		},
		Exchange: n.exchange,
		Version:  Version, Logger: n.log,
	})
	l := listenOverlay(ctx, n.edge, agent.Port)
	defer l.Close()
	return server.Run(ctx, l)
}

// offerEdge lets dashboards ask the edge, over the overlay.
func (n *Node) offerEdge(ctx context.Context) error {
	if _, err := n.await(ctx); err != nil {
		return err
	}
	remote := NewRemote(n.edge, RemoteOptions{
		SiteOf: func(a netip.Addr) (string, bool) { s, ok := n.fabric.Load().sites[a]; return s, ok },
		MayAsk: func(site string) error {
			if !n.roles.Load().Dashboard(site) {
				return fmt.Errorf("%s: %w", site, ErrNotDashboard)
			}
			return nil
		},
		MayApply: func(site string) error {
			if holder, _, ok := n.roles.Load().Holder(); !ok || holder != site {
				return fmt.Errorf("%s: %w", site, ErrFenced)
			}
			return nil
		},
		Asked:  func(string) { n.asked.Store(time.Now().UnixMilli()) },
		Logger: n.log,
	})
	l := listenOverlay(ctx, n.edge, RemotePort)
	defer l.Close()
	return remote.Run(ctx, l)
}

// Dial connects to the agent of a site over the overlay.
func (n *Node) Dial(ctx context.Context, site string) (net.Conn, error) {
	return n.DialPort(ctx, site, agent.Port)
}

// DialPort connects to a port of a site's overlay address.
func (n *Node) DialPort(ctx context.Context, site string, port uint16) (net.Conn, error) {
	v := n.fabric.Load()
	if v == nil {
		return nil, netstack.ErrNoConfiguration
	}
	a, ok := v.overlay[site]
	if !ok {
		return nil, fmt.Errorf("%q: %w", site, ErrForeign)
	}
	return n.edge.Dial(ctx, "tcp", netip.AddrPortFrom(a, port).String())
}

// sleep waits, and reports false if ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// RunNode is the node child.
func RunNode(ctx context.Context, dataDir string, at NodeAddresses, log *slog.Logger) error {
	if err := confine(dataDir); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	control, err := listenUnix(NodeSocket(dataDir), -1)
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	edge := NewEdgeClient(EdgeSocket(dataDir))
	defer edge.Close()
	o := BoardOptions{Dir: nodeDir(dataDir), Logger: log}
	if at.Dashboard != "" {
		o.Listen = []string{at.Dashboard}
	}
	board := NewBoard(o)
	n := NewNode(NodeOptions{Edge: edge, Dir: nodeDir(dataDir), Logger: log, Dashboard: board.Run})
	tasks := []Task{task{"node", func(ctx context.Context) error { return n.Run(ctx, control) }}}
	if at.Metrics != "" {
		l, err := net.Listen("tcp", at.Metrics)
		if err != nil {
			return fmt.Errorf("node: metrics: %w", err)
		}
		tasks = append(tasks, task{"metrics", func(ctx context.Context) error { return n.serveMetrics(ctx, l) }})
	}
	if err := runTasks(ctx, tasks...); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// serveMetrics answers Prometheus until ctx ends.
func (n *Node) serveMetrics(ctx context.Context, l net.Listener) error {
	handler, err := metrics.Handler(metrics.NewCollector(n.edge, Version, metrics.Limits{}), metrics.NewStoreCollector(n), &n.outlets)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", handler)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return ctx.Err()
}

// Stats are those of the site's history; zero while it is not open.
func (n *Node) Stats() store.Stats {
	if s, ok := n.history.open(); ok {
		return s.Stats()
	}
	return store.Stats{}
}
