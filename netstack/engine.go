package netstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/conn"

	"patronus/configs"
	"patronus/netstack/capture"
	"patronus/netstack/flow"
	"patronus/netstack/lan"
	"patronus/netstack/packet"
	"patronus/netstack/path"
	"patronus/netstack/policy"
)

// ErrNoConfiguration is returned by what needs an applied revision before
// there is one.
var ErrNoConfiguration = errors.New("no configuration has been applied")

// Opener opens what a configuration names on the machine, or in memory for the
// lab and the tests.
type Opener interface {
	// OpenBind returns the sockets of an uplink, not yet open.
	OpenBind(u *configs.Uplink) (conn.Bind, error)
	// OpenPort opens a LAN port. An Ethernet port passes frames that are its own
	// traffic (ARP, NDP; borrowed) to control, and asks next hops of resolver.
	OpenPort(p *configs.LANPort, control func(frame []byte), resolver lan.Resolver) (lan.Port, error)
	// PrivateKey reads the key of an uplink of our own site.
	PrivateKey(u *configs.Uplink) (configs.PrivateKey, error)
}

// Options are what an engine needs from outside.
type Options struct {
	Opener Opener
	Logger *slog.Logger
	// Sink takes events, flow events and samples. It is called from the packet
	// path and must neither block nor keep borrowed memory.
	Sink func(Event)
	// Flows bounds the flow table. It holds for the engine's life: a change of
	// the configuration's takes effect when the edge starts again.
	Flows configs.Flows
	// BatchSize is how many packets move together; 0 means 128.
	BatchSize int
}

// Engine forwards packets between LAN ports and tunnels. All methods are safe
// for concurrent use; Apply calls are serialised.
type Engine struct {
	opener Opener
	log    *slog.Logger
	sink   func(Event)
	batch  int

	snapshot   atomic.Pointer[snapshot]
	pathList   atomic.Pointer[[]*pathState] // by index: what flows are bound to; nil entries are free
	flows      *flow.Table
	fragments  [numDirections]*flow.Fragments
	host       *stackHost
	counters   counters
	faults     [packet.FaultCount]atomic.Uint64
	prober     *prober
	base       time.Time // what monotonic time counts from
	started    int64     // monotonic ns
	answers    answerLimit
	scratch    sync.Pool  // *inbound
	steerMu    sync.Mutex // guards generation, and that the newest steering wins
	generation uint32
	history    history
	taps       capture.Taps

	mu      sync.Mutex              // serialises Apply; guards what follows
	tunnels map[string]*uplinkState // by identity
	paths   []*pathState
	ports   map[string]*portState // by identity
	devices map[configs.Key]*deviceState
	tasks   *errgroup.Group
	ctx     func() context.Context // the running engine's, for tasks started by Apply
}

// New builds an engine that has no configuration and touches nothing yet.
func New(o Options) (*Engine, error) {
	host, err := newStackHost()
	if err != nil {
		return nil, err
	}
	return newEngine(o, host), nil
}

func newEngine(o Options, host *stackHost) *Engine {
	e := &Engine{
		opener: o.Opener, log: o.Logger, sink: o.Sink, batch: o.BatchSize, host: host,
		base: time.Now(), tunnels: map[string]*uplinkState{}, ports: map[string]*portState{},
		devices: map[configs.Key]*deviceState{},
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.sink == nil {
		e.sink = func(Event) {}
	}
	if e.batch == 0 {
		e.batch = 128
	}
	e.flows = flow.New(flow.Options{
		Max: o.Flows.Max, TCPIdle: time.Duration(o.Flows.TCPIdle), UDPIdle: time.Duration(o.Flows.UDPIdle), Sink: e.flowEvent,
	})
	for d := range e.fragments {
		e.fragments[d] = flow.NewFragments(0)
	}
	e.pathList.Store(new([]*pathState))
	e.prober = newProber(e)
	e.scratch.New = func() any { return newInbound(e.batch) }
	return e
}

// now is the monotonic time of the packet path, ns.
func (e *Engine) now() int64 { return int64(time.Since(e.base)) }

// Run works until ctx ends: it probes, ticks, serves the host's packets and
// the ports and tunnels that Apply opens.
func (e *Engine) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	e.start(ctx, group)
	group.Go(func() error { return e.host.run(ctx, e.fromHost) })
	err := group.Wait()
	e.host.close()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// start starts everything but the host, whose goroutines are gVisor's.
func (e *Engine) start(ctx context.Context, group *errgroup.Group) {
	e.mu.Lock()
	e.started = e.now()
	e.tasks = group
	e.ctx = func() context.Context { return ctx }
	for _, p := range e.ports {
		e.startPort(p)
	}
	for id, u := range e.tunnels {
		e.startTunnel(id, u)
	}
	e.mu.Unlock()
	group.Go(func() error { return e.prober.run(ctx) })
	group.Go(func() error { return e.tick(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		e.close()
		return ctx.Err()
	})
}

// close stops ports first, so that nothing new enters, then tunnels.
func (e *Engine) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tasks = nil
	for _, p := range e.ports {
		p.close()
	}
	for _, u := range e.tunnels {
		u.tunnel.Close()
	}
}

// Apply makes a validated configuration the running one. What did not change
// keeps running: a tunnel whose key stays keeps its sessions, and flows are
// judged again at their next packet. On an error the old configuration stays.
func (e *Engine) Apply(rev uint64, cfg *configs.Config, rules *policy.Ruleset) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.apply(rev, cfg, rules); err != nil {
		return fmt.Errorf("apply revision %d: %w", rev, err)
	}
	e.log.Info("revision applied", "rev", rev)
	e.sink(Event{Kind: RevisionApplied, At: time.Now(), Rev: rev})
	return nil
}

// apply first does everything that can fail and can be undone, then switches.
func (e *Engine) apply(rev uint64, cfg *configs.Config, rules *policy.Ruleset) error {
	classes, err := path.NewClasses(cfg.Classes)
	if err != nil {
		return fmt.Errorf("classes: %w", err)
	}
	ports, opened, err := e.openPorts(cfg)
	if err != nil {
		return err
	}
	tunnels, err := e.buildTunnels(cfg)
	if err == nil {
		err = e.host.setAddresses(hostAddresses(cfg))
	}
	if err != nil {
		for _, p := range opened {
			p.close()
		}
		for id, u := range tunnels {
			if e.tunnels[id] == nil {
				u.tunnel.Close()
			}
		}
		return err
	}
	oldPorts, oldTunnels := e.ports, e.tunnels
	e.ports, e.tunnels = make(map[string]*portState), tunnels
	for i := range ports {
		e.ports[portIdentity(&ports[i].config)] = ports[i].portState
	}
	e.retireTunnels(oldTunnels)
	devices, err := e.connect(cfg)
	if err != nil {
		// A validated configuration cannot collide; this is a defect, and the
		// peers that could be added are better than none.
		e.log.Error("not every peer could be added", "rev", rev, "err", err)
	}
	next := newSnapshot(cfg, rev, ports, devices, classes, rules)
	next.version = 1
	var hits []*policyHits
	if old := e.snapshot.Load(); old != nil {
		next.version, hits = old.version+1, old.hits
	}
	next.hits = newHits(rules, hits)
	paths := slices.Clone(e.paths)
	e.prober.reconfigure(next, paths)
	e.publish(next, paths)
	e.publishEnds(devices)
	for _, p := range opened {
		e.startPort(p)
	}
	for id, u := range tunnels {
		if oldTunnels[id] == nil {
			e.startTunnel(id, u)
		}
	}
	for id, p := range oldPorts {
		if e.ports[id] == nil {
			p.close()
		}
	}
	return nil
}

// retireTunnels closes the tunnels that are not wanted any more, with their
// paths, before new ones may need their ports.
func (e *Engine) retireTunnels(old map[string]*uplinkState) {
	for id, u := range old {
		if e.tunnels[id] != nil {
			continue
		}
		u.retired.Store(true)
		u.tunnel.Close()
		for i, p := range e.paths {
			if p != nil && p.uplink == u {
				e.paths[i] = nil
			}
		}
		for key, d := range e.devices {
			if d.uplink == u {
				delete(e.devices, key)
			}
		}
	}
}

// hostAddresses are what the appliance answers for itself. The addresses of a
// tun port are the kernel's.
func hostAddresses(cfg *configs.Config) []netip.Addr {
	set := map[netip.Addr]bool{cfg.OverlayAddress(cfg.Self()): true}
	for i := range cfg.LAN {
		if cfg.LAN[i].Kind == configs.LANTUN {
			continue
		}
		for _, a := range cfg.LAN[i].Addresses {
			set[a.Addr()] = true
		}
	}
	return slices.SortedFunc(maps.Keys(set), netip.Addr.Compare)
}

// Reevaluate has a live flow judged anew at its next packet. It reports false
// if there is no such flow.
func (e *Engine) Reevaluate(k packet.Key) bool {
	f, _ := e.flows.Lookup(&k)
	if f == nil {
		return false
	}
	if b := f.Binding(); b != 0 {
		f.Bind(flow.NewBinding(b.Rules()-1, b.Verdict(), b.Class(), b.Path(), b.Steer()))
	}
	return true
}
