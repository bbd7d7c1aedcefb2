package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"time"

	"patronus/netstack/packet"
	"patronus/netstack/path"
	"patronus/netstack/probe"
	"patronus/netstack/tunnel"
)

// ErrUnknownPath is returned for a path that does not exist.
var ErrUnknownPath = errors.New("unknown path")

const (
	// senderPort is the source port of our probes; replies come back to it.
	senderPort = 49862
	// helloPort is that of the packets that are sent instead of probes while a
	// peer has no session: they ask for one, and their round trip, which has a
	// handshake in it, is nobody's measurement.
	helloPort = 49861
	// firstProbe is how long a new path waits for the sockets of both sides,
	// which often start together: a lost first handshake costs 5 s (WireGuard
	// paper 6.1, Rekey-Timeout).
	firstProbe = 100 * time.Millisecond
	// probeHeader is IPv4 and UDP.
	probeHeader = 28
	// probeTOS is CS6, network control (RFC 2474, RFC 4594).
	probeTOS = 48 << 2
	// quiet is how long a path must have been without traffic for the next
	// packet to wake the prober; while traffic flows it looks by itself.
	quiet = 100 * time.Millisecond
)

// prober drives the probe sessions of all paths with one goroutine. Replies and
// requests of the peers are handled where they arrive.
type prober struct {
	engine *Engine
	epoch  uint32
	wake   chan struct{} // capacity 1

	mu      sync.Mutex
	budgets map[string]*probe.Budget // by uplink
	notices map[netip.Addr]probe.Notice
	ssid    uint16

	moved []change // run's own
}

func newProber(e *Engine) *prober {
	return &prober{
		engine: e, epoch: uint32(e.base.Unix()) | 1, wake: make(chan struct{}, 1),
		budgets: map[string]*probe.Budget{}, notices: map[netip.Addr]probe.Notice{},
	}
}

// kick makes the prober look at its paths now.
func (p *prober) kick() {
	select {
	case p.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// reconfigure gives new paths their session and tracker, and all the classes.
func (p *prober) reconfigure(s *snapshot, paths []*pathState) {
	now := p.engine.wall(p.engine.now())
	p.mu.Lock()
	defer p.mu.Unlock()
	cfg := &s.config.Probe
	for _, ps := range paths {
		if ps == nil {
			continue
		}
		ps.mu.Lock()
		if ps.tracker == nil {
			p.ssid++
			name := ps.uplink.config.Name
			if p.budgets[name] == nil {
				p.budgets[name] = probe.NewBudget(cfg.Budget)
			}
			ps.session = probe.NewSession(probe.Options{
				SSID: max(p.ssid, 1), Active: time.Duration(cfg.Active), Warm: time.Duration(cfg.Warm),
				Idle: time.Duration(cfg.Idle), Cold: time.Duration(cfg.Cold), Lost: cfg.Lost, Budget: p.budgets[name],
			}, now.Add(firstProbe))
			ps.sample.Score = path.NoScore
			ps.tracker = path.NewTracker(ps.id, path.Options{Classes: s.classes, Uplink: name, Lost: cfg.Lost})
			ps.tracker.SetMTU(ps.mtu())
			if !ps.uplink.carrier.Load() {
				ps.tracker.Carrier(false, now)
			}
		} else {
			ps.tracker.SetClasses(s.classes)
		}
		ps.due.Store(int64(ps.session.Due().Sub(p.engine.base)))
		ps.mu.Unlock()
	}
	p.kick()
}

// run sends probes when they are due until ctx ends.
func (p *prober) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var lost []path.Probe
	for {
		next := int64(time.Second)
		now := p.engine.now()
		for _, ps := range *p.engine.pathList.Load() {
			if ps == nil {
				continue
			}
			if traffic := ps.lastTraffic.Load(); traffic+int64(quiet) > now || traffic > ps.seen {
				next = min(next, int64(quiet)/2)
				p.carried(ps, traffic)
			}
			due := ps.due.Load()
			if due != 0 && due <= now {
				lost = p.service(ps, lost[:0])
				due = ps.due.Load()
			}
			if due != 0 {
				next = min(next, max(due-now, 0))
			}
		}
		p.changed(p.moved...)
		p.moved = p.moved[:0]
		timer.Reset(time.Duration(next))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-p.wake:
		}
	}
}

// carried tells a path's session that it carries traffic, and those of the
// site's other paths that they may be needed.
func (p *prober) carried(ps *pathState, traffic int64) {
	now := p.engine.wall(p.engine.now())
	at := p.engine.wall(traffic)
	ps.mu.Lock()
	fresh := traffic > ps.seen
	if fresh {
		ps.seen = traffic
		ps.session.Carried(at, now)
		ps.due.Store(p.mono(ps.session.Due()))
	}
	ps.mu.Unlock()
	if !fresh {
		return
	}
	for _, other := range *p.engine.pathList.Load() {
		if other == nil || other == ps || other.site != ps.site {
			continue
		}
		other.mu.Lock()
		other.session.Wanted(at, now)
		other.due.Store(p.mono(other.session.Due()))
		other.mu.Unlock()
	}
}

// mono is a time of a session as the packet path's; 0 for the zero time.
func (p *prober) mono(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(int64(t.Sub(p.engine.base)), 1)
}

// service expires what is missing and sends what is due. What changed waits in
// p.moved: of an uplink that dies all paths are steered anew at once.
func (p *prober) service(ps *pathState, lost []path.Probe) []path.Probe {
	e := p.engine
	now := e.wall(e.now())
	ps.mu.Lock()
	var moved *path.Transition
	lost = ps.session.Expire(now, lost)
	for _, l := range lost {
		if t := ps.tracker.Observe(l, now); t != nil {
			moved = t
		}
	}
	request, send := ps.session.Next(now, ps.counts(p.epoch, false))
	var b *packet.Buffer
	if send {
		from := uint16(senderPort)
		if !ps.peer.Ready() {
			from = helloPort
		}
		b = probePacket(ps, probe.AppendRequest(make([]byte, 0, 512), request), from, probe.Port)
	} else if ps.session.Rate(now) == probe.RateCold && ps.tracker.State() != path.Unknown {
		moved = ps.tracker.Cold(now)
	}
	ps.due.Store(p.mono(ps.session.Due()))
	if moved != nil {
		ps.note(moved)
	}
	ps.mu.Unlock()
	if b != nil {
		// A full queue is a lost probe: it will be missed.
		ps.uplink.tunnel.SendProbe(ps.peer, b)
	}
	if moved != nil {
		p.moved = append(p.moved, change{moved, ps})
	}
	return lost
}

// change is a transition of one path.
type change struct {
	*path.Transition
	of *pathState
}

// changed publishes transitions: flows are steered anew, once for all of them.
func (p *prober) changed(all ...change) {
	if len(all) == 0 {
		return
	}
	p.engine.resteer()
	for _, c := range all {
		p.tell(c.of, c.Transition)
	}
}

// tell reports a transition, and asks for a dead path's session again, in case
// the peer has restarted.
func (p *prober) tell(ps *pathState, t *path.Transition) {
	e := p.engine
	e.log.Info("path changed", "path", string(ps.id), "from", t.From.String(), "to", t.To.String(), "why", t.Cause.String())
	e.sink(Event{Kind: PathStatusChange, At: t.At, Path: ps.id, Old: t.From.String(), New: t.To.String(), Reason: t.Cause.String()})
	if t.To == path.Down && t.Cause != path.CauseCarrier {
		// The device limits initiations itself; an error means that there is
		// no endpoint to send one to.
		_ = ps.uplink.tunnel.Handshake(ps.peer)
	}
}

// probePacket wraps a STAMP payload in IPv4 and UDP between the path addresses.
func probePacket(ps *pathState, payload []byte, from, to uint16) *packet.Buffer {
	b := packet.Get(probeHeader + len(payload))
	putUDP4(b.Bytes, ps.uplink.source, ps.remote, from, to, len(payload))
	copy(b.Bytes[probeHeader:], payload)
	b.Info = packet.Info{Version: 4, TOS: probeTOS, TTL: 255, L4: 20, Payload: probeHeader, Length: uint32(len(b.Bytes))}
	b.Info.Key.Proto = packet.UDP
	return b
}

// putUDP4 writes the headers of a probe: IPv4 (RFC 791) and UDP without a
// checksum (RFC 768), which WireGuard makes superfluous and which stamping
// would break.
func putUDP4(b []byte, src, dst [4]byte, from, to uint16, payload int) {
	clear(b[:probeHeader])
	b[0], b[1], b[8], b[9] = 0x45, probeTOS, 255, packet.UDP
	binary.BigEndian.PutUint16(b[2:], uint16(probeHeader+payload))
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:20], 0))
	binary.BigEndian.PutUint16(b[20:], from)
	binary.BigEndian.PutUint16(b[22:], to)
	binary.BigEndian.PutUint16(b[24:], uint16(8+payload))
}

// stamp is the tunnel's hook: a probe is about to be encrypted.
func (e *Engine) stamp(_ *tunnel.Peer, pkt []byte, tx uint64) {
	if len(pkt) < probeHeader {
		return
	}
	now := e.wall(e.now())
	if uint16(pkt[22])<<8|uint16(pkt[23]) == probe.Port {
		probe.StampRequest(pkt[probeHeader:], now, tx)
	} else {
		probe.StampReply(pkt[probeHeader:], now, tx)
	}
}

// receive takes a packet between path addresses that came out of a tunnel: a
// request of the peer's, or a reply to ours. It runs on the peer's goroutine.
func (p *prober) receive(ps *pathState, b []byte, at int64) bool {
	if len(b) < probeHeader+probe.BaseLen || b[0] != 0x45 || b[9] != packet.UDP {
		return false
	}
	payload := b[probeHeader:]
	switch {
	case uint16(b[22])<<8|uint16(b[23]) == probe.Port:
		p.reflect(ps, payload, uint16(b[20])<<8|uint16(b[21]), b[8], at)
	case uint16(b[20])<<8|uint16(b[21]) == probe.Port:
		if uint16(b[22])<<8|uint16(b[23]) == senderPort {
			p.reply(ps, payload, at)
		}
	default:
		return false
	}
	return true
}

func (p *prober) reflect(ps *pathState, payload []byte, from uint16, ttl uint8, at int64) {
	e := p.engine
	rx := e.wall(at)
	ps.mu.Lock()
	reply, err := probe.Reflect(make([]byte, 0, len(payload)), payload, ps.counts(p.epoch, true), rx, rx, ttl, &ps.reflector)
	ps.mu.Unlock()
	if err != nil {
		e.malformed(FromWAN, packet.BadTransport)
		return
	}
	ps.uplink.tunnel.SendProbe(ps.peer, probePacket(ps, reply, probe.Port, from))
	var r probe.Received
	if probe.ParseRequest(payload, &r) != nil {
		return
	}
	ps.mu.Lock()
	// The peer counts what it got of ours: proof of life without a reply.
	if sentAt, ok := ps.session.Heard(&r, rx); ok {
		ps.tracker.Alive(sentAt)
	}
	ps.due.Store(p.mono(ps.session.Due()))
	ps.mu.Unlock()
	for _, n := range r.Notices() {
		p.heard(ps, n)
	}
}

func (p *prober) reply(ps *pathState, payload []byte, at int64) {
	e := p.engine
	now := e.wall(at)
	ps.mu.Lock()
	result, ok := ps.session.OnReply(payload, now, ps.counts(p.epoch, true))
	var moved *path.Transition
	if ok && !result.Duplicate {
		if result.HasCounts {
			ps.tracker.ObserveCounts(result.Counts, now)
		}
		moved = ps.tracker.Observe(result.Probe, now)
		if ps.watch != nil {
			ps.watch(result.Probe.RTT)
		}
	}
	ps.due.Store(p.mono(ps.session.Due()))
	if moved != nil {
		ps.note(moved)
	}
	ps.mu.Unlock()
	if moved != nil {
		p.changed(change{moved, ps})
	}
}

// heard applies a peer's notice about one of its uplinks to our paths there.
func (p *prober) heard(from *pathState, n probe.Notice) {
	e := p.engine
	now := e.wall(e.now())
	var all []change
	for _, ps := range *e.pathList.Load() {
		if ps == nil || ps.site != from.site || netip.AddrFrom4(ps.remote) != n.Uplink {
			continue
		}
		ps.mu.Lock()
		if !ps.heard.Accept(n) {
			ps.mu.Unlock()
			continue
		}
		if t := ps.tracker.PeerNotice(n.Alive, now); t != nil {
			ps.note(t)
			all = append(all, change{t, ps})
		}
		ps.mu.Unlock()
	}
	p.changed(all...)
}

// SetCarrier tells the link state of one of our uplinks: its paths go Down at
// once, and the peers are told over the other ones.
func (e *Engine) SetCarrier(uplink string, up bool) {
	now := e.wall(e.now())
	var all []change
	var source netip.Addr
	for _, ps := range *e.pathList.Load() {
		if ps == nil || ps.uplink.config.Name != uplink {
			continue
		}
		source = netip.AddrFrom4(ps.uplink.source)
		ps.uplink.carrier.Store(up)
		ps.mu.Lock()
		if t := ps.tracker.Carrier(up, now); t != nil {
			ps.note(t)
			all = append(all, change{t, ps})
		}
		ps.mu.Unlock()
	}
	if !source.IsValid() {
		return
	}
	e.prober.announce(source, up, now)
	e.prober.changed(all...)
	state := map[bool]string{true: "up", false: "down"}
	e.log.Info("carrier changed", "uplink", uplink, "to", state[up])
	e.sink(Event{Kind: CarrierChange, At: now, Uplink: uplink, Old: state[!up], New: state[up]})
}

// announce tells all peers about one of our uplinks, over the others.
func (p *prober) announce(source netip.Addr, alive bool, now time.Time) {
	p.mu.Lock()
	n := p.notices[source]
	n.Uplink, n.Alive = source, alive
	n.Seq = max(n.Seq+1, uint32(now.Unix()))
	p.notices[source] = n
	all := make([]probe.Notice, 0, len(p.notices))
	for _, one := range p.notices {
		all = append(all, one)
	}
	p.mu.Unlock()
	for _, ps := range *p.engine.pathList.Load() {
		if ps == nil || netip.AddrFrom4(ps.uplink.source) == source {
			continue
		}
		ps.mu.Lock()
		ps.session.Announce(all, now)
		ps.due.Store(p.mono(ps.session.Due()))
		ps.mu.Unlock()
	}
	p.kick()
}

// UplinksOn names our uplinks that are bound to a network interface.
func (e *Engine) UplinksOn(iface string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var names []string
	for _, u := range e.tunnels {
		if u.config.Interface == iface {
			names = append(names, u.config.Name)
		}
	}
	return names
}
