package tunnel

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"

	"patronus/configs"
	"patronus/netstack/packet"
)

// Defaults of Options.
const (
	DefaultMTU         = 1420
	DefaultBatchSize   = 128
	DefaultPeerBytes   = 4 << 20
	DefaultDeviceBytes = 32 << 20
)

// MaxBatchSize is the largest batch that is worth its buffers.
const MaxBatchSize = 256

// The errors of this package.
var (
	// ErrClosed is returned by what is called after Close.
	ErrClosed = errors.New("tunnel closed")
	// ErrPeerExists is returned by AddPeer for a key or an address that the
	// tunnel already has.
	ErrPeerExists = errors.New("peer exists")
	// ErrNoPeer is returned for a peer that was removed, or is another tunnel's.
	ErrNoPeer = errors.New("no such peer")
)

// Handler takes what arrives. The consumer implements it.
type Handler interface {
	// FromTunnel is called with the decrypted packets of one peer, in the
	// order of their arrival, at least one. borrowed: pkts and what they point
	// to are valid until it returns. It must not block for long: the peer's
	// other packets wait. Calls for different peers happen at the same time.
	FromTunnel(t *Tunnel, pkts []Inbound)
}

// Inbound is one decrypted, authenticated packet.
type Inbound struct {
	// Bytes is the IP packet without padding: with its outer header if Peer is
	// a path, plain if it is a stock peer. borrowed.
	Bytes []byte
	// Peer is whose session it came by. The device has checked that the
	// packet's source address is one of its AllowedIPs.
	Peer *Peer
	// Counter is the transport counter (WireGuard paper 5.4.6), which numbers
	// the messages of one session from 0, keepalives included; authenticated,
	// and never seen twice with the same Receiver.
	Counter uint64
	// Receiver is our index of the session, by which counters are told apart.
	Receiver uint32
	// At is when the batch was handed over, in ns of Options.Now.
	At int64
}

// Options say what a Tunnel is. PrivateKey, Bind and Handler must be given.
type Options struct {
	// Name is the uplink's, for the log.
	Name       string
	PrivateKey [32]byte
	// PathAddress is the outer source of what is sent to paths (IPv4); it may
	// be left out if all peers are stock ones.
	PathAddress netip.Addr
	// MTU is the device's, bytes of plaintext with the outer header: messages
	// are padded to 16 bytes, but not above it, so that with 1420 none exceeds
	// 1500 bytes outside. It limits nothing else. 0 means DefaultMTU.
	MTU  int
	Bind conn.Bind
	// BatchSize is the most packets handed to and from the device at once, at
	// most MaxBatchSize; 0 means DefaultBatchSize. A Bind has its own.
	BatchSize int
	// PeerBytes and DeviceBytes bound the queue by the memory its buffers
	// hold. A peer without a session may queue an eighth of PeerBytes, and
	// nothing once half of DeviceBytes is used.
	PeerBytes, DeviceBytes int
	Logger                 *slog.Logger
	Handler                Handler
	// Stamp is called with each packet given to SendProbe at the moment when
	// it is placed into the device's buffer, the last before encryption, with
	// the peer's TxPackets, this one included. It may change the packet's
	// bytes (borrowed: the inner packet), and must keep its checksums right.
	// It runs on the device's reading goroutine.
	Stamp func(p *Peer, pkt []byte, tx uint64)
	// Now is the clock, ns; nil means the machine's monotonic one.
	Now func() int64
}

// Tunnel is the WireGuard device of one local uplink.
type Tunnel struct {
	o     Options
	dev   *device.Device
	shim  *shim
	meter *meter
	queue *queue
	local [4]byte // Options.PathAddress

	config sync.Mutex // held while peers are added and removed
	ids    uint32     // guarded by config

	closed atomic.Bool
	done   chan struct{}

	peers struct {
		sync.RWMutex
		byKey  map[configs.Key]*Peer
		byAddr map[netip.Addr]*Peer // paths, by path address
		byID   map[uint32]*Peer
	}
}

// New makes a tunnel. Its device runs, but is down and has no sockets before
// Run; Close must be called even if Run never is.
func New(o Options) (*Tunnel, error) {
	switch {
	case o.Bind == nil || o.Handler == nil:
		return nil, errors.New("tunnel: a Bind and a Handler are needed")
	case o.BatchSize < 0 || o.BatchSize > MaxBatchSize:
		return nil, fmt.Errorf("tunnel: batch size %d is not in 0..%d", o.BatchSize, MaxBatchSize)
	case o.MTU < 0 || o.MTU > device.MaxContentSize:
		return nil, fmt.Errorf("tunnel: MTU %d is not in 0..%d", o.MTU, device.MaxContentSize)
	case o.PathAddress.IsValid() && !o.PathAddress.Is4():
		return nil, fmt.Errorf("tunnel: path address %v is not IPv4", o.PathAddress)
	}
	key, err := ecdh.X25519().NewPrivateKey(o.PrivateKey[:])
	if err != nil {
		return nil, fmt.Errorf("tunnel: private key: %w", err)
	}
	if o.BatchSize == 0 {
		o.BatchSize = DefaultBatchSize
	}
	if o.MTU == 0 {
		o.MTU = DefaultMTU
	}
	if o.PeerBytes == 0 {
		o.PeerBytes = DefaultPeerBytes
	}
	if o.DeviceBytes == 0 {
		o.DeviceBytes = DefaultDeviceBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		start := time.Now()
		o.Now = func() int64 { return int64(time.Since(start)) }
	}
	t := &Tunnel{o: o, done: make(chan struct{})}
	if o.PathAddress.IsValid() {
		t.local = o.PathAddress.As4()
	}
	t.peers.byKey = make(map[configs.Key]*Peer)
	t.peers.byAddr = make(map[netip.Addr]*Peer)
	t.peers.byID = make(map[uint32]*Peer)
	t.queue = newQueue(limits{
		peer: o.PeerBytes, device: o.DeviceBytes,
		flight: 2 * max(o.BatchSize, o.Bind.BatchSize()),
	})
	t.meter = newMeter(t, o.Bind, configs.Key(key.PublicKey().Bytes()))
	t.shim = newShim(t)
	t.dev = device.NewDevice(t.shim, t.meter, deviceLogger(o.Logger, o.Name))
	if err := t.dev.SetPrivateKey(o.PrivateKey); err != nil {
		t.dev.Close()
		return nil, fmt.Errorf("tunnel: private key: %w", err)
	}
	return t, nil
}

// String names the task.
func (t *Tunnel) String() string { return "tunnel " + t.o.Name }

// Run opens the sockets, looks after peers without a session, and closes the
// tunnel when ctx ends, or when the device gives up. A nil error means that
// ctx ended or Close was called.
func (t *Tunnel) Run(ctx context.Context) error {
	defer t.Close()
	if err := t.dev.Up(); err != nil {
		return fmt.Errorf("tunnel %s: %w", t.o.Name, err)
	}
	t.queue.start()
	tick := time.NewTicker(keepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.done:
			return nil
		case <-t.dev.Wait():
			if t.closed.Load() {
				return nil
			}
			return fmt.Errorf("tunnel %s: the device closed itself", t.o.Name)
		case <-t.queue.attention:
		}
		for t.keep() {
			select {
			case <-ctx.Done():
				return nil
			case <-t.done:
				return nil
			case <-tick.C:
			}
		}
	}
}

// Close closes the device, its sockets and the queue. It may be called more
// than once, but not from a Handler or a ReceiveFunc.
func (t *Tunnel) Close() error {
	if t.closed.Swap(true) {
		<-t.done
		return nil
	}
	t.meter.exchanges.close()
	t.dev.Close()
	t.queue.close()
	close(t.done)
	return nil
}

// Send queues b for p in one of the bands Control, Voice and Rest; larger
// classes count as Rest. It takes b, also when it answers false: the queue is
// full, or p was removed (both are in p's counters). It never blocks for
// longer than another Send. b may be a superpacket.
func (t *Tunnel) Send(p *Peer, b *packet.Buffer, class uint8) bool {
	return t.enqueue(p, entry{b: b}, class)
}

// SendProbe is Send in the Control band for a packet that Options.Stamp shall
// see at the last moment.
func (t *Tunnel) SendProbe(p *Peer, b *packet.Buffer) bool {
	return t.enqueue(p, entry{b: b, probe: true}, Control)
}

func (t *Tunnel) enqueue(p *Peer, e entry, class uint8) bool {
	if !p.owns(e.b.Bytes) {
		p.count.misrouted.Add(1)
		e.b.Release()
		return false
	}
	e.at = t.o.Now()
	if !t.queue.push(p, min(class, Rest), e) {
		p.count.queueFull.Add(1)
		e.b.Release()
		return false
	}
	return true
}

// SetMTU changes Options.MTU of a running tunnel.
func (t *Tunnel) SetMTU(mtu int) { t.shim.setMTU(mtu) }

// MTU is the device's, see Options.
func (t *Tunnel) MTU() int { return int(t.shim.mtu.Load()) }
