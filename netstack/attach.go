package netstack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"patronus/configs"
	"patronus/netstack/lan"
	"patronus/netstack/path"
	"patronus/netstack/tunnel"
)

// portState is one open LAN port. Its addresses and routes are the snapshot's:
// they change without the port having to.
type portState struct {
	port       lan.Port
	neighbours *neighbours // of a packet port, else nil
	cancel     context.CancelFunc
	gone       atomic.Bool
}

// attachedPort is a port with what the current revision says about it.
type attachedPort struct {
	*portState
	config configs.LANPort
}

// mtu is the largest packet the port's hosts take.
func (p *attachedPort) mtu() int {
	if p.config.MTU > 0 {
		return p.config.MTU
	}
	return p.port.MTU()
}

// framePort is what a packet port can do beyond lan.Port.
type framePort interface {
	MAC() [6]byte
	WriteFrame(frame []byte) error
}

// portIdentity is what cannot change while a port stays open.
func portIdentity(p *configs.LANPort) string {
	return fmt.Sprintf("%s/%s/%s/%d", p.Name, p.Kind, p.Interface, p.VLAN)
}

func (p *portState) close() {
	if p.gone.Swap(true) {
		return
	}
	if p.cancel != nil {
		p.cancel()
	}
	// Closing is how a blocked Read is woken; there is nothing to save.
	_ = p.port.Close()
	if p.neighbours != nil {
		p.neighbours.close()
	}
}

// openPorts returns the port of each configured LAN port, by reuse where the
// identity stayed, and the ones it had to open.
func (e *Engine) openPorts(cfg *configs.Config) (all []attachedPort, opened []*portState, err error) {
	for i := range cfg.LAN {
		want := cfg.LAN[i]
		p := e.ports[portIdentity(&want)]
		if p == nil {
			if p, err = e.openPort(&want); err != nil {
				for _, o := range opened {
					o.close()
				}
				return nil, nil, fmt.Errorf("lan port %s: %w", want.Name, err)
			}
			opened = append(opened, p)
		}
		all = append(all, attachedPort{portState: p, config: want})
	}
	return all, opened, nil
}

func (e *Engine) openPort(want *configs.LANPort) (*portState, error) {
	n := newNeighbours(e.host)
	port, err := e.opener.OpenPort(want, n.frame, n)
	if err != nil {
		return nil, err
	}
	p := &portState{port: port}
	if eth, ok := port.(framePort); ok {
		if err := n.attach(eth.MAC(), port.MTU(), want.Addresses); err != nil {
			_ = port.Close()
			return nil, err
		}
		p.neighbours = n
	}
	return p, nil
}

// startPort starts a port's goroutines, if the engine runs.
func (e *Engine) startPort(p *portState) {
	if e.tasks == nil {
		return
	}
	ctx, cancel := context.WithCancel(e.ctx())
	p.cancel = cancel
	e.tasks.Go(func() error {
		if err := e.readPort(ctx, p); err != nil {
			e.log.Error("lan port failed and is opened anew", "err", err)
			e.revive(e.ctx(), func() bool {
				p.close()
				maps.DeleteFunc(e.ports, func(_ string, have *portState) bool { return have == p })
				return true
			})
		}
		return nil
	})
	if p.neighbours != nil {
		w := p.port.(framePort)
		e.tasks.Go(func() error {
			// A frame that the port does not take is like one lost on the wire.
			_ = p.neighbours.run(ctx, func(frame []byte) { _ = w.WriteFrame(frame) })
			return nil
		})
		e.tasks.Go(func() error {
			e.readUnanswered(ctx, p)
			return nil
		})
	}
}

// uplinkState is one local uplink: its tunnel and the paths that start there.
type uplinkState struct {
	config  configs.Uplink
	tunnel  *tunnel.Tunnel
	source  [4]byte // our path address
	ends    atomic.Pointer[map[*tunnel.Peer]end]
	carrier atomic.Bool
	retired atomic.Bool
}

// end is whom a peer of a tunnel stands for: a path or a device.
type end struct {
	path   *pathState
	device *deviceState
}

// end is what a peer stands for; the zero value if it was removed.
func (u *uplinkState) end(p *tunnel.Peer) end {
	if m := u.ends.Load(); m != nil {
		return (*m)[p]
	}
	return end{}
}

// deviceState is a stock WireGuard peer on one of our uplinks.
type deviceState struct {
	config configs.Device
	uplink *uplinkState
	peer   *tunnel.Peer
}

// uplinkIdentity is what cannot change while a tunnel stays up.
func uplinkIdentity(u *configs.Uplink) string {
	return fmt.Sprintf("%s/%s/%d/%s/%s/%d", u.Name, u.PublicKey, u.ListenPort, u.Interface, u.Source, u.MTU)
}

// buildTunnels returns the tunnel of each of our uplinks, by reuse where the
// identity stayed. New ones touch nothing until they are started, but have to
// be closed: with an error it returns those that were built before.
func (e *Engine) buildTunnels(cfg *configs.Config) (map[string]*uplinkState, error) {
	all := make(map[string]*uplinkState)
	self := cfg.Self()
	for i := range self.Uplinks {
		want := self.Uplinks[i]
		id := uplinkIdentity(&want)
		if u := e.tunnels[id]; u != nil {
			all[id] = u
			continue
		}
		u, err := e.buildTunnel(&want)
		if err != nil {
			return all, fmt.Errorf("uplink %s: %w", want.Name, err)
		}
		all[id] = u
	}
	return all, nil
}

func (e *Engine) buildTunnel(want *configs.Uplink) (*uplinkState, error) {
	key, err := e.opener.PrivateKey(want)
	if err != nil {
		return nil, err
	}
	bind, err := e.opener.OpenBind(want)
	if err != nil {
		return nil, err
	}
	u := &uplinkState{config: *want, source: want.Path().As4()}
	u.carrier.Store(true)
	u.tunnel, err = tunnel.New(tunnel.Options{
		Name: want.Name, PrivateKey: key.Bytes(), PathAddress: want.Path(), MTU: want.MTU - wireguardOverhead,
		Bind: bind, BatchSize: e.batch, Logger: e.log, Handler: &inboundHandler{e, u}, Stamp: e.stamp, Now: e.now,
	})
	if err != nil {
		return nil, err
	}
	return u, nil
}

// wireguardOverhead is what a transport packet adds to a packet of ours: the
// outer IP and UDP headers, 16 bytes of WireGuard header and 16 of tag. The
// underlay may be IPv6, so we allow for its 40 bytes.
const wireguardOverhead = 40 + 8 + 16 + 16

// reviveAfter is how long what broke is left alone before it is built anew.
const reviveAfter = time.Second

// startTunnel starts a tunnel's device, if the engine runs. One that fails (its
// port is taken, say) is built anew after a while: the other uplinks go on.
func (e *Engine) startTunnel(id string, u *uplinkState) {
	if e.tasks == nil {
		return
	}
	ctx := e.ctx()
	e.tasks.Go(func() error {
		err := u.tunnel.Run(ctx)
		if u.retired.Load() || ctx.Err() != nil {
			return nil
		}
		e.log.Error("uplink failed and is built anew", "uplink", u.config.Name, "err", err)
		e.revive(ctx, func() bool {
			if e.tunnels[id] != u {
				return false
			}
			old := e.tunnels
			e.tunnels = maps.Clone(old)
			delete(e.tunnels, id)
			e.retireTunnels(old)
			return true
		})
		return nil
	})
}

// revive forgets what broke, and applies the running configuration again
// until that works. forget runs under e.mu; it answers false if there is
// nothing to do any more.
func (e *Engine) revive(ctx context.Context, forget func() bool) {
	wait := time.NewTicker(reviveAfter)
	defer wait.Stop()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		e.mu.Lock()
		s := e.snapshot.Load()
		if first && !forget() {
			e.mu.Unlock()
			return
		}
		err := e.apply(s.rev, s.config, s.rules)
		e.mu.Unlock()
		if err == nil {
			return
		}
		e.log.Error("still broken", "rev", s.rev, "err", err)
	}
}

// connect reconciles the peers of all tunnels with the configuration: paths to
// the sites we have direct paths to, and devices. What is not wanted any more
// goes first: its key may have another name now.
func (e *Engine) connect(cfg *configs.Config) ([]*deviceState, error) {
	var failed []error
	wanted := make(map[path.ID]link)
	for _, u := range e.tunnels {
		for _, site := range cfg.Peers() {
			for i := range site.Uplinks {
				remote := &site.Uplinks[i]
				wanted[path.NewID(cfg.Site, u.config.Name, site.Name, remote.Name)] = link{u, site.Name, remote}
			}
		}
	}
	for i, p := range e.paths {
		if p == nil {
			continue
		}
		if l, ok := wanted[p.id]; ok && p.joins(l) {
			delete(wanted, p.id)
			failed = append(failed, p.reach(l))
			continue
		}
		e.paths[i] = nil
		failed = append(failed, p.uplink.tunnel.RemovePeer(p.peer))
	}
	for id, l := range wanted {
		failed = append(failed, e.connectPath(id, l))
	}
	devices, err := e.connectDevices(cfg)
	failed = append(failed, err)
	return devices, errors.Join(failed...)
}

// link is what a path is to join.
type link struct {
	uplink *uplinkState
	site   string
	remote *configs.Uplink
}

// joins reports whether a path is this link still: with the same key and
// address its session goes on.
func (p *pathState) joins(l link) bool {
	return p.uplink == l.uplink && p.key == l.remote.PublicKey && p.remote == l.remote.Path().As4()
}

// reach takes a new endpoint from the configuration. One that the peer has
// roamed to stays until the configuration says something new.
func (p *pathState) reach(l link) error {
	at := l.uplink.endpoint(l.remote.Endpoints)
	if !at.IsValid() || at == p.configured {
		return nil
	}
	p.configured = at
	return p.uplink.tunnel.SetEndpoint(p.peer, at)
}

// publishEnds tells each tunnel's receiving side who its peers are.
func (e *Engine) publishEnds(devices []*deviceState) {
	for _, u := range e.tunnels {
		ends := make(map[*tunnel.Peer]end)
		for _, p := range e.paths {
			if p != nil && p.uplink == u {
				ends[p.peer] = end{path: p}
			}
		}
		for _, d := range devices {
			if d.uplink == u {
				ends[d.peer] = end{device: d}
			}
		}
		u.ends.Store(&ends)
	}
}

// connectPath adds the path of a link.
func (e *Engine) connectPath(id path.ID, l link) error {
	at := l.uplink.endpoint(l.remote.Endpoints)
	peer, err := l.uplink.tunnel.AddPeer(tunnel.PeerConfig{
		PublicKey: l.remote.PublicKey, PathAddress: l.remote.Path(), Endpoint: at, Keepalive: time.Duration(l.uplink.config.Keepalive),
	})
	if err != nil {
		return fmt.Errorf("path %s: %w", id, err)
	}
	p := newPathState(e, id, l, peer)
	p.configured = at
	i := slices.Index(e.paths, nil)
	if i < 0 {
		i = len(e.paths)
		e.paths = append(e.paths, nil)
	}
	p.index = uint16(i)
	e.paths[i] = p
	return nil
}

// endpoint chooses the endpoint that this uplink can reach: of the family of
// its source address, or the first.
func (u *uplinkState) endpoint(all []netip.AddrPort) netip.AddrPort {
	for _, a := range all {
		if !u.config.Source.IsValid() || a.Addr().Is4() == u.config.Source.Is4() {
			return a
		}
	}
	return netip.AddrPort{}
}

// connectDevices returns the stock peers in the order of the configuration.
func (e *Engine) connectDevices(cfg *configs.Config) ([]*deviceState, error) {
	var all []*deviceState
	var failed []error
	next := make(map[configs.Key]*deviceState)
	for i := range cfg.Devices {
		want := cfg.Devices[i]
		if d := e.devices[want.PublicKey]; d != nil && sameDevice(&d.config, &want) {
			next[want.PublicKey] = d
			all = append(all, d)
		}
	}
	for key, d := range e.devices {
		if next[key] == nil {
			failed = append(failed, d.uplink.tunnel.RemovePeer(d.peer))
		}
	}
	e.devices = next
	for i := range cfg.Devices {
		want := cfg.Devices[i]
		if next[want.PublicKey] != nil {
			continue
		}
		for _, u := range e.tunnels {
			if u.config.Name != want.Uplink {
				continue
			}
			peer, err := u.tunnel.AddPeer(tunnel.PeerConfig{
				PublicKey: want.PublicKey, AllowedIPs: want.AllowedIPs, Endpoint: want.Endpoint, Keepalive: time.Duration(want.Keepalive),
			})
			if err != nil {
				failed = append(failed, fmt.Errorf("device %s: %w", want.Name, err))
				continue
			}
			d := &deviceState{config: want, uplink: u, peer: peer}
			next[want.PublicKey] = d
			all = append(all, d)
		}
	}
	return all, errors.Join(failed...)
}

func sameDevice(a, b *configs.Device) bool {
	return a.Uplink == b.Uplink && a.Endpoint == b.Endpoint && a.Keepalive == b.Keepalive && slices.Equal(a.AllowedIPs, b.AllowedIPs)
}
