package lan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"patronus/netstack/packet"
)

// recvBatch is how many frames one system call brings at most.
const recvBatch = 64

// auxLen is the room for one control message with a struct tpacket_auxdata.
const (
	auxLen  = 40
	auxData = unix.SizeofCmsghdr
)

// mmsghdr is struct mmsghdr (recvmmsg(2)).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// packetReader is the state of the one goroutine that reads. Each slot is a big
// buffer that a frame is received into so that its IP packet begins where
// Bytes does; the headers before it lie in the headroom.
type packetReader struct {
	port   *Packet
	recvFn func(fd uintptr) bool // recv, bound once
	lostFn func(fd uintptr)      // lost, bound once
	want   int
	n      int
	errno  unix.Errno
	down   bool
	slots  [recvBatch]*packet.Buffer
	iovs   [recvBatch]unix.Iovec
	msgs   [recvBatch]mmsghdr
	ctrl   [recvBatch][auxLen]byte
	got    tally
}

// lead is what lies before the IP packet in a slot.
const lead = vnetLen + ethLen

func (r *packetReader) init(p *Packet) {
	r.port = p
	r.recvFn, r.lostFn = r.recv, r.lost
	for i := range r.msgs {
		r.refill(i)
		h := &r.msgs[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = &r.ctrl[i][0]
		h.SetControllen(auxLen)
	}
}

func (r *packetReader) refill(i int) {
	r.slots[i] = packet.Get(maxPacket)
	r.iovs[i] = iovec(r.slots[i].Headroom(lead))
}

func (r *packetReader) read(bufs []*packet.Buffer) (int, error) {
	n := 0
	for n == 0 && len(bufs) > 0 {
		if err := r.receive(min(len(bufs), recvBatch)); err != nil {
			return 0, err
		}
		// Outside recvFn, during which the descriptor cannot be closed: Control
		// is free to call Close.
		for i := range r.n {
			if b := r.take(i); b != nil {
				bufs[n] = b
				n++
			}
		}
	}
	r.port.count.rx.add(&r.got)
	return n, nil
}

// downCheck is how often a port whose interface is down looks whether it still
// exists.
const downCheck = 500 * time.Millisecond

// receive fills up to want slots and sets r.n. The kernel says once that the
// interface went down; it says nothing more if it is then deleted, and the
// socket revives by itself if it comes up. So a port that is down has a deadline.
func (r *packetReader) receive(want int) error {
	dev := r.port.dev
	for {
		r.want, r.n, r.errno = want, 0, 0
		if r.down {
			if err := dev.file.SetReadDeadline(time.Now().Add(downCheck)); err != nil {
				return net.ErrClosed
			}
		}
		err := dev.read(r.recvFn)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := dev.control(r.lostFn); err != nil {
				return err
			}
		case err != nil:
			return err
		}
		switch {
		case r.errno == unix.ENETDOWN:
			r.down = true
		case r.errno != 0:
			return fmt.Errorf("packet port %s: %w: %w", r.port.name, ErrGone, r.errno)
		case r.n > 0:
			if r.down {
				r.down = false
				if err := dev.file.SetReadDeadline(time.Time{}); err != nil {
					return net.ErrClosed
				}
			}
			return nil
		}
	}
}

// recv receives a batch. False means that nothing was there.
func (r *packetReader) recv(fd uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.msgs[0])),
		uintptr(r.want), unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		r.n = int(n)
	case unix.EAGAIN:
		return false
	case unix.EINTR:
	default:
		r.errno = errno
	}
	return true
}

// lost sets r.errno if the socket has lost its interface for good.
func (r *packetReader) lost(fd uintptr) {
	sa, err := unix.Getsockname(int(fd))
	if ll, ok := sa.(*unix.SockaddrLinklayer); err != nil || !ok || ll.Ifindex < 0 {
		r.errno = unix.ENODEV
	}
}

// take makes a buffer of the frame in slot i, or returns nil if the frame went
// elsewhere. A superpacket leaves in the memory it was received into.
func (r *packetReader) take(i int) *packet.Buffer {
	p, m, b := r.port, &r.msgs[i], r.slots[i]
	size := int(m.len) - lead
	tag := r.tag(i)
	truncated := m.hdr.Flags&unix.MSG_TRUNC != 0
	m.hdr.SetControllen(auxLen)
	m.hdr.Flags = 0
	why := DropMalformed
	switch {
	case truncated:
		why = DropTruncated
	case size < 0:
	case tag != p.vlan:
		why = DropNotOurs
	default:
		return r.frame(i, b.Headroom(lead)[:lead+size])
	}
	p.count.drop(why, 1)
	return nil
}

// frame deals with the frame in slot i; raw starts with the vnet header.
func (r *packetReader) frame(i int, raw []byte) *packet.Buffer {
	p, big := r.port, r.slots[i]
	eth := raw[vnetLen:]
	fate, why := classify(eth, &p.mac)
	if fate == fateDrop {
		p.count.drop(why, 1)
		return nil
	}
	var h vnetHeader
	h.decode(raw)
	if fate == fateControl {
		r.controlFrame(&h, eth)
		return nil
	}
	ip := unpad(eth[ethLen:])
	b := big
	if len(ip) <= packet.SmallSize-packet.Headroom {
		b = packet.Get(len(ip))
		copy(b.Bytes, ip)
	} else {
		b.Bytes = b.Bytes[:len(ip)]
	}
	if why, ok := h.metadata(b, ethLen); !ok {
		p.count.drop(why, 1)
		if b != big {
			b.Release()
		} else {
			b.Bytes = b.Bytes[:maxPacket]
		}
		return nil
	}
	if b == big {
		r.refill(i)
	}
	r.got.add(segments(&b.GSO, len(b.Bytes)), len(b.Bytes))
	return b
}

// controlFrame completes a frame and hands it to Control.
func (r *packetReader) controlFrame(h *vnetHeader, eth []byte) {
	p := r.port
	if binary.BigEndian.Uint16(eth[12:]) != ethARP {
		eth = eth[:ethLen+len(unpad(eth[ethLen:]))]
	}
	if h.gsoType != unix.VIRTIO_NET_HDR_GSO_NONE {
		p.count.drop(DropUnknownGSO, 1) // nobody cuts a superpacket for a group
		return
	}
	if h.flags&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 && !finishChecksum(eth, int(h.csumStart), int(h.csumOffs)) {
		p.count.drop(DropMalformed, 1)
		return
	}
	if p.control != nil {
		p.control(eth)
	}
	if addr, mac, ok := announced(eth); ok {
		p.neigh.update(addr, mac)
	}
}

// finishChecksum completes a partial checksum over b[start:] in place. The
// frame need not decode: a DHCP client has no address yet.
func finishChecksum(b []byte, start, offset int) bool {
	if start < ethLen || start+offset+2 > len(b) {
		return false
	}
	sum := ^packet.Checksum(b[start:], 0)
	if sum == 0 {
		sum = 0xffff // in UDP 0 means no checksum (RFC 768); elsewhere they are equal
	}
	binary.BigEndian.PutUint16(b[start+offset:], sum)
	return true
}

// tag returns the VLAN of the frame in slot i, 0 if it had no tag. The kernel
// takes tags off frames and reports them beside.
func (r *packetReader) tag(i int) uint16 {
	h, c := &r.msgs[i].hdr, r.ctrl[i][:]
	if int(h.Controllen) < auxData+int(unsafe.Sizeof(unix.TpacketAuxdata{})) {
		return 0
	}
	cm := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
	if cm.Level != unix.SOL_PACKET || cm.Type != unix.PACKET_AUXDATA {
		return 0
	}
	aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&c[auxData]))
	if aux.Status&unix.TP_STATUS_VLAN_VALID == 0 {
		return 0
	}
	return aux.Vlan_tci & vlanMask
}
