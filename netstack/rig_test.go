package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"patronus/configs"
	"patronus/netstack/lan"
	"patronus/netstack/packet"
	"patronus/netstack/path"
	"patronus/netstack/policy"
	"patronus/netstack/tunnel"
)

// plan is a fabric's configuration in the making: sites named by letters with
// the prefixes 10.N.0.0/16 and fd00:N::/48 and the uplinks wan0 and lte0.
type plan struct {
	sites []configs.Site
	keys  map[configs.Key]configs.PrivateKey
}

func newPlan(names ...string) *plan {
	p := &plan{keys: map[configs.Key]configs.PrivateKey{}}
	for i, name := range names {
		n := i + 1
		s := configs.Site{Name: name, Prefixes: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", n)), netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/48", n)),
		}}
		s.Uplinks = append(s.Uplinks, p.uplink("wan0", fmt.Sprintf("198.51.100.%d:51820", n)), p.uplink("lte0", fmt.Sprintf("203.0.113.%d:51821", n)))
		p.sites = append(p.sites, s)
	}
	return p
}

func (p *plan) uplink(name, at string) configs.Uplink {
	key := configs.GenerateKey()
	p.keys[key.Public()] = key
	return configs.Uplink{Name: name, PublicKey: key.Public(), Endpoints: []netip.AddrPort{netip.MustParseAddrPort(at)}}
}

// config is one site's. lan0 has the first /24 and /64 of its prefixes.
func (p *plan) config(tb testing.TB, self string, change ...func(*configs.Config)) *configs.Config {
	tb.Helper()
	c := configs.Config{Fabric: "test", Site: self}
	for i, s := range p.sites {
		s.Uplinks = append([]configs.Uplink(nil), s.Uplinks...)
		if s.Name == self {
			for j := range s.Uplinks {
				s.Uplinks[j].PrivateKeyFile = "/memory/" + s.Uplinks[j].Name
			}
			c.LAN = []configs.LANPort{{Name: "lan0", Kind: configs.LANCable, Addresses: []netip.Prefix{
				netip.MustParsePrefix(fmt.Sprintf("10.%d.0.1/24", i+1)), netip.MustParsePrefix(fmt.Sprintf("fd00:%d::1/64", i+1)),
			}}}
		}
		c.Sites = append(c.Sites, s)
	}
	for _, f := range change {
		f(&c)
	}
	checked, err := configs.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return checked
}

func compile(tb testing.TB, c *configs.Config) *policy.Ruleset {
	tb.Helper()
	in := policy.Input{Namespaces: c.Namespaces, Endpoints: c.Hosts}
	for i := range c.Policies {
		p, err := policy.FromConfig(c.Policies[i], fmt.Sprintf("policies[%d]", i))
		if err != nil {
			tb.Fatal(err)
		}
		in.Policies = append(in.Policies, p)
	}
	r, err := policy.Compile(in)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// memory opens ports as cables and binds as the test says. It implements Opener.
type memory struct {
	keys map[configs.Key]configs.PrivateKey
	bind func(*configs.Uplink) (conn.Bind, error)

	mu   sync.Mutex
	far  map[string]*recorder // by port
	port map[string]lan.Port  // instead of a recorder
	fail map[string]bool      // what cannot be opened
}

var errRefused = errors.New("refused by the test")

func (m *memory) OpenBind(u *configs.Uplink) (conn.Bind, error) {
	if m.fail[u.Name] {
		return nil, errRefused
	}
	if m.bind == nil {
		b, _ := tunnel.NewMemory(1)
		return b, nil
	}
	return m.bind(u)
}

func (m *memory) OpenPort(p *configs.LANPort, _ func([]byte), _ lan.Resolver) (lan.Port, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail[p.Name] {
		return nil, errRefused
	}
	if other := m.port[p.Name]; other != nil {
		return other, nil
	}
	m.far[p.Name] = newRecorder(p.Name, p.MTU)
	return m.far[p.Name], nil
}

func (m *memory) PrivateKey(u *configs.Uplink) (configs.PrivateKey, error) {
	if k, ok := m.keys[u.PublicKey]; ok {
		return k, nil
	}
	return configs.PrivateKey{}, errRefused
}

// rig is one engine that does not run: packets are given to toWAN and fromWAN
// by the test, and what happens to them has happened when those return.
type rig struct {
	*Engine
	tb     testing.TB
	plan   *plan
	opener *memory
	rev    uint64
	out    map[string]*outbound

	mu     sync.Mutex
	events []Event
}

func newRig(tb testing.TB, p *plan, cfg *configs.Config) *rig {
	tb.Helper()
	r := &rig{tb: tb, plan: p, out: map[string]*outbound{}, opener: &memory{
		keys: p.keys, far: map[string]*recorder{}, port: map[string]lan.Port{}, fail: map[string]bool{},
	}}
	e, err := New(Options{Opener: r.opener, Sink: r.take, BatchSize: 32, Flows: configs.Flows{Max: flowsOf(tb)}})
	if err != nil {
		tb.Fatal(err)
	}
	r.Engine = e
	tb.Cleanup(func() {
		over, cancel := context.WithCancel(context.Background())
		cancel()
		if err := e.Run(over); err != nil {
			tb.Error(err)
		}
	})
	if cfg != nil {
		r.apply(cfg)
	}
	return r
}

// flowsOf keeps the tables of tests small and those of benchmarks large.
func flowsOf(tb testing.TB) int {
	if _, bench := tb.(*testing.B); bench {
		return 200_000
	}
	return 1 << 12
}

func (r *rig) take(ev Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, ev)
}

// seen returns the events of a kind since the last call, which forgets all.
func (r *rig) seen(kinds ...EventKind) []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var some []Event
	for _, ev := range r.events {
		for _, k := range kinds {
			if ev.Kind == k {
				some = append(some, ev)
			}
		}
	}
	r.events = nil
	return some
}

// apply applies a configuration and lifts all new paths.
func (r *rig) apply(cfg *configs.Config) {
	r.tb.Helper()
	r.rev++
	if err := r.Apply(r.rev, cfg, compile(r.tb, cfg)); err != nil {
		r.tb.Fatal(err)
	}
	for _, p := range *r.pathList.Load() {
		if p != nil {
			r.lift(p)
		}
	}
	r.resteer()
}

// lift makes an unknown path Up.
func (r *rig) lift(p *pathState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tracker.State() == path.Unknown {
		now := r.wall(r.now())
		p.tracker.Observe(path.Probe{SentAt: now, RTT: 10 * time.Millisecond}, now)
	}
}

// fail makes a path Down.
func (r *rig) fail(p *pathState) {
	p.mu.Lock()
	p.tracker.PeerNotice(false, r.wall(r.now()))
	p.mu.Unlock()
	r.resteer()
}

func (r *rig) byID(id string) *pathState {
	r.tb.Helper()
	for _, p := range *r.pathList.Load() {
		if p != nil && string(p.id) == id {
			return p
		}
	}
	r.tb.Fatalf("no path %s", id)
	return nil
}

// fromLAN gives packets to toWAN as one batch.
func (r *rig) fromLAN(port string, pkts ...[]byte) {
	r.tb.Helper()
	bufs := make([]*packet.Buffer, len(pkts))
	for i, p := range pkts {
		bufs[i] = packet.Get(len(p))
		copy(bufs[i].Bytes, p)
	}
	r.toWAN(r.outbound(port), bufs)
}

func (r *rig) outbound(port string) *outbound {
	r.tb.Helper()
	if o := r.out[port]; o != nil {
		return o
	}
	for _, p := range r.ports {
		if p.port.Name() == port {
			o := newOutbound(r.Engine, p)
			r.out[port] = o
			return o
		}
	}
	r.tb.Fatalf("no port %s", port)
	return nil
}

// outer wraps a packet for a path as the other side does.
func outer(p *pathState, b []byte) []byte {
	w := make([]byte, packet.OuterLen+len(b))
	packet.PutOuter(w, p.remote, p.uplink.source, b[0]>>4, 0, len(b))
	copy(w[packet.OuterLen:], b)
	return w
}

// overPath gives packets to fromWAN as what came out of a path's tunnel.
func (r *rig) overPath(p *pathState, pkts ...[]byte) {
	in := make([]tunnel.Inbound, len(pkts))
	for i, b := range pkts {
		in[i] = tunnel.Inbound{Bytes: outer(p, b), Peer: p.peer, Counter: uint64(i), Receiver: 1, At: r.now()}
	}
	r.fromWAN(p.uplink, in)
}

// fromDevice gives packets to fromWAN as a stock peer's.
func (r *rig) fromDevice(name string, pkts ...[]byte) {
	r.tb.Helper()
	for _, d := range r.snapshot.Load().devices {
		if d.config.Name != name {
			continue
		}
		in := make([]tunnel.Inbound, len(pkts))
		for i, b := range pkts {
			in[i] = tunnel.Inbound{Bytes: append([]byte(nil), b...), Peer: d.peer}
		}
		r.fromWAN(d.uplink, in)
		return
	}
	r.tb.Fatalf("no device %s", name)
}

// host reads what a port's hosts got, without waiting.
func (r *rig) host(port string) [][]byte {
	r.tb.Helper()
	r.opener.mu.Lock()
	far := r.opener.far[port]
	r.opener.mu.Unlock()
	return far.take()
}

// recorder is a LAN port that keeps what is written to it.
type recorder struct {
	name   string
	mtu    int
	closed chan struct{}
	once   sync.Once

	mu  sync.Mutex
	got [][]byte
}

func newRecorder(name string, mtu int) *recorder {
	return &recorder{name: name, mtu: mtu, closed: make(chan struct{})}
}

func (p *recorder) Name() string { return p.name }
func (p *recorder) MTU() int     { return p.mtu }

func (p *recorder) Read([]*packet.Buffer) (int, error) {
	<-p.closed
	return 0, net.ErrClosed
}

func (p *recorder) Write(pkts []lan.Out) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range pkts {
		p.got = append(p.got, append([]byte(nil), pkts[i].Bytes...))
	}
	return nil
}

func (p *recorder) Counters() lan.Counters { return lan.Counters{} }

func (p *recorder) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// take returns what was written since the last call.
func (p *recorder) take() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

// queued is how many packets wait for a path's session.
func queued(p *pathState) int { return p.peer.Counters().Queued / packet.SmallSize }

// delta is what the counters changed by during f.
func (r *rig) delta(f func()) Counters {
	before := r.counters.snapshot()
	f()
	after := r.counters.snapshot()
	sub := func(a, b DirectionCounters) DirectionCounters {
		d := DirectionCounters{Forwarded: a.Forwarded - b.Forwarded, Delivered: a.Delivered - b.Delivered, Dropped: map[string]uint64{}}
		for k, v := range a.Dropped {
			if v -= b.Dropped[k]; v > 0 {
				d.Dropped[k] = v
			}
		}
		return d
	}
	return Counters{ToWAN: sub(after.ToWAN, before.ToWAN), FromWAN: sub(after.FromWAN, before.FromWAN)}
}
