package configs

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The derived addresses are part of the format: sites of different versions
// must agree on them.
func TestDerivedAddressesStay(t *testing.T) {
	key, err := ParseKey("tKWQq2Ynt4m4YG6+XfBdEgqGY13FcQ/rLurvQF2VdGg=")
	if err != nil {
		t.Fatal(err)
	}
	u := Uplink{PublicKey: key}
	if got := u.Path().String(); got != "241.100.244.7" {
		t.Errorf("path address %s", got)
	}
	c := Config{Fabric: "acme"}
	if got := c.OverlayAddress(&Site{Name: "hq"}).String(); got != "fd50:6174:726f:7be3:d31c:bc3b:59fc:6c94" {
		t.Errorf("overlay address %s", got)
	}
	given := netip.MustParseAddr("240.1.2.3")
	if u.PathAddress = given; u.Path() != given {
		t.Error("the given path address is not taken")
	}
	if given = netip.MustParseAddr("fd01::1"); c.OverlayAddress(&Site{Name: "hq", Address: given}) != given {
		t.Error("the given overlay address is not taken")
	}
}

func TestDerivedAddressesAreInRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var key Key
		copy(key[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
		if a := pathOf(key); !validPath(a) || !PathPrefix().Contains(a) || a.As4()[0] == 255 {
			t.Fatalf("path address %v", a)
		}
		c := Config{Fabric: rapid.String().Draw(t, "fabric")}
		if a := c.OverlayAddress(&Site{Name: rapid.String().Draw(t, "site")}); !OverlayPrefix().Contains(a) {
			t.Fatalf("overlay address %v", a)
		}
	})
}

func TestValidPath(t *testing.T) {
	for text, want := range map[string]bool{
		"240.0.0.0": false, "240.0.0.1": true, "254.255.255.255": true, "255.0.0.0": false,
		"255.255.255.255": false, "239.255.255.255": false, "10.0.0.1": false, "fd01::1": false, "::ffff:240.0.0.1": false,
	} {
		if got := validPath(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// Two keys whose derived addresses are equal are found, and the message says
// the way out, which works.
func TestPathCollisionIsReported(t *testing.T) {
	seen := make(map[netip.Addr]Key)
	var a, b Key
	for i := uint64(0); ; i++ {
		if i == 1_000_000 {
			t.Fatal("no collision in a million keys: the addresses cannot be as short as documented")
		}
		k := Key{31: 0x40}
		binary.BigEndian.PutUint64(k[:], i)
		p := pathOf(k)
		if other, ok := seen[p]; ok {
			a, b = other, k
			break
		}
		seen[p] = k
	}
	c := Config{Fabric: "acme", Site: "hq", Sites: []Site{{Name: "hq", Uplinks: []Uplink{
		{Name: "a", PublicKey: a, PrivateKeyFile: "/a"}, {Name: "b", PublicKey: b, PrivateKeyFile: "/b"},
	}}}}
	_, err := New(c)
	if err == nil || !strings.Contains(err.Error(), "set path_address") || len(FieldErrors(err)) != 1 {
		t.Fatalf("not reported: %v", err)
	}
	c.Sites[0].Uplinks[1].PathAddress = netip.MustParseAddr("240.9.9.9")
	if _, err := New(c); err != nil {
		t.Errorf("the way out does not work: %v", err)
	}
}

func TestTopology(t *testing.T) {
	sites := []Site{{Name: "hub1"}, {Name: "hub2"}, {Name: "s1"}, {Name: "s2"}}
	spokes := Topology{Mode: HubAndSpoke, Hubs: []string{"hub2", "hub1"}}
	for _, tc := range []struct {
		topology Topology
		site     string
		peers    string
		next     map[string]string
	}{
		{Topology{Mode: FullMesh}, "s1", "hub1 hub2 s2", map[string]string{"s2": "s2", "hub1": "hub1", "s1": "", "none": ""}},
		{spokes, "s1", "hub1 hub2", map[string]string{"s2": "hub2 hub1", "hub1": "hub1", "s1": "", "none": ""}},
		{spokes, "hub1", "hub2 s1 s2", map[string]string{"s2": "s2", "hub2": "hub2", "hub1": ""}},
	} {
		c := Config{Site: tc.site, Sites: sites, Topology: tc.topology}
		if got := names(c.Peers()); got != tc.peers {
			t.Errorf("%s in %s: peers %q, want %q", tc.site, tc.topology.Mode, got, tc.peers)
		}
		for dst, want := range tc.next {
			if got := names(c.NextSites(dst)); got != want {
				t.Errorf("%s in %s to %s: %q, want %q", tc.site, tc.topology.Mode, dst, got, want)
			}
		}
	}
}

func names(sites []*Site) string {
	var list []string
	for _, s := range sites {
		list = append(list, s.Name)
	}
	return strings.Join(list, " ")
}

// However the hubs are chosen, a packet that follows NextSites arrives.
func TestNextSitesArrive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 8).Draw(t, "sites")
		c := Config{Topology: Topology{Mode: HubAndSpoke}}
		for i := range n {
			name := fmt.Sprintf("s%d", i)
			c.Sites = append(c.Sites, Site{Name: name})
			if i == 0 || rapid.Bool().Draw(t, "hub") {
				c.Topology.Hubs = append(c.Topology.Hubs, name)
			}
		}
		at, dst := rapid.IntRange(0, n-1).Draw(t, "from"), fmt.Sprintf("s%d", rapid.IntRange(0, n-1).Draw(t, "to"))
		c.Site = c.Sites[at].Name
		for hops := 0; c.Site != dst; hops++ {
			if hops == 2 {
				t.Fatal("more than one site in between")
			}
			next := c.NextSites(dst)
			c.Site = next[rapid.IntRange(0, len(next)-1).Draw(t, "up")].Name
		}
	})
}

func TestTextForms(t *testing.T) {
	for c := DSCP(0); c <= maxDSCP; c++ {
		text, _ := c.MarshalText()
		var back DSCP
		if err := back.UnmarshalText(text); err != nil || back != c {
			t.Errorf("%d is written %s and read %d, %v", c, text, back, err)
		}
	}
	for text, want := range map[string]DSCP{
		"ef": 46, "EF": 46, "af11": 10, "af13": 14, "af41": 34, "af43": 38, "cs1": 8, "cs5": 40, "cs7": 56,
		"cs0": 0, "be": 0, "df": 0, "le": 1, "va": 44, "46": 46, "0": 0, "63": 63,
	} {
		var d DSCP
		if err := d.UnmarshalText([]byte(text)); err != nil || d != want {
			t.Errorf("%s: %d, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "64", "-1", "af14", "af10", "af51", "cs8", "cs", "x", "4.5"} {
		var d DSCP
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted as %d", text, d)
		}
	}
	for text, want := range map[string]PortRange{"1": {1, 1}, "65535": {65535, 65535}, "5060-5061": {5060, 5061}, "7-7": {7, 7}} {
		var r PortRange
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%s: %v, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "0", "65536", "-", "1-", "-1", "2-1", "1-2-3", "a", "0-5", "+5", " 5"} {
		var r PortRange
		if err := r.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted as %v", text, r)
		}
	}
}

func TestDefaults(t *testing.T) {
	c := mustParse(t, "examples/standalone-two-sites.yaml")
	fiber, lte, dsl := c.Sites[0].Uplinks[0], c.Sites[0].Uplinks[1], c.Sites[1].Uplinks[0]
	if fiber.ListenPort != 51820 || fiber.Keepalive != 0 || fiber.MTU != DefaultUplinkMTU {
		t.Errorf("an uplink that others call: %+v", fiber)
	}
	if lte.ListenPort != 0 || lte.Keepalive != DefaultKeepalive || lte.MTU != 1428 {
		t.Errorf("an uplink that calls: %+v", lte)
	}
	if dsl.ListenPort != 0 || dsl.Keepalive != 0 {
		t.Errorf("another site's uplink: %+v", dsl)
	}
	if c.Topology.Mode != FullMesh || c.DataDir != DefaultDataDir || c.LAN[0].MTU != DefaultTUNMTU {
		t.Errorf("%+v", c)
	}
	if c.Probe != (Probe{DefaultProbeActive, DefaultProbeWarm, DefaultProbeIdle, DefaultProbeCold, DefaultProbeLost, DefaultProbeBudget}) {
		t.Errorf("%+v", c.Probe)
	}
	if d := mustParse(t, "examples/devices.yaml").Devices[0]; d.Uplink != "fiber" {
		t.Errorf("the device of a site with one uplink: %+v", d)
	}
}

// fabricOf is a file of many sites as an operator's generator would write it.
func fabricOf(sites int) []byte {
	var b strings.Builder
	b.WriteString("fabric: acme\nsite: s0\nsites:\n")
	for i := range sites {
		fmt.Fprintf(&b, "  - name: s%d\n    prefixes: [10.%d.%d.0/24, \"fd01:%x::/48\"]\n    uplinks:\n", i, i>>8, i&255, i)
		for j := range 2 {
			key := Key{0: byte(i), 1: byte(i >> 8), 2: byte(j), 3: 9}
			fmt.Fprintf(&b, "      - name: u%d\n        public_key: %s\n        endpoints: [\"192.0.%d.%d:%d\", \"[2001:db8::%x]:%d\"]\n        private_key_file: /etc/patronus/u%d.key\n",
				j, key, i>>8, i&255, 1000+j, i+1, 1000+j, j)
		}
	}
	return []byte(b.String())
}

func TestParseThousandSites(t *testing.T) {
	c, err := Parse("f", fabricOf(1000))
	if err != nil {
		list := FieldErrors(err)
		t.Fatalf("%d problems, first %v", len(list), list[0])
	}
	if len(c.Sites) != 1000 || len(c.Peers()) != 999 {
		t.Error(len(c.Sites), len(c.Peers()))
	}
}

func BenchmarkParseThousandSites(b *testing.B) {
	text := fabricOf(1000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("f", text); err != nil {
			b.Fatal(err)
		}
	}
}
