package lan

import (
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"

	"patronus/netstack/packet"
)

// sendBatch is how many frames one system call takes at most.
const sendBatch = 64

// Write implements Port. Packets whose next hop is not known yet are copied and
// wait for it, a few for each, or are dropped and counted.
func (p *Packet) Write(pkts []Out) error {
	w := p.writers.Get().(*packetWriter)
	defer p.writers.Put(w)
	return w.write(pkts)
}

// WriteFrame sends one Ethernet frame without VLAN tag, as a host stack makes
// it: ARP, neighbour discovery, and what the appliance itself says. The port's
// tag is added. What cannot be sent is counted, as in Write. borrowed: frame is
// not kept. It may be called concurrently.
func (p *Packet) WriteFrame(frame []byte) error {
	if len(frame) < ethLen || len(frame) > ethLen+p.mtu {
		p.count.drop(DropOversize, 1)
		return nil
	}
	w := p.writers.Get().(*packetWriter)
	defer p.writers.Put(w)
	w.begin(nil)
	m := w.message(1, len(frame)-ethLen)
	head := w.heads[m][:]
	(&vnetHeader{}).put(head)
	n := vnetLen + copy(head[vnetLen:], frame[:12])
	if p.vlan != 0 {
		n += copy(head[n:], []byte{ethVLAN >> 8, ethVLAN & 0xff, byte(p.vlan >> 8), byte(p.vlan)})
	}
	w.part(head[:n])
	w.part(frame[12:])
	w.close(m)
	return w.end()
}

// sendWaiting sends packets that waited for mac. It owns them.
func (p *Packet) sendWaiting(waiting []*packet.Buffer, mac [6]byte) {
	w := p.writers.Get().(*packetWriter)
	defer p.writers.Put(w)
	w.begin(nil)
	for _, b := range waiting {
		w.plain(&Out{Bytes: b.Bytes, Info: &b.Info, GSO: b.GSO}, &mac)
	}
	// A port that is gone says so to its reader.
	_ = w.end()
	release(waiting)
}

// packetWriter is the scratch memory of one Write.
type packetWriter struct {
	merger
	port   *Packet
	sendFn func(fd uintptr) // send, bound once
	pkts   []Out

	n     int // messages prepared
	msgs  [sendBatch]mmsghdr
	heads [sendBatch][vnetLen + ethLen + vlanLen + maxHeaders]byte
	// about says what message i carries: where its parts begin in iov, how many
	// packets and bytes, and the merged run, nil if it is not one.
	about [sendBatch]struct {
		iov, packets, bytes int
		run                 *run
		mac                 [6]byte
	}
	iov     []unix.Iovec
	refused []int // messages with merged runs that the kernel did not take

	sent tally
	err  error
	cut  cutter
}

func newPacketWriter(p *Packet) *packetWriter {
	w := &packetWriter{port: p}
	w.sendFn = w.send
	return w
}

func (w *packetWriter) begin(pkts []Out) {
	w.pkts, w.n, w.err = pkts, 0, nil
	w.iov, w.refused = w.iov[:0], w.refused[:0]
}

// end sends what is left.
func (w *packetWriter) end() error {
	w.flush()
	w.pkts = nil
	w.port.count.tx.add(&w.sent)
	return w.err
}

func (w *packetWriter) write(pkts []Out) error {
	p := w.port
	w.begin(pkts)
	w.plan(pkts, p.tso.Load(), p.uso.Load())
	now := p.now()
	var hop packet.Addr // of mac
	var mac [6]byte
	known := false
	for i := range w.runs {
		r := &w.runs[i]
		first := &pkts[r.first]
		size := len(first.Bytes)
		if size == 0 || size > maxPacket || first.Info == nil {
			p.count.drop(DropMalformed, 1)
			continue
		}
		if wireSize(&first.GSO, len(first.packet())) > p.mtu {
			p.count.drop(DropOversize, int(r.n))
			continue
		}
		to := first.NextHop
		if to == (packet.Addr{}) {
			to = first.Info.Key.Dst
		}
		if !known || to != hop {
			hop = to
			if mac, known = groupMAC(&hop); !known {
				mac, known = p.neigh.lookup(&hop, now)
			}
		}
		switch {
		case !known:
			w.hold(r, hop, now)
		case r.n > 1:
			w.merged(r, &mac)
		default:
			w.plain(first, &mac)
		}
	}
	return w.end()
}

// hold lets the members of r wait for their next hop.
func (w *packetWriter) hold(r *run, hop packet.Addr, now int64) {
	for i := r.first; i >= 0; i = w.next[i] {
		w.port.neigh.hold(hop, &w.pkts[i], now)
	}
}

// plain prepares one packet as it is, cut if the kernel takes no such
// superpackets.
func (w *packetWriter) plain(p *Out, mac *[6]byte) {
	if p.GSO.Size != 0 && p.GSO.Proto == packet.UDP && p.Info != nil && !w.port.uso.Load() {
		w.cut.each(p, func(b []byte, in *packet.Info) {
			w.plain(&Out{Bytes: b, Info: in}, mac)
			w.flush() // b does not outlive this call
		})
		return
	}
	b := p.packet()
	m := w.message(segments(&p.GSO, len(b)), len(b))
	head := w.heads[m][:]
	n := vnetLen + putEth(head[vnetLen:], mac, &w.port.mac, w.port.vlan, etherTypeOf(b))
	v := vnetFor(&p.GSO, b[0]>>4, n-vnetLen)
	v.put(head)
	w.part(head[:n])
	w.part(b)
	w.close(m)
}

// merged prepares a run as one superpacket: headers from scratch memory,
// payloads from where they lie.
func (w *packetWriter) merged(r *run, mac *[6]byte) {
	m := w.message(int(r.n), int(r.length))
	first := &w.pkts[r.first]
	head := w.heads[m][:]
	l2 := putEth(head[vnetLen:], mac, &w.port.mac, w.port.vlan, etherTypeOf(first.Bytes))
	n, g := r.header(head[vnetLen+l2:], w.pkts)
	v := vnetFor(&g, first.Info.Version, l2)
	v.put(head)
	w.part(head[:vnetLen+l2+n])
	for i := r.first; i >= 0; i = w.next[i] {
		p := &w.pkts[i]
		w.part(p.Bytes[p.Info.Payload:p.Info.Length])
	}
	w.about[m].run, w.about[m].mac = r, *mac
	w.close(m)
}

// message begins a message of so many packets and bytes, and returns its index.
func (w *packetWriter) message(packets, bytes int) int {
	if w.n == sendBatch {
		w.flush()
	}
	m := &w.about[w.n]
	m.iov, m.packets, m.bytes, m.run = len(w.iov), packets, bytes, nil
	w.n++
	return w.n - 1
}

func (w *packetWriter) part(b []byte) { w.iov = append(w.iov, iovec(b)) }

func (w *packetWriter) close(m int) { w.msgs[m].hdr.SetIovlen(len(w.iov) - w.about[m].iov) }

// flush sends the messages. Merged runs that the kernel refuses are sent again
// packet by packet, and that kind is not merged any more.
func (w *packetWriter) flush() {
	if w.n == 0 {
		return
	}
	// Only now: appending may have moved the vectors.
	for i := range w.msgs[:w.n] {
		w.msgs[i].hdr.Iov = &w.iov[w.about[i].iov]
	}
	if err := w.port.dev.control(w.sendFn); err != nil {
		w.err = err
	}
	for i := range w.msgs[:w.n] {
		w.msgs[i].hdr.Iov = nil
	}
	// The packets are only borrowed: keep no pointers to them.
	clear(w.iov)
	w.iov, w.n = w.iov[:0], 0
	w.retry()
}

// retry sends the members of refused runs.
func (w *packetWriter) retry() {
	if len(w.refused) == 0 {
		return
	}
	type again struct {
		r   *run
		mac [6]byte
	}
	todo := make([]again, 0, len(w.refused))
	for _, i := range w.refused {
		todo = append(todo, again{w.about[i].run, w.about[i].mac})
	}
	w.refused = w.refused[:0]
	for _, t := range todo {
		if w.pkts[t.r.first].Info.Key.Proto == packet.UDP {
			w.port.uso.Store(false)
		} else {
			w.port.tso.Store(false)
		}
		for i := t.r.first; i >= 0; i = w.next[i] {
			w.plain(&w.pkts[i], &t.mac)
		}
	}
	w.flush()
}

// send hands the messages to the kernel. A full socket is waited for once per
// message, and not at all while the link stands still: others wait too.
func (w *packetWriter) send(fd uintptr) {
	stalled, waited := &w.port.stalled, false
	for at := 0; at < w.n; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.msgs[at])),
			uintptr(w.n-at), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			for i := range w.about[at : at+int(n)] {
				w.sent.add(w.about[at+i].packets, w.about[at+i].bytes)
			}
			at += int(n)
			waited = false
			if stalled.Load() {
				stalled.Store(false)
			}
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && !waited && !stalled.Load():
			waited = true
			stalled.Store(!waitWritable(fd))
		default:
			w.failed(errno, at)
			at++
		}
	}
}

// failed counts message i, which the kernel did not take.
func (w *packetWriter) failed(errno unix.Errno, i int) {
	m, count := &w.about[i], &w.port.count
	switch errno {
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		count.drop(DropQueueFull, m.packets)
	case unix.EMSGSIZE:
		count.drop(DropOversize, m.packets)
	case unix.ENETDOWN:
		count.drop(DropLinkDown, m.packets)
	case unix.ENXIO, unix.ENODEV:
		count.drop(DropLinkDown, m.packets)
		w.err = fmt.Errorf("packet port %s: %w: %w", w.port.name, ErrGone, errno)
	case unix.EBADF:
		w.err = net.ErrClosed
	case unix.EINVAL:
		if m.run != nil {
			w.refused = append(w.refused, i)
			return
		}
		count.drop(DropRefused, m.packets)
	default:
		count.drop(DropRefused, m.packets)
	}
}
