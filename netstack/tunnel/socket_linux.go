package tunnel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Opener opens UDP sockets. A supervisor that holds the descriptors is one:
// it hands out what it kept (net.FilePacketConn), so that NAT mappings survive.
type Opener interface {
	// Open returns a socket of network udp4 or udp6 (IPv6 only), bound to
	// local and, unless it is empty, to the interface. The caller owns it and
	// sets the options that this package needs.
	Open(network string, local netip.AddrPort, iface string) (*net.UDPConn, error)
}

// SystemOpener asks the kernel.
type SystemOpener struct{}

// Open implements Opener.
func (SystemOpener) Open(network string, local netip.AddrPort, iface string) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd int) error {
			if network == "udp6" {
				if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
					return err
				}
			}
			if iface == "" {
				return nil
			}
			return unix.BindToDevice(fd, iface)
		})
	}}
	c, err := lc.ListenPacket(context.Background(), network, local.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// control runs f on the descriptor and returns f's error, or the one of not
// getting there.
func control(raw syscall.RawConn, f func(fd int) error) (err error) {
	if e := raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}

// socket is an open socket with its options.
type socket struct {
	conn    *net.UDPConn
	raw     syscall.RawConn
	v6      bool
	segment atomic.Bool // UDP_SEGMENT may be used
	merges  bool        // UDP_GRO is on
	iface   string
	ifindex int
}

// watchInterval is how often a socket bound to an interface looks whether that
// is still the same one: a socket stays bound to the index of an interface
// that was removed, and nothing tells it.
const watchInterval = time.Second

func newSocket(c *net.UDPConn, v6 bool, o UDPOptions, mark uint32) (*socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{conn: c, raw: raw, v6: v6, iface: o.Interface}
	err = control(raw, func(fd int) error {
		// Up to net.core.*mem_max, and beyond with CAP_NET_ADMIN.
		for _, opt := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF, unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, o.SocketBuffer)
		}
		// The path MTU is ours to find; the kernel shall set DF and not object
		// below the interface's MTU.
		level, opt, probe := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
		if v6 {
			level, opt, probe = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
		}
		if err := unix.SetsockoptInt(fd, level, opt, probe); err != nil {
			return fmt.Errorf("path MTU discovery: %w", err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
			return fmt.Errorf("overflow counter: %w", err)
		}
		if !o.NoOffload {
			_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
			s.segment.Store(err == nil)
			s.merges = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
		}
		if mark != 0 {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
				return fmt.Errorf("mark: %w", err)
			}
		}
		if s.iface != "" {
			var err error
			s.ifindex, err = ifindex(fd, s.iface)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, s.rearm()
}

// rearm lets the next wait end after watchInterval.
func (s *socket) rearm() error {
	if s.iface == "" {
		return nil
	}
	return s.conn.SetReadDeadline(time.Now().Add(watchInterval))
}

// stale reports whether the interface is no longer the one of the socket.
func (s *socket) stale() bool {
	stale := false
	err := control(s.raw, func(fd int) error {
		now, err := ifindex(fd, s.iface)
		stale = err != nil || now != s.ifindex
		return nil
	})
	return err != nil || stale
}

func (s *socket) setMark(mark uint32) error {
	return control(s.raw, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	})
}

// ifindex asks for the index of an interface (netdevice(7)).
func ifindex(fd int, name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, err
	}
	return int(req.Uint32()), nil
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// nameLen holds a sockaddr_in or sockaddr_in6.
const nameLen = unix.SizeofSockaddrInet6

type sockaddr [nameLen]byte

// putSockaddr writes a and returns the length that the kernel wants.
func (n *sockaddr) put(e *endpoint) uint32 {
	a := e.addr.Addr()
	if a.Is4() {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(n))
		*sa = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.As4()}
		putPort(&sa.Port, e.addr.Port())
		return unix.SizeofSockaddrInet4
	}
	sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(n))
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.As16(), Scope_id: e.scope}
	putPort(&sa.Port, e.addr.Port())
	return unix.SizeofSockaddrInet6
}

// endpoint reads what the kernel wrote; nil if it is of another family.
func (n *sockaddr) endpoint() *endpoint {
	switch *(*uint16)(unsafe.Pointer(n)) {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(n))
		return &endpoint{addr: netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), readPort(&sa.Port))}
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(n))
		return newEndpoint(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), readPort(&sa.Port)), sa.Scope_id)
	}
	return nil
}

func putPort(at *uint16, port uint16) {
	b := (*[2]byte)(unsafe.Pointer(at))
	b[0], b[1] = byte(port>>8), byte(port)
}

func readPort(at *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(at))
	return uint16(b[0])<<8 | uint16(b[1])
}
