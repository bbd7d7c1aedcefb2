package lan

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"patronus/netstack/packet"
)

// socketBuffer is asked for in both directions, bytes. Without CAP_NET_ADMIN
// the kernel grants at most net.core.[rw]mem_max.
const socketBuffer = 4 << 20

// PacketOptions says what a Packet port is.
type PacketOptions struct {
	// Interface is an Ethernet interface without kernel addresses. The kernel
	// must not forward on it, or every packet is forwarded twice: see
	// KernelForwards.
	Interface string
	// VLAN is an 802.1Q VLAN of the interface, 1 to 4094; 0 is untagged. Several
	// ports with different VLANs may share an interface.
	VLAN uint16
	// MTU in bytes; 0 means the interface's.
	MTU int
	// MAC is the port's own link address; zero means the interface's.
	MAC [6]byte
	// Resolver finds link addresses of next hops. Required.
	Resolver Resolver
	// Control receives frames that are ARP, neighbour discovery or multicast,
	// with a full Ethernet header, without VLAN tag and padding, checksums
	// complete. borrowed: frame is valid until Control returns. It is called
	// from within Read. nil ignores them.
	Control func(frame []byte)
	// Opener gives the descriptor; nil opens a socket, which needs CAP_NET_RAW.
	Opener Opener
}

// Packet is a port on an Ethernet interface, by a raw socket. The kernel has no
// address there: ARP and NDP are answered by whoever gets the Control frames.
type Packet struct {
	name    string
	mtu     int
	vlan    uint16
	mac     [6]byte
	index   int
	control func([]byte)
	dev     *device
	count   counters
	start   time.Time
	neigh   *neighbours

	rd      packetReader
	writers sync.Pool // of *packetWriter
	// tso and uso are cleared when the kernel refuses a merged packet.
	tso, uso atomic.Bool
	// stalled is set while the link takes nothing.
	stalled atomic.Bool
}

// PacketSocket is the Opener that a Packet port uses by default: a raw packet
// socket that receives nothing until it is bound.
type PacketSocket struct{}

// Open implements Opener.
func (PacketSocket) Open() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	return fd, nil
}

// OpenPacket opens the port. The interface is brought up if it is down and the
// process may do so.
func OpenPacket(o PacketOptions) (*Packet, error) {
	if o.VLAN > 4094 {
		return nil, fmt.Errorf("open %s: vlan %d is not in 0..4094", o.Interface, o.VLAN)
	}
	if o.Resolver == nil {
		return nil, fmt.Errorf("open %s: no resolver", o.Interface)
	}
	ifc, err := net.InterfaceByName(o.Interface)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Interface, err)
	}
	if len(ifc.HardwareAddr) != 6 {
		return nil, fmt.Errorf("open %s: not an Ethernet interface", o.Interface)
	}
	p := &Packet{
		name: o.Interface, mtu: o.MTU, vlan: o.VLAN, mac: o.MAC, index: ifc.Index,
		control: o.Control, start: time.Now(),
	}
	if p.vlan != 0 {
		p.name = fmt.Sprintf("%s.%d", o.Interface, o.VLAN)
	}
	if p.mtu == 0 {
		p.mtu = ifc.MTU
	}
	if p.mac == [6]byte{} {
		p.mac = [6]byte(ifc.HardwareAddr)
	}
	opener := o.Opener
	if opener == nil {
		opener = PacketSocket{}
	}
	fd, err := opener.Open()
	if err != nil {
		return nil, err
	}
	if err := p.prepare(fd, p.mac != [6]byte(ifc.HardwareAddr)); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open %s: %w", p.name, err)
	}
	if ifc.Flags&net.FlagUp == 0 {
		// Without the right to do this the port waits until somebody else does.
		_ = bringUp(o.Interface)
	}
	if p.dev, err = newDevice(fd, p.name); err != nil {
		return nil, err
	}
	p.tso.Store(true)
	p.uso.Store(true)
	p.neigh = newNeighbours(o.Resolver, p.now, &p.count, p.sendWaiting)
	p.rd.init(p)
	p.writers.New = func() any { return newPacketWriter(p) }
	return p, nil
}

// prepare sets the socket up and binds it. The filter comes before the binding,
// so that no other frame is ever queued.
func (p *Packet) prepare(fd int, ownMAC bool) error {
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_RAW {
		return fmt.Errorf("%w: not a raw socket", ErrDescriptor)
	}
	for _, opt := range []struct {
		name string
		opt  int
	}{
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR},
		{"PACKET_AUXDATA", unix.PACKET_AUXDATA},
		{"PACKET_IGNORE_OUTGOING", unix.PACKET_IGNORE_OUTGOING},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, opt.opt, 1); err != nil {
			return fmt.Errorf("set %s: %w", opt.name, err)
		}
	}
	prog, err := wanted(p.mac, p.vlan)
	if err != nil {
		return err
	}
	if err := attachFilter(fd, prog); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	for force, plain := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBuffer) != nil {
			// What the kernel grants is enough to work.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, socketBuffer)
		}
	}
	members := []unix.PacketMreq{{Ifindex: int32(p.index), Type: unix.PACKET_MR_ALLMULTI}}
	if ownMAC {
		m := unix.PacketMreq{Ifindex: int32(p.index), Type: unix.PACKET_MR_UNICAST, Alen: 6}
		copy(m.Address[:], p.mac[:])
		members = append(members, m)
	}
	for i := range members {
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &members[i]); err != nil {
			return fmt.Errorf("add membership: %w", err)
		}
	}
	err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: p.index})
	if err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// bringUp sets IFF_UP.
func bringUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return err
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// KernelForwards reports whether the kernel forwards packets that arrive on the
// interface: it would send a second copy of everything that a Packet port there
// forwards. An interface without that protocol does not.
func KernelForwards(ifname string) bool {
	for _, family := range []string{"ipv4", "ipv6"} {
		b, err := os.ReadFile("/proc/sys/net/" + family + "/conf/" + ifname + "/forwarding")
		if err == nil && len(b) > 0 && b[0] != '0' {
			return true
		}
	}
	return false
}

// Name implements Port: the interface, with its VLAN if it has one ("eth1.20").
func (p *Packet) Name() string { return p.name }

// MTU implements Port.
func (p *Packet) MTU() int { return p.mtu }

// MAC is the port's own link address.
func (p *Packet) MAC() [6]byte { return p.mac }

// Counters implements Port. Frames that overflowed the socket's receive queue
// are counted as DropQueueFull.
func (p *Packet) Counters() Counters {
	// The kernel forgets the number when it is read. Without the socket there
	// is no number.
	_ = p.dev.control(func(fd uintptr) {
		if s, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			p.count.drop(DropQueueFull, int(s.Drops))
		}
	})
	return p.count.snapshot()
}

// Close implements Port.
func (p *Packet) Close() error {
	p.neigh.close()
	return p.dev.close()
}

// now is the monotonic time that the neighbour table uses.
func (p *Packet) now() int64 { return int64(time.Since(p.start)) }

// Read implements Port. Frames for Control are handed over before it returns.
func (p *Packet) Read(bufs []*packet.Buffer) (int, error) { return p.rd.read(bufs) }
