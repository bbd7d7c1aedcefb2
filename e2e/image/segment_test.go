package image

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// segment is an Ethernet on which every port sees all frames of the others.
type segment struct {
	mu     sync.Mutex
	ports  map[int]func(frame []byte)
	next   int
	listen net.Listener
}

// newSegment makes a segment with a socket to which emulators connect.
func newSegment(t *testing.T, name string) (*segment, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &segment{ports: map[int]func([]byte){}, listen: l}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s, path
}

// serve carries the frames of one emulator: a length and a frame each.
func (s *segment) serve(c net.Conn) {
	defer c.Close()
	var mu sync.Mutex
	id := s.join(func(frame []byte) {
		mu.Lock()
		defer mu.Unlock()
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	})
	defer s.part(id)
	head := make([]byte, 4)
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(head)
		if n > 1<<17 {
			return
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		s.send(id, frame)
	}
}

func (s *segment) join(f func([]byte)) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	s.ports[s.next] = f
	return s.next
}

func (s *segment) part(id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ports, id)
}

func (s *segment) send(from int, frame []byte) {
	s.mu.Lock()
	var to []func([]byte)
	for id, f := range s.ports {
		if id != from {
			to = append(to, f)
		}
	}
	s.mu.Unlock()
	for _, f := range to {
		f(frame)
	}
}

// host is a computer on a segment.
type host struct {
	stack *stack.Stack
	addr  netip.Addr
}

// newHost puts a computer on a segment, with a default gateway if there is one.
func newHost(t *testing.T, s *segment, mac string, addr netip.Prefix, gateway netip.Addr) *host {
	t.Helper()
	hw, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	st := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, icmp.NewProtocol4},
	})
	ep := channel.New(1024, 1500, tcpip.LinkAddress(hw))
	id := s.join(func(frame []byte) {
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
		ep.InjectInbound(0, pkt)
		pkt.DecRef()
	})
	if err := st.CreateNIC(1, ethernet.New(ep)); err != nil {
		t.Fatal(err)
	}
	protocol := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{
		Address: tcpip.AddrFrom4(addr.Addr().As4()), PrefixLen: addr.Bits(),
	}}
	if err := st.AddProtocolAddress(1, protocol, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	routes := []tcpip.Route{{Destination: protocol.AddressWithPrefix.Subnet(), NIC: 1}}
	if gateway.IsValid() {
		routes = append(routes, tcpip.Route{Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFrom4(gateway.As4()), NIC: 1})
	}
	st.SetRouteTable(routes)
	ctx := t.Context()
	go func() {
		for {
			pkt := ep.ReadContext(ctx)
			if pkt == nil {
				return
			}
			frame := pkt.ToView().AsSlice()
			s.send(id, append([]byte(nil), frame...))
			pkt.DecRef()
		}
	}()
	t.Cleanup(func() {
		s.part(id)
		st.Destroy()
	})
	return &host{st, addr.Addr()}
}

func (h *host) listen(port uint16) (net.Listener, error) {
	return gonet.ListenTCP(h.stack, tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4(h.addr.As4()), Port: port}, ipv4.ProtocolNumber)
}

// checksumErrors are segments that arrived with a wrong checksum.
func (h *host) checksumErrors() uint64 { return h.stack.Stats().TCP.ChecksumErrors.Value() }

// serveDHCP answers on a segment: each hardware address has its own address.
func serveDHCP(s *segment, server netip.Addr, leases map[string]netip.Addr) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0xdc}
	var id int
	id = s.join(func(frame []byte) {
		if len(frame) < 14+20+8 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[23] != 17 || binary.BigEndian.Uint16(frame[36:]) != 67 {
			return
		}
		request, err := dhcpv4.FromBytes(frame[42:])
		if err != nil {
			return
		}
		lease, ok := leases[request.ClientHWAddr.String()]
		if !ok {
			return
		}
		kind := dhcpv4.MessageTypeOffer
		if request.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		reply, err := dhcpv4.NewReplyFromRequest(request, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(lease.AsSlice()),
			dhcpv4.WithServerIP(server.AsSlice()), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(server.AsSlice()),
			dhcpv4.WithLeaseTime(3600), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server.AsSlice())))
		if err != nil {
			return
		}
		go s.send(id, udpFrame(mac, request.ClientHWAddr, server, netip.AddrFrom4([4]byte{255, 255, 255, 255}), reply.ToBytes()))
	})
}

func udpFrame(from, to net.HardwareAddr, src, dst netip.Addr, payload []byte) []byte {
	b := make([]byte, 14+20+8+len(payload))
	copy(b, to)
	copy(b[6:], from)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip := header.IPv4(b[14:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(28 + len(payload)), TTL: 64, Protocol: 17,
		SrcAddr: tcpip.AddrFrom4(src.As4()), DstAddr: tcpip.AddrFrom4(dst.As4()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	binary.BigEndian.PutUint16(b[34:], 67)
	binary.BigEndian.PutUint16(b[36:], 68)
	binary.BigEndian.PutUint16(b[38:], uint16(8+len(payload))) // no checksum: RFC 768 allows it
	copy(b[42:], payload)
	return b
}
