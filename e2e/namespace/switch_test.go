package namespace

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vlanSwitch is an 802.1Q switch in user space, for kernels without VLAN
// interfaces: one trunk, and an access port for each VLAN (0: untagged).
type vlanSwitch struct {
	trunk  int // descriptors
	access map[uint16]int
	quit   atomic.Bool
	ports  sync.WaitGroup
}

// runSwitch switches between interfaces of a namespace until the test ends. The
// far ends of the interfaces must complete their checksums themselves.
func runSwitch(t *testing.T, n netns, trunk string, access map[uint16]string) {
	t.Helper()
	s := &vlanSwitch{access: map[uint16]int{}}
	var err error
	if s.trunk, err = switchPort(n, trunk); err != nil {
		t.Fatal(err)
	}
	for vlan, name := range access {
		if s.access[vlan], err = switchPort(n, name); err != nil {
			t.Fatal(err)
		}
	}
	s.ports.Go(func() { s.read(s.trunk, s.fromTrunk) })
	for vlan, fd := range s.access {
		s.ports.Go(func() { s.read(fd, func(frame []byte, _ uint16) { s.toTrunk(frame, vlan) }) })
	}
	t.Cleanup(func() {
		s.quit.Store(true)
		s.ports.Wait()
		_ = unix.Close(s.trunk)
		for _, fd := range s.access {
			_ = unix.Close(fd)
		}
	})
}

// switchPort opens an interface for all frames; reads end after 100 ms, so that
// the switch can be stopped.
func switchPort(n netns, name string) (fd int, err error) {
	err = n.do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		for _, o := range []struct{ level, opt, value int }{
			{unix.SOL_PACKET, unix.PACKET_AUXDATA, 1},
			{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
			{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8 << 20},
		} {
			if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
				return os.NewSyscallError("setsockopt", err)
			}
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
			return err
		}
		promisc := unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &promisc); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index})
	})
	if err != nil {
		return -1, fmt.Errorf("switch port %s: %w", name, err)
	}
	return fd, nil
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)}) }

// read passes frames to sink, without tag, until the switch stops.
func (s *vlanSwitch) read(fd int, sink func(frame []byte, vlan uint16)) {
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(unix.TpacketAuxdata{}))))
	for !s.quit.Load() {
		n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, 0)
		if err != nil || n < 14 {
			continue // a timeout
		}
		sink(buf[:n], vlanOf(oob[:oobn]))
	}
}

// vlanOf is the VLAN of the tag that the kernel took out of the frame (struct
// tpacket_auxdata: three words, two offsets, then the tag).
func vlanOf(oob []byte) uint16 {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range msgs {
		if m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 20 && binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID != 0 {
			return binary.NativeEndian.Uint16(m.Data[16:]) & 0xfff
		}
	}
	return 0
}

func (s *vlanSwitch) fromTrunk(frame []byte, vlan uint16) {
	if fd, ok := s.access[vlan]; ok {
		// A full port loses frames, as switches do.
		_, _ = unix.Write(fd, frame)
	}
}

func (s *vlanSwitch) toTrunk(frame []byte, vlan uint16) {
	if vlan == 0 {
		_, _ = unix.Write(s.trunk, frame)
		return
	}
	tag := []byte{0x81, 0, byte(vlan >> 8), byte(vlan)}
	_, _ = unix.Writev(s.trunk, [][]byte{frame[:12], tag, frame[12:]})
}
