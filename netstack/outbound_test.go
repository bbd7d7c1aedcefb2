package netstack

import (
	"maps"
	"net/netip"
	"testing"

	"patronus/configs"
	"patronus/netstack/packet"
)

// twoPorts adds a second port with a small MTU, a network behind a router on
// the first one, and a laptop on wan0.
func twoPorts(c *configs.Config) {
	c.LAN[0].Routes = []configs.Route{
		{Prefix: netip.MustParsePrefix("10.1.64.0/24"), Via: netip.MustParseAddr("10.1.0.254")},
		{Prefix: netip.MustParsePrefix("fd00:1:0:64::/64"), Via: netip.MustParseAddr("fd00:1::fe")},
	}
	c.LAN = append(c.LAN, configs.LANPort{Name: "lan1", Kind: configs.LANCable, MTU: 1300, Addresses: []netip.Prefix{
		netip.MustParsePrefix("10.1.1.1/24"), netip.MustParsePrefix("fd00:1:0:1::1/64"),
	}})
	c.Devices = []configs.Device{{Name: "laptop", PublicKey: configs.GenerateKey().Public(), Uplink: "wan0", AllowedIPs: []netip.Prefix{
		netip.MustParsePrefix("10.1.200.2/32"), netip.MustParsePrefix("fd00:1:0:200::2/128"),
	}}}
}

const (
	host4, host6     = "10.1.0.10", "fd00:1::10"
	remote4, remote6 = "10.2.0.10", "fd00:2::10"
	other4, other6   = "10.1.1.10", "fd00:1:0:1::10"
	laptop4, laptop6 = "10.1.200.2", "fd00:1:0:200::2"
)

// What becomes of one packet from the LAN, and what its sender is told.
func TestToWANVerdicts(t *testing.T) {
	type want struct {
		forwarded, delivered uint64
		dropped              string
		answer               *answer
	}
	icmp := func(v6 bool, kind4, code4, kind6, code6 uint8, mtu int) *answer {
		if v6 {
			return &answer{proto: packet.ICMPv6, kind: kind6, code: code6, mtu: mtu, src: "fd00:1::1", dst: host6}
		}
		return &answer{proto: packet.ICMP, kind: kind4, code: code4, mtu: mtu, src: "10.1.0.1", dst: host4}
	}
	ttl := func(s spec, ttl uint8) spec { s.ttl = ttl; return s }
	df := func(s spec) spec { s.df = true; return s }
	for _, f := range []struct {
		name                 string
		v6                   bool
		host, remote, router string
		other, far, nowhere  string
		behind, laptop, own  string
		group                string
	}{
		{"v4", false, host4, remote4, "10.1.0.1", other4, "192.0.2.9", "10.1.77.1", "10.1.64.9", laptop4, "10.1.1.1", "224.0.0.5"},
		{"v6", true, host6, remote6, "fd00:1::1", other6, "2001:db8:9::9", "fd00:1:0:77::1", "fd00:1:0:64::9", laptop6, "fd00:1:0:1::1", "ff02::5"},
	} {
		for _, c := range []struct {
			name string
			pkt  spec
			want want
		}{
			{"to another site", datagram(f.host, f.remote, 4000, 5000, 100), want{forwarded: 1}},
			{"from behind a router", datagram(f.behind, f.remote, 4000, 5000, 100), want{forwarded: 1}},
			{"largest", df(datagram(f.host, f.remote, 4000, 5000, 1400-map[bool]int{false: 28, true: 48}[f.v6])), want{forwarded: 1}},
			{"too big", df(datagram(f.host, f.remote, 4001, 5000, 1401)), want{dropped: "too-big", answer: icmp(f.v6, 3, 4, 2, 0, 1400)}},
			{"expires", ttl(datagram(f.host, f.remote, 4002, 5000, 10), 1), want{dropped: "ttl-expired", answer: icmp(f.v6, 11, 0, 3, 0, 0)}},
			{"outside", datagram(f.host, f.far, 4000, 5000, 10), want{dropped: "no-route", answer: icmp(f.v6, 3, 0, 1, 0, 0)}},
			{"ours, but nowhere", datagram(f.host, f.nowhere, 4000, 5000, 10), want{dropped: "no-route", answer: icmp(f.v6, 3, 0, 1, 0, 0)}},
			{"multicast", datagram(f.host, f.group, 4000, 5000, 10), want{dropped: "martian"}},
			{"source of another site", datagram(f.remote, f.remote+"1", 4000, 5000, 10), want{dropped: "spoofed"}},
			{"source of nobody", datagram(f.far, f.remote, 4000, 5000, 10), want{dropped: "spoofed"}},
			{"source of the appliance", datagram(f.router, f.remote, 4000, 5000, 10), want{dropped: "spoofed"}},
			{"source of a device", datagram(f.laptop, f.remote, 4000, 5000, 10), want{dropped: "spoofed"}},
			{"echo to the appliance", echo(f.host, f.router, 7, 10), want{delivered: 1}},
			{"TTL 1 to the appliance", ttl(echo(f.host, f.own, 7, 10), 1), want{delivered: 1}},
			{"to a device", datagram(f.host, f.laptop, 4000, 5000, 10), want{forwarded: 1}},
		} {
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				p := newPlan("hq", "east")
				r := newRig(t, p, p.config(t, "hq", twoPorts))
				got := r.delta(func() { r.fromLAN("lan0", c.pkt.build(t)) })
				if got.ToWAN.Forwarded != c.want.forwarded || got.ToWAN.Delivered != c.want.delivered {
					t.Errorf("forwarded %d, delivered %d", got.ToWAN.Forwarded, got.ToWAN.Delivered)
				}
				dropped := map[string]uint64{}
				if c.want.dropped != "" {
					dropped[c.want.dropped] = 1
				}
				if !maps.Equal(got.ToWAN.Dropped, dropped) {
					t.Errorf("dropped %v, want %v", got.ToWAN.Dropped, dropped)
				}
				answers := r.host("lan0")
				switch {
				case c.want.answer == nil && len(answers) > 0:
					t.Errorf("answered by %+v", readAnswer(t, answers[0]))
				case c.want.answer != nil && len(answers) != 1:
					t.Errorf("%d answers", len(answers))
				case c.want.answer != nil:
					if a := readAnswer(t, answers[0]); a != *c.want.answer {
						t.Errorf("answered by %+v, want %+v", a, *c.want.answer)
					}
				}
			})
		}
	}
}
