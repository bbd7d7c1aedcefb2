package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"patronus/e2e/vnet"
)

const (
	etherLen = 14
	vlanLen  = 4
	// frameMax is a superpacket with its link header.
	frameMax = 64<<10 + etherLen + vlanLen
	// batch is how many frames are read before they are passed on.
	batch = 64
	// socketBuffer asks for room for bursts of superpackets.
	socketBuffer = 8 << 20
)

// end is one interface: the source of its lane and the output of the other's.
type end struct {
	End
	counters
	file *os.File
	raw  syscall.RawConn
	done atomic.Bool // closed by us
	lane *vnet.Lane
	in   cutter
}

func openEnd(where End) (*end, error) {
	e := &end{End: where}
	err := inNetns(where.Netns, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if err := setup(fd, where.Interface); err != nil {
			_ = unix.Close(fd)
			return err
		}
		e.file = os.NewFile(uintptr(fd), where.Interface)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", where.Interface, err)
	}
	if e.raw, err = e.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", where.Interface, err), e.close())
	}
	return e, nil
}

// setup binds fd to an interface for all protocols and both checksum worlds.
func setup(fd int, name string) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	for _, o := range []struct{ level, opt, value int }{
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1}, // or our own frames come back
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},        // tells partial checksums and superpackets
		{unix.SOL_PACKET, unix.PACKET_AUXDATA, 1},         // carries the VLAN tag
		{unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return fmt.Errorf("socket option %d: %w", o.opt, err)
		}
	}
	// Beyond the system's limit; as root only, and not needed to work.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer)
	promisc := unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &promisc); err != nil {
		return fmt.Errorf("promiscuous mode: %w", err)
	}
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index})
}

func (e *end) close() error {
	e.done.Store(true)
	if err := e.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// read passes frames on until the socket is closed.
func (e *end) read() error {
	buf := make([]byte, vlanLen+vnetHeader+frameMax)
	oob := make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(unix.TpacketAuxdata{}))))
	for {
		e.in.reset()
		var failed error
		err := e.raw.Read(func(fd uintptr) bool {
			for len(e.in.frames) < batch {
				// Room before the frame lets a VLAN tag be put back in place.
				n, oobn, _, _, err := unix.Recvmsg(int(fd), buf[vlanLen:], oob, 0)
				switch {
				case err == unix.EINTR:
					continue
				case err == unix.EAGAIN:
					return len(e.in.frames) > 0
				case err == unix.ENETDOWN: // taken down; it may come back
					continue
				case err != nil:
					failed = err
					return true
				}
				e.take(buf[:vlanLen+n], oob[:oobn])
			}
			return true
		})
		switch {
		case e.done.Load():
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", e.Interface, err)
		case failed != nil:
			return fmt.Errorf("read %s: %w", e.Interface, failed)
		}
		e.enter(e.in.frames)
	}
}

// take adds what came as one message: vlanLen free bytes, vnet header, frame.
func (e *end) take(b, oob []byte) {
	if len(b) < vlanLen+vnetHeader+etherLen {
		return
	}
	h := parseVnet(b[vlanLen:])
	frame := b[vlanLen+vnetHeader:]
	if tag, ok := vlanTag(oob); ok {
		// Shift the two addresses over the vnet header, which is parsed.
		tagged := b[vnetHeader:]
		copy(tagged, frame[:12])
		copy(tagged[12:], tag[:])
		frame = tagged
		h.shift(vlanLen)
	}
	if !e.in.add(frame, h) {
		e.uncut.Add(1)
	} else if h.gsoType != gsoNone {
		e.cut.Add(1)
	}
}

// vlanTag is the tag that the kernel took out of the frame (struct
// tpacket_auxdata in linux/if_packet.h).
func vlanTag(oob []byte) (tag [vlanLen]byte, ok bool) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return tag, false
	}
	for _, m := range msgs {
		// status, len, snaplen: 4 bytes each; mac, net, vlan_tci, vlan_tpid: 2.
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tpid := uint16(unix.ETH_P_8021Q)
		if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
			tpid = binary.NativeEndian.Uint16(m.Data[18:])
		}
		binary.BigEndian.PutUint16(tag[:], tpid)
		binary.BigEndian.PutUint16(tag[2:], binary.NativeEndian.Uint16(m.Data[16:]))
		return tag, true
	}
	return tag, false
}

// complete is the vnet header of a frame with nothing left to do.
var complete [vnetHeader]byte

// Emit puts frames on the interface. One that is down or full refuses.
func (e *end) Emit(frames [][]byte) {
	for _, f := range frames {
		var err error
		waitErr := e.raw.Write(func(fd uintptr) bool {
			_, err = unix.Writev(int(fd), [][]byte{complete[:], f})
			return err != unix.EAGAIN
		})
		if waitErr != nil || err != nil {
			e.refused.Add(1)
		}
	}
}
