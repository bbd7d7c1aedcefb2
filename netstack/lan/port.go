package lan

import (
	"sync/atomic"

	"patronus/netstack/packet"
)

// Port is one attachment of the site's own hosts.
type Port interface {
	// Name is the interface's name, or what the cable was given.
	Name() string
	// MTU is the largest IP packet the link carries, bytes. Segments of
	// superpackets obey it, superpackets do not.
	MTU() int
	// Read blocks until packets are there and fills bufs from the start with
	// buffers that the caller then owns; it returns how many. A superpacket has
	// its GSO set; a packet that is not one may still need its transport
	// checksum finished (GSO.NeedsCsum). After Close it returns net.ErrClosed.
	// One goroutine may be in Read.
	Read(bufs []*packet.Buffer) (int, error)
	// Write sends pkts, which are borrowed until it returns, in an order that
	// is kept within each flow. It returns an error only if the port is gone
	// (net.ErrClosed after Close); packets that could not be sent are counted.
	// It may be called concurrently.
	Write(pkts []Out) error
	// Counters returns a snapshot; each field is exact, the set is not atomic.
	Counters() Counters
	// Close releases the port. A second Close does nothing.
	Close() error
}

// Out is one packet on its way to the site's hosts.
type Out struct {
	// Bytes is one IP packet, network header first.
	Bytes []byte
	// Info is the result of packet.Decode on Bytes.
	Info *packet.Info
	// NextHop is the on-link address the packet is sent to; the zero value
	// means the packet's own destination. Ports without link addresses
	// ignore it.
	NextHop packet.Addr
	// GSO is set if Bytes is a superpacket or has an unfinished checksum, as
	// when a packet that was read from one port leaves by another.
	GSO packet.GSO
}

// packet returns Bytes without link padding.
func (o *Out) packet() []byte {
	if o.Info != nil && o.Info.Length > 0 && int(o.Info.Length) < len(o.Bytes) {
		return o.Bytes[:o.Info.Length]
	}
	return o.Bytes
}

// Drop says why a port did not pass a packet on.
type Drop uint8

// The reasons.
const (
	DropMalformed      Drop = iota // not an IP packet or Ethernet frame, or headers that contradict each other
	DropTruncated                  // larger than any buffer
	DropUnknownGSO                 // a kind of superpacket that nobody here can cut
	DropUnverified                 // merged by hardware without its checksums having been checked
	DropOversize                   // larger than the link's MTU
	DropQueueFull                  // the receiver or the link does not keep up
	DropNotOurs                    // a frame for another station or VLAN
	DropLooped                     // a frame of our own that came back: the LAN has a loop
	DropUnreachable                // the next hop does not answer
	DropNeighbourQueue             // too many packets wait for one next hop to answer
	DropNeighbours                 // too many next hops are being looked for
	DropLinkDown                   // the interface is down
	DropRefused                    // the kernel refused the packet
	NumDrops
)

// String is the reason's name, fit for a metric's label.
func (d Drop) String() string {
	switch d {
	case DropMalformed:
		return "malformed"
	case DropTruncated:
		return "truncated"
	case DropUnknownGSO:
		return "unknown-gso"
	case DropUnverified:
		return "unverified"
	case DropOversize:
		return "oversize"
	case DropQueueFull:
		return "queue-full"
	case DropNotOurs:
		return "not-ours"
	case DropLooped:
		return "looped"
	case DropUnreachable:
		return "unreachable"
	case DropNeighbourQueue:
		return "neighbour-queue"
	case DropNeighbours:
		return "neighbours"
	case DropLinkDown:
		return "link-down"
	case DropRefused:
		return "refused"
	case NumDrops:
	}
	return "unknown"
}

// Counters is what went through a port. Rx is from the hosts to the engine.
// Packets are counted as on the wire: a superpacket counts as its segments;
// bytes are those that crossed the port, headers of a superpacket once.
type Counters struct {
	RxPackets, RxBytes uint64
	TxPackets, TxBytes uint64
	// RxMerged and TxMerged are superpackets.
	RxMerged, TxMerged uint64
	Drops              [NumDrops]uint64
}

// tally counts one batch without atomics.
type tally struct {
	packets, bytes, merged uint64
}

func (t *tally) add(packets, bytes int) {
	t.packets += uint64(packets)
	t.bytes += uint64(bytes)
	if packets > 1 {
		t.merged++
	}
}

// counters is the shared form. The directions lie on cache lines of their own
// since different goroutines count them.
type counters struct {
	rx    direction
	_     [40]byte
	tx    direction
	_     [40]byte
	drops [NumDrops]atomic.Uint64
}

type direction struct {
	packets, bytes, merged atomic.Uint64
}

func (d *direction) add(t *tally) {
	if t.packets == 0 {
		return
	}
	d.packets.Add(t.packets)
	d.bytes.Add(t.bytes)
	if t.merged != 0 {
		d.merged.Add(t.merged)
	}
	*t = tally{}
}

func (c *counters) drop(why Drop, n int) { c.drops[why].Add(uint64(n)) }

func (c *counters) snapshot() Counters {
	s := Counters{
		RxPackets: c.rx.packets.Load(), RxBytes: c.rx.bytes.Load(), RxMerged: c.rx.merged.Load(),
		TxPackets: c.tx.packets.Load(), TxBytes: c.tx.bytes.Load(), TxMerged: c.tx.merged.Load(),
	}
	for i := range s.Drops {
		s.Drops[i] = c.drops[i].Load()
	}
	return s
}

// segments is the number of packets on the wire that size bytes become.
func segments(g *packet.GSO, size int) int {
	if g.Size == 0 || size <= int(g.HdrLen) {
		return 1
	}
	return (size - int(g.HdrLen) + int(g.Size) - 1) / int(g.Size)
}

// wireSize is the largest packet on the wire that size bytes become.
func wireSize(g *packet.GSO, size int) int {
	if g.Size == 0 {
		return size
	}
	return min(size, int(g.HdrLen)+int(g.Size))
}
