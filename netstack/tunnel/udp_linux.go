package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// DefaultSocketBuffer is what upstream asks for, bytes.
const DefaultSocketBuffer = 7 << 20

// UDPOptions say where a UDP Bind listens.
type UDPOptions struct {
	// Interface binds the sockets to a network interface (SO_BINDTODEVICE,
	// which needs no privilege); empty means none. It may be away when the
	// Bind opens, vanish and come back.
	Interface string
	// Sources are the local addresses, at most one of a family. None means the
	// wildcard address of both families; one means that family only.
	Sources []netip.Addr
	// Port is used if the device asks for none; 0 lets the kernel choose.
	Port uint16
	// BatchSize is the most datagrams received and sent at once, at most
	// MaxBatchSize; 0 means DefaultBatchSize.
	BatchSize int
	// SocketBuffer is asked for in both directions, bytes; 0 means
	// DefaultSocketBuffer. Beyond net.core.rmem_max it needs CAP_NET_ADMIN.
	SocketBuffer int
	// NoOffload switches UDP_SEGMENT and UDP_GRO off.
	NoOffload bool
	// Opener opens the sockets; nil means SystemOpener.
	Opener Opener
}

// UDPCounters are cumulative, over both families.
type UDPCounters struct {
	SendCalls, SentMessages, SentDatagrams uint64 // system calls; with UDP_SEGMENT a message is many datagrams
	ReceiveCalls, ReceivedDatagrams        uint64
	// Relaid are received datagrams that had to be copied, because the kernel
	// merged datagrams of another size than the last ones.
	Relaid uint64
	// TooLong were received, but are longer than a buffer of the device.
	TooLong uint64
	// Dropped were lost in a full receive buffer (SO_RXQ_OVFL).
	Dropped uint64
	// Datagrams that could not be sent, by reason.
	Unreachable, Forbidden, NoBuffers, TooBig, NoSocket, OtherSend uint64
	// OffloadRefused counts sockets on which the kernel refused UDP_SEGMENT.
	OffloadRefused uint64
	// ReceiveErrors are errors that the kernel reported to a receiving socket;
	// Reopened counts sockets opened anew, because their interface changed.
	ReceiveErrors, Reopened uint64
}

type udpCounters struct {
	sendCalls, sentMessages, sentDatagrams                         atomic.Uint64
	receiveCalls, receivedDatagrams, relaid, tooLong, dropped      atomic.Uint64
	unreachable, forbidden, noBuffers, tooBig, noSocket, otherSend atomic.Uint64
	offloadRefused, receiveErrors, reopened                        atomic.Uint64
}

// UDP is a conn.Bind over one socket for each address family. Send may be
// called from many goroutines, each ReceiveFunc from one.
type UDP struct {
	o       UDPOptions
	batches sync.Pool // *sendBatch
	count   udpCounters
	v4, v6  atomic.Pointer[port]

	mu   sync.Mutex
	mark uint32
}

var _ conn.Bind = (*UDP)(nil)

// port is a UDP's place for the socket of one family. The socket may be
// missing for a while.
type port struct {
	u       *UDP
	network string // udp4 or udp6
	local   netip.AddrPort
	closed  chan struct{} // closed by UDP.Close
	sock    atomic.Pointer[socket]
	rx      receiver

	mu sync.Mutex // serialises opening with UDP.Close
}

// NewUDP makes a Bind; Open opens its sockets.
func NewUDP(o UDPOptions) (*UDP, error) {
	if o.BatchSize < 0 || o.BatchSize > MaxBatchSize {
		return nil, fmt.Errorf("tunnel: batch size %d is not in 0..%d", o.BatchSize, MaxBatchSize)
	}
	seen := [2]bool{}
	for _, a := range o.Sources {
		family := 0
		if a.Is6() && !a.Is4In6() {
			family = 1
		}
		if !a.IsValid() || seen[family] {
			return nil, fmt.Errorf("tunnel: source %v: one of each family is possible", a)
		}
		seen[family] = true
	}
	if o.BatchSize == 0 {
		o.BatchSize = DefaultBatchSize
	}
	if o.SocketBuffer == 0 {
		o.SocketBuffer = DefaultSocketBuffer
	}
	if o.Opener == nil {
		o.Opener = SystemOpener{}
	}
	u := &UDP{o: o}
	u.batches.New = func() any { return newSendBatch(o.BatchSize) }
	return u, nil
}

// BatchSize is UDPOptions.BatchSize.
func (u *UDP) BatchSize() int { return u.o.BatchSize }

// ParseEndpoint reads ip:port.
func (u *UDP) ParseEndpoint(s string) (conn.Endpoint, error) { return parseEndpoint(s) }

// Open opens the sockets, both families on one port. An interface or address
// that is away is no error: the ReceiveFunc tries again.
func (u *UDP) Open(at uint16) ([]conn.ReceiveFunc, uint16, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.v4.Load() != nil || u.v6.Load() != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	if at == 0 {
		at = u.o.Port
	}
	ports, actual, err := u.openAll(at)
	// With a port chosen for IPv4 by the kernel, IPv6 may find it taken.
	for try := 0; at == 0 && try < 100 && errors.Is(err, unix.EADDRINUSE); try++ {
		ports, actual, err = u.openAll(at)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("tunnel: %w", err)
	}
	fns := make([]conn.ReceiveFunc, 0, len(ports))
	for _, p := range ports {
		if p.network == "udp4" {
			u.v4.Store(p)
		} else {
			u.v6.Store(p)
		}
		fns = append(fns, p.receive)
	}
	return fns, actual, nil
}

func (u *UDP) openAll(at uint16) (ports []*port, actual uint16, err error) {
	sources := u.o.Sources
	if len(sources) == 0 {
		sources = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	defer func() {
		if err != nil {
			for _, p := range ports {
				p.shut()
			}
		}
	}()
	for _, a := range sources {
		p := &port{u: u, network: "udp6", local: netip.AddrPortFrom(a.Unmap(), at), closed: make(chan struct{})}
		if a.Unmap().Is4() {
			p.network = "udp4"
		}
		p.rx.init(u.o.BatchSize)
		err := p.open(u.mark)
		switch {
		case errors.Is(err, unix.EAFNOSUPPORT) && len(u.o.Sources) == 0:
			continue
		case err != nil && !away(err):
			return ports, 0, fmt.Errorf("%s %v: %w", p.network, p.local, err)
		}
		ports = append(ports, p)
		if s := p.sock.Load(); s != nil && at == 0 {
			at = s.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
			p.local = netip.AddrPortFrom(p.local.Addr(), at) // keeps it when it opens again
		}
	}
	if len(ports) == 0 {
		return nil, 0, unix.EAFNOSUPPORT
	}
	return ports, at, nil
}

// away reports whether err says that an interface or address does not exist
// at the moment.
func away(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENXIO)
}

// Close closes the sockets and ends the ReceiveFuncs.
func (u *UDP) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, at := range []*atomic.Pointer[port]{&u.v4, &u.v6} {
		if p := at.Swap(nil); p != nil {
			p.shut()
		}
	}
	return nil
}

// SetMark sets SO_MARK, which needs CAP_NET_ADMIN, now and for sockets to come.
func (u *UDP) SetMark(mark uint32) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mark = mark
	for _, at := range []*atomic.Pointer[port]{&u.v4, &u.v6} {
		p := at.Load()
		if p == nil {
			continue
		}
		if s := p.sock.Load(); s != nil {
			if err := s.setMark(mark); err != nil {
				return fmt.Errorf("tunnel: mark: %w", err)
			}
		}
	}
	return nil
}

// Counters reads the counters.
func (u *UDP) Counters() UDPCounters {
	c := &u.count
	return UDPCounters{
		SendCalls: c.sendCalls.Load(), SentMessages: c.sentMessages.Load(), SentDatagrams: c.sentDatagrams.Load(),
		ReceiveCalls: c.receiveCalls.Load(), ReceivedDatagrams: c.receivedDatagrams.Load(),
		Relaid: c.relaid.Load(), TooLong: c.tooLong.Load(), Dropped: c.dropped.Load(),
		Unreachable: c.unreachable.Load(), Forbidden: c.forbidden.Load(), NoBuffers: c.noBuffers.Load(),
		TooBig: c.tooBig.Load(), NoSocket: c.noSocket.Load(), OtherSend: c.otherSend.Load(),
		OffloadRefused: c.offloadRefused.Load(), ReceiveErrors: c.receiveErrors.Load(), Reopened: c.reopened.Load(),
	}
}

// open opens the socket.
func (p *port) open(mark uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closed:
		return net.ErrClosed
	default:
	}
	c, err := p.u.o.Opener.Open(p.network, p.local, p.u.o.Interface)
	if err != nil {
		return err
	}
	s, err := newSocket(c, p.network == "udp6", p.u.o, mark)
	if err != nil {
		c.Close()
		return err
	}
	p.sock.Store(s)
	return nil
}

// shut ends receive.
func (p *port) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.closed)
	if s := p.sock.Load(); s != nil {
		s.conn.Close()
	}
}

// drop closes the socket; receive opens a new one.
func (p *port) drop(s *socket) {
	if p.sock.CompareAndSwap(s, nil) {
		s.conn.Close()
	}
}

const (
	reopenFirst = 100 * time.Millisecond
	reopenLast  = 2 * time.Second
)

// reopen tries to get a socket until there is one. It reports false when the
// Bind was closed.
func (p *port) reopen() bool {
	for wait := reopenFirst; ; wait = min(2*wait, reopenLast) {
		timer := time.NewTimer(wait)
		select {
		case <-p.closed:
			timer.Stop()
			return false
		case <-timer.C:
		}
		p.u.mu.Lock()
		mark := p.u.mark
		p.u.mu.Unlock()
		if p.open(mark) == nil {
			p.u.count.reopened.Add(1)
			return true
		}
	}
}

// failed counts n datagrams that were not sent because of errno.
func (u *UDP) failed(errno syscall.Errno, n int) {
	c := &u.count.otherSend
	switch errno {
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN, unix.EHOSTDOWN, unix.ECONNREFUSED, unix.EADDRNOTAVAIL, unix.ENODEV:
		c = &u.count.unreachable
	case unix.EPERM, unix.EACCES:
		c = &u.count.forbidden
	case unix.ENOBUFS, unix.ENOMEM:
		c = &u.count.noBuffers
	case unix.EMSGSIZE:
		c = &u.count.tooBig
	}
	c.Add(uint64(n))
}
