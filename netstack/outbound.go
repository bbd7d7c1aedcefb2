package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"

	"patronus/netstack/capture"
	"patronus/netstack/packet"
)

// readPort reads a LAN port until it closes. It is the only reader of the
// port, and the only user of its outbound scratch.
func (e *Engine) readPort(ctx context.Context, p *portState) error {
	o := newOutbound(e, p)
	bufs := make([]*packet.Buffer, e.batch)
	for {
		n, err := p.port.Read(bufs)
		if n > 0 {
			e.toWAN(o, bufs[:n])
			clear(bufs[:n])
		}
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil || p.gone.Load():
			return nil
		default:
			return fmt.Errorf("lan port %s: %w", p.port.Name(), err)
		}
	}
}

// outbound is the scratch of one reader: what was decided for the current run
// of packets of one flow, and what goes back to LAN ports.
type outbound struct {
	engine *Engine
	port   *portState
	snap   *snapshot
	at     *attachedPort // port, as the snapshot has it
	run    run
	out    outlet
	answer []byte
	taps   []*capture.Tap
}

func newOutbound(e *Engine, p *portState) *outbound {
	return &outbound{engine: e, port: p, out: newOutlet(ToWAN, e.batch), answer: make([]byte, 0, 2048)}
}

// toWAN takes a batch from a LAN port. It owns the buffers.
func (e *Engine) toWAN(o *outbound, bufs []*packet.Buffer) {
	s := e.snapshot.Load()
	now := e.now()
	if s != o.snap {
		o.snap, o.at = s, s.attached(o.port)
	}
	o.taps = e.taps.Load()
	o.run.reset()
	for _, b := range bufs {
		e.packetToWAN(o, b, now)
	}
	o.run.flush(now)
	o.out.write(e, s)
}

// packetToWAN does the seven steps of doc.go for one packet.
func (e *Engine) packetToWAN(o *outbound, b *packet.Buffer, now int64) {
	in := &b.Info
	if fault := packet.Decode(b.Bytes, in); fault != 0 {
		e.malformed(ToWAN, fault)
		b.Release()
		return
	}
	b.Bytes = b.Bytes[:in.Length]
	if !e.ownFragment(ToWAN, in, now) {
		e.counters.drop(ToWAN, FragmentLost, 1)
		b.Release()
		return
	}
	if !o.run.same(in) {
		o.run.flush(now)
		e.decideFromLAN(o, in, b.Bytes, now)
	}
	o.run.count(b.Segments(), len(b.Bytes), in.Flags)
	if o.taps != nil {
		show(o.taps, ToWAN, nil, in, b.Bytes, &o.run.decision)
	}
	switch d := &o.run.decision; d.verdict {
	case Forward:
		e.fragments[ToWAN].Remember(in, now)
		e.forward(o, b, d)
	case Deliver:
		e.fragments[ToWAN].Remember(in, now)
		e.deliverBuffer(b)
	case Drop:
		e.counters.drop(ToWAN, d.reason, b.Segments())
		b.Release()
	case Reject:
		e.counters.drop(ToWAN, d.reason, b.Segments())
		o.answerLAN(e.refusal(o.answer[:0], b.Bytes, in, d.reason, o.snap.source(in.Version == 4, o.at)), in)
		b.Release()
	}
}

// decideFromLAN decides for a run whose packets come from a LAN host.
func (e *Engine) decideFromLAN(o *outbound, in *packet.Info, b []byte, now int64) {
	s, d := o.snap, &o.run.decision
	o.run.begin(in)
	if multicast(&in.Key.Dst) {
		d.drop(Martian)
		return
	}
	to, ok := s.lookup(&in.Key.Dst)
	switch {
	case !ok || to.kind == routeUnreachable:
		d.reject(NoRoute)
		return
	}
	if from, ok := s.lookup(&in.Key.Src); !ok || from.kind != routeLAN {
		d.drop(Spoofed)
		return
	}
	d.to = to
	if to.kind == routeHost {
		s.admit(d, in, false)
		return
	}
	e.judge(s, &o.run, in, b, now, true, to.kind == routeLAN || to.kind == routeDevice)
	e.settle(s, &o.run)
}

// forward sends an admitted packet on: into a tunnel, to a device, or to
// another of our LAN ports. Answers come before any rewriting: they quote the
// packet as it was received.
func (e *Engine) forward(o *outbound, b *packet.Buffer, d *decision) {
	in := &b.Info
	if in.TTL <= 1 {
		e.counters.drop(ToWAN, TTLExpired, 1)
		if e.answers.allow(e.now()) {
			o.answerLAN(packet.AppendTimeExceeded(o.answer[:0], b.Bytes, in, o.snap.source(in.Version == 4, o.at)), in)
		}
		b.Release()
		return
	}
	mtu := o.snap.mtu(d)
	if !e.fits(o, b, mtu) {
		return
	}
	packet.DecrementTTL(b.Bytes, in)
	b.ClampMSS(mtu)
	e.pass(o, b, d)
}

// pass sends a packet on that is ready to leave.
func (e *Engine) pass(o *outbound, b *packet.Buffer, d *decision) {
	if d.to.kind == routeLAN {
		o.out.own(b, d.to)
		return
	}
	e.transmit(ToWAN, o.snap, d, b)
}

// transmit gives a packet to the tunnel that its decision names.
func (e *Engine) transmit(dir Direction, s *snapshot, d *decision, b *packet.Buffer) {
	if d.to.kind == routeSite {
		e.send(dir, d.path, b, s.band(d.class))
	} else {
		e.sendDevice(dir, s.devices[d.to.device], b, s.band(d.class))
	}
}

// mtu is the largest packet that goes where a decision says.
func (s *snapshot) mtu(d *decision) int {
	switch d.to.kind {
	case routeSite:
		return d.path.mtu()
	case routeDevice:
		return s.devices[d.to.device].uplink.tunnel.MTU()
	case routeLAN:
		return s.ports[d.to.port].mtu()
	case routeHost, routeUnreachable:
	}
	return hostMTU
}

// send hands a packet to the queue of its path.
func (e *Engine) send(dir Direction, p *pathState, b *packet.Buffer, band uint8) {
	packets, bytes := b.Segments(), len(b.Bytes)
	if !p.uplink.tunnel.Send(p.peer, b, band) {
		e.counters.drop(dir, QueueFull, packets)
		return
	}
	if now := e.now(); now-p.lastTraffic.Swap(now) > int64(quiet) {
		e.prober.kick()
	}
	e.counters.forward(dir, packets, bytes)
}

func (e *Engine) sendDevice(dir Direction, d *deviceState, b *packet.Buffer, band uint8) {
	packets, bytes := b.Segments(), len(b.Bytes)
	if !d.uplink.tunnel.Send(d.peer, b, band) {
		e.counters.drop(dir, QueueFull, packets)
		return
	}
	e.counters.forward(dir, packets, bytes)
}

// fits reports whether b may go on as it is. If not it has been answered,
// fragmented or dropped, and is gone.
func (e *Engine) fits(o *outbound, b *packet.Buffer, mtu int) bool {
	in := &b.Info
	size := len(b.Bytes)
	if b.GSO.Size > 0 {
		size = int(in.Payload) + int(b.GSO.Size)
	}
	if size <= mtu {
		return true
	}
	if in.Version == 4 && b.Bytes[6]&0x40 == 0 && b.GSO.Size == 0 {
		e.fragment(o, b, mtu)
		return false
	}
	e.counters.drop(ToWAN, TooBig, b.Segments())
	if e.answers.allow(e.now()) {
		o.answerLAN(packet.AppendTooBig(o.answer[:0], b.Bytes, in, o.snap.source(in.Version == 4, o.at), mtu), in)
	}
	b.Release()
	return false
}

// fragment cuts an IPv4 packet that allows it (RFC 791, 3.2).
func (e *Engine) fragment(o *outbound, b *packet.Buffer, mtu int) {
	d := o.run.decision
	b.FinishChecksum()
	packet.DecrementTTL(b.Bytes, &b.Info)
	err := packet.Fragments(b.Bytes, &b.Info, mtu, func(piece []byte) {
		f := packet.Get(len(piece))
		copy(f.Bytes, piece)
		packet.Decode(f.Bytes, &f.Info)
		e.pass(o, f, &d)
	})
	if err != nil {
		e.counters.drop(ToWAN, TooBig, 1)
	}
	b.Release()
}

// answerLAN sends an answer of ours back out of the port that asked.
func (o *outbound) answerLAN(answer []byte, to *packet.Info) {
	if len(answer) == 0 || o.at == nil {
		return
	}
	r, ok := o.snap.lookup(&to.Key.Src)
	if !ok || r.kind != routeLAN {
		return
	}
	o.out.answer(answer, r)
}
