package packet

import "sync"

// Sizes of the two kinds of buffer, bytes, Headroom included. Small ones hold
// any single packet of a 1500-byte link; big ones hold a superpacket.
const (
	Headroom  = 64
	SmallSize = 2048
	BigSize   = 64<<10 + 256
)

// GSO describes a superpacket: one set of headers over a payload that is still
// to be cut into segments of Size bytes (struct virtio_net_hdr, linux/virtio_net.h).
type GSO struct {
	Size uint16 // payload bytes of each segment but the last; 0: a single packet
	// HdrLen is the bytes of headers that are repeated before each segment, as
	// the kernel says. It is a hint: the cutting goes by the headers themselves.
	HdrLen uint16
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
	// memory, with Headroom bytes free before it. It may be resliced, not
	// replaced.
	Bytes []byte
	GSO   GSO
	Info  Info // Version 0 until somebody decodes Bytes into it
	mem   []byte
}

var (
	smallPool = sync.Pool{New: func() any { return &Buffer{mem: make([]byte, SmallSize)} }}
	bigPool   = sync.Pool{New: func() any { return &Buffer{mem: make([]byte, BigSize)} }}
)

// Get returns a buffer whose Bytes has length n and undefined content. It
// panics if n exceeds BigSize-Headroom. Safe for concurrent use.
func Get(n int) *Buffer {
	var b *Buffer
	if n <= SmallSize-Headroom {
		b = smallPool.Get().(*Buffer)
	} else {
		b = bigPool.Get().(*Buffer)
	}
	b.Bytes = b.mem[Headroom : Headroom+n]
	b.GSO = GSO{}
	b.Info = Info{}
	return b
}

// Release gives the buffer back. The caller must not touch it afterwards. It
// panics on a buffer that was released already: two owners would share memory.
func (b *Buffer) Release() {
	if b.Bytes == nil {
		panic("packet: buffer released twice")
	}
	b.Bytes = nil
	if len(b.mem) == SmallSize {
		smallPool.Put(b)
	} else {
		bigPool.Put(b)
	}
}

// Cap is the memory the buffer holds, bytes: what queues account.
func (b *Buffer) Cap() int { return len(b.mem) }

// Headroom returns the packet together with the n bytes of memory before it,
// where a caller writes a header. It aliases Bytes. It panics if fewer than n
// bytes are free; at least the constant Headroom are, unless Bytes was
// resliced to start earlier.
func (b *Buffer) Headroom(n int) []byte {
	start := cap(b.mem) - cap(b.Bytes)
	return b.mem[start-n : start+len(b.Bytes)]
}

// decode makes sure that Info is about Bytes.
func (b *Buffer) decode() Fault {
	if b.Info.Version != 0 {
		return OK
	}
	fault := Decode(b.Bytes, &b.Info)
	if fault != OK {
		b.Info.Version = 0
	}
	return fault
}
