package tunnel

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

const (
	// lonely is how many messages one call takes while the kernel merges none,
	// each into one buffer.
	lonely = 64
	// overflowLen is what may follow behind the buffers of a message.
	overflowLen = 64 << 10
	// forgetAfter: the segment size of larger runs is kept for so many calls
	// without one, so that runs of acknowledgements do not displace it.
	forgetAfter = 32
	// keepSpare is the most memory kept for relaid datagrams, bytes.
	keepSpare = 512 << 10
	// knownSources bounds the endpoints that are kept.
	knownSources = 1024
	controlLen   = 64 // UDP_GRO and SO_RXQ_OVFL, 24 bytes each
)

// receiver is what one port needs to receive. The kernel writes straight into
// the device's buffers: a message that it merged (UDP_GRO) is scattered over
// as many as it may have segments, each as long as the last one's segments
// were. If the guess was wrong, the datagrams are laid out anew, by copying.
type receiver struct {
	msgs     []mmsghdr
	iovs     []unix.Iovec
	names    []sockaddr
	controls [][controlLen]byte
	overflow [][]byte // one for each message
	spread   int      // scattered messages in a call
	segments int      // buffers for each of them

	// width is the length of each scattered buffer; 0: one whole buffer for a
	// message. unseen counts the calls without a run of that width.
	width, unseen int
	// The layout of this call: each message has so many buffers of so many
	// bytes, and what follows goes to its overflow.
	each, wide int

	want, count int // messages asked for, and got
	errno       syscall.Errno
	read        func(fd uintptr) bool // recvmmsg, for RawConn.Read

	// Datagrams laid out anew that wait for buffers, from given on.
	spare  []byte
	relaid []relaid
	given  int

	sock    *socket
	drops   uint32 // the socket's counter, when last seen
	last    sockaddr
	lastEnd *endpoint
	sources map[sockaddr]*endpoint
}

// relaid is a datagram in receiver.spare.
type relaid struct {
	from, to int
	end      *endpoint
}

func (r *receiver) init(batch int) {
	r.spread, r.segments = max(1, batch/maxSegments), min(batch, maxSegments)
	n := max(min(batch, lonely), r.spread)
	r.msgs = make([]mmsghdr, n)
	r.names = make([]sockaddr, n)
	r.controls = make([][controlLen]byte, n)
	r.iovs = make([]unix.Iovec, max(2*n, r.spread*(r.segments+1)))
	r.sources = make(map[sockaddr]*endpoint)
	r.read = r.recvmmsg
}

// lay points the messages of the next call at bufs.
func (r *receiver) lay(bufs [][]byte, s *socket) {
	if r.sock != s {
		r.sock, r.drops, r.width = s, 0, 0
	}
	r.want, r.each, r.wide = min(len(bufs), len(r.msgs)), 1, len(bufs[0])
	if r.width > 0 && r.width <= len(bufs[0]) && s.merges && len(bufs) >= r.spread*r.segments {
		r.want, r.each, r.wide = r.spread, r.segments, r.width
	}
	spills := r.each*r.wide < maxMessage
	for m := range r.want {
		first := m * (r.each + 1)
		iovs := r.iovs[first:][:r.each+1]
		for j := range r.each {
			iovs[j].Base = unsafe.SliceData(bufs[m*r.each+j])
			iovs[j].SetLen(r.wide)
		}
		n := r.each
		if spills {
			iovs[n].Base = unsafe.SliceData(r.spill(m))
			iovs[n].SetLen(overflowLen)
			n++
		}
		r.message(m, first, n)
	}
}

// spill is the overflow of message m.
func (r *receiver) spill(m int) []byte {
	if r.overflow == nil {
		r.overflow = make([][]byte, len(r.msgs))
	}
	if r.overflow[m] == nil {
		r.overflow[m] = make([]byte, overflowLen)
	}
	return r.overflow[m]
}

func (r *receiver) message(m, first, n int) {
	h := &r.msgs[m].hdr
	h.Name, h.Namelen = &r.names[m][0], nameLen
	h.Iov = &r.iovs[first]
	h.SetIovlen(n)
	h.Control = &r.controls[m][0]
	h.SetControllen(controlLen)
}

// recvmmsg receives what is there, and reports false if nothing is. Like
// sendmmsg it does not tell the scheduler.
func (r *receiver) recvmmsg(fd uintptr) (done bool) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.msgs[0])),
			uintptr(r.want), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		r.count, r.errno = int(n), errno
		return true
	}
}

// split says which datagrams lie in bufs after a call, and returns up to where
// they do; buffers between them are empty.
func (r *receiver) split(bufs [][]byte, sizes []int, eps []conn.Endpoint, count *udpCounters) (used int) {
	got, widest, hit := 0, 0, false
	for m := range r.count {
		size := int(r.msgs[m].len)
		seg := r.control(m, count)
		if seg == 0 || seg >= size {
			seg = size
		} else {
			widest, hit = max(widest, seg), hit || seg == r.width
		}
		first := m * r.each
		if !r.fits(size, seg) {
			widest = max(widest, r.relay(m, bufs, count))
			used = first + r.give(bufs[first:], sizes[first:], eps[first:], count)
			break
		}
		end := r.endpoint(m)
		for j := range r.each {
			n := min(seg, size)
			sizes[first+j], eps[first+j] = n, end
			if size -= n; n > 0 {
				used = first + j + 1
				got++
			}
		}
	}
	count.receiveCalls.Add(1)
	count.receivedDatagrams.Add(uint64(got))
	r.learn(widest, hit)
	return used
}

// fits reports whether a message of size bytes in segments of seg lies in its
// buffers the way it should.
func (r *receiver) fits(size, seg int) bool {
	if size <= r.wide {
		return seg == size
	}
	return seg == r.wide && size <= r.each*seg
}

// learn chooses the next layout from the widest run of this call; hit says
// that one had the present width.
func (r *receiver) learn(widest int, hit bool) {
	switch {
	case hit, widest > r.width:
		r.width, r.unseen = max(r.width, widest), 0
	case r.width > 0:
		if r.unseen++; r.unseen > forgetAfter {
			r.width, r.unseen = widest, 0
		}
	}
}

// relay copies the messages from m on out of the buffers, datagram by
// datagram, and returns the widest run among them.
func (r *receiver) relay(m int, bufs [][]byte, count *udpCounters) (widest int) {
	for ; m < r.count; m++ {
		size := int(r.msgs[m].len)
		seg := r.control(m, count)
		if seg == 0 || seg >= size {
			seg = size
		} else {
			widest = max(widest, seg)
		}
		from := len(r.spare)
		r.collect(m, size, bufs)
		end := r.endpoint(m)
		for ; from < len(r.spare); from += seg {
			r.relaid = append(r.relaid, relaid{from, min(from+seg, len(r.spare)), end})
		}
	}
	count.receivedDatagrams.Add(uint64(len(r.relaid)))
	count.relaid.Add(uint64(len(r.relaid)))
	return widest
}

// collect appends the size bytes of message m to spare.
func (r *receiver) collect(m, size int, bufs [][]byte) {
	for _, b := range bufs[m*r.each:][:r.each] {
		n := min(size, r.wide)
		r.spare = append(r.spare, b[:n]...)
		size -= n
	}
	if size > 0 {
		r.spare = append(r.spare, r.overflow[m][:size]...)
	}
}

// give moves relaid datagrams into bufs and returns how many. One that is
// longer than a buffer becomes empty.
func (r *receiver) give(bufs [][]byte, sizes []int, eps []conn.Endpoint, count *udpCounters) int {
	n := min(len(bufs), len(r.relaid)-r.given)
	for i, d := range r.relaid[r.given:][:n] {
		sizes[i], eps[i] = 0, d.end
		if d.to-d.from <= len(bufs[i]) {
			sizes[i] = copy(bufs[i], r.spare[d.from:d.to])
		} else {
			count.tooLong.Add(1)
		}
	}
	r.given += n
	if r.given == len(r.relaid) {
		r.relaid, r.given, r.spare = r.relaid[:0], 0, r.spare[:0]
		if cap(r.spare) > keepSpare {
			r.spare, r.relaid = nil, nil
		}
	}
	return n
}

// control reads the control messages of message m: it returns the segment size
// of a merged one (0: a single datagram) and counts what the socket dropped.
func (r *receiver) control(m int, count *udpCounters) (segment int) {
	h := &r.msgs[m].hdr
	b := r.controls[m][:min(int(h.Controllen), controlLen)]
	for len(b) >= unix.SizeofCmsghdr {
		c := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(b)))
		n := int(c.Len)
		if n < unix.SizeofCmsghdr || n > len(b) {
			break
		}
		data := b[unix.CmsgLen(0):n]
		switch {
		case c.Level == unix.SOL_UDP && c.Type == unix.UDP_GRO && len(data) >= 4:
			segment = int(binary.NativeEndian.Uint32(data))
		case c.Level == unix.SOL_SOCKET && c.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			now := binary.NativeEndian.Uint32(data)
			count.dropped.Add(uint64(now - r.drops)) // wraps
			r.drops = now
		}
		b = b[min(len(b), unix.CmsgSpace(len(data))):]
	}
	return segment
}

// endpoint is the source of message m, the same object for the same source.
func (r *receiver) endpoint(m int) *endpoint {
	name := &r.names[m]
	if *name == r.last && r.lastEnd != nil {
		return r.lastEnd
	}
	e := r.sources[*name]
	if e == nil {
		if len(r.sources) >= knownSources {
			clear(r.sources)
		}
		e = name.endpoint()
		r.sources[*name] = e
	}
	r.last, r.lastEnd = *name, e
	return e
}
