package packet

import "sync"

// Sizes of the two kinds of buffer. Small ones hold any single packet of a
// 1500-byte link; big ones hold a superpacket.
const (
	Headroom  = 64
	SmallSize = 2048
	BigSize   = 64<<10 + 256
)

// GSO describes a superpacket: one set of headers over a payload that is still
// to be cut into segments of Size bytes (struct virtio_net_hdr, linux/virtio_net.h).
type GSO struct {
	Size   uint16 // payload bytes of each segment but the last; 0: a single packet
	HdrLen uint16 // bytes of headers that are repeated before each segment
	// CsumStart and CsumOffset are valid if NeedsCsum: the transport checksum
	// at CsumStart+CsumOffset holds the pseudo-header's sum only.
	CsumStart, CsumOffset uint16
	NeedsCsum             bool
	Proto                 uint8 // TCP or UDP (USO), if Size is not 0
}

// Buffer is one IP packet, possibly a superpacket, on its way to a tunnel. It
// has exactly one owner; whoever has it either passes it on or calls Release.
type Buffer struct {
	// Bytes is the packet, network header first. It lies in the buffer's own
	// memory with Headroom bytes free before it.
	Bytes []byte
	GSO   GSO
	Info  Info
	mem   []byte
}

var (
	smallPool = sync.Pool{New: func() any { return &Buffer{mem: make([]byte, SmallSize)} }}
	bigPool   = sync.Pool{New: func() any { return &Buffer{mem: make([]byte, BigSize)} }}
)

// Get returns a buffer whose Bytes has length n. It panics if n exceeds
// BigSize-Headroom.
func Get(n int) *Buffer {
	var b *Buffer
	if n <= SmallSize-Headroom {
		b = smallPool.Get().(*Buffer)
	} else {
		b = bigPool.Get().(*Buffer)
	}
	b.Bytes = b.mem[Headroom : Headroom+n]
	b.GSO = GSO{}
	return b
}

// Release gives the buffer back. The caller must not touch it afterwards.
func (b *Buffer) Release() {
	b.Bytes = nil
	if len(b.mem) == SmallSize {
		smallPool.Put(b)
	} else {
		bigPool.Put(b)
	}
}

// Cap is the memory the buffer holds, bytes: what queues account.
func (b *Buffer) Cap() int { return len(b.mem) }

// Headroom is the buffer's memory up to and including the packet, of which the
// last n bytes before the packet and the packet itself are returned.
func (b *Buffer) Headroom(n int) []byte { return b.mem[Headroom-n : Headroom+len(b.Bytes)] }
