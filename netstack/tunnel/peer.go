package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"patronus/configs"
)

// PeerConfig says who a peer is.
type PeerConfig struct {
	PublicKey configs.Key
	// PresharedKey is mixed into the handshake unless it is zero.
	PresharedKey [32]byte
	// PathAddress makes the peer a path: its packets travel IP-in-IP (RFC
	// 2003) to this IPv4 address, which is then its only AllowedIP. The zero
	// value makes it a stock peer, which gets plain packets.
	PathAddress netip.Addr
	// AllowedIPs are a stock peer's prefixes.
	AllowedIPs []netip.Prefix
	// Endpoint is where it is reached. The zero value means that it is learned
	// from the peer's first handshake.
	Endpoint netip.AddrPort
	// Keepalive is the interval of persistent keepalives, in whole seconds; 0
	// means none.
	Keepalive time.Duration
}

// Peer is one remote end: a path to a remote uplink, or a stock WireGuard peer.
// It is valid until RemovePeer; afterwards it only keeps its counters.
type Peer struct {
	key     configs.Key
	id      uint32
	path    bool
	remote  [4]byte
	addr    netip.Addr
	allowed []netip.Prefix
	t       *Tunnel
	wg      *device.Peer

	count peerCount
	heard atomic.Bool // authenticated data came since it was last found shut

	flight flight // guarded by queue.mu
	round  uint64 // the last batch that it was in; the reading goroutine's

	indexes []*index // guarded by indexTable.mu
	folded  Tally    // of sessions that are over; guarded by indexTable.mu
}

type peerCount struct {
	txPackets, txBytes   atomic.Uint64
	queueFull, noSession atomic.Uint64
	malformed, misrouted atomic.Uint64
}

// PeerCounters are cumulative.
type PeerCounters struct {
	// TxPackets and TxBytes are the packets placed into the device's buffers,
	// segments counted one by one, probes included, without outer headers.
	TxPackets, TxBytes uint64
	// Buffers that did not become packets: QueueFull and Misrouted (not for
	// the peer's AllowedIPs) were refused by Send; NoSession waited in vain;
	// Malformed contradict their own headers.
	QueueFull, NoSession, Malformed, Misrouted uint64
	// Queued is the memory held by what waits now, bytes.
	Queued int
	Tally
}

// Status is what the device knows of a peer.
type Status struct {
	// Endpoint is where the last authenticated message came from, or what was
	// configured.
	Endpoint netip.AddrPort
	// LastHandshakeAt is when the newest session was confirmed; zero if never.
	LastHandshakeAt time.Time
	// RxBytes and TxBytes are WireGuard messages.
	RxBytes, TxBytes uint64
	// Session says that the newest session is younger than the 180 s after
	// which it may not be used (WireGuard paper 6.2).
	Session bool
}

// Key is the peer's public key.
func (p *Peer) Key() configs.Key { return p.key }

// PathAddress is PeerConfig.PathAddress.
func (p *Peer) PathAddress() netip.Addr { return p.addr }

// String is the key in short.
func (p *Peer) String() string { return p.wg.String() }

// TxPackets is PeerCounters.TxPackets.
func (p *Peer) TxPackets() uint64 { return p.count.txPackets.Load() }

// Ready reports whether a session with the peer is known to exist: a packet
// sent now does not wait for a handshake.
func (p *Peer) Ready() bool {
	q := p.t.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	return p.flight.open
}

// Counters reads the peer's counters.
func (p *Peer) Counters() PeerCounters {
	c := &p.count
	q := p.t.queue
	q.mu.Lock()
	queued := p.flight.bytes
	q.mu.Unlock()
	return PeerCounters{
		TxPackets: c.txPackets.Load(), TxBytes: c.txBytes.Load(),
		QueueFull: c.queueFull.Load(), NoSession: c.noSession.Load(),
		Malformed: c.malformed.Load(), Misrouted: c.misrouted.Load(),
		Queued: queued,
		Tally:  p.t.meter.index.total(p),
	}
}

// owns reports whether the device would send pkt to p.
func (p *Peer) owns(pkt []byte) bool {
	if p.path {
		return true
	}
	dst, ok := address(pkt, 16, 24)
	return ok && slices.ContainsFunc(p.allowed, func(a netip.Prefix) bool { return a.Contains(dst) })
}

// address reads the IP address at offset at4 of an IPv4 or at6 of an IPv6 packet.
func address(pkt []byte, at4, at6 int) (netip.Addr, bool) {
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(pkt[at4:])), true
	case len(pkt) >= 40 && pkt[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(pkt[at6:])), true
	}
	return netip.Addr{}, false
}

// AddPeer adds a peer. It may be called before and during Run.
func (t *Tunnel) AddPeer(c PeerConfig) (*Peer, error) {
	if t.closed.Load() {
		return nil, ErrClosed
	}
	p := &Peer{key: c.PublicKey, addr: c.PathAddress, allowed: slices.Clone(c.AllowedIPs), t: t}
	if c.PathAddress.IsValid() {
		switch {
		case !c.PathAddress.Is4():
			return nil, fmt.Errorf("tunnel: path address %v is not IPv4", c.PathAddress)
		case len(c.AllowedIPs) > 0:
			return nil, errors.New("tunnel: a path has no AllowedIPs but its path address")
		case !t.o.PathAddress.IsValid():
			return nil, errors.New("tunnel: a path needs Options.PathAddress")
		}
		p.path, p.remote = true, c.PathAddress.As4()
		p.allowed = []netip.Prefix{netip.PrefixFrom(c.PathAddress, 32)}
	}
	for band := range p.flight.lanes {
		p.flight.lanes[band].p = p
	}
	p.flight.shutAt = time.Now().UnixNano()

	t.config.Lock()
	defer t.config.Unlock()
	if t.taken(p) {
		return nil, fmt.Errorf("tunnel: peer %s: %w", p.key, ErrPeerExists)
	}
	// Without t.peers' lock: the device may wait for a Handler that wants it.
	if err := t.configure(c, p.allowed); err != nil {
		t.dev.RemovePeer(device.NoisePublicKey(p.key))
		return nil, fmt.Errorf("tunnel: peer %s: %w", p.key, err)
	}
	if p.wg = t.dev.LookupPeer(device.NoisePublicKey(p.key)); p.wg == nil {
		return nil, errors.New("tunnel: a device is no peer of itself")
	}
	t.ids++
	p.id = t.ids
	t.peers.Lock()
	defer t.peers.Unlock()
	t.peers.byKey[p.key], t.peers.byID[p.id] = p, p
	if p.path {
		t.peers.byAddr[p.addr] = p
	}
	return p, nil
}

func (t *Tunnel) taken(p *Peer) bool {
	t.peers.RLock()
	defer t.peers.RUnlock()
	return t.peers.byKey[p.key] != nil || p.path && t.peers.byAddr[p.addr] != nil
}

// RemovePeer forgets a peer and drops what is queued for it. The other side
// keeps its session and talks into the void until it notices (15 s): remove a
// peer that has none (Decision 1). Not to be called from a Handler.
func (t *Tunnel) RemovePeer(p *Peer) error {
	t.config.Lock()
	defer t.config.Unlock()
	t.peers.Lock()
	if t.peers.byKey[p.key] != p {
		t.peers.Unlock()
		return ErrNoPeer
	}
	delete(t.peers.byKey, p.key)
	delete(t.peers.byID, p.id)
	if p.path {
		delete(t.peers.byAddr, p.addr)
	}
	t.peers.Unlock()
	t.queue.remove(p)
	t.dev.RemovePeer(device.NoisePublicKey(p.key))
	t.meter.index.release(p)
	return nil
}

// Handshake starts a new session now, instead of with the next packet: after a
// restart the other side's old one is good for nothing, and it would take 15 s
// to find out. At most one initiation in 5 s is sent.
func (t *Tunnel) Handshake(p *Peer) error {
	if t.Peer(p.key) != p {
		return ErrNoPeer
	}
	if err := p.wg.SendHandshakeInitiation(false); err != nil {
		return fmt.Errorf("tunnel: handshake with %s: %w", p, err)
	}
	return nil
}

// Peer finds a peer by its public key; nil if there is none.
func (t *Tunnel) Peer(key configs.Key) *Peer {
	t.peers.RLock()
	defer t.peers.RUnlock()
	return t.peers.byKey[key]
}

func (t *Tunnel) peerByID(id uint32) *Peer {
	t.peers.RLock()
	defer t.peers.RUnlock()
	return t.peers.byID[id]
}

// peerBySource finds who may send pkt. Only the first packet of a session asks.
func (t *Tunnel) peerBySource(pkt []byte) *Peer {
	src, ok := address(pkt, 12, 8)
	if !ok {
		return nil
	}
	t.peers.RLock()
	defer t.peers.RUnlock()
	if p := t.peers.byAddr[src]; p != nil {
		return p
	}
	var found *Peer
	bits := -1
	for _, p := range t.peers.byKey {
		for _, a := range p.allowed {
			if a.Contains(src) && a.Bits() > bits {
				found, bits = p, a.Bits()
			}
		}
	}
	return found
}
