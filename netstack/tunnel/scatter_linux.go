package tunnel

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

const (
	// lonely is how many messages one call takes while the kernel merges none:
	// each into one buffer, which holds any datagram.
	lonely = 64
	// overflowLen is what may follow behind the scattered segments of a message.
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
	overflow [][]byte // one for each scattered message
	spread   int      // scattered messages in a call
	segments int      // buffers for each of them

	// width is the length of each scattered buffer; 0: one whole buffer for a
	// message. unseen counts the calls without a run of that width.
	width, unseen int
	scatters      bool // the layout of this call

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
	r.iovs = make([]unix.Iovec, max(n, r.spread*(r.segments+1)))
	r.sources = make(map[sockaddr]*endpoint)
	r.read = r.recvmmsg
}

// lay points the messages of the next call at bufs.
func (r *receiver) lay(bufs [][]byte, s *socket) {
	if r.sock != s {
		r.sock, r.drops, r.width = s, 0, 0
	}
	r.scatters = r.width > 0 && s.merges && len(bufs) >= r.spread*r.segments
	if !r.scatters {
		r.want = min(len(bufs), len(r.msgs))
		for i := range r.want {
			r.iovs[i].Base = unsafe.SliceData(bufs[i])
			r.iovs[i].SetLen(len(bufs[i]))
			r.message(i, i, 1)
		}
		return
	}
	if r.overflow == nil {
		r.overflow = make([][]byte, r.spread)
		for i := range r.overflow {
			r.overflow[i] = make([]byte, overflowLen)
		}
	}
	r.want = r.spread
	for m := range r.spread {
		first := m * (r.segments + 1)
		iovs := r.iovs[first:][:r.segments+1]
		for j := range r.segments {
			iovs[j].Base = unsafe.SliceData(bufs[m*r.segments+j])
			iovs[j].SetLen(r.width)
		}
		iovs[r.segments].Base = unsafe.SliceData(r.overflow[m])
		iovs[r.segments].SetLen(overflowLen)
		r.message(m, first, r.segments+1)
	}
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
		first, room := m, 1
		if r.scatters {
			first, room = m*r.segments, r.segments
		}
		if !r.fits(size, seg, room) {
			widest = max(widest, r.relay(m, bufs, count))
			used = first + r.give(bufs[first:], sizes[first:], eps[first:])
			break
		}
		end := r.endpoint(m)
		for j := range room {
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
// room buffers the way it should.
func (r *receiver) fits(size, seg, room int) bool {
	switch {
	case !r.scatters:
		return seg == size
	case size <= r.width:
		return seg == size
	}
	return seg == r.width && size <= room*seg
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
	if !r.scatters {
		r.spare = append(r.spare, bufs[m][:size]...)
		return
	}
	for _, b := range bufs[m*r.segments:][:r.segments] {
		n := min(size, r.width)
		r.spare = append(r.spare, b[:n]...)
		size -= n
	}
	r.spare = append(r.spare, r.overflow[m][:size]...)
}

// give moves relaid datagrams into bufs and returns how many.
func (r *receiver) give(bufs [][]byte, sizes []int, eps []conn.Endpoint) int {
	n := min(len(bufs), len(r.relaid)-r.given)
	for i, d := range r.relaid[r.given:][:n] {
		sizes[i], eps[i] = copy(bufs[i], r.spare[d.from:d.to]), d.end
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
