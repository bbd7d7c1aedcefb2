package netstack

import (
	"net/netip"

	"patronus/netstack/capture"
	"patronus/netstack/packet"
	"patronus/netstack/tunnel"
)

// inboundHandler gives a tunnel's packets to the engine.
type inboundHandler struct {
	engine *Engine
	uplink *uplinkState
}

// FromTunnel implements tunnel.Handler. It is called by one goroutine per
// peer, several at once for one tunnel.
func (h *inboundHandler) FromTunnel(_ *tunnel.Tunnel, pkts []tunnel.Inbound) {
	h.engine.fromWAN(h.uplink, pkts)
}

// inbound is the scratch of one call of fromWAN.
type inbound struct {
	snap   *snapshot
	from   *pathState // nil: a device
	site   uint16     // of from
	device *deviceState
	run    run
	out    outlet
	answer []byte
	taps   []*capture.Tap
}

func newInbound(batch int) *inbound {
	return &inbound{out: newOutlet(FromWAN, batch), answer: make([]byte, 0, 2048)}
}

// fromWAN takes a batch of decrypted packets, all of one peer. They are
// borrowed until it returns.
func (e *Engine) fromWAN(u *uplinkState, pkts []tunnel.Inbound) {
	s := e.snapshot.Load()
	if s == nil {
		e.counters.drop(FromWAN, NoRoute, len(pkts))
		return
	}
	from := u.end(pkts[0].Peer)
	if from.path == nil && from.device == nil {
		e.counters.drop(FromWAN, Misdelivered, len(pkts))
		return
	}
	site := s.self // of a device
	if from.path != nil {
		if n, ok := s.index[from.path.site]; ok {
			site = n
		} else {
			e.counters.drop(FromWAN, Misdelivered, len(pkts))
			return
		}
	}
	i := e.scratch.Get().(*inbound)
	i.snap, i.from, i.device, i.site = s, from.path, from.device, site
	i.taps = e.taps.Load()
	i.run.reset()
	i.out.grow(len(pkts))
	now := e.now()
	for n := range pkts {
		e.packetFromWAN(i, &pkts[n], now)
	}
	i.run.flush(now)
	if from.path != nil {
		from.path.inband.Publish()
	}
	i.out.write(e, s)
	i.snap, i.from, i.device, i.taps = nil, nil, nil, nil
	i.run = run{}
	e.scratch.Put(i)
}

// packetFromWAN does the six steps of doc.go for one packet.
func (e *Engine) packetFromWAN(i *inbound, p *tunnel.Inbound, now int64) {
	b, ok := e.unwrap(i, p, now)
	if !ok {
		return
	}
	in := i.out.info()
	if fault := packet.Decode(b, in); fault != 0 {
		e.malformed(FromWAN, fault)
		return
	}
	b = b[:in.Length]
	if !e.ownFragment(FromWAN, in, now) {
		e.counters.drop(FromWAN, FragmentLost, 1)
		return
	}
	if !i.run.same(in) {
		i.run.flush(now)
		e.decideFromWAN(i, in, b, now)
	}
	i.run.count(1, len(b), in.Flags)
	if i.taps != nil {
		show(i.taps, FromWAN, i.from, in, b, &i.run.decision)
	}
	switch d := &i.run.decision; d.verdict {
	case Forward:
		e.fragments[FromWAN].Remember(in, now)
		e.forwardIn(i, b, in, d)
	case Deliver:
		e.fragments[FromWAN].Remember(in, now)
		e.deliver(FromWAN, b)
	case Drop:
		e.counters.drop(FromWAN, d.reason, 1)
	case Reject:
		e.counters.drop(FromWAN, d.reason, 1)
		e.answerWAN(e.refusal(i.answer[:0], b, in, d.reason, i.snap.source(in.Version == 4, nil)))
	}
}

// unwrap takes the outer header off; WireGuard has checked that the peer may use
// this outer source. What is between the path addresses themselves is a probe,
// and ends here.
func (e *Engine) unwrap(i *inbound, p *tunnel.Inbound, now int64) ([]byte, bool) {
	from := i.from
	if from == nil {
		return p.Bytes, true
	}
	from.received(p, len(p.Bytes))
	src, dst, _, inner, ok := packet.ParseOuter(p.Bytes)
	if !ok || src != from.remote || dst != from.uplink.source {
		e.counters.drop(FromWAN, Misdelivered, 1)
		return nil, false
	}
	if len(inner) >= probeHeader && inner[0]>>4 == 4 && [4]byte(inner[12:16]) == from.remote && [4]byte(inner[16:20]) == from.uplink.source {
		if !e.prober.receive(from, inner, p.At) {
			e.malformed(FromWAN, packet.BadTransport)
		}
		return nil, false
	}
	from.lastTraffic.Store(now)
	return inner, true
}

// decideFromWAN decides for a run whose packets come from a tunnel.
func (e *Engine) decideFromWAN(i *inbound, in *packet.Info, b []byte, now int64) {
	s, d := i.snap, &i.run.decision
	i.run.begin(in)
	if multicast(&in.Key.Dst) {
		d.drop(Martian)
		return
	}
	from, ok := s.lookup(&in.Key.Src)
	if !ok || !i.belongs(from) {
		d.drop(Spoofed)
		return
	}
	to, ok := s.lookup(&in.Key.Dst)
	switch {
	case !ok || to.kind == routeUnreachable:
		d.reject(NoRoute)
		return
	case to.kind == routeHost:
		s.admit(d, in, true)
		return
	}
	d.to = to
	fromDevice := i.from == nil
	e.judge(s, &i.run, in, b, now, fromDevice, to.kind == routeLAN || to.kind == routeDevice)
	if !fromDevice && to.kind == routeSite && to.site == i.site {
		d.drop(NoRoute) // back where it came from: a loop
		return
	}
	e.settle(s, &i.run)
}

// belongs reports whether packets with a source that routes to r may come from
// the peer that i is about.
func (i *inbound) belongs(r route) bool {
	if i.from == nil {
		return r.kind == routeDevice && i.snap.devices[r.device] == i.device
	}
	return r.kind == routeSite && i.snap.reachedVia(r.site, i.site)
}

// forwardIn sends an admitted packet to the LAN, or on to another site.
func (e *Engine) forwardIn(i *inbound, b []byte, in *packet.Info, d *decision) {
	source := func() netip.Addr { return i.snap.source(in.Version == 4, nil) }
	if in.TTL <= 1 {
		e.counters.drop(FromWAN, TTLExpired, 1)
		if e.answers.allow(e.now()) {
			e.answerWAN(packet.AppendTimeExceeded(i.answer[:0], b, in, source()))
		}
		return
	}
	mtu := i.snap.mtu(d)
	if len(b) > mtu {
		if in.Version == 4 && b[6]&0x40 == 0 {
			e.fragmentIn(i, b, in, d, mtu)
			return
		}
		e.counters.drop(FromWAN, TooBig, 1)
		if e.answers.allow(e.now()) {
			e.answerWAN(packet.AppendTooBig(i.answer[:0], b, in, source(), mtu))
		}
		return
	}
	packet.DecrementTTL(b, in)
	packet.ClampMSS(b, in, mtu)
	if d.to.kind == routeLAN {
		i.out.borrowed(b, d.to)
		return
	}
	e.transmit(FromWAN, i.snap, d, clonePacket(b, in))
}

// fragmentIn cuts an IPv4 packet that allows it (RFC 791, 3.2).
func (e *Engine) fragmentIn(i *inbound, b []byte, in *packet.Info, d *decision, mtu int) {
	packet.DecrementTTL(b, in)
	err := packet.Fragments(b, in, mtu, func(piece []byte) {
		if d.to.kind == routeLAN {
			i.out.copied(piece, d.to)
			return
		}
		f := clonePacket(piece, in)
		packet.Decode(f.Bytes, &f.Info)
		e.transmit(FromWAN, i.snap, d, f)
	})
	if err != nil {
		e.counters.drop(FromWAN, TooBig, 1)
	}
}

func clonePacket(b []byte, in *packet.Info) *packet.Buffer {
	c := packet.Get(len(b))
	copy(c.Bytes, b)
	c.Info = *in
	return c
}

// answerWAN routes an answer of ours to where the packet came from.
func (e *Engine) answerWAN(answer []byte) {
	if len(answer) > 0 {
		e.fromHost(answer)
	}
}
