package netstack

import (
	"context"
	"net/netip"
	"sync/atomic"

	"patronus/netstack/packet"
	"patronus/netstack/tunnel"
)

// answersPerSecond bounds the ICMP errors and resets that we send, as RFC 1812,
// 4.3.2.8 and RFC 4443, 2.4(f) ask for.
const answersPerSecond = 1000

// answerLimit is a token bucket refilled each second, without a lock: at the
// turn of a second two goroutines may both refill it, which costs one extra
// bucket at most.
type answerLimit struct {
	second atomic.Int64
	spent  atomic.Int64
}

func (l *answerLimit) allow(now int64) bool {
	if s := now / 1e9; l.second.Load() != s {
		l.second.Store(s)
		l.spent.Store(0)
	}
	return l.spent.Add(1) <= answersPerSecond
}

// refusal builds what the sender of a rejected packet is told, or nothing.
func (e *Engine) refusal(dst, b []byte, in *packet.Info, why Reason, source netip.Addr) []byte {
	if !source.IsValid() || !e.answers.allow(e.now()) {
		return nil
	}
	switch why {
	case Denied:
		if in.Key.Proto == packet.TCP {
			return packet.AppendReset(dst, b, in)
		}
		return packet.AppendUnreachable(dst, b, in, source, packet.AdminProhibited)
	case NoRoute, NoPath:
		return packet.AppendUnreachable(dst, b, in, source, packet.NoRoute)
	case NoNeighbour:
		return packet.AppendUnreachable(dst, b, in, source, packet.Host)
	}
	return nil
}

// readUnanswered tells the senders of packets whose next hop on the LAN does not
// answer that the host is unreachable. The port has counted them.
func (e *Engine) readUnanswered(ctx context.Context, p *portState) {
	scratch := make([]byte, 0, 2048)
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-p.neighbours.unanswered:
			s := e.snapshot.Load()
			e.answerWAN(e.refusal(scratch, b.Bytes, &b.Info, NoNeighbour, s.source(b.Info.Version == 4, s.attached(p))))
			b.Release()
		}
	}
}

// malformed counts a packet that packet.Decode refused.
func (e *Engine) malformed(d Direction, fault packet.Fault) {
	e.counters.drop(d, Malformed, 1)
	e.faults[fault].Add(1)
}

// ownFragment gives a later fragment the ports of the first one. It reports
// false if the first one was not seen, or was not admitted.
func (e *Engine) ownFragment(d Direction, in *packet.Info, now int64) bool {
	return in.Fragment != packet.LaterFragment || e.fragments[d].Fill(in, now)
}

// multicast reports whether an address is for more than one host: there is
// nothing to forward such a packet to.
func multicast(a *packet.Addr) bool {
	if a.Is4() {
		return a[12] >= 224
	}
	return a[0] == 0xff
}

// admit decides about a packet to the appliance itself. Echo and errors are for
// everybody. The overlay address, where the agent listens, is for the other
// appliances only; a LAN address is for our own LAN.
func (s *snapshot) admit(d *decision, in *packet.Info, fromWAN bool) {
	icmp := in.Key.Proto == packet.ICMP || in.Key.Proto == packet.ICMPv6
	overlay := packet.AddrFrom(s.sites[s.self].overlay)
	switch {
	case icmp, in.Key.Dst == overlay && fromWAN && s.appliances[in.Key.Src], in.Key.Dst != overlay && !fromWAN:
		d.verdict = Deliver
	default:
		d.drop(Denied)
	}
}

// deliver gives the appliance's own host a packet from a tunnel.
func (e *Engine) deliver(d Direction, b []byte) {
	if !e.host.deliver(b) {
		e.counters.drop(d, Malformed, 1)
		return
	}
	e.counters.dir[d].delivered.Add(1)
}

// deliverBuffer gives the host what a LAN port read: gVisor verifies checksums,
// so they are finished, and superpackets are cut.
func (e *Engine) deliverBuffer(b *packet.Buffer) {
	defer b.Release()
	if b.GSO.Size == 0 {
		b.FinishChecksum()
		e.deliver(ToWAN, b.Bytes)
		return
	}
	var cut packet.Segmenter
	cut.Reset(b)
	segment := packet.Get(packet.SmallSize - packet.Headroom)
	defer segment.Release()
	for {
		n, ok := cut.Next(segment.Bytes)
		if !ok {
			return
		}
		e.deliver(ToWAN, segment.Bytes[:n])
	}
}

// fromHost routes a packet that the appliance itself sends: to a LAN port, a
// path or a device. The packet is borrowed.
func (e *Engine) fromHost(p []byte) {
	s := e.snapshot.Load()
	if s == nil {
		return
	}
	b := packet.Get(len(p))
	copy(b.Bytes, p)
	if fault := packet.Decode(b.Bytes, &b.Info); fault != 0 {
		e.malformed(ToWAN, fault)
		b.Release()
		return
	}
	to, ok := s.lookup(&b.Info.Key.Dst)
	if !ok {
		e.counters.drop(ToWAN, NoRoute, 1)
		b.Release()
		return
	}
	switch to.kind {
	case routeLAN:
		o := newOutlet(ToWAN, 1)
		o.own(b, to)
		o.write(e, s)
	case routeSite:
		p, _ := s.steering.Load().choose(to.site, s.classes.Default(), uint64(b.Info.Key.SrcPort), nil)
		if p == nil {
			e.counters.drop(ToWAN, NoPath, 1)
			b.Release()
			return
		}
		e.send(ToWAN, p, b, tunnel.Control)
	case routeDevice:
		e.sendDevice(ToWAN, s.devices[to.device], b, tunnel.Control)
	case routeHost, routeUnreachable:
		e.counters.drop(ToWAN, NoRoute, 1)
		b.Release()
	}
}
