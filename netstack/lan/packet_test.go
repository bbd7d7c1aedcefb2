package lan

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"patronus/netstack/packet"
)

var (
	hosts4 = [2]netip.Addr{netip.MustParseAddr("10.78.1.2"), netip.MustParseAddr("10.78.2.2")}
	gates4 = [2]netip.Addr{netip.MustParseAddr("10.78.1.1"), netip.MustParseAddr("10.78.2.1")}
	hosts6 = [2]netip.Addr{netip.MustParseAddr("fd78:1::2"), netip.MustParseAddr("fd78:2::2")}
	gates6 = [2]netip.Addr{netip.MustParseAddr("fd78:1::1"), netip.MustParseAddr("fd78:2::1")}
)

// wire makes a veth pair between two namespaces.
func wire(a *namespace, nameA string, b *namespace, nameB string) {
	a.t.Helper()
	a.run("ip", "link", "add", nameA, "type", "veth", "peer", "name", nameB, "netns", b.name)
	a.run("ip", "link", "set", nameA, "up")
	b.run("ip", "link", "set", nameB, "up")
}

// openPacket opens a port and connects it to a station.
func openPacket(t *testing.T, ns *namespace, s *station, o PacketOptions) *Packet {
	t.Helper()
	o.Resolver, o.Control = s, s.control
	ns.in(func() (err error) {
		s.port, err = OpenPacket(o)
		return err
	})
	t.Cleanup(func() { s.port.Close() })
	return s.port
}

// lanHost wires host i to the gateway's namespace and gives it addresses and a
// default route there.
func lanHost(host, gateway *namespace, i int) string {
	name := fmt.Sprintf("g%d", i)
	wire(host, "eth0", gateway, name)
	host.run("ip", "addr", "add", hosts4[i].String()+"/24", "dev", "eth0")
	host.run("ip", "addr", "add", hosts6[i].String()+"/64", "dev", "eth0", "nodad")
	host.run("ip", "route", "add", "default", "via", gates4[i].String())
	host.run("ip", "-6", "route", "add", "default", "via", gates6[i].String())
	return name
}

// Two LANs of real hosts with all of veth's offloads on, a gateway without a
// kernel address between them. This is where merged frames with unfinished
// checksums would show.
func TestPacketCarriesTCPAndUDP(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut=%v", cut), func(t *testing.T) {
			ns := newNamespaces(t, "a", "b", "gw")
			var ports [2]*Packet
			for i := range ports {
				s := newStation(t, gates4[i], gates6[i])
				ports[i] = openPacket(t, ns[2], s, PacketOptions{Interface: lanHost(ns[i], ns[2], i)})
			}
			bridge(t, ports[0], ports[1], cut)
			for _, addr := range []netip.Addr{hosts4[1], hosts6[1]} {
				ns[0].run("ping", "-c", "2", "-i", "0.2", "-W", "5", "-M", "do", "-s", "1400", addr.String())
				transfer(t, ns[0], ns[1], addr, transferSize)
				datagrams(t, ns[0], ns[1], addr)
			}
			if got := ports[0].Counters(); got.RxMerged == 0 {
				t.Errorf("no superpacket was read: %+v", got)
			}
			if got := ports[1].Counters(); got.TxMerged == 0 || got.Drops[DropRefused] != 0 {
				t.Errorf("no superpacket was written: %+v", got)
			}
			if !ports[1].uso.Load() || !ports[1].tso.Load() {
				t.Errorf("the kernel refused merged packets")
			}
		})
	}
}

// Tagged frames are seen by the port of their VLAN only, and superpackets pass
// in both directions with the tag.
func TestPacketVLAN(t *testing.T) {
	ns := newNamespaces(t, "a", "b", "gw")
	wire(ns[2], "v0", ns[2], "v1")
	var tagged [2]*Packet
	for i := range tagged {
		s := newStation(t, netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}))
		tagged[i] = openPacket(t, ns[2], s, PacketOptions{Interface: fmt.Sprintf("v%d", i), VLAN: 5})
	}
	if tagged[0].Name() != "v0.5" {
		t.Errorf("name %q", tagged[0].Name())
	}
	for i, p := range tagged {
		tun := openTUN(t, ns[i], i)
		bridge(t, tun, &via{p, packet.AddrFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(2 - i)}))}, i == 1)
	}
	// The others on the same wire must hear nothing.
	var quiet []*Packet
	for _, vlan := range []uint16{0, 6} {
		p := openPacket(t, ns[2], newStation(t), PacketOptions{Interface: "v1", VLAN: vlan})
		quiet = append(quiet, p)
		go p.Read(make([]*packet.Buffer, 1))
	}
	for _, addr := range []netip.Addr{testNets4[1].Addr(), testNets6[1].Addr()} {
		transfer(t, ns[0], ns[1], addr, transferSize)
		datagrams(t, ns[0], ns[1], addr)
	}
	if tagged[1].Counters().RxMerged == 0 || tagged[0].Counters().TxMerged == 0 {
		t.Errorf("no superpackets: %+v", tagged[1].Counters())
	}
	for _, p := range quiet {
		if c := p.Counters(); c.RxPackets != 0 || c.Drops[DropNotOurs] != 0 {
			t.Errorf("%s: %+v", p.Name(), c)
		}
	}
}

// via sends everything to one next hop.
type via struct {
	*Packet
	hop packet.Addr
}

func (v *via) Write(pkts []Out) error {
	for i := range pkts {
		pkts[i].NextHop = v.hop
	}
	return v.Packet.Write(pkts)
}

func TestPacketDropsAreCounted(t *testing.T) {
	ns := newNamespaces(t, "a", "gw")
	s := newStation(t, gates4[0])
	p := openPacket(t, ns[1], s, PacketOptions{Interface: lanHost(ns[0], ns[1], 0)})
	done := make(chan error)
	go func() {
		bufs := make([]*packet.Buffer, 8)
		for {
			if _, err := p.Read(bufs); err != nil {
				done <- err
				return
			}
		}
	}()
	s.heard(hosts4[0], [6]byte{2, 0, 0, 0, 0, 1})
	hop := packet.AddrFrom(hosts4[0])
	write := func(b []byte, to packet.Addr) {
		t.Helper()
		o := outOf(b)
		o.NextHop = to
		if err := p.Write([]Out{o}); err != nil {
			t.Fatal(err)
		}
	}
	dead := packet.AddrFrom(netip.MustParseAddr("10.78.1.99"))
	write(tcpPacket(segmentSpec{payload: 1460}), hop)
	write(tcpPacket(segmentSpec{payload: 1461}), hop)
	for range maxQueued + 2 {
		write(tcpPacket(segmentSpec{payload: 10}), dead)
	}
	c := p.Counters()
	if c.TxPackets == 0 || c.Drops[DropOversize] != 1 || c.Drops[DropNeighbourQueue] != 2 {
		t.Errorf("%+v", c)
	}
	// The interface goes down, comes up again, and vanishes.
	ns[1].run("ip", "link", "set", "g0", "down")
	write(tcpPacket(segmentSpec{payload: 10}), hop)
	if c := p.Counters(); c.Drops[DropLinkDown] != 1 {
		t.Errorf("link down: %+v", c)
	}
	ns[1].run("ip", "link", "set", "g0", "up")
	before := p.Counters().RxPackets
	waitFor(t, func() bool {
		ns[0].poke(hosts4[1])
		return p.Counters().RxPackets > before
	})
	ns[1].run("ip", "link", "del", "g0")
	if err := <-done; !errors.Is(err, ErrGone) {
		t.Errorf("Read of a deleted interface: %v", err)
	}
}

func TestPacketOwnMACAndRestart(t *testing.T) {
	ns := newNamespaces(t, "a", "gw")
	name := lanHost(ns[0], ns[1], 0)
	mac := [6]byte{2, 0xaa, 0xbb, 0xcc, 0xdd, 1}
	var held int
	ns[1].in(func() (err error) {
		held, err = (PacketSocket{}).Open()
		return err
	})
	defer unix.Close(held)
	for range 2 {
		fd, err := unix.Dup(held)
		if err != nil {
			t.Fatal(err)
		}
		s := newStation(t, gates4[0])
		p := openPacket(t, ns[1], s, PacketOptions{Interface: name, MAC: mac, Opener: Descriptor(fd)})
		done := make(chan error)
		go func() {
			bufs := make([]*packet.Buffer, 8)
			for {
				n, err := p.Read(bufs)
				if err != nil {
					done <- err
					return
				}
				for _, b := range bufs[:n] {
					b.Release()
				}
			}
		}()
		ns[0].run("ip", "neigh", "flush", "dev", "eth0")
		waitFor(t, func() bool {
			ns[0].poke(hosts4[1])
			return p.Counters().RxPackets > 0
		})
		p.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Fatalf("Read after Close: %v", err)
		}
	}
}

func TestOpenPacketRefuses(t *testing.T) {
	for name, o := range map[string]PacketOptions{
		"no resolver":  {Interface: "lo"},
		"no interface": {Interface: "does-not-exist", Resolver: newStation(t)},
		"no ethernet":  {Interface: "lo", Resolver: newStation(t)},
		"vlan":         {Interface: "lo", Resolver: newStation(t), VLAN: 4095},
	} {
		if _, err := OpenPacket(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestKernelForwards(t *testing.T) {
	ns := newNamespaces(t, "a")[0]
	for value, want := range map[string]bool{"0": false, "1": true} {
		ns.run("sysctl", "-q", "-w", "net.ipv4.conf.lo.forwarding="+value, "net.ipv6.conf.lo.forwarding=0")
		ns.in(func() error {
			if got := KernelForwards("lo"); got != want {
				t.Errorf("forwarding %s: %v", value, got)
			}
			return nil
		})
	}
}
