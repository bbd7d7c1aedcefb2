package tunnel

import (
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
)

// memoryQueue is how many calls of Send wait at the other end.
const memoryQueue = 64

// Memory is one end of a link in memory: a conn.Bind without sockets, so that
// a Tunnel runs inside testing/synctest. Like a wire it drops: what is sent to
// any other address than the partner's, while the partner is closed, and when
// its queue is full.
type Memory struct {
	at      netip.AddrPort
	batch   int
	partner *Memory

	mu     sync.Mutex
	in     chan [][]byte
	closed chan struct{}
	filter func(datagram []byte) bool
}

// NewMemory makes a link. Both ends have batches of the given size.
func NewMemory(batch int) (a, b *Memory) {
	a = &Memory{at: netip.MustParseAddrPort("192.0.2.1:51820"), batch: batch}
	b = &Memory{at: netip.MustParseAddrPort("192.0.2.2:51820"), batch: batch, partner: a}
	a.partner = b
	return a, b
}

// Addr is the address by which the other end reaches this one.
func (m *Memory) Addr() netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

// Move changes Addr: what is sent from now on comes from the new one.
func (m *Memory) Move(to netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = to
}

// Filter makes the end ask keep about each datagram that it sends; borrowed:
// the datagram. nil keeps all.
func (m *Memory) Filter(keep func(datagram []byte) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.filter = keep
}

// Inject delivers a datagram to this end as if it came from src.
func (m *Memory) Inject(datagram []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deliver([][]byte{slices.Clone(datagram)})
}

// deliver queues at this end. The caller holds mu.
func (m *Memory) deliver(datagrams [][]byte) {
	if m.in == nil {
		return
	}
	select {
	case m.in <- datagrams:
	default:
	}
}

// Open begins to receive.
func (m *Memory) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.in != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	in, closed := make(chan [][]byte, memoryQueue), make(chan struct{})
	m.in, m.closed = in, closed
	var rest [][]byte
	receive := func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		if len(rest) == 0 {
			select {
			case <-closed:
				return 0, net.ErrClosed
			case rest = <-in:
			}
		}
		from := newEndpoint(m.partner.Addr(), 0)
		n := min(len(rest), len(bufs))
		for i, d := range rest[:n] {
			sizes[i], eps[i] = copy(bufs[i], d), from
		}
		rest = rest[n:]
		return n, nil
	}
	return []conn.ReceiveFunc{receive}, m.at.Port(), nil
}

// Close ends the ReceiveFunc.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.in != nil {
		close(m.closed)
		m.in, m.closed = nil, nil
	}
	return nil
}

// Send copies bufs to the other end.
func (m *Memory) Send(bufs [][]byte, to conn.Endpoint) error {
	m.mu.Lock()
	keep := m.filter
	m.mu.Unlock()
	out := make([][]byte, 0, len(bufs))
	for _, b := range bufs {
		if keep == nil || keep(b) {
			out = append(out, slices.Clone(b))
		}
	}
	p := m.partner
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := to.(*endpoint); ok && e.addr == p.at && len(out) > 0 {
		p.deliver(out)
	}
	return nil
}

// SetMark does nothing.
func (*Memory) SetMark(uint32) error { return nil }

// ParseEndpoint reads ip:port.
func (*Memory) ParseEndpoint(s string) (conn.Endpoint, error) { return parseEndpoint(s) }

// BatchSize is NewMemory's.
func (m *Memory) BatchSize() int { return m.batch }
