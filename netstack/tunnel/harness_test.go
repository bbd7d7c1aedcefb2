package tunnel

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"patronus/configs"
	"patronus/netstack/packet"
)

// newKey makes a pair.
func newKey(tb testing.TB) (private [32]byte, public configs.Key) {
	tb.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return [32]byte(k.Bytes()), configs.Key(k.PublicKey().Bytes())
}

// sink is a Handler that calls a function.
type sink func(pkts []Inbound)

func (s sink) FromTunnel(_ *Tunnel, pkts []Inbound) { s(pkts) }

// side is one end of a test.
type side struct {
	*Tunnel
	public configs.Key
	path   netip.Addr
	peer   *Peer // the other side
}

// kept keeps peers reachable: their finalizers must not run while a synctest
// bubble exists (Decision 1).
var kept struct {
	sync.Mutex
	peers []*Peer
}

func keep(p *Peer) {
	kept.Lock()
	defer kept.Unlock()
	kept.peers = append(kept.peers, p)
}

// newSide makes a tunnel that closes with the test.
func newSide(tb testing.TB, path string, bind conn.Bind, h Handler, with func(*Options)) *side {
	tb.Helper()
	s := &side{path: netip.MustParseAddr(path)}
	o := Options{Name: path, PathAddress: s.path, Bind: bind, Handler: h}
	o.PrivateKey, s.public = newKey(tb)
	if with != nil {
		with(&o)
	}
	t, err := New(o)
	if err != nil {
		tb.Fatal(err)
	}
	s.Tunnel = t
	tb.Cleanup(func() { t.Close() })
	return s
}

// run runs the tunnel until the test ends.
func (s *side) run(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
}

// add makes other a path of s.
func (s *side) add(tb testing.TB, other *side, at netip.AddrPort) *Peer {
	tb.Helper()
	p, err := s.AddPeer(PeerConfig{PublicKey: other.public, PathAddress: other.path, Endpoint: at})
	if err != nil {
		tb.Fatal(err)
	}
	keep(p)
	s.peer = p
	return p
}

// udpPacket builds an IPv4 UDP packet with a payload of n bytes that begins
// with seq.
func udpPacket(n int, seq uint64) []byte {
	n = max(n, 8)
	b := make([]byte, 28+n)
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[8], b[9] = 64, packet.UDP
	copy(b[12:], []byte{10, 1, 0, 1})
	copy(b[16:], []byte{10, 2, 0, 1})
	binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:20], 0))
	binary.BigEndian.PutUint16(b[20:], 4000)
	binary.BigEndian.PutUint16(b[22:], 5000)
	binary.BigEndian.PutUint16(b[24:], uint16(8+n))
	binary.BigEndian.PutUint64(b[28:], seq)
	return b
}

// buffer copies b into a Buffer.
func buffer(b []byte) *packet.Buffer {
	p := packet.Get(len(b))
	copy(p.Bytes, b)
	packet.Decode(p.Bytes, &p.Info)
	return p
}

// waitFor polls cond.
func waitFor(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			tb.Fatal("timeout: ", what)
		case <-tick.C:
		}
	}
}
