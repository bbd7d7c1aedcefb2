package policy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/conn"

	"patronus/configs"
	"patronus/e2e/vnet"
	"patronus/netstack"
	"patronus/netstack/lan"
	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for a packet that must come.
const patience = 20 * time.Second

// site is one engine with a cable as its LAN.
type site struct {
	name   string
	engine *netstack.Engine
	config configs.Config
	near   *lan.Cable
	far    *lan.Cable
	bind   *vnet.Bind
	key    configs.PrivateKey
	got    chan []byte

	mu     sync.Mutex
	events []netstack.Event
}

// OpenBind implements netstack.Opener.
func (s *site) OpenBind(*configs.Uplink) (conn.Bind, error) { return s.bind, nil }

// OpenPort implements netstack.Opener.
func (s *site) OpenPort(*configs.LANPort, func([]byte), lan.Resolver) (lan.Port, error) {
	return s.near, nil
}

// PrivateKey implements netstack.Opener.
func (s *site) PrivateKey(*configs.Uplink) (configs.PrivateKey, error) { return s.key, nil }

// fabric is two sites, hq 10.1.0.0/16 and east 10.2.0.0/16, with one line each.
type fabric struct {
	sites [2]*site
	rev   uint64
	port  uint16
}

func newFabric(t *testing.T) *fabric {
	t.Helper()
	network := vnet.New(vnet.Options{Seed: 1})
	cloud := network.Cloud("inet")
	f := &fabric{port: 20000}
	var sites []configs.Site
	for i, name := range [2]string{"hq", "east"} {
		s := &site{name: name, key: configs.GenerateKey(), got: make(chan []byte, 4096)}
		at := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		s.bind = network.Bind(network.Node(name).Attach(cloud, "wan0", at), 51820)
		s.near, s.far = lan.NewCable(lan.CableOptions{Name: "lan0", Queue: 4096})
		f.sites[i] = s
		sites = append(sites, configs.Site{
			Name: name, Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i + 1)}), 16)},
			Uplinks: []configs.Uplink{{Name: "wan0", PublicKey: s.key.Public(), Endpoints: []netip.AddrPort{netip.AddrPortFrom(at, 51820)}}},
		})
	}
	for i, s := range f.sites {
		s.config = configs.Config{
			Fabric: "test", Site: s.name, Sites: make([]configs.Site, len(sites)),
			LAN: []configs.LANPort{{Name: "lan0", Kind: configs.LANCable, Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i + 1), 0, 1}), 24)}}},
		}
		copy(s.config.Sites, sites)
		s.config.Sites[i].Uplinks = append([]configs.Uplink(nil), sites[i].Uplinks...)
		s.config.Sites[i].Uplinks[0].PrivateKeyFile = "/memory/wan0"
		var err error
		if s.engine, err = netstack.New(netstack.Options{Opener: s, Sink: s.take, BatchSize: 16}); err != nil {
			t.Fatal(err)
		}
	}
	f.apply(t, policy.Input{})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, s := range f.sites {
		running.Go(func() {
			if err := s.engine.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		running.Go(s.receive)
	}
	t.Cleanup(func() {
		cancel()
		for _, s := range f.sites {
			s.far.Close()
		}
		running.Wait()
		network.Close()
	})
	f.connect(t)
	return f
}

func (s *site) take(ev netstack.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ev.Kind != netstack.PathMetric {
		s.events = append(s.events, ev)
	}
}

// receive passes on what comes out of the site's LAN until the cable closes.
func (s *site) receive() {
	bufs := make([]*packet.Buffer, 32)
	for {
		n, err := s.far.Read(bufs)
		for _, b := range bufs[:n] {
			b.FinishChecksum()
			select {
			case s.got <- append([]byte(nil), b.Bytes...):
			default:
			}
			b.Release()
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// apply makes policies and endpoints those of both sites.
func (f *fabric) apply(t fataler, in policy.Input) {
	t.Helper()
	f.rev++
	rules, err := policy.Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range f.sites {
		cfg := s.config
		cfg.Hosts, cfg.Namespaces = in.Endpoints, in.Namespaces
		checked, err := configs.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		// Nothing is to be picked up midstream: every flow of a test is new.
		strict := *checked
		strict.Flows.AdoptWindow = 1
		if err := s.engine.Apply(f.rev, &strict, rules); err != nil {
			t.Fatal(err)
		}
	}
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// connect sends until a packet has come through in both directions.
func (f *fabric) connect(t *testing.T) {
	t.Helper()
	for from := range f.sites {
		deadline := time.After(patience)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for up := false; !up; {
			f.send(t, from, build(t, shot{proto: packet.UDP, from: outsider(from), to: outsider(1 - from), sport: 1, dport: 9}))
			select {
			case <-f.sites[1-from].got:
				up = true
			case <-tick.C:
			case <-deadline:
				t.Fatal("no path came up")
			}
		}
	}
}

// outsider is an address at a site that no test gives to an endpoint.
func outsider(site int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(site + 1), 0, 250}) }

// send puts packets into a site's LAN port.
func (f *fabric) send(t fataler, site int, pkts ...[]byte) {
	t.Helper()
	out := make([]lan.Out, len(pkts))
	infos := make([]packet.Info, len(pkts))
	for i, p := range pkts {
		if fault := packet.Decode(p, &infos[i]); fault != 0 {
			t.Fatalf("built a malformed packet: %v", fault)
		}
		out[i] = lan.Out{Bytes: p, Info: &infos[i]}
	}
	if err := f.sites[site].far.Write(out); err != nil {
		t.Fatal(err)
	}
}

// exchange sends packets from a site and returns what came out of both sites'
// LANs. A last packet between addresses in no endpoint, which nothing denies,
// marks the end; it comes last because all are of one class and path.
func (f *fabric) exchange(t fataler, from int, pkts ...[]byte) (out [2][]packet.Info) {
	t.Helper()
	f.port++
	marker := shot{proto: packet.UDP, from: outsider(from), to: outsider(1 - from), sport: f.port, dport: 9}
	f.send(t, from, append(pkts, build(t, marker))...)
	deadline := time.After(patience)
	for {
		select {
		case p := <-f.sites[1-from].got:
			in := decode(t, p)
			if in.Key.DstPort == 9 && in.Key.Src.Netip() == outsider(from) {
				if in.Key.SrcPort == f.port {
					// What the near site answered, it answered before it sent this on.
					for n := len(f.sites[from].got); n > 0; n-- {
						out[from] = append(out[from], decode(t, <-f.sites[from].got))
					}
					return out
				}
				continue // of an earlier exchange
			}
			out[1-from] = append(out[1-from], in)
		case <-deadline:
			t.Fatal("the last packet did not come")
		}
	}
}

func decode(t fataler, p []byte) packet.Info {
	t.Helper()
	var in packet.Info
	if fault := packet.Decode(p, &in); fault != 0 {
		t.Fatalf("a malformed packet came out: %v", fault)
	}
	return in
}

// shot is a packet to build.
type shot struct {
	proto        uint8
	from, to     netip.Addr
	sport, dport uint16
	flags        string // of TCP; "" is S
}

func (s shot) String() string {
	return fmt.Sprintf("%d %s:%d -> %s:%d %s", s.proto, s.from, s.sport, s.to, s.dport, s.flags)
}

// build makes the packet with gopacket.
func build(t fataler, s shot) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocol(s.proto), SrcIP: s.from.AsSlice(), DstIP: s.to.AsSlice()}
	var l4 gopacket.SerializableLayer
	switch s.proto {
	case packet.TCP:
		tcp := &layers.TCP{SrcPort: layers.TCPPort(s.sport), DstPort: layers.TCPPort(s.dport), Seq: 1, Ack: 1, Window: 1000}
		if s.flags == "" {
			s.flags = "S"
		}
		for _, c := range s.flags {
			switch c {
			case 'S':
				tcp.SYN = true
			case 'A':
				tcp.ACK = true
			}
		}
		if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		l4 = tcp
	case packet.ICMP:
		l4 = &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: s.sport, Seq: 1}
	default:
		udp := &layers.UDP{SrcPort: layers.UDPPort(s.sport), DstPort: layers.UDPPort(s.dport)}
		if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		l4 = udp
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, l4, gopacket.Payload("policy")); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
