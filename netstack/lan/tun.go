package lan

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"patronus/netstack/packet"
)

// TUNOptions says what a TUN port is.
type TUNOptions struct {
	// Name of the interface; empty lets the kernel choose one.
	Name string
	// MTU in bytes; 0 means 1500.
	MTU int
	// Addresses are the kernel's own on the interface; Routes are sent into it.
	// They, the MTU and the link's state are set only if the port opens the
	// device itself: with an Opener that has been done by whoever opened it.
	Addresses []netip.Prefix
	Routes    []Route
	// Opener gives the descriptor; nil opens /dev/net/tun, which needs
	// CAP_NET_ADMIN unless the device exists and belongs to the user.
	Opener Opener
}

// TUN is a port on a kernel TUN device: the kernel routes into it and out of
// it, with superpackets both ways.
type TUN struct {
	name  string
	mtu   int
	dev   *device
	uso   bool // the kernel takes and gives UDP superpackets
	count counters

	rd      tunReader
	writers sync.Pool // of *tunWriter
}

// TUNDevice is the Opener that a TUN port uses by default. A supervisor may use
// it to open the device once and hand it to one process after the other.
type TUNDevice struct{ Name string }

// Open implements Opener: IFF_TUN, no packet information, virtio_net_hdr.
func (d TUNDevice) Open() (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(d.Name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		// Attached before it enters the poller: an unattached descriptor
		// always polls as an error.
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("create tun %s: %w", d.Name, err)
	}
	return fd, nil
}

// OpenTUN opens the port and, if it opened the device itself, configures the
// interface.
func OpenTUN(o TUNOptions) (*TUN, error) {
	if o.MTU == 0 {
		o.MTU = 1500
	}
	opener := o.Opener
	if opener == nil {
		opener = TUNDevice{Name: o.Name}
	}
	fd, err := opener.Open()
	if err != nil {
		return nil, err
	}
	t := &TUN{mtu: o.MTU}
	if err := t.prepare(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if t.dev, err = newDevice(fd, t.name); err != nil {
		return nil, err
	}
	t.rd.port = t
	t.rd.drainFn = t.rd.drain
	t.writers.New = func() any { return newTUNWriter(t) }
	if o.Opener == nil {
		err := ConfigureLink(Link{Name: t.name, MTU: o.MTU, Addresses: o.Addresses, Routes: o.Routes})
		if err != nil {
			return nil, errors.Join(err, t.dev.close())
		}
	}
	return t, nil
}

// prepare checks what fd is and turns the offloads on.
func (t *TUN) prepare(fd int) error {
	var ifr ifreqFlags
	if err := ioctl(fd, unix.TUNGETIFF, unsafe.Pointer(&ifr)); err != nil {
		return fmt.Errorf("%w: %w", ErrDescriptor, err)
	}
	t.name = unix.ByteSliceToString(ifr.name[:])
	const want = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if ifr.flags&want != want {
		return fmt.Errorf("tun %s: %w: flags %#x", t.name, ErrDescriptor, ifr.flags)
	}
	size := int32(vnetLen)
	if err := ioctl(fd, unix.TUNSETVNETHDRSZ, unsafe.Pointer(&size)); err != nil {
		return fmt.Errorf("tun %s: set header size: %w", t.name, err)
	}
	const tso = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	// UDP superpackets came with Linux 6.2.
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil {
		t.uso = true
		return nil
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso); err != nil {
		return fmt.Errorf("tun %s: set offloads: %w", t.name, err)
	}
	return nil
}

// ifreqFlags is struct ifreq as TUNGETIFF fills it.
type ifreqFlags struct {
	name  [unix.IFNAMSIZ]byte
	flags uint16
	_     [22]byte
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// Name implements Port: the name that the kernel gave.
func (t *TUN) Name() string { return t.name }

// MTU implements Port.
func (t *TUN) MTU() int { return t.mtu }

// Counters implements Port.
func (t *TUN) Counters() Counters { return t.count.snapshot() }

// Close implements Port.
func (t *TUN) Close() error { return t.dev.close() }

// Read implements Port.
func (t *TUN) Read(bufs []*packet.Buffer) (int, error) { return t.rd.read(bufs) }

// tunReader is the state of the one goroutine that reads.
type tunReader struct {
	port    *TUN
	drainFn func(fd uintptr) bool // drain, bound once
	big     *packet.Buffer        // where the next packet lands
	bufs    []*packet.Buffer
	n       int
	err     error
	got     tally
}

func (r *tunReader) read(bufs []*packet.Buffer) (int, error) {
	r.bufs, r.n, r.err = bufs, 0, nil
	for r.n == 0 && len(bufs) > 0 {
		if err := r.port.dev.read(r.drainFn); err != nil {
			return 0, err
		}
		if r.err != nil && r.n == 0 {
			return 0, r.err
		}
	}
	r.bufs = nil
	r.port.count.rx.add(&r.got)
	return r.n, nil
}

// drain reads until the device is empty or bufs is full. False means that
// nothing was there. The number of tries is bounded so that a flood of packets
// that are dropped cannot keep Close waiting.
func (r *tunReader) drain(fd uintptr) bool {
	for tries := 2 * len(r.bufs); r.n < len(r.bufs) && tries > 0; tries-- {
		if r.big == nil {
			r.big = packet.Get(maxPacket)
		}
		n, errno := rawRead(fd, r.big.Headroom(vnetLen))
		switch errno {
		case 0:
			r.take(n)
		case unix.EAGAIN:
			return r.n > 0
		case unix.EINTR:
		default: // EBADFD: the interface was deleted
			r.err = fmt.Errorf("tun %s: %w: %w", r.port.name, ErrGone, errno)
			return true
		}
	}
	return true
}

// take makes a buffer of the n bytes that were read: a superpacket leaves in
// the memory it was read into, anything smaller is copied into little memory.
func (r *tunReader) take(n int) {
	if n <= vnetLen {
		r.port.count.drop(DropMalformed, 1)
		return
	}
	var h vnetHeader
	h.decode(r.big.Headroom(vnetLen))
	b := r.big
	if size := n - vnetLen; size <= packet.SmallSize-packet.Headroom {
		b = packet.Get(size)
		copy(b.Bytes, r.big.Bytes)
	} else {
		b.Bytes = b.Bytes[:size]
	}
	why, ok := h.metadata(b, 0)
	if !ok {
		r.port.count.drop(why, 1)
		if b != r.big {
			b.Release()
		} else {
			b.Bytes = b.Bytes[:maxPacket]
		}
		return
	}
	if b == r.big {
		r.big = nil
	}
	r.got.add(segments(&b.GSO, len(b.Bytes)), len(b.Bytes))
	r.bufs[r.n] = b
	r.n++
}
