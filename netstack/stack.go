package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"patronus/netstack/packet"
)

// hostNIC carries everything that is addressed to the appliance; the other
// NICs exist per packet port, and only resolve neighbours.
const hostNIC tcpip.NICID = 1

// hostMTU leaves room for every path: the appliance's own connections need no
// path MTU discovery.
const hostMTU = 1280

// hostQueue bounds what waits to leave the appliance's own stack, packets.
const hostQueue = 512

// stackHost is the appliance as a host: a gVisor stack that terminates what is
// addressed to the appliance. It never forwards.
type stackHost struct {
	stack *stack.Stack
	link  *channel.Endpoint

	mu        sync.Mutex
	addresses map[netip.Addr]tcpip.NICID
	nextNIC   tcpip.NICID
}

func newStackHost() (*stackHost, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		HandleLocal:        true,
	})
	sack := tcpip.TCPSACKEnabled(true)
	if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); err != nil {
		return nil, fmt.Errorf("host stack: %s", err)
	}
	h := &stackHost{
		stack: s, link: channel.New(hostQueue, hostMTU, ""), nextNIC: hostNIC + 1,
		addresses: map[netip.Addr]tcpip.NICID{},
	}
	if err := s.CreateNIC(hostNIC, h.link); err != nil {
		return nil, fmt.Errorf("host stack: %s", err)
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: hostNIC},
		{Destination: header.IPv6EmptySubnet, NIC: hostNIC},
	})
	return h, nil
}

// setAddresses makes the host answer for exactly these addresses.
func (h *stackHost) setAddresses(want []netip.Addr) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	keep := make(map[netip.Addr]bool, len(want))
	var added []netip.Addr
	for _, a := range want {
		keep[a] = true
		if _, ok := h.addresses[a]; ok {
			continue
		}
		if err := h.addAddress(hostNIC, a, a.BitLen()); err != nil {
			for _, a := range added {
				h.stack.RemoveAddress(hostNIC, tcpip.AddrFromSlice(a.AsSlice()))
				delete(h.addresses, a)
			}
			return err
		}
		h.addresses[a] = hostNIC
		added = append(added, a)
	}
	for a, nic := range h.addresses {
		if !keep[a] {
			h.stack.RemoveAddress(nic, tcpip.AddrFromSlice(a.AsSlice()))
			delete(h.addresses, a)
		}
	}
	return nil
}

func (h *stackHost) addAddress(nic tcpip.NICID, a netip.Addr, bits int) error {
	proto := ipv4.ProtocolNumber
	if a.Is6() {
		proto = ipv6.ProtocolNumber
	}
	err := h.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol:          proto,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(a.AsSlice()), PrefixLen: bits},
	}, stack.AddressProperties{})
	if err != nil {
		return fmt.Errorf("host address %s: %s", a, err)
	}
	return nil
}

// deliver hands the host a packet addressed to it. The packet is copied. It
// reports false if the packet is neither IPv4 nor IPv6.
func (h *stackHost) deliver(p []byte) bool {
	return inject(h.link, p, 0)
}

func inject(link *channel.Endpoint, p []byte, proto tcpip.NetworkProtocolNumber) bool {
	if proto == 0 {
		switch p[0] >> 4 {
		case 4:
			proto = ipv4.ProtocolNumber
		case 6:
			proto = ipv6.ProtocolNumber
		default:
			return false
		}
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(p)})
	link.InjectInbound(proto, pkt)
	pkt.DecRef()
	return true
}

// run passes what the host sends to send, one packet at a time; the bytes are
// borrowed until send returns.
func (h *stackHost) run(ctx context.Context, send func([]byte)) error {
	var scratch []byte
	for {
		pkt := h.link.ReadContext(ctx)
		if pkt == nil {
			return ctx.Err()
		}
		scratch = flatten(scratch[:0], pkt)
		pkt.DecRef()
		send(scratch)
	}
}

func flatten(dst []byte, pkt *stack.PacketBuffer) []byte {
	for _, s := range pkt.AsSlices() {
		dst = append(dst, s...)
	}
	return dst
}

func (h *stackHost) close() {
	h.stack.Destroy()
}

// Dial connects to an address on the overlay from the appliance itself.
func (e *Engine) Dial(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	full := fullAddress(addr)
	proto := ipv4.ProtocolNumber
	if addr.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	switch network {
	case "tcp":
		return gonet.DialContextTCP(ctx, e.host.stack, full, proto)
	case "udp":
		return gonet.DialUDP(e.host.stack, nil, &full, proto)
	}
	return nil, fmt.Errorf("dial %s: %w", network, errors.ErrUnsupported)
}

// Listen accepts TCP connections to a port of the appliance's overlay address
// only: never to a LAN address.
func (e *Engine) Listen(port uint16) (net.Listener, error) {
	s := e.snapshot.Load()
	if s == nil {
		return nil, ErrNoConfiguration
	}
	l, err := gonet.ListenTCP(e.host.stack, fullAddress(netip.AddrPortFrom(s.sites[s.self].overlay, port)), ipv6.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("listen on overlay port %d: %w", port, err)
	}
	return l, nil
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: hostNIC, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

// neighbours is the part of the host that belongs to one packet port: it
// answers ARP and NDP for the port's addresses and resolves next hops. It
// implements lan.Resolver and lan.Refuser. Before attach it knows nobody.
type neighbours struct {
	host *stackHost
	nic  tcpip.NICID
	link *channel.Endpoint // nil before attach
	// unanswered are packets whose next hop does not answer; readUnanswered
	// takes them. gVisor reports a failure with its locks held, so nothing may
	// be sent from there.
	unanswered chan *packet.Buffer
}

// unansweredQueue is how many packets wait to be refused; past it they are
// dropped like what exceeds the limit on answers.
const unansweredQueue = 64

func newNeighbours(h *stackHost) *neighbours {
	return &neighbours{host: h, unanswered: make(chan *packet.Buffer, unansweredQueue)}
}

// Unanswered implements lan.Refuser.
func (n *neighbours) Unanswered(b *packet.Buffer) {
	select {
	case n.unanswered <- b:
	default:
		b.Release()
	}
}

// attach makes the NIC of a packet port with hardware address mac.
func (n *neighbours) attach(mac [6]byte, mtu int, addresses []netip.Prefix) error {
	h := n.host
	h.mu.Lock()
	defer h.mu.Unlock()
	n.nic = h.nextNIC
	h.nextNIC++
	link := channel.New(hostQueue, uint32(mtu), tcpip.LinkAddress(mac[:]))
	if err := h.stack.CreateNIC(n.nic, ethernet.New(link)); err != nil {
		return fmt.Errorf("neighbour NIC: %s", err)
	}
	// gVisor answers a neighbour solicitation only if the way back is routed
	// through the NIC that it came by.
	h.route(netip.MustParsePrefix("fe80::/10"), n.nic)
	for _, a := range addresses {
		if err := h.addAddress(n.nic, a.Addr(), a.Bits()); err != nil {
			return err
		}
		h.route(a.Masked(), n.nic)
	}
	n.link = link
	return nil
}

// route adds a route of the host's own traffic, before the default routes.
func (h *stackHost) route(p netip.Prefix, nic tcpip.NICID) {
	subnet := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(p.Addr().AsSlice()), PrefixLen: p.Bits()}.Subnet()
	h.stack.SetRouteTable(append([]tcpip.Route{{Destination: subnet, NIC: nic}}, h.stack.GetRouteTable()...))
}

// frame takes an Ethernet frame that is the port's control traffic: ARP, NDP.
func (n *neighbours) frame(frame []byte) {
	if n.link == nil {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	n.link.InjectInbound(0, pkt)
	pkt.DecRef()
}

// run passes the frames that the host sends on this port to send.
func (n *neighbours) run(ctx context.Context, send func([]byte)) error {
	var scratch []byte
	for {
		pkt := n.link.ReadContext(ctx)
		if pkt == nil {
			return ctx.Err()
		}
		scratch = flatten(scratch[:0], pkt)
		pkt.DecRef()
		send(scratch)
	}
}

// Resolve answers from the neighbour cache, or starts a resolution and calls
// done when it ends.
func (n *neighbours) Resolve(addr netip.Addr, done func(mac [6]byte, ok bool)) (mac [6]byte, ok bool) {
	if n.link == nil {
		return mac, false
	}
	proto := ipv4.ProtocolNumber
	if addr.Is6() {
		proto = ipv6.ProtocolNumber
	}
	q := &resolution{done: done}
	n.host.stack.GetLinkAddress(n.nic, tcpip.AddrFromSlice(addr.AsSlice()), tcpip.Address{}, proto, q.resolved)
	return q.answer()
}

// resolution is one question to the neighbour cache. gVisor calls resolved
// either at once or later; lan wants the first as a return value.
type resolution struct {
	done func(mac [6]byte, ok bool)
	mu   sync.Mutex
	late bool
	mac  [6]byte
	ok   bool
}

func (q *resolution) resolved(r stack.LinkResolutionResult) {
	q.mu.Lock()
	copy(q.mac[:], r.LinkAddress)
	q.ok = r.Err == nil
	tell := q.late || !q.ok
	q.mu.Unlock()
	if tell {
		q.done(q.mac, q.ok)
	}
}

func (q *resolution) answer() (mac [6]byte, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.late = true
	return q.mac, q.ok
}

func (n *neighbours) close() {
	if n.link == nil {
		return
	}
	n.host.mu.Lock()
	defer n.host.mu.Unlock()
	n.host.stack.RemoveRoutes(func(r tcpip.Route) bool { return r.NIC == n.nic })
	n.host.stack.RemoveNIC(n.nic)
}
