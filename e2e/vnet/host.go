package vnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sync/errgroup"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"patronus/netstack/lan"
	"patronus/netstack/packet"
)

// Port is the cable that a Host is plugged into: an end of a lan.Cable.
type Port interface {
	MTU() int
	Read(bufs []*packet.Buffer) (int, error)
	Write(pkts []lan.Out) error
	Close() error
}

// HostOptions describe a Host.
type HostOptions struct {
	Name string
	// Port is the host's end of the cable; the Host closes it.
	Port Port
	// Addrs are the host's own, of either family. Everything else is reached
	// through the cable.
	Addrs []netip.Addr
}

// Host is a machine on a LAN with a TCP/IP stack of its own (gVisor): it dials,
// listens, pings and generates traffic. gVisor's goroutines do not live in a
// synctest bubble, so a Host's time is real.
type Host struct {
	name  string
	port  Port
	stack *stack.Stack
	link  *channel.Endpoint
	has4  bool
	has6  bool
	once  sync.Once
}

const (
	hostNIC   = 1
	hostQueue = 2048 // packets from the stack that wait for the cable
	hostBatch = 64
	hostBufs  = 4 << 20 // most of a TCP socket's buffer, bytes
)

// ErrNoFamily means that the host has no address of the peer's family.
var ErrNoFamily = errors.New("host has no address of that family")

// NewHost builds the stack. Call Run to connect it, and Close if Run is never
// called: gVisor's own goroutines exist from here on.
func NewHost(o HostOptions) (*Host, error) {
	h := &Host{
		name: o.Name, port: o.Port,
		link: channel.New(hostQueue, uint32(o.Port.MTU()), ""),
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
			HandleLocal:        true,
		}),
	}
	if err := h.configure(o.Addrs); err != nil {
		h.Close()
		return nil, fmt.Errorf("host %s: %w", o.Name, err)
	}
	return h, nil
}

func (h *Host) configure(addrs []netip.Addr) error {
	sack := tcpip.TCPSACKEnabled(true)
	recv := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: hostBufs}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: hostBufs}
	for _, opt := range []tcpip.SettableTransportProtocolOption{&sack, &recv, &send} {
		if err := h.stack.SetTransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			return stackError(err)
		}
	}
	if err := h.stack.CreateNIC(hostNIC, h.link); err != nil {
		return stackError(err)
	}
	for _, a := range addrs {
		proto, _ := family(a)
		h.has4 = h.has4 || proto == ipv4.ProtocolNumber
		h.has6 = h.has6 || proto == ipv6.ProtocolNumber
		pa := tcpip.ProtocolAddress{Protocol: proto, AddressWithPrefix: tcpip.AddrFromSlice(a.Unmap().AsSlice()).WithPrefix()}
		if err := h.stack.AddProtocolAddress(hostNIC, pa, stack.AddressProperties{}); err != nil {
			return stackError(err)
		}
	}
	h.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: hostNIC},
		{Destination: header.IPv6EmptySubnet, NIC: hostNIC},
	})
	return nil
}

// stackError turns gVisor's errors, which are no Go errors, into those.
func stackError(err tcpip.Error) error { return fmt.Errorf("gvisor: %s", err) }

// family is the protocol number of an address, and of its ICMP.
func family(a netip.Addr) (tcpip.NetworkProtocolNumber, tcpip.TransportProtocolNumber) {
	if a.Unmap().Is4() {
		return ipv4.ProtocolNumber, icmp.ProtocolNumber4
	}
	return ipv6.ProtocolNumber, icmp.ProtocolNumber6
}

func full(a netip.AddrPort) tcpip.FullAddress {
	f := tcpip.FullAddress{NIC: hostNIC, Port: a.Port()}
	if ip := a.Addr().Unmap(); !ip.IsUnspecified() {
		f.Addr = tcpip.AddrFromSlice(ip.AsSlice())
	}
	return f
}

// Name is the host's.
func (h *Host) Name() string { return h.name }

// String is the task's name.
func (h *Host) String() string { return "host " + h.name }

// Run moves packets between the stack and the cable until ctx ends or the cable
// is cut, and then closes the host.
func (h *Host) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := new(errgroup.Group)
	g.Go(func() error {
		defer cancel()
		return h.fromCable()
	})
	g.Go(func() error {
		defer cancel()
		return h.toCable(ctx)
	})
	<-ctx.Done()
	err := h.port.Close() // ends fromCable
	runErr := g.Wait()
	h.Close()
	return errors.Join(runErr, err)
}

// Close ends all connections and the stack, and waits for its goroutines. Run
// does it too; a second Close does nothing.
func (h *Host) Close() {
	h.once.Do(func() {
		h.link.Close()
		h.stack.Destroy()
	})
}

// fromCable hands packets to the stack, superpackets cut.
func (h *Host) fromCable() error {
	bufs := make([]*packet.Buffer, hostBatch)
	var cut packet.Segmenter
	for {
		n, err := h.port.Read(bufs)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("host %s: %w", h.name, err)
		}
		for _, b := range bufs[:n] {
			if b.GSO == (packet.GSO{}) {
				h.inject(b.Bytes)
				b.Release()
				continue
			}
			cut.Reset(b)
			for cut.Left() > 0 {
				seg := make([]byte, cut.Len())
				if _, ok := cut.Next(seg); !ok {
					break
				}
				h.inject(seg)
			}
			b.Release()
		}
	}
}

// inject copies one packet into the stack.
func (h *Host) inject(b []byte) {
	if len(b) == 0 {
		return
	}
	var proto tcpip.NetworkProtocolNumber
	switch b[0] >> 4 {
	case 4:
		proto = ipv4.ProtocolNumber
	case 6:
		proto = ipv6.ProtocolNumber
	default:
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	h.link.InjectInbound(proto, pkt)
	pkt.DecRef()
}

// toCable takes what the stack sends.
func (h *Host) toCable(ctx context.Context) error {
	views := make([]*buffer.View, 0, hostBatch)
	infos := make([]packet.Info, hostBatch)
	outs := make([]lan.Out, 0, hostBatch)
	for {
		pkt := h.link.ReadContext(ctx)
		if pkt == nil {
			return nil
		}
		for ; pkt != nil; pkt = h.link.Read() {
			v := pkt.ToView()
			pkt.DecRef()
			views = append(views, v)
			info := &infos[len(outs)]
			if packet.Decode(v.AsSlice(), info) == packet.OK {
				outs = append(outs, lan.Out{Bytes: v.AsSlice(), Info: info})
			}
			if len(views) == hostBatch {
				break
			}
		}
		err := h.port.Write(outs)
		for _, v := range views {
			v.Release()
		}
		views, outs = views[:0], outs[:0]
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("host %s: %w", h.name, err)
		}
	}
}

// DialTCP connects to a remote.
func (h *Host) DialTCP(ctx context.Context, remote netip.AddrPort) (net.Conn, error) {
	if err := h.reaches(remote.Addr()); err != nil {
		return nil, err
	}
	proto, _ := family(remote.Addr())
	c, err := gonet.DialContextTCP(ctx, h.stack, full(remote), proto)
	if err != nil {
		return nil, fmt.Errorf("host %s: dial tcp %s: %w", h.name, remote, err)
	}
	return c, nil
}

// ListenTCP listens; the family is the address's, which may be unspecified.
func (h *Host) ListenTCP(local netip.AddrPort) (net.Listener, error) {
	proto, _ := family(local.Addr())
	l, err := gonet.ListenTCP(h.stack, full(local), proto)
	if err != nil {
		return nil, fmt.Errorf("host %s: listen tcp %s: %w", h.name, local, err)
	}
	return l, nil
}

// DialUDP returns a socket bound to local and connected to remote; either may be
// the zero value, but not both. The family is that of the one given.
func (h *Host) DialUDP(local, remote netip.AddrPort) (*gonet.UDPConn, error) {
	var laddr, raddr *tcpip.FullAddress
	if local.IsValid() {
		f := full(local)
		laddr = &f
	}
	if remote.IsValid() {
		if err := h.reaches(remote.Addr()); err != nil {
			return nil, err
		}
		f := full(remote)
		raddr = &f
	}
	proto, _ := family(cmp.Or(remote, local).Addr())
	c, err := gonet.DialUDP(h.stack, laddr, raddr, proto)
	if err != nil {
		return nil, fmt.Errorf("host %s: udp %s to %s: %w", h.name, local, remote, err)
	}
	return c, nil
}

func (h *Host) reaches(a netip.Addr) error {
	if is4 := a.Unmap().Is4(); is4 && !h.has4 || !is4 && !h.has6 {
		return fmt.Errorf("host %s to %s: %w", h.name, a, ErrNoFamily)
	}
	return nil
}
