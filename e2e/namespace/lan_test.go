package namespace

import (
	"fmt"
	"net/netip"
	"testing"
)

// station is a host on one of the networks of TestVLANs.
type station struct {
	netns
	name string
	addr map[family]netip.Addr
}

// TestVLANs gives site a four networks: lan0, and three on one trunk (untagged,
// VLAN 10 and VLAN 20), with a network behind a router on VLAN 20.
func TestVLANs(t *testing.T) {
	w := build(t, plan{extra: func(s *site) string {
		if s.name != "a" {
			return ""
		}
		return `  - {name: plain, kind: packet, interface: trunk0, addresses: [10.1.30.1/24, "fd00:0:1:30::1/64"]}
  - {name: ten, kind: packet, interface: trunk0, vlan: 10, addresses: [10.1.10.1/24, "fd00:0:1:10::1/64"]}
  - name: twenty
    kind: packet
    interface: trunk0
    vlan: 20
    addresses: [10.1.20.1/24, "fd00:0:1:20::1/64"]
    routes: [{prefix: 10.1.64.0/20, via: 10.1.20.10}, {prefix: "fd00:0:1:64::/64", via: "fd00:0:1:20::10"}]
`
	}})
	a, b := w.site("a"), w.site("b")
	middle := w.namespace("switch")
	middle.sysctl(t, "ipv6.conf.default.disable_ipv6=1")
	w.cable(a.gateway, "trunk0", middle, "trunk")
	a.gateway.sysctl(t, "ipv6.conf.trunk0.disable_ipv6=1")
	a.gateway.run(t, "ethtool", "-K", "trunk0", "tx", "off")
	all := []station{{a.host, "lan0", map[family]netip.Addr{4: a.addr(4), 6: a.addr(6)}}, {b.host, "b", map[family]netip.Addr{4: b.addr(4), 6: b.addr(6)}}}
	access := map[uint16]string{}
	for vlan, number := range map[uint16]int{0: 30, 10: 10, 20: 20} {
		access[vlan] = fmt.Sprintf("p%d", number)
		host := w.station(number, middle, access[vlan])
		all = append(all, host)
		if vlan == 20 {
			all = append(all, w.behind(host))
		}
	}
	runSwitch(t, middle, "trunk", access)
	for _, s := range w.sites {
		s.start()
	}
	w.waitUp()
	for i, from := range all {
		for _, to := range all[i+1:] {
			for _, f := range families {
				t.Run(fmt.Sprintf("%s~%s/%v", from.name, to.name, f), func(t *testing.T) {
					ping(t, from.netns, to.addr[f], "-c", "2", "-i", "0.05")
					ping(t, to.netns, from.addr[f], "-c", "2", "-i", "0.05", "-s", "1300")
					if err := transfer(from.netns, to.netns, to.addr[f], 1<<20); err != nil {
						t.Errorf("there: %v", err)
					}
					if err := transfer(to.netns, from.netns, from.addr[f], 1<<20); err != nil {
						t.Errorf("back: %v", err)
					}
				})
			}
		}
	}
}

// station is a host in network 10.1.n.0/24 behind a port of the switch.
func (w *world) station(n int, middle netns, port string) station {
	t := w.t
	s := station{netns: w.namespace(fmt.Sprintf("v%d", n)), name: fmt.Sprintf("net%d", n), addr: map[family]netip.Addr{
		4: netip.AddrFrom4([4]byte{10, 1, byte(n), 10}), 6: netip.MustParseAddr(fmt.Sprintf("fd00:0:1:%d::10", n)),
	}}
	w.cable(s.netns, "eth0", middle, port)
	s.run(t, "ethtool", "-K", "eth0", "tx", "off")
	s.ip(t, fmt.Sprintf("addr add 10.1.%d.10/24 dev eth0", n), fmt.Sprintf("route add default via 10.1.%d.1", n),
		fmt.Sprintf("addr add fd00:0:1:%d::10/64 dev eth0 nodad", n), fmt.Sprintf("route add ::/0 via fd00:0:1:%d::1", n))
	return s
}

// behind is a host behind a router.
func (w *world) behind(router station) station {
	t := w.t
	s := station{netns: w.namespace("deep"), name: "behind", addr: map[family]netip.Addr{
		4: netip.MustParseAddr("10.1.64.10"), 6: netip.MustParseAddr("fd00:0:1:64::10"),
	}}
	w.cable(s.netns, "eth0", router.netns, "eth1")
	router.sysctl(t, "ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1")
	router.ip(t, "addr add 10.1.64.1/24 dev eth1", "addr add fd00:0:1:64::1/64 dev eth1 nodad")
	s.ip(t, "addr add 10.1.64.10/24 dev eth0", "route add default via 10.1.64.1",
		"addr add fd00:0:1:64::10/64 dev eth0 nodad", "route add ::/0 via fd00:0:1:64::1")
	return s
}

// TestHubAndSpoke sends from spoke to spoke through the hub.
func TestHubAndSpoke(t *testing.T) {
	w := newWorld(t, plan{underlay: 6, sites: []string{"hub", "east", "west"}, hub: "hub"})
	hub, east, west := w.site("hub"), w.site("east"), w.site("west")
	for _, s := range []*site{east, west} {
		paths, err := s.paths()
		if err != nil {
			t.Fatal(err)
		}
		for i := range paths {
			if paths[i].Site != "hub" {
				t.Errorf("spoke %s has path %s", s.name, paths[i].ID)
			}
		}
	}
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			for _, way := range [][2]*site{{east, west}, {west, east}, {east, hub}, {hub, west}} {
				ping(t, way[0].host, way[1].addr(f), "-c", "3", "-i", "0.05")
				if err := transfer(way[0].host, way[1].host, way[1].addr(f), 8<<20); err != nil {
					t.Errorf("%s to %s: %v", way[0].name, way[1].name, err)
				}
			}
			if who, what := answerTo(east.host, west.addr(f), "-t", "2"); who != hub.router(f).String() {
				t.Errorf("hop 2 is %q (%s), wanted the hub", who, what)
			}
		})
	}
}
