package netstack

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"patronus/configs"
	"patronus/netstack/lan"
	"patronus/netstack/packet"
	"patronus/netstack/path"
	"patronus/netstack/tunnel"
)

// These are the curves of the results: what one packet costs from the LAN port
// of one engine to that of another, with encryption and UDP sockets on loopback
// between them, against what it may depend on. wall ns are of both engines
// working side by side, cpu-ns is the sum.

const (
	benchWindow = 1024 // packets on their way
	benchStride = 64   // packets accounted together
	benchWarmUp = 20_000
	benchBatch  = 128
	newFlows    = 1 << 30 // as a number of flows: every packet is the first of one
)

// source is a LAN port whose hosts send what is asked for: packets of flows
// that take turns.
type source struct {
	template []byte
	gso      packet.GSO
	flows    int
	sent     int
	ask      chan int // packets (superpackets) to send
	left     int
	closed   chan struct{}
	once     sync.Once
}

func (s *source) Name() string           { return "lan0" }
func (s *source) MTU() int               { return 1500 }
func (s *source) Write([]lan.Out) error  { return nil }
func (s *source) Counters() lan.Counters { return lan.Counters{} }

func (s *source) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *source) Read(bufs []*packet.Buffer) (int, error) {
	if s.left == 0 {
		select {
		case s.left = <-s.ask:
		case <-s.closed:
			return 0, net.ErrClosed
		}
	}
	n := min(s.left, len(bufs))
	s.left -= n
	for i := range bufs[:n] {
		b := packet.Get(len(s.template))
		copy(b.Bytes, s.template)
		b.GSO = s.gso
		flow := s.sent % s.flows
		s.sent++
		binary.BigEndian.PutUint16(b.Bytes[20:], uint16(1024+flow%50_000))
		binary.BigEndian.PutUint16(b.Bytes[22:], uint16(1024+flow/50_000%50_000))
		bufs[i] = b
	}
	return n, nil
}

// drain is a LAN port that counts what its hosts get.
type drain struct {
	source
	got    atomic.Int64
	tokens chan struct{}
}

func (d *drain) Write(pkts []lan.Out) error {
	n := d.got.Add(int64(len(pkts)))
	for range n/benchStride - (n-int64(len(pkts)))/benchStride {
		<-d.tokens
	}
	return nil
}

// benchCase is one point of a curve.
type benchCase struct {
	size     int // payload bytes of a packet
	segments int // packets of a superpacket
	flows    int
	rules    int
	sites    int // besides the sender's own
}

func (c benchCase) config(b *testing.B, p *plan, self string) *configs.Config {
	return p.config(b, self, func(cfg *configs.Config) {
		if c.rules == 0 {
			return
		}
		var rules strings.Builder
		for i := range c.rules - 1 {
			fmt.Fprintf(&rules, "    - {from: [{ipBlock: {cidr: 172.%d.%d.0/24}}], ports: [{protocol: UDP, port: %d}]}\n", 16+i>>8&15, i&255, 1+i%60_000)
		}
		cfg.Hosts = []configs.HostEndpoint{{Namespace: "default", Name: "to", Site: "b", Addresses: []netip.Prefix{netip.MustParsePrefix("10.2.0.10/32")}, Labels: map[string]string{"to": "bench"}}}
		cfg.Policies = []configs.Policy{{Spec: `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: bench}
spec:
  podSelector: {matchLabels: {to: bench}}
  policyTypes: [Ingress]
  ingress:
` + rules.String() + "    - {from: [{ipBlock: {cidr: 10.1.0.0/16}}]}\n"}}
	})
}

// freePort is a UDP port of loopback that nobody has.
func freePort(b *testing.B) netip.AddrPort {
	b.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// plan is two sites that exist, and others that are only configured.
func (c benchCase) plan(b *testing.B) *plan {
	p := newPlan("a", "b")
	for i := range p.sites {
		p.sites[i].Uplinks = p.sites[i].Uplinks[:1]
		p.sites[i].Uplinks[0].Endpoints = []netip.AddrPort{freePort(b)}
	}
	for i := range c.sites - 1 {
		u := p.uplink("wan0", "198.51.100.1:51820")
		u.Endpoints = nil
		p.sites = append(p.sites, configs.Site{
			Name: fmt.Sprintf("far%d", i), Uplinks: []configs.Uplink{u},
			Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(64 + i>>8), byte(i), 0}), 24)},
		})
	}
	return p
}

// engineOn starts an engine whose only LAN port is port.
func engineOn(b *testing.B, c benchCase, p *plan, self string, port lan.Port) *Engine {
	b.Helper()
	o := &memory{keys: p.keys, far: map[string]*recorder{}, port: map[string]lan.Port{"lan0": port}, bind: func(u *configs.Uplink) (conn.Bind, error) {
		return tunnel.NewUDP(tunnel.UDPOptions{Sources: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Port: u.ListenPort, BatchSize: benchBatch})
	}}
	e, err := New(Options{Opener: o, BatchSize: benchBatch, Flows: configs.Flows{Max: 1 << 18}})
	if err != nil {
		b.Fatal(err)
	}
	cfg := c.config(b, p, self)
	if err := e.Apply(1, cfg, compile(b, cfg)); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- e.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			b.Error(err)
		}
	})
	return e
}

func (c benchCase) run(b *testing.B) {
	p := c.plan(b)
	template := datagram("10.1.0.10", "10.2.0.10", 1, 1, c.size*c.segments).build(b)
	from := &source{template: template, flows: c.flows, ask: make(chan int, benchWindow), closed: make(chan struct{}), gso: packet.GSO{NeedsCsum: true, CsumStart: 20, CsumOffset: 6}}
	if c.segments > 1 {
		from.gso.Size, from.gso.HdrLen, from.gso.Proto = uint16(c.size), 28, packet.UDP
	}
	to := &drain{source: source{closed: make(chan struct{})}, tokens: make(chan struct{}, benchWindow/benchStride)}
	far := engineOn(b, c, p, "b", to)
	near := engineOn(b, c, p, "a", from)
	sent := 0
	at := max(1, benchStride/c.segments) // buffers pushed at once
	push := func(n int) {
		for until := sent + n; sent < until; {
			for range (sent+at*c.segments)/benchStride - sent/benchStride {
				select {
				case to.tokens <- struct{}{}:
				case <-time.After(10 * time.Second):
					b.Fatalf("%d of %d packets arrived; %+v; %+v", to.got.Load(), sent, near.counters.snapshot(), far.counters.snapshot())
				}
			}
			from.ask <- at
			sent += at * c.segments
		}
	}
	awaitUp(b, near)
	push(max(benchWarmUp, c.flows%newFlows))
	b.ReportAllocs()
	before := processCPU()
	first := sent
	b.ResetTimer()
	push(b.N)
	b.StopTimer()
	done := float64(sent - first)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/done, "ns/pkt")
	b.ReportMetric(float64(processCPU()-before)/done, "cpu-ns/pkt")
	b.ReportMetric(done*float64(c.size)*8/b.Elapsed().Seconds()/1e9, "Gb/s")
}

// awaitUp waits for the path between the sites that exist.
func awaitUp(b *testing.B, e *Engine) {
	b.Helper()
	every := time.NewTicker(10 * time.Millisecond)
	defer every.Stop()
	for deadline := time.After(30 * time.Second); ; {
		for _, p := range *e.pathList.Load() {
			if p != nil && p.site == "b" {
				p.mu.Lock()
				up := p.tracker.State() == path.Up
				p.mu.Unlock()
				if up {
					return
				}
			}
		}
		select {
		case <-every.C:
		case <-deadline:
			b.Fatal("the path does not come up")
		}
	}
}

// processCPU is what the process has used, ns.
func processCPU() int64 {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return r.Utime.Nano() + r.Stime.Nano()
}

// usual is the middle of all curves.
func usual() benchCase { return benchCase{size: 1372, segments: 1, flows: 1, rules: 100, sites: 1} }

func BenchmarkPacketSize(b *testing.B) {
	for _, size := range []int{32, 200, 512, 1024, 1372} {
		c := usual()
		c.size = size
		b.Run(fmt.Sprint(size), c.run)
	}
	c := usual()
	c.segments = 44
	b.Run("1372x44", c.run)
}

func BenchmarkFlows(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		c := usual()
		c.flows = n
		b.Run(fmt.Sprint(n), c.run)
	}
}

func BenchmarkRules(b *testing.B) {
	for _, n := range []int{0, 100, 10_000} {
		c := usual()
		c.rules = n
		b.Run(fmt.Sprint(n), c.run)
	}
}

// BenchmarkNewFlow judges every packet: each is the first of its flow.
func BenchmarkNewFlow(b *testing.B) {
	for _, n := range []int{0, 100, 10_000} {
		c := usual()
		c.rules, c.flows = n, newFlows
		b.Run(fmt.Sprint(n), c.run)
	}
}

func BenchmarkPeers(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		c := usual()
		c.sites = n
		b.Run(fmt.Sprint(n), c.run)
	}
}
