//go:build linux

package tunnel

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"patronus/netstack/packet"
)

var (
	loop4 = netip.MustParseAddr("127.0.0.1")
	loop6 = netip.IPv6Loopback()
)

func newUDP(tb testing.TB, o UDPOptions) *UDP {
	tb.Helper()
	u, err := NewUDP(o)
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// addr is where u listens, once it does.
func (u *UDP) addr(tb testing.TB, local netip.Addr) netip.AddrPort {
	tb.Helper()
	at := &u.v4
	if local.Is6() {
		at = &u.v6
	}
	var out netip.AddrPort
	waitFor(tb, "socket", func() bool {
		p := at.Load()
		if p == nil || p.sock.Load() == nil {
			return false
		}
		out = netip.AddrPortFrom(local, p.sock.Load().conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		return true
	})
	return out
}

// udpPair runs two tunnels over loopback.
func udpPair(tb testing.TB, local netip.Addr, o UDPOptions, ha, hb Handler, with func(*Options)) (a, b *side, ua, ub *UDP) {
	tb.Helper()
	o.Sources = []netip.Addr{local}
	ua, ub = newUDP(tb, o), newUDP(tb, o)
	a = newSide(tb, "240.0.0.1", ua, ha, with)
	b = newSide(tb, "240.0.0.2", ub, hb, with)
	a.run(tb)
	b.run(tb)
	a.add(tb, b, ub.addr(tb, local))
	b.add(tb, a, ua.addr(tb, local))
	return a, b, ua, ub
}

// stream is one direction of a bulk transfer: numbered UDP packets with random
// payloads, hashed at both ends.
type stream struct {
	sent, got hash.Hash
	next      uint64
	bytes     atomic.Int64
	bad       error
}

func newStream() *stream { return &stream{sent: sha256.New(), got: sha256.New()} }

func (s *stream) FromTunnel(_ *Tunnel, pkts []Inbound) {
	for _, p := range pkts {
		_, _, _, inner, ok := packet.ParseOuter(p.Bytes)
		var in packet.Info
		if !ok || packet.Decode(inner, &in) != 0 {
			s.bad = fmt.Errorf("not the overlay's: %x", p.Bytes[:min(64, len(p.Bytes))])
			continue
		}
		payload := inner[in.Payload:]
		if in.Version == 4 && ^packet.Checksum(inner[in.L4:], pseudo(inner))&0xffff != 0 {
			s.bad = fmt.Errorf("checksum of packet %d", s.next)
		}
		s.next++
		s.got.Write(payload)
		s.bytes.Add(int64(len(payload)))
	}
}

// pseudo is the sum of the IPv4 pseudo-header.
func pseudo(b []byte) uint64 {
	return uint64(packet.Checksum(b[12:20], 0)) + uint64(b[9]) + uint64(len(b)-20)
}

// superpacket builds a UDP superpacket (USO) with n bytes in segments of size.
func superpacket(r *rand.ChaCha8, s *stream, n, size int) *packet.Buffer {
	b := buffer(udpPacket(n, 0))
	_, _ = r.Read(b.Bytes[28:]) // never fails
	s.sent.Write(b.Bytes[28:])
	binary.BigEndian.PutUint16(b.Bytes[26:], packet.Checksum(nil, pseudo(b.Bytes)))
	b.GSO = packet.GSO{NeedsCsum: true, CsumStart: 20, CsumOffset: 6}
	if n > size {
		b.GSO.Size, b.GSO.HdrLen, b.GSO.Proto = uint16(size), 28, packet.UDP
	}
	return b
}

func TestBulkIntegrity(t *testing.T) {
	for _, tc := range []struct {
		name  string
		local netip.Addr
		o     UDPOptions
		batch int
		mb    int
	}{
		{"v4", loop4, UDPOptions{}, 0, 25},
		{"v6", loop6, UDPOptions{}, 0, 25},
		{"v4 batch 256", loop4, UDPOptions{BatchSize: 256}, 256, 10},
		{"v4 batch 1", loop4, UDPOptions{BatchSize: 1}, 1, 1},
		{"v6 batch 16", loop6, UDPOptions{BatchSize: 16}, 16, 5},
		{"v4 no offload", loop4, UDPOptions{NoOffload: true}, 0, 5},
		{"v4 segmentation refused", loop4, UDPOptions{Opener: refusing{}}, 0, 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ab, ba := newStream(), newStream()
			a, b, ua, ub := udpPair(t, tc.local, tc.o, ba, ab, func(o *Options) { o.BatchSize, o.PeerBytes = tc.batch, 32<<20 })
			var wg sync.WaitGroup
			for i, d := range []struct {
				from *side
				s    *stream
			}{{a, ab}, {b, ba}} {
				wg.Go(func() {
					src := rand.NewChaCha8([32]byte{byte(i)})
					r := rand.New(src)
					total := 0
					for total < tc.mb<<20 {
						n := 1 + r.IntN(60000)
						b := superpacket(src, d.s, n, 1+16+r.IntN(1380))
						for b.Segments() > 200 {
							b.GSO.Size *= 2
						}
						total += max(n, 8)
						if !d.from.Send(d.from.peer, b, Rest) {
							t.Error("refused")
							return
						}
						// Loopback has no flow control: wait for what is on its way.
						waitFor(t, "delivery", func() bool { return int(d.s.bytes.Load()) > total-400_000 })
					}
					waitFor(t, "delivery", func() bool { return int(d.s.bytes.Load()) == total })
				})
			}
			wg.Wait()
			if ab.bad != nil || ba.bad != nil {
				t.Error(ab.bad, ba.bad)
			}
			if [32]byte(ab.sent.Sum(nil)) != [32]byte(ab.got.Sum(nil)) || [32]byte(ba.sent.Sum(nil)) != [32]byte(ba.got.Sum(nil)) {
				t.Error("what arrived is not what was sent")
			}
			for _, x := range []struct {
				s *side
				u *UDP
			}{{a, ua}, {b, ub}} {
				t.Logf("%+v\n%+v\n%+v", x.s.peer.Counters(), x.s.Counters(), x.u.Counters())
			}
			if c := ua.Counters(); tc.o.Opener != nil && c.OffloadRefused != 1 {
				t.Errorf("segmentation was refused %d times, want 1", c.OffloadRefused)
			}
		})
	}
}

// refusing opens sockets on which the kernel refuses UDP_SEGMENT with EINVAL
// (udp_send_skb: no checksum, no segmentation).
type refusing struct{ SystemOpener }

func (o refusing) Open(network string, local netip.AddrPort, iface string) (*net.UDPConn, error) {
	c, err := o.SystemOpener.Open(network, local, iface)
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	return c, control(raw, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
	})
}

var _ conn.Bind = (*UDP)(nil)
