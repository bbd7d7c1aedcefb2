package vnet

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// socketQueue is how many datagrams wait in a socket before more are dropped.
const socketQueue = 2048

// Bind is a UDP socket on a NIC, in the shape that a WireGuard device wants.
type Bind struct {
	nic   *NIC
	want  uint16
	batch int

	// port, open and tally are guarded by nic.net.mu.
	port  uint16
	open  *socket
	tally BindTally

	closing sync.Mutex // one Open or Close at a time
}

// BindTally counts a Bind's datagrams. Those that a link loses later are sent.
type BindTally struct {
	Sent, SentBytes         uint64
	Received, ReceivedBytes uint64
	// Overflow counts arrivals that were dropped because nobody read.
	Overflow uint64
}

// socket is one opening of a Bind.
type socket struct {
	closed chan struct{}
	in4    chan *datagram
	in6    chan *datagram
}

var _ conn.Bind = (*Bind)(nil)

// Bind returns a closed socket of a NIC. port is used if Open is asked for
// none; if both are 0 a free one is taken.
func (n *Network) Bind(nic *NIC, port uint16) *Bind {
	return &Bind{nic: nic, want: port, batch: 1}
}

// SetBatchSize makes BatchSize return size; call it before a device sees b. It
// panics if size is not positive.
func (b *Bind) SetBatchSize(size int) {
	if size <= 0 {
		panic("vnet: batch size must be positive")
	}
	b.batch = size
}

// BatchSize is 1 unless it was set.
func (b *Bind) BatchSize() int { return b.batch }

// NIC is the interface that b sends through.
func (b *Bind) NIC() *NIC { return b.nic }

// Tally returns the counts so far.
func (b *Bind) Tally() BindTally {
	b.nic.net.mu.Lock()
	defer b.nic.net.mu.Unlock()
	return b.tally
}

// Open binds to port, or to what [Network.Bind] was given. It fails with
// conn.ErrBindAlreadyOpen or wraps syscall.EADDRINUSE.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.closing.Lock()
	defer b.closing.Unlock()
	n := b.nic.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if b.open != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	if port == 0 {
		port = b.want
	}
	if port == 0 {
		port = b.nic.freePort()
	}
	if port == 0 || b.nic.ports[port] != nil {
		return nil, 0, fmt.Errorf("bind %s port %d: %w", b.nic.name, port, syscall.EADDRINUSE)
	}
	s := &socket{
		closed: make(chan struct{}),
		in4:    make(chan *datagram, socketQueue),
		in6:    make(chan *datagram, socketQueue),
	}
	b.nic.ports[port] = b
	b.port, b.open = port, s
	return []conn.ReceiveFunc{b.receiveIPv4(s), b.receiveIPv6(s)}, port, nil
}

// freePort picks from the dynamic range (RFC 6335, section 6), 0 if it is used
// up. The caller holds the network's mutex.
func (nic *NIC) freePort() uint16 {
	const first = 49152
	start := nic.net.rng.IntN(math.MaxUint16 + 1 - first)
	for i := range math.MaxUint16 + 1 - first {
		p := uint16(first + (start+i)%(math.MaxUint16+1-first))
		if nic.ports[p] == nil {
			return p
		}
	}
	return 0
}

// Close unbinds. The ReceiveFuncs return net.ErrClosed; b can be opened again.
func (b *Bind) Close() error {
	b.closing.Lock()
	defer b.closing.Unlock()
	n := b.nic.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if b.open == nil {
		return nil
	}
	close(b.open.closed)
	delete(b.nic.ports, b.port)
	b.open = nil
	return nil
}

// SetMark does nothing: the network has no policy routing.
func (b *Bind) SetMark(uint32) error { return nil }

// ParseEndpoint reads "ip:port".
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	dst, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	return NewEndpoint(dst), nil
}

// Send puts datagrams on the NIC's link. What happens to them on the way is no
// error; errors are net.ErrClosed, conn.ErrWrongEndpointType, and wrapped
// ENETUNREACH (no address of that family) and EMSGSIZE (larger than the NIC's MTU,
// after the smaller ones were sent). borrowed: bufs.
func (b *Bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	to, ok := ep.(*Endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	n := b.nic.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if b.open == nil || n.closed {
		return net.ErrClosed
	}
	src, ok := b.nic.source(to.src, to.dst.Addr())
	if !ok {
		return fmt.Errorf("%s to %s: %w", b.nic.name, to.dst, syscall.ENETUNREACH)
	}
	n.settle() // what is due comes first
	from, now := netip.AddrPortFrom(src, b.port), time.Now()
	var tooBig error
	for _, buf := range bufs {
		if b.nic.mtu > 0 && packetSize(to.dst.Addr(), len(buf)) > b.nic.mtu {
			tooBig = fmt.Errorf("%s, %d bytes: %w", b.nic.name, len(buf), syscall.EMSGSIZE)
			continue
		}
		b.tally.Sent++
		b.tally.SentBytes += uint64(len(buf))
		n.send(b.nic, from, to.dst, slices.Clone(buf), now)
	}
	n.settle()
	return tooBig
}

// send starts a datagram on its way; data becomes the network's. The caller
// holds n.mu.
func (n *Network) send(nic *NIC, src, dst netip.AddrPort, data []byte, now time.Time) {
	rec := n.ring.add(Record{
		At: now, From: nic.name, Src: src, Dst: dst,
		Message: MessageOf(data), Size: len(data), data: data,
	})
	nic.egress(&datagram{src: src, dst: dst, data: data, rec: rec}, now)
}

// offer queues an arrival, or reports that there is no room. The caller holds
// the network's mutex.
func (b *Bind) offer(d *datagram) bool {
	in := b.open.in6
	if d.dst.Addr().Is4() {
		in = b.open.in4
	}
	select {
	case in <- d:
		b.tally.Received++
		b.tally.ReceivedBytes += uint64(len(d.data))
		return true
	default:
		b.tally.Overflow++
		return false
	}
}

// Two names, because conn.ReceiveFunc.PrettyName looks at them.
func (b *Bind) receiveIPv4(s *socket) conn.ReceiveFunc {
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		return s.receive(s.in4, bufs, sizes, eps)
	}
}

func (b *Bind) receiveIPv6(s *socket) conn.ReceiveFunc {
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		return s.receive(s.in6, bufs, sizes, eps)
	}
}

// receive waits for one datagram and takes along what else is there.
func (s *socket) receive(in chan *datagram, bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	// A closed socket wins over datagrams that wait.
	select {
	case <-s.closed:
		return 0, net.ErrClosed
	default:
	}
	var d *datagram
	select {
	case <-s.closed:
		return 0, net.ErrClosed
	case d = <-in:
	}
	for i := range bufs {
		sizes[i] = copy(bufs[i], d.data)
		eps[i] = &Endpoint{dst: d.src, src: d.dst.Addr()}
		if i+1 == len(bufs) {
			break
		}
		select {
		case d = <-in:
		default:
			return i + 1, nil
		}
	}
	return len(bufs), nil
}

// Endpoint is a remote address and, if it was learned from an arrival, the
// local address that it was sent to. It is immutable.
type Endpoint struct {
	dst netip.AddrPort
	src netip.Addr
}

var _ conn.Endpoint = (*Endpoint)(nil)

// NewEndpoint returns an endpoint without a source.
func NewEndpoint(dst netip.AddrPort) *Endpoint {
	return &Endpoint{dst: netip.AddrPortFrom(dst.Addr().Unmap().WithZone(""), dst.Port())}
}

// ClearSrc does nothing: Send falls back by itself from a source that the NIC
// no longer has, and an endpoint is shared without a lock.
func (e *Endpoint) ClearSrc() {}

// SrcToString returns the local address, or nothing.
func (e *Endpoint) SrcToString() string {
	if !e.src.IsValid() {
		return ""
	}
	return e.src.String()
}

// DstToString returns "ip:port".
func (e *Endpoint) DstToString() string { return e.dst.String() }

// DstToBytes returns address and port for the cookie's MAC.
func (e *Endpoint) DstToBytes() []byte {
	b, err := e.dst.MarshalBinary()
	if err != nil {
		panic(errors.Join(errors.New("vnet: an address always marshals"), err))
	}
	return b
}

// DstIP returns the remote address.
func (e *Endpoint) DstIP() netip.Addr { return e.dst.Addr() }

// SrcIP returns the local address; it is not valid if none was learned.
func (e *Endpoint) SrcIP() netip.Addr { return e.src }

// Dst returns the remote address and port.
func (e *Endpoint) Dst() netip.AddrPort { return e.dst }
