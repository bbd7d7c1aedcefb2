package configs

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var comparers = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

// drawConfig makes a valid configuration.
func drawConfig(t *rapid.T) Config {
	sites := rapid.IntRange(1, 5).Draw(t, "sites")
	c := Config{Fabric: "acme", Site: "s0"}
	if rapid.Bool().Draw(t, "hubs") {
		c.Topology = Topology{Mode: HubAndSpoke, Hubs: []string{"s0"}}
	}
	for i := range sites {
		s := Site{Name: fmt.Sprintf("s%d", i)}
		for j := range rapid.IntRange(0, 3).Draw(t, "prefixes") {
			s.Prefixes = append(s.Prefixes,
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), byte(j), 0}), 24),
				netip.MustParsePrefix(fmt.Sprintf("fd01:%x:%x::/48", i, j)))
		}
		for j := range rapid.IntRange(1, 3).Draw(t, "uplinks") {
			u := Uplink{
				Name:           fmt.Sprintf("u%d", j),
				PublicKey:      Key{1: byte(i), 2: byte(j), 3: 9},
				PathAddress:    netip.AddrFrom4([4]byte{240, 0, byte(i), byte(j + 1)}),
				Endpoints:      []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), uint16(1000+j))},
				PrivateKeyFile: fmt.Sprintf("/k%d", j),
				MTU:            rapid.IntRange(1360, maxMTU).Draw(t, "mtu"),
				Keepalive:      Duration(rapid.IntRange(0, 65535).Draw(t, "keepalive")) * Duration(time.Second),
			}
			s.Uplinks = append(s.Uplinks, u)
		}
		c.Sites = append(c.Sites, s)
	}
	port := rapid.Uint16Min(1)
	for i := range rapid.IntRange(0, 3).Draw(t, "classes") {
		first := port.Draw(t, "first")
		good := rapid.Float64Range(0, 50).Draw(t, "good")
		c.Classes = append(c.Classes, Class{
			Name: fmt.Sprintf("c%d", i),
			Match: []Match{{
				Protocol: rapid.SampledFrom([]string{"tcp", "udp", "sctp", "17"}).Draw(t, "protocol"),
				Ports:    []PortRange{{First: first, Last: max(first, port.Draw(t, "last"))}},
				DSCP:     rapid.SliceOfN(rapid.Map(rapid.Uint8Range(0, 63), func(d uint8) DSCP { return DSCP(d) }), 0, 4).Draw(t, "dscp"),
			}},
			Prefer: [][]string{{"u0"}},
			SLA:    SLA{LossGood: good, Loss: good + 1, Delay: Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "delay"))},
			Strict: rapid.Bool().Draw(t, "strict"),
		})
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "hosts") {
		c.Hosts = append(c.Hosts, HostEndpoint{
			Name:      fmt.Sprintf("h%d", i),
			Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, 0, byte(i)}), 32)},
			Labels:    rapid.MapOfN(rapid.StringMatching(`[a-z]{1,8}`), rapid.StringMatching(`[a-zA-Z0-9]{0,8}`), 0, 4).Draw(t, "labels"),
		})
	}
	if spec := rapid.String().Draw(t, "spec"); strings.TrimSpace(spec) != "" {
		c.Policies = []Policy{{Spec: spec}}
	}
	return c
}

func TestCanonicalRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, err := New(drawConfig(t))
		if err != nil {
			t.Fatalf("a good configuration is refused:\n%v", err)
		}
		body, err := c.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(body)
		if err != nil {
			t.Fatalf("its own encoding is refused: %v\n%s", err, body)
		}
		if !reflect.DeepEqual(c, back) {
			t.Fatalf("changed:\n%s", cmp.Diff(c, back, comparers))
		}
		again, err := back.Canonical()
		if err != nil || !bytes.Equal(body, again) {
			t.Fatalf("not canonical (%v):\n%s\n%s", err, body, again)
		}
	})
}

func TestReferenceRoundTrip(t *testing.T) {
	c := mustParse(t, "reference.yaml")
	body, err := c.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, back) {
		t.Errorf("changed:\n%s", cmp.Diff(c, back, comparers))
	}
}

// New must not keep or change what it was given.
func TestNewCopies(t *testing.T) {
	in := *mustParse(t, "reference.yaml")
	in.Sites = append([]Site(nil), in.Sites...)
	out, err := New(in)
	if err != nil {
		t.Fatal(err)
	}
	out.Sites[0].Prefixes[0] = netip.Prefix{}
	out.Hosts[0].Labels["app"] = "other"
	if !in.Sites[0].Prefixes[0].IsValid() || in.Hosts[0].Labels["app"] != "printer" {
		t.Error("the copy shares memory with the original")
	}
}

func TestDecodeRefuses(t *testing.T) {
	c := mustParse(t, "examples/devices.yaml")
	body, err := c.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":         "",
		"not JSON":      "fabric: acme",
		"unknown field": strings.Replace(string(body), `{"fabric"`, `{"colour":"red","fabric"`, 1),
		"text after":    string(body) + "{}",
		"bad prefix":    strings.Replace(string(body), "10.1.0.0/16", "10.1.0.1/16", 1),
		"bad key":       strings.Replace(string(body), "tKWQq2", "******", 1),
	} {
		if c, err := Decode([]byte(text)); err == nil || c != nil {
			t.Errorf("%s: accepted", name)
		}
	}
	_, err = Decode([]byte(`{"fabric":"a","site":"b","topology":{}}`))
	if list := FieldErrors(err); len(list) < 2 || list[0].Line != 0 {
		t.Errorf("problems of JSON: %v", err)
	}
}
