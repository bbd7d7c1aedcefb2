package tunnel

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

const (
	// maxSegments is UDP_MAX_SEGMENTS of kernels before 6.x; maxMessage is the
	// largest UDP payload over IPv4, and allowed over IPv6.
	maxSegments = 64
	maxMessage  = 65507
)

// segmentControl is the control message UDP_SEGMENT (udp(7)): its header and
// 16 bits, padded.
type segmentControl struct {
	hdr  unix.Cmsghdr
	size uint16
	_    [6]byte
}

// sendBatch is the memory of one call of Send.
type sendBatch struct {
	name  sockaddr
	msgs  []mmsghdr
	iovs  []unix.Iovec // one for each datagram
	ctrl  []segmentControl
	first []int // index of each message's first datagram
	count []int // datagrams in each message
	// next is the first message not sent, end the last one plus one.
	next, end int
	calls     uint64
	errno     syscall.Errno
	write     func(fd uintptr) bool // sendmmsg on this batch, for RawConn.Write
}

func newSendBatch(size int) *sendBatch {
	b := &sendBatch{
		msgs: make([]mmsghdr, size), iovs: make([]unix.Iovec, size),
		ctrl: make([]segmentControl, size), first: make([]int, size), count: make([]int, size),
	}
	for i := range b.ctrl {
		c := &b.ctrl[i]
		c.hdr.Level, c.hdr.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		c.hdr.SetLen(unix.CmsgLen(2))
	}
	b.write = b.sendmmsg
	return b
}

// Send sends bufs to one endpoint with as few system calls as possible. What
// cannot be sent is counted by its reason; the error is that of the last one.
func (u *UDP) Send(bufs [][]byte, to conn.Endpoint) error {
	e, ok := to.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	s := u.socketFor(e)
	if s == nil {
		u.count.noSocket.Add(uint64(len(bufs)))
		return unix.ENETDOWN
	}
	b := u.batches.Get().(*sendBatch)
	defer u.batches.Put(b)
	namelen := b.name.put(e)
	var err error
	for len(bufs) > 0 {
		n := min(len(bufs), len(b.iovs))
		b.gather(bufs[:n], namelen, s.segment.Load())
		sent, e := u.flush(s, b, namelen)
		if e != nil {
			err = e
		}
		u.count.sentDatagrams.Add(uint64(sent))
		clear(b.iovs[:n]) // the pool shall not hold the device's buffers
		bufs = bufs[n:]
	}
	u.count.sendCalls.Add(b.calls)
	b.calls = 0
	return err
}

func (u *UDP) socketFor(e *endpoint) *socket {
	p := u.v4.Load()
	if e.addr.Addr().Is6() {
		p = u.v6.Load()
	}
	if p == nil {
		return nil
	}
	return p.sock.Load()
}

// gather makes messages of bufs: runs of equal size, of which the last may be
// shorter, become one with UDP_SEGMENT.
func (b *sendBatch) gather(bufs [][]byte, namelen uint32, segment bool) {
	for i, buf := range bufs {
		b.iovs[i].Base = unsafe.SliceData(buf)
		b.iovs[i].SetLen(len(buf))
	}
	b.next, b.end = 0, 0
	for i := 0; i < len(bufs); {
		n := 1
		if segment {
			n = runLength(bufs[i:])
		}
		b.message(b.end, i, n, namelen, len(bufs[i]))
		b.end++
		i += n
	}
}

// runLength is how many of bufs the kernel can cut out of one message.
func runLength(bufs [][]byte) int {
	size := len(bufs[0])
	total := size
	for n := 1; n < len(bufs); n++ {
		l := len(bufs[n])
		if n == maxSegments || l > size || total+l > maxMessage || l == 0 {
			return n
		}
		total += l
		if l < size {
			return n + 1
		}
	}
	return len(bufs)
}

// message fills msgs[at] with n datagrams from iovs[first].
func (b *sendBatch) message(at, first, n int, namelen uint32, size int) {
	h := &b.msgs[at].hdr
	h.Name, h.Namelen = &b.name[0], namelen
	h.Iov = &b.iovs[first]
	h.SetIovlen(n)
	h.Control = nil
	h.SetControllen(0)
	if n > 1 {
		c := &b.ctrl[at]
		c.size = uint16(size)
		h.Control = (*byte)(unsafe.Pointer(c))
		h.SetControllen(int(unsafe.Sizeof(*c)))
	}
	b.first[at], b.count[at] = first, n
}

// flush sends the batch and returns how many datagrams went out. A message
// that fails is sent again datagram by datagram if segmentation may be the
// reason; or else it is counted and skipped, with all that follow if the
// reason will not go away within the batch.
func (u *UDP) flush(s *socket, b *sendBatch, namelen uint32) (sent int, err error) {
	for b.next < b.end {
		from := b.next
		b.errno = 0
		if s.raw.Write(b.write) != nil { // closed
			u.count.noSocket.Add(uint64(b.datagrams(b.next, b.end)))
			return sent, net.ErrClosed
		}
		sent += b.datagrams(from, b.next)
		u.count.sentMessages.Add(uint64(b.next - from))
		if b.errno == 0 {
			break
		}
		failed := b.next
		b.next++
		switch {
		case b.count[failed] > 1 && segmentsRefused(b.errno):
			var n int
			n, err = u.single(s, b, failed, namelen)
			sent += n
		case b.errno == unix.EMSGSIZE || b.errno == unix.ENOBUFS || b.errno == unix.ENOMEM:
			err = b.errno
			u.failed(b.errno, b.count[failed])
		default:
			u.failed(b.errno, b.datagrams(failed, b.end))
			return sent, b.errno
		}
	}
	return sent, err
}

// segmentsRefused reports whether errno may be about UDP_SEGMENT: EIO from a
// device without checksum offload, EINVAL and EMSGSIZE for a size that the
// kernel will not cut to (also if only the first datagrams are too big).
func segmentsRefused(errno syscall.Errno) bool {
	return errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE || errno == unix.EOPNOTSUPP
}

// single sends the datagrams of a refused message one by one. If that works,
// the socket is not asked to segment again; a datagram larger than the MTU is
// no reason.
func (u *UDP) single(s *socket, of *sendBatch, at int, namelen uint32) (sent int, err error) {
	b := u.batches.Get().(*sendBatch)
	defer u.batches.Put(b)
	n := of.count[at]
	b.name = of.name
	copy(b.iovs, of.iovs[of.first[at]:][:n])
	for i := range n {
		b.message(i, i, 1, namelen, 0)
	}
	b.next, b.end = 0, n
	sent, err = u.flush(s, b, namelen)
	clear(b.iovs[:n])
	if sent > 0 && of.errno != unix.EMSGSIZE && s.segment.Swap(false) {
		u.count.offloadRefused.Add(1)
	}
	return sent, err
}

func (b *sendBatch) datagrams(from, to int) (n int) {
	for _, c := range b.count[from:to] {
		n += c
	}
	return n
}

// sendmmsg sends msgs[next:end], until all are gone, one fails, or the socket
// would block. It does not tell the scheduler: on a non-blocking descriptor
// that costs more than the call.
func (b *sendBatch) sendmmsg(fd uintptr) (done bool) {
	for b.next < b.end {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.msgs[b.next])),
			uintptr(b.end-b.next), unix.MSG_DONTWAIT, 0, 0)
		b.calls++
		switch errno {
		case 0:
			b.next += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			b.errno = errno
			return true
		}
	}
	return true
}
