package lan

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"patronus/netstack/packet"
)

// Write implements Port. Runs of segments leave as superpackets by one writev
// each, headers from scratch memory and payloads from where they lie.
func (t *TUN) Write(pkts []Out) error {
	w := t.writers.Get().(*tunWriter)
	defer t.writers.Put(w)
	return w.write(pkts)
}

// tunWriter is the scratch memory of one Write.
type tunWriter struct {
	merger
	port   *TUN
	sendFn func(fd uintptr) // send, bound once
	pkts   []Out
	iov    []unix.Iovec
	head   [vnetLen + maxHeaders]byte
	cut    cutter
	sent   tally
	err    error
}

func newTUNWriter(t *TUN) *tunWriter {
	w := &tunWriter{port: t}
	w.sendFn = w.send
	return w
}

func (w *tunWriter) write(pkts []Out) error {
	w.pkts, w.err = pkts, nil
	w.plan(pkts, true, w.port.uso)
	if err := w.port.dev.control(w.sendFn); err != nil {
		w.err = err
	}
	w.pkts = nil
	w.port.count.tx.add(&w.sent)
	return w.err
}

func (w *tunWriter) send(fd uintptr) {
	for i := range w.runs {
		r := &w.runs[i]
		p := &w.pkts[r.first]
		if len(p.Bytes) == 0 || len(p.Bytes) > maxPacket {
			w.port.count.drop(DropMalformed, 1)
			continue
		}
		switch {
		case r.n > 1:
			w.sendRun(fd, r)
		case p.GSO.Size != 0 && p.GSO.Proto == packet.UDP && !w.port.uso:
			w.cut.each(p, func(b []byte, _ *packet.Info) { w.sendPlain(fd, b, &packet.GSO{}) })
		default:
			w.sendPlain(fd, p.packet(), &p.GSO)
		}
		if w.err != nil {
			break
		}
	}
	// The packets are only borrowed: keep no pointers to them.
	clear(w.iov)
	w.iov = w.iov[:0]
}

// sendRun writes a merged run.
func (w *tunWriter) sendRun(fd uintptr, r *run) {
	n, g := r.header(w.head[vnetLen:], w.pkts)
	v := vnetFor(&g, w.pkts[r.first].Info.Version, 0)
	v.put(w.head[:])
	w.iov = append(w.iov[:0], iovec(w.head[:vnetLen+n]))
	for i := r.first; i >= 0; i = w.next[i] {
		p := &w.pkts[i]
		w.iov = append(w.iov, iovec(p.Bytes[p.Info.Payload:p.Info.Length]))
	}
	if errno := w.writev(fd); errno == 0 {
		w.sent.add(int(r.n), int(r.length))
	} else {
		w.failed(errno, int(r.n))
	}
}

// sendPlain writes one packet as it is.
func (w *tunWriter) sendPlain(fd uintptr, b []byte, g *packet.GSO) {
	v := vnetFor(g, b[0]>>4, 0)
	v.put(w.head[:])
	w.iov = append(w.iov[:0], iovec(w.head[:vnetLen]), iovec(b))
	n := segments(g, len(b))
	if errno := w.writev(fd); errno == 0 {
		w.sent.add(n, len(b))
	} else {
		w.failed(errno, n)
	}
}

// writev writes the parts in w.iov as one packet. The kernel queues it at once or
// refuses it: a TUN device is never full.
func (w *tunWriter) writev(fd uintptr) unix.Errno {
	for {
		if _, errno := rawWritev(fd, w.iov); errno != unix.EINTR {
			return errno
		}
	}
}

// failed counts n packets that the kernel did not take.
func (w *tunWriter) failed(errno unix.Errno, n int) {
	switch errno {
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		w.port.count.drop(DropQueueFull, n)
	case unix.EIO: // the interface is down
		w.port.count.drop(DropLinkDown, n)
	case unix.EBADFD:
		w.err = fmt.Errorf("tun %s: %w: %w", w.port.name, ErrGone, errno)
	case unix.EBADF:
		w.err = net.ErrClosed
	default:
		w.port.count.drop(DropRefused, n)
	}
}

// cutter turns a superpacket into plain packets where the kernel cannot.
type cutter struct {
	seg packet.Segmenter
	buf packet.Buffer
}

// each calls f with each packet that p becomes; b and in are valid until f
// returns.
func (c *cutter) each(p *Out, f func(b []byte, in *packet.Info)) {
	c.buf.Bytes, c.buf.GSO, c.buf.Info = p.Bytes, p.GSO, *p.Info
	c.seg.Reset(&c.buf)
	dst := packet.Get(wireSize(&p.GSO, len(p.Bytes)))
	defer dst.Release()
	for {
		n, ok := c.seg.Next(dst.Bytes)
		if !ok {
			break
		}
		var in packet.Info
		if packet.Decode(dst.Bytes[:n], &in) == 0 {
			f(dst.Bytes[:n], &in)
		}
	}
	c.buf.Bytes = nil
}
