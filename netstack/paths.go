package netstack

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"patronus/configs"
	"patronus/netstack/packet"
	"patronus/netstack/path"
	"patronus/netstack/probe"
	"patronus/netstack/tunnel"
)

// pathState is one path: a peer of one of our tunnels, with what is known of
// its quality. What the packet path touches is atomic or its own; the rest is
// guarded by mu.
type pathState struct {
	id     path.ID
	index  uint16 // what flows are bound to
	uplink *uplinkState
	remote [4]byte // the peer's path address
	site   string  // the remote one
	name   string  // of the remote uplink
	key    configs.Key
	peer   *tunnel.Peer
	// configured is the endpoint that the configuration gave last.
	configured netip.AddrPort

	// lastTraffic is when the path last carried anything but probes, ns.
	lastTraffic atomic.Int64
	rxBytes     atomic.Uint64
	// inband belongs to the goroutine that receives the peer's packets.
	inband *probe.InBand
	// due is when the prober has to look at the path, ns; 0: never.
	due atomic.Int64

	mu        sync.Mutex
	session   *probe.Session
	tracker   *path.Tracker
	reflector probe.ReflectorState
	seen      int64 // lastTraffic that the session was told of
	sample    path.Sample
	since     time.Time // of the state
	cause     string
	published uint32 // tracker's generation that steering knows
	tally     tallyWindow
	heard     probe.Notices       // the peer's about its uplink
	watch     func(time.Duration) // a test on demand wants each round trip
}

// tallyWindow smooths the difference between what the tunnel received and what
// it delivered: a part of it is being decrypted at the moment, and only the
// least of several readings is duplicates.
type tallyWindow struct {
	last       [4]uint64
	at         int
	duplicates uint64
	keepalives uint64
}

// add takes a reading and returns what is new since the one before.
func (w *tallyWindow) add(t tunnel.Tally) (duplicates, keepalives uint64) {
	w.last[w.at%len(w.last)] = t.Received - min(t.Received, t.Delivered)
	w.at++
	least := w.last[0]
	for _, v := range w.last[1:] {
		least = min(least, v)
	}
	if w.at >= len(w.last) && least > w.duplicates {
		duplicates = least - w.duplicates
		w.duplicates = least
	}
	keepalives = t.Keepalives - w.keepalives
	w.keepalives = t.Keepalives
	return duplicates, keepalives
}

func newPathState(e *Engine, id path.ID, l link, peer *tunnel.Peer) *pathState {
	return &pathState{
		id: id, uplink: l.uplink, remote: l.remote.Path().As4(), site: l.site, name: l.remote.Name, key: l.remote.PublicKey, peer: peer,
		inband: probe.NewInBand(), since: e.wall(e.now()),
	}
}

// mtu is the largest inner packet the path carries, bytes.
func (p *pathState) mtu() int { return p.uplink.tunnel.MTU() - packet.OuterLen }

// received books a decrypted packet.
func (p *pathState) received(in *tunnel.Inbound, n int) {
	p.inband.Observe(in.Receiver, in.Counter)
	p.rxBytes.Add(uint64(n))
}

// counts are our own view of the path, for the peer. It is called by the
// receiving goroutine or with the last published numbers.
func (p *pathState) counts(epoch uint32, own bool) probe.Counts {
	s := p.inband.Snapshot()
	if own {
		s = p.inband.Stats()
	}
	return probe.Counts{
		Epoch: epoch, Tx: p.peer.TxPackets(), Rx: s.Received, Missing: s.Missing,
		Reordered: s.Reordered, Duplicates: s.Duplicates,
	}
}

// candidate is the path's entry in steering.
func (p *pathState) candidate() path.Candidate {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published = p.tracker.Generation()
	return p.tracker.Candidate(int(p.index))
}

// note keeps what a transition says, for the status.
func (p *pathState) note(t *path.Transition) {
	p.since, p.cause = t.At, t.Cause.String()
}

func (p *pathState) status(s *snapshot, w tunnel.Status) PathStatus {
	c := p.peer.Counters()
	p.mu.Lock()
	defer p.mu.Unlock()
	st := PathStatus{
		ID: p.id, Site: p.site, Uplink: p.uplink.config.Name, RemoteUplink: p.name,
		State: p.tracker.State().String(), Why: p.cause, Since: p.since, Metrics: p.sample.Metrics(), Scores: map[string]path.Score{},
		MTU: p.mtu(), Handshake: w.LastHandshakeAt, TxPackets: c.TxPackets, TxBytes: c.TxBytes,
		RxPackets: p.inband.Snapshot().Received, RxBytes: p.rxBytes.Load(), InBand: p.inband.Snapshot(),
	}
	if w.Endpoint.IsValid() {
		st.Endpoint = w.Endpoint.String()
	}
	candidate := p.tracker.Candidate(int(p.index))
	for i := range candidate.Class {
		st.Scores[s.classes.Name(path.ClassID(i))] = candidate.Class[i].Score
	}
	return st
}
