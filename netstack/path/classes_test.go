package path_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"patronus/configs"
	"patronus/netstack/packet"
	"patronus/netstack/path"
)

func key(proto uint8, src, dst string) packet.Key {
	return packet.NewKey(proto, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst))
}

func pfx(s ...string) (ps []netip.Prefix) {
	for _, p := range s {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

func classes(t testing.TB, cfg ...configs.Class) *path.Classes {
	t.Helper()
	cs, err := path.NewClasses(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

func TestClassesMatch(t *testing.T) {
	cs := classes(t,
		configs.Class{Name: "sip", Match: []configs.Match{
			{Protocol: "udp", Ports: []configs.PortRange{{First: 5060, Last: 5061}}},
			{Protocol: "tcp", Ports: []configs.PortRange{{First: 5061, Last: 5061}}},
		}},
		configs.Class{Name: "backup", Match: []configs.Match{{
			Source: pfx("10.1.0.0/16"), Destination: pfx("10.9.0.0/24", "2001:db8:9::/48"), DSCP: []configs.DSCP{0, 8},
		}}},
		configs.Class{Name: "v6", Match: []configs.Match{{Source: pfx("::/0")}}},
		configs.Class{Name: "gre", Match: []configs.Match{{Protocol: "47"}}},
	)
	const ef, cs1 = 46 << 2, 8 << 2
	for _, c := range []struct {
		k    packet.Key
		tos  uint8
		want string
	}{
		{key(packet.UDP, "10.0.0.1:9", "10.0.0.2:5060"), 0, "sip"},
		{key(packet.UDP, "10.0.0.1:9", "10.0.0.2:5061"), ef, "sip"},
		{key(packet.TCP, "10.0.0.1:9", "10.0.0.2:5060"), 0, "default"},
		{key(packet.TCP, "10.0.0.1:9", "10.0.0.2:5061"), 0, "sip"},
		{key(packet.UDP, "10.0.0.1:5060", "10.0.0.2:9"), 0, "default"},
		{key(packet.TCP, "10.1.255.1:9", "10.9.0.2:22"), 0, "backup"},
		{key(packet.TCP, "10.1.255.1:9", "10.9.0.2:22"), 3, "backup"}, // ECN is not DSCP
		{key(packet.TCP, "10.1.255.1:9", "10.9.0.2:22"), 10 << 2, "bulk"},
		{key(packet.TCP, "10.2.0.1:9", "10.9.0.2:22"), 0, "default"},
		{key(packet.TCP, "10.1.0.1:9", "10.9.1.2:22"), cs1, "bulk"},
		{key(packet.TCP, "[2001:db8::1]:9", "[2001:db8::2]:22"), ef, "v6"},
		{key(packet.UDP, "10.0.0.1:9", "10.0.0.2:9"), ef, "voice"},
		{key(packet.UDP, "10.0.0.1:9", "10.0.0.2:9"), 34 << 2, "video"},
		{key(packet.UDP, "10.0.0.1:9", "10.0.0.2:9"), 18 << 2, "transactional"},
		{key(47, "10.0.0.1:0", "10.0.0.2:0"), 0, "gre"},
		{key(packet.ICMP, "10.0.0.1:7", "10.0.0.2:7"), 0, "default"},
	} {
		if got := cs.Name(cs.Match(&c.k, c.tos)); got != c.want {
			t.Errorf("%v > %v proto %d tos %#x: %s, want %s", c.k.Src.Netip(), c.k.Dst.Netip(), c.k.Proto, c.tos, got, c.want)
		}
	}
	if cs.Name(cs.Default()) != path.DefaultClass || cs.Class(200) != cs.Class(cs.Default()) || cs.Len() != 9 {
		t.Error("default is not the last class")
	}
	if _, ok := cs.Lookup("nobody"); ok {
		t.Error("found nobody")
	}
}

func TestNewClassesRefuses(t *testing.T) {
	many := make([]configs.Class, path.MaxClasses)
	for i := range many {
		many[i].Name = fmt.Sprint(i)
	}
	for _, c := range []struct {
		cfg  []configs.Class
		want string
	}{
		{[]configs.Class{{Name: "a"}, {Name: "a"}}, "twice"},
		{[]configs.Class{{Name: "a", Match: []configs.Match{{Protocol: "ipx"}}}}, "no such protocol"},
		{[]configs.Class{{Name: "a", Match: []configs.Match{{Protocol: "256"}}}}, "no such protocol"},
		{[]configs.Class{{Name: "a", Match: []configs.Match{{DSCP: []configs.DSCP{64}}}}}, "over 63"},
		{[]configs.Class{{Name: "a", Match: []configs.Match{{Ports: []configs.PortRange{{First: 2, Last: 1}}}}}}, "empty"},
		{many, "at most"},
	} {
		if _, err := path.NewClasses(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.cfg, err, c.want)
		}
	}
}

// A configured class replaces the built-in one of its name, SLA and all.
func TestConfiguredClassReplacesBuiltin(t *testing.T) {
	cs := classes(t, configs.Class{Name: path.DefaultClass, Strict: true, Prefer: [][]string{{"a", "b"}, {"c"}}}, configs.Class{Name: path.VoiceClass})
	d := cs.Class(cs.Default())
	if !d.Strict || d.SLA != (configs.SLA{}) || d.Group("b") != 0 || d.Group("c") != 1 || d.Group("x") != path.NoGroup {
		t.Errorf("%+v", d)
	}
	k := key(packet.UDP, "10.0.0.1:9", "10.0.0.2:9")
	if got := cs.Name(cs.Match(&k, 46<<2)); got != path.DefaultClass {
		t.Errorf("EF is %s although voice matches nothing now", got)
	}
}

// Match agrees with netip on every address and prefix.
func TestPrefixesAgreeWithNetip(t *testing.T) {
	addr := func(t *rapid.T, name string) netip.Addr {
		b := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 10, 0xff}), 16, 16).Draw(t, name)
		if rapid.Bool().Draw(t, name+" is 4") {
			return netip.AddrFrom4([4]byte(b))
		}
		return netip.AddrFrom16([16]byte(b))
	}
	rapid.Check(t, func(t *rapid.T) {
		base, a := addr(t, "prefix"), addr(t, "addr")
		if rapid.Bool().Draw(t, "same") {
			a = base
		}
		if base.Is4In6() || a.Is4In6() {
			t.Skip()
		}
		p := netip.PrefixFrom(base, rapid.IntRange(0, base.BitLen()).Draw(t, "bits"))
		cs, err := path.NewClasses([]configs.Class{{Name: "x", Match: []configs.Match{{Destination: []netip.Prefix{p}}}}})
		if err != nil {
			t.Fatal(err)
		}
		k := packet.NewKey(packet.TCP, netip.MustParseAddrPort("9.9.9.9:1"), netip.AddrPortFrom(a, 1))
		if got, want := cs.Match(&k, 0) == 0, p.Contains(a); got != want {
			t.Fatalf("%v contains %v: %v", p, a, got)
		}
	})
}

func BenchmarkClassesMatch(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{10, 100} {
		var cfg []configs.Class
		for i := range 5 {
			c := configs.Class{Name: fmt.Sprint("c", i)}
			for range n / 5 {
				m := configs.Match{Protocol: []string{"tcp", "udp"}[rng.IntN(2)]}
				if rng.IntN(2) == 0 {
					m.Ports = []configs.PortRange{{First: 6000, Last: 6000 + uint16(rng.IntN(100))}}
				}
				m.Destination = pfx(fmt.Sprintf("10.%d.%d.0/24", rng.IntN(256), rng.IntN(256)), "192.168.0.0/16")
				c.Match = append(c.Match, m)
			}
			cfg = append(cfg, c)
		}
		cs := classes(b, cfg...)
		k := key(packet.TCP, "172.16.0.1:9", "172.16.9.9:6001") // matches nothing: all rules are tried
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				cs.Match(&k, 0)
			}
		})
	}
}
