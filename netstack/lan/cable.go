package lan

import (
	"net"
	"sync"

	"patronus/netstack/packet"
)

// cableQueue is how many packets one direction of a cable holds.
const cableQueue = 1024

// CableOptions says what a cable is like; the zero value is usable.
type CableOptions struct {
	// Name is given to both ends; default "cable".
	Name string
	// MTU in bytes; default 1500.
	MTU int
	// Queue is how many packets each direction holds before it drops; default 1024.
	Queue int
}

// Cable is one end of a cable in memory: what is written to one end is read
// from the other. Superpackets pass as they are. It uses channels only, so it
// works inside testing/synctest. When an end is closed the other one goes on
// as if its peer were switched off: its writes are dropped and counted.
type Cable struct {
	name   string
	mtu    int
	in     chan *packet.Buffer
	peer   *Cable
	closed chan struct{}
	once   sync.Once
	count  counters
}

// NewCable returns the two ends of a cable.
func NewCable(o CableOptions) (a, b *Cable) {
	if o.Name == "" {
		o.Name = "cable"
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.Queue == 0 {
		o.Queue = cableQueue
	}
	end := func() *Cable {
		return &Cable{name: o.Name, mtu: o.MTU, in: make(chan *packet.Buffer, o.Queue), closed: make(chan struct{})}
	}
	a, b = end(), end()
	a.peer, b.peer = b, a
	return a, b
}

// Name implements Port.
func (c *Cable) Name() string { return c.name }

// MTU implements Port.
func (c *Cable) MTU() int { return c.mtu }

// Counters implements Port.
func (c *Cable) Counters() Counters { return c.count.snapshot() }

// Read implements Port.
func (c *Cable) Read(bufs []*packet.Buffer) (int, error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	select {
	case bufs[0] = <-c.in:
	case <-c.closed:
		return 0, net.ErrClosed
	}
	n := 1
	for n < len(bufs) {
		select {
		case bufs[n] = <-c.in:
			n++
			continue
		default:
		}
		break
	}
	var got tally
	for _, b := range bufs[:n] {
		got.add(segments(&b.GSO, len(b.Bytes)), len(b.Bytes))
	}
	c.count.rx.add(&got)
	return n, nil
}

// Write implements Port.
func (c *Cable) Write(pkts []Out) error {
	select {
	case <-c.closed:
		return net.ErrClosed
	default:
	}
	var sent tally
	for i := range pkts {
		p := &pkts[i]
		size := len(p.Bytes)
		if wireSize(&p.GSO, size) > c.mtu || size > maxPacket {
			c.count.drop(DropOversize, 1)
			continue
		}
		b := packet.Get(size)
		copy(b.Bytes, p.Bytes)
		b.GSO = p.GSO
		if c.peer.deliver(b) {
			sent.add(segments(&p.GSO, size), size)
			continue
		}
		b.Release()
		select {
		case <-c.peer.closed:
			c.count.drop(DropLinkDown, 1)
		default:
			c.count.drop(DropQueueFull, 1)
		}
	}
	c.count.tx.add(&sent)
	return nil
}

func (c *Cable) deliver(b *packet.Buffer) bool {
	select {
	case <-c.closed:
		return false
	default:
	}
	select {
	case c.in <- b:
		return true
	default:
		return false
	}
}

// Close implements Port. Packets that wait at this end are released; one that
// is being written at this moment is left to the garbage collector.
func (c *Cable) Close() error {
	c.once.Do(func() {
		close(c.closed)
		for {
			select {
			case b := <-c.in:
				b.Release()
				continue
			default:
			}
			return
		}
	})
	return nil
}
