package vnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	// relayBatch is how many datagrams one system call moves.
	relayBatch = 64
	// relayDatagram is the largest; WireGuard's stay below 1500.
	relayDatagram = 9216
	// relayBuffer asks the kernel for room for a burst of a slow reader.
	relayBuffer = 4 << 20
)

// relayPort is the socket that one uplink uses to reach one other. Its reader
// feeds lane; as an Output it is the far end of the opposite lane, and sends to
// its own uplink.
type relayPort struct {
	owner   *relayUplink
	conn    *net.UDPConn
	batch   *ipv4.PacketConn // works for both families: only the batch calls are used
	addr    netip.AddrPort
	lane    *Lane
	strays  *atomic.Uint64
	refused atomic.Uint64
	out     []ipv4.Message // owned by Emit: one call at a time by the Lane's rule
}

func listenRelay(u *relayUplink, strays *atomic.Uint64) (*relayPort, error) {
	ip := u.Addr.Addr()
	network, local := "udp4", netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if ip.Is6() && !ip.Is4In6() {
		network, local = "udp6", netip.IPv6Loopback()
	}
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	if err != nil {
		return nil, err
	}
	// The kernel may grant less; then more is lost under load, as on any socket.
	_ = c.SetReadBuffer(relayBuffer)
	_ = c.SetWriteBuffer(relayBuffer)
	p := &relayPort{owner: u, conn: c, batch: ipv4.NewPacketConn(c), strays: strays, out: make([]ipv4.Message, relayBatch)}
	p.addr = netip.AddrPortFrom(local, c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	for i := range p.out {
		p.out[i].Buffers = make([][]byte, 1)
	}
	return p, nil
}

func (p *relayPort) overhead() int { return packetSize(p.addr.Addr(), 0) }

// read feeds the lane until the socket is closed.
func (p *relayPort) read() error {
	msgs := make([]ipv4.Message, relayBatch)
	slab := make([]byte, relayBatch*relayDatagram)
	for i := range msgs {
		msgs[i].Buffers = [][]byte{slab[i*relayDatagram : (i+1)*relayDatagram]}
	}
	packets := make([][]byte, 0, relayBatch)
	for {
		n, err := p.batch.ReadBatch(msgs, 0)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EINTR):
			continue // an answer to something sent earlier, not about this read
		case err != nil:
			return fmt.Errorf("relay at %s: %w", p.addr, err)
		}
		packets = packets[:0]
		for i := range msgs[:n] {
			from, ok := msgs[i].Addr.(*net.UDPAddr)
			if !ok || !p.owner.accept(from) {
				p.strays.Add(1)
				continue
			}
			packets = append(packets, msgs[i].Buffers[0][:msgs[i].N])
		}
		p.lane.Enter(packets, p.overhead(), time.Now())
	}
}

// Emit sends to the uplink.
func (p *relayPort) Emit(packets [][]byte) {
	to := p.owner.real.Load()
	if to == nil {
		p.strays.Add(uint64(len(packets)))
		return
	}
	for len(packets) > 0 {
		n := min(len(packets), relayBatch)
		for i, b := range packets[:n] {
			p.out[i].Buffers[0], p.out[i].Addr = b, to
		}
		packets = packets[n:]
		for msgs := p.out[:n]; len(msgs) > 0; {
			sent, err := p.batch.WriteBatch(msgs, 0)
			if err != nil {
				// Skip the one that failed; its reason (nobody listens, no
				// buffers) is the network's business.
				p.refused.Add(1)
				sent = max(sent, 0) + 1
			}
			msgs = msgs[min(sent, len(msgs)):]
		}
	}
}
