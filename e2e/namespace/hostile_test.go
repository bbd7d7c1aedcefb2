package namespace

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/sys/unix"

	"patronus/netstack"
)

// Bounds of the hostile tests.
const (
	attackRate = 8000 // packets a second
	rssBar     = 50 << 20
)

func attackTime() time.Duration {
	if long() {
		return 5 * time.Second
	}
	return 3 * time.Second
}

// victim is an edge under attack, and the connections that must live.
type victim struct {
	site   *site
	before *netstack.Status
	rss    int
	tcp    []*echo
	blocks []int64
}

func newVictim(t *testing.T, s, peer *site) *victim {
	t.Helper()
	v := &victim{site: s, before: s.status()}
	for _, f := range families {
		e := newEcho(t, s, peer, f)
		e.alive(t, 10, 5*time.Second)
		v.tcp = append(v.tcp, e)
	}
	v.rss = rss(t, s.pid("edge"))
	return v
}

// attack sends what next makes until the time is over, at most attackRate
// packets a second, and watches the edge's memory.
func (v *victim) attack(t *testing.T, send func(i int)) {
	t.Helper()
	pid := v.site.pid("edge")
	for _, e := range v.tcp {
		v.blocks = append(v.blocks, e.blocks.Load())
	}
	start, sent, worst := time.Now(), 0, 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for next := start; time.Since(start) < attackTime(); <-tick.C {
		for due := int(time.Since(start).Seconds() * attackRate); sent < due; sent++ {
			send(sent)
		}
		if time.Now().After(next) {
			worst = max(worst, rss(t, pid))
			next = next.Add(200 * time.Millisecond)
		}
	}
	if v.site.pid("edge") != pid || gone(pid) == nil {
		t.Fatal("the edge died")
	}
	grown := max(worst, rss(t, pid)) - v.rss
	t.Logf("%d packets; resident memory %+.1f MiB (from %.1f)", sent, float64(grown)/(1<<20), float64(v.rss)/(1<<20))
	measured(t, "resident memory grew by MiB", float64(grown)/(1<<20), float64(rssBar)/(1<<20))
	for i, e := range v.tcp {
		done := e.blocks.Load() - v.blocks[i]
		t.Logf("established TCP connection over %v: %d blocks", families[i], done)
		if done == 0 {
			t.Errorf("established TCP connection over %v stood still for %v", families[i], attackTime())
		}
		e.alive(t, 10, 5*time.Second)
	}
	v.blocks = nil
}

// counted reports which reasons rose, and asserts that those wanted did.
func (v *victim) counted(t *testing.T, wanted ...string) {
	t.Helper()
	now := v.site.status()
	risen := map[string]uint64{}
	add := func(name string, now, before map[string]uint64) {
		for reason, n := range now {
			if d := n - before[reason]; d > 0 {
				risen[name+reason] = d
			}
		}
	}
	add("", now.Counters.ToWAN.Dropped, v.before.Counters.ToWAN.Dropped)
	add("from-wan ", now.Counters.FromWAN.Dropped, v.before.Counters.FromWAN.Dropped)
	add("packet: ", now.Malformed, v.before.Malformed)
	for i := range now.Ports {
		before := map[string]uint64{}
		if i < len(v.before.Ports) {
			before = v.before.Ports[i].Dropped
		}
		add("port: ", now.Ports[i].Dropped, before)
	}
	t.Logf("dropped, by reason: %v", risen)
	for _, reason := range wanted {
		if risen[reason] == 0 {
			t.Errorf("nothing was counted as %q", reason)
		}
	}
}

func (v *victim) stop(t *testing.T) {
	for _, e := range v.tcp {
		e.stop(t)
	}
}

// ipv4 is an IPv4 packet with a correct header checksum.
func ipv4(src, dst netip.Addr, proto byte, id, fragment uint16, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	return append(b, payload...)
}

// ipv6 is an IPv6 packet.
func ipv6(src, dst netip.Addr, next byte, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, payload...)
}

// syn is a TCP segment that opens a connection; nobody on the way looks at its
// checksum.
func syn(from, to uint16, seq uint32) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], seq)
	b[12], b[13] = 5<<4, 2
	binary.BigEndian.PutUint16(b[14:], 65535)
	return b
}

// frame puts an Ethernet header before a packet.
func frame(dst, src net.HardwareAddr, packet []byte) []byte {
	kind := []byte{8, 0}
	if len(packet) > 0 && packet[0]>>4 == 6 {
		kind = []byte{0x86, 0xdd}
	}
	return append(append(append(append([]byte{}, dst...), src...), kind...), packet...)
}

func hardware(t *testing.T, n netns, name string) (mac net.HardwareAddr) {
	t.Helper()
	err := n.do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err == nil {
			mac = ifi.HardwareAddr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// TestHostileLAN lets a host on the LAN send junk, fragments that overlap, and a
// scan of dead hosts and dead sites.
func TestHostileLAN(t *testing.T) {
	w := newWorld(t, plan{sites: []string{"a", "b", "c"}, dead: []string{"c"}})
	a, b := w.site("a"), w.site("b")
	v := newVictim(t, a, b)
	fd := a.host.frames(t, "eth0")
	gw, me := hardware(t, a.gateway, "lan0"), hardware(t, a.host, "eth0")
	rng := rand.New(rand.NewPCG(1, 2))
	send := func(packet []byte) { _, _ = unix.Write(fd, frame(gw, me, packet)) }

	t.Run("junk", func(t *testing.T) {
		v.attack(t, func(int) { send(junk(rng, a, b)) })
		v.counted(t, "malformed", "spoofed", "martian", "no-route")
	})
	t.Run("fragments", func(t *testing.T) {
		v.attack(t, func(i int) { overlapping(i, a, b, send) })
		v.counted(t, "fragment-lost")
	})
	t.Run("scan", func(t *testing.T) {
		v.attack(t, func(i int) {
			from, to := uint16(1024+i%60000), uint16(1+i%1000)
			switch i % 4 {
			case 0: // a site that is down
				send(ipv4(a.addr(4), netip.AddrFrom4([4]byte{10, 3, byte(i >> 10), byte(i >> 2)}), 6, uint16(i), 0, syn(from, to, uint32(i))))
			case 1: // hosts that are not there
				send(ipv4(a.addr(4), netip.AddrFrom4([4]byte{10, 2, 0, byte(20 + i%230)}), 6, uint16(i), 0, syn(from, to, uint32(i))))
			case 2:
				send(ipv6(a.addr(6), netip.MustParseAddr(fmt.Sprintf("fd00:0:3::%x", i&0xffff)), 6, syn(from, to, uint32(i))))
			default:
				send(ipv6(a.addr(6), netip.MustParseAddr(fmt.Sprintf("fd00:0:2::%x", 0x100+i%0xff00)), 6, syn(from, to, uint32(i))))
			}
		})
		v.counted(t)
		dead := v.site.status().Counters.ToWAN.Dropped
		if dead["no-path"]+dead["no-session"]+dead["queue-full"] == 0 {
			t.Errorf("a scan of a dead site was not counted: %v", dead)
		}
	})
	v.stop(t)
	for _, f := range families {
		ping(t, a.host, b.addr(f), "-c", "3", "-i", "0.05")
	}
	if log := a.log() + b.log(); strings.Contains(log, "panic") || strings.Contains(log, "child ended") {
		t.Errorf("a child died:\n%s", log)
	}
}

// junk is a packet that is wrong in one of many ways.
func junk(rng *rand.Rand, a, b *site) []byte {
	random := make([]byte, rng.IntN(200))
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	good := ipv4(a.addr(4), b.addr(4), 6, 1, 0, syn(1, 2, 3))
	good6 := ipv6(a.addr(6), b.addr(6), 6, syn(1, 2, 3))
	switch rng.IntN(12) {
	case 0:
		return random
	case 1: // truncated
		return good[:rng.IntN(len(good))]
	case 2:
		return good6[:rng.IntN(len(good6))]
	case 3: // a bad header checksum
		good[10]++
		return good
	case 4: // says to be longer than it is
		binary.BigEndian.PutUint16(good[2:], uint16(rng.IntN(1<<16)))
		return good
	case 5: // a header length that cannot be
		good[0] = 0x40 | byte(rng.IntN(16))
		return good
	case 6: // a TCP header that does not fit
		good6[52] = 0xf0
		return good6
	case 7: // a chain of extension headers
		return ipv6(a.addr(6), b.addr(6), 60, append([]byte{60, byte(rng.IntN(4)), 0, 0, 0, 0, 0, 0}, random...))
	case 8: // somebody else's source
		return ipv4(netip.AddrFrom4([4]byte{10, 2, 0, byte(rng.IntN(256))}), b.addr(4), 17, 1, 0, make([]byte, 16))
	case 9: // multicast, and to nobody
		return ipv4(a.addr(4), netip.AddrFrom4([4]byte{224, 0, 0, byte(rng.IntN(256))}), 17, 1, 0, append([]byte{1, 1, 2, 2, 0, 16, 0, 0}, random[:min(8, len(random))]...))
	case 10:
		return ipv4(a.addr(4), netip.AddrFrom4([4]byte{byte(11 + rng.IntN(100)), 1, 2, 3}), 6, 1, 0, syn(1, 2, 3))
	default: // good, with bits flipped
		for range 4 {
			good[rng.IntN(len(good))] ^= 1 << rng.IntN(8)
		}
		return good
	}
}

// overlapping sends fragments of one datagram that contradict each other, and
// fragments whose first one never comes.
func overlapping(i int, a, b *site, send func([]byte)) {
	const more = 0x2000
	id := uint16(i / 4)
	body := make([]byte, 64)
	binary.BigEndian.PutUint16(body[2:], 9) // UDP to discard
	binary.BigEndian.PutUint16(body[4:], 200)
	switch i % 4 {
	case 0:
		send(ipv4(a.addr(4), b.addr(4), 17, id, more, body))
	case 1:
		send(ipv4(a.addr(4), b.addr(4), 17, id, more|2, body)) // overlaps the first
	case 2:
		send(ipv4(a.addr(4), b.addr(4), 6, id, more|1, syn(1, 2, 3))) // a header in the second (RFC 1858)
	case 3:
		h := make([]byte, 8, 72)
		h[0] = 17
		binary.BigEndian.PutUint16(h[2:], 8<<3|1)
		binary.BigEndian.PutUint32(h[4:], uint32(i))
		send(ipv6(a.addr(6), b.addr(6), 44, append(h, body...)))
	}
}

// TestHostileWAN floods the port of an uplink with handshakes and with datagrams
// that only look like WireGuard.
func TestHostileWAN(t *testing.T) {
	for _, under := range families {
		t.Run("underlay="+under.String(), func(t *testing.T) {
			w := newWorld(t, plan{underlay: under})
			a, b := w.site("a"), w.site("b")
			enemy := w.namespace("enemy")
			w.cable(enemy, "eth0", w.core, "enemy")
			w.core.ip(t, "addr add 203.0.113.1/24 dev enemy", "addr add 2001:db8:ff::1/64 dev enemy nodad")
			enemy.ip(t, "addr add 203.0.113.9/24 dev eth0", "route add default via 203.0.113.1",
				"addr add 2001:db8:ff::9/64 dev eth0 nodad", "route add ::/0 via 2001:db8:ff::1")
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, 9}), 0)
			if under == 6 {
				from = netip.AddrPortFrom(netip.MustParseAddr("2001:db8:ff::9"), 0)
			}
			v := newVictim(t, a, b)
			var guns []*net.UDPConn
			for _, u := range a.uplinks {
				guns = append(guns, enemy.udp(t, from, netip.AddrPortFrom(u.addr(under), 51820)))
			}
			rng := rand.New(rand.NewPCG(3, 4))
			key := a.uplinks[0].key.Public()
			t.Run("handshakes", func(t *testing.T) {
				v.attack(t, func(i int) {
					// The key is the first uplink's; the other one refuses all.
					_, _ = guns[i/2%len(guns)].Write(initiation(rng, key[:], i%2 == 0))
				})
			})
			t.Run("malformed", func(t *testing.T) {
				v.attack(t, func(i int) { _, _ = guns[i%len(guns)].Write(datagram(rng)) })
			})
			v.stop(t)
			v.counted(t)
			for _, u := range a.status().Uplinks {
				t.Logf("uplink %s: %+v", u.Name, u.Counters)
			}
			for _, f := range families {
				ping(t, b.host, a.addr(f), "-c", "3", "-i", "0.05")
			}
			if strings.Contains(a.log(), "child ended") {
				t.Error("a child died")
			}
		})
	}
}

// initiation is a handshake initiation that nobody will understand; with a
// valid MAC1 (WireGuard paper, 5.4.4) it costs the receiver a Diffie-Hellman.
func initiation(rng *rand.Rand, key []byte, valid bool) []byte {
	b := make([]byte, 148)
	for i := 4; i < len(b); i++ {
		b[i] = byte(rng.Uint32())
	}
	b[0], b[1], b[2], b[3] = 1, 0, 0, 0
	if valid {
		h := blake2s.Sum256(append([]byte("mac1----"), key...))
		mac, err := blake2s.New128(h[:])
		if err != nil {
			panic(err) // the key has the right length
		}
		mac.Write(b[:116])
		copy(b[116:], mac.Sum(nil))
		clear(b[132:])
	}
	return b
}

// datagram is one that looks like WireGuard at the beginning, or not at all.
func datagram(rng *rand.Rand) []byte {
	b := make([]byte, rng.IntN(1400))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	if len(b) >= 4 && rng.IntN(4) > 0 {
		b[0], b[1], b[2], b[3] = byte(rng.IntN(6)), 0, 0, 0
	}
	return b
}
