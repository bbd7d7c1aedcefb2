package flow

import (
	"errors"
	"net/url"
	"testing"

	"pgregory.net/rapid"

	"patronus/netstack/packet"
)

func TestFormatKey(t *testing.T) {
	for _, c := range []struct {
		key  packet.Key
		text string
	}{
		{key(packet.TCP, "10.1.1.5:49152", "10.2.0.7:443"), "tcp-10.1.1.5-49152-10.2.0.7-443"},
		{key(packet.UDP, "[fd00:1::5]:5060", "[fd00:2::7]:5060"), "udp-fd00_1__5-5060-fd00_2__7-5060"},
		{key(packet.ICMP, "10.0.0.1:7", "10.0.0.2:7"), "icmp-10.0.0.1-7-10.0.0.2-7"},
		{key(packet.ICMPv6, "[::]:0", "[::1]:65535"), "icmp6-__-0-__1-65535"},
		{key(packet.SCTP, "0.0.0.0:0", "255.255.255.255:1"), "sctp-0.0.0.0-0-255.255.255.255-1"},
		{key(47, "10.0.0.1:0", "10.0.0.2:0"), "47-10.0.0.1-0-10.0.0.2-0"},
	} {
		if got := FormatKey(&c.key); got != c.text {
			t.Errorf("got %q, want %q", got, c.text)
		}
		if k, err := ParseKey(c.text); err != nil || k != c.key {
			t.Errorf("%s: %v, %v", c.text, k, err)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	for _, s := range []string{
		"", "tcp", "tcp-10.0.0.1-1-10.0.0.2", "tcp-10.0.0.1-1-10.0.0.2-2-3", "TCP-10.0.0.1-1-10.0.0.2-2",
		"6-10.0.0.1-1-10.0.0.2-2", "256-10.0.0.1-1-10.0.0.2-2", "tcp-10.0.0.1-01-10.0.0.2-2", "tcp-10.0.0.1-65536-10.0.0.2-2",
		"tcp-10.0.0.1-+1-10.0.0.2-2", "tcp-10.0.0.01-1-10.0.0.2-2", "tcp-fd00::1-1-fd00::2-2", "tcp-__ffff_10.0.0.1-1-10.0.0.2-2",
		"tcp-FD00__1-1-fd00__2-2", "tcp-fe80__1%eth0-1-fe80__2-2", "tcp-0_0_0_0_0_0_0_1-1-__2-2", "047-10.0.0.1-0-10.0.0.2-0",
	} {
		if k, err := ParseKey(s); !errors.Is(err, ErrKey) {
			t.Errorf("%q: %v, %v", s, FormatKey(&k), err)
		}
	}
}

// anyKey draws from all keys there are, half of them with IPv4 addresses.
func anyKey(t *rapid.T) (k packet.Key) {
	addr := rapid.Custom(func(t *rapid.T) (a packet.Addr) {
		copy(a[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr"))
		if rapid.Bool().Draw(t, "v4") {
			copy(a[:], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff})
		}
		return a
	})
	k.Src, k.Dst = addr.Draw(t, "src"), addr.Draw(t, "dst")
	k.SrcPort, k.DstPort = rapid.Uint16().Draw(t, "sport"), rapid.Uint16().Draw(t, "dport")
	k.Proto = rapid.SampledFrom([]uint8{packet.TCP, packet.UDP, packet.ICMP, packet.ICMPv6, 47, 0, 255}).Draw(t, "proto")
	return k
}

func TestKeysRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := anyKey(t)
		s := FormatKey(&k)
		if u := url.PathEscape(s); u != s || url.QueryEscape(s) != s {
			t.Fatalf("%s is escaped: %s", s, u)
		}
		back, err := ParseKey(s)
		if err != nil || back != k {
			t.Fatalf("%s: %+v, %v", s, back, err)
		}
	})
}

// TestKeysCompare holds the comparisons by words against the plain ones.
func TestKeysCompare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := anyKey(t)
		b := a
		if rapid.Bool().Draw(t, "reversed") {
			b = b.Reverse()
		}
		switch rapid.IntRange(0, 5).Draw(t, "change") {
		case 1:
			b.Src[rapid.IntRange(0, 15).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 2:
			b.Dst[rapid.IntRange(0, 15).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 3:
			b.SrcPort ^= 1 << rapid.IntRange(0, 15).Draw(t, "bit")
		case 4:
			b.DstPort ^= 1 << rapid.IntRange(0, 15).Draw(t, "bit")
		case 5:
			b.Proto ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		}
		if Same(&a, &b) != (a == b) || opposite(&a, &b) != (a == b.Reverse()) {
			t.Fatalf("%v %v: same %v, opposite %v", a, b, Same(&a, &b), opposite(&a, &b))
		}
		s := newSeeds(rapid.Uint64().Draw(t, "seed"))
		if r := a.Reverse(); s.hash(&a) != s.hash(&r) {
			t.Fatal("the directions have different hashes")
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add("tcp-10.1.1.5-49152-10.2.0.7-443")
	f.Add("udp-fd00_1__5-5060-fd00_2__7-5060")
	f.Add("47-__ffff_1.2.3.4-0-__-0")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseKey(s)
		if err == nil && FormatKey(&k) != s {
			t.Errorf("%q is also %q", s, FormatKey(&k))
		}
	})
}
