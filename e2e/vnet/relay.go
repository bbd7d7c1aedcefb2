package vnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// RelayUplink is a WAN socket of a site that reaches others through a [Relay].
type RelayUplink struct {
	Name string // unique, "hq.wan0"
	Site string // uplinks of one site do not reach each other
	// Addr is the uplink's real socket on loopback. If its port is 0 it is
	// learned from what the uplink sends, and follows it.
	Addr netip.AddrPort
}

// RelayOptions describe a fabric.
type RelayOptions struct {
	Uplinks []RelayUplink
	// Pairs of uplinks that reach each other; nil means all of different sites.
	Pairs [][2]string
	Seed  uint64
	// Memory bounds the packets that wait, in bytes; 0 means 64 MiB.
	Memory int
}

// Relay is the virtual internet for processes with real sockets, unprivileged.
// For each pair of uplinks it owns two loopback sockets: A sends to a_b what is
// for B, and b_a is where B sees it come from, and the other way round.
//
//	A's socket <--> a_b [A's line | pair | B's line] b_a <--> B's socket
//
// Delivery is as punctual as the runtime's timers, about a millisecond.
type Relay struct {
	line    *DelayLine
	uplinks map[string]*relayUplink
	ports   map[[2]string]*relayPort // {from, to}
	pairs   map[[2]string]*Shaper    // {from, to}
	strays  atomic.Uint64
}

type relayUplink struct {
	RelayUplink
	link  Link
	learn bool
	real  atomic.Pointer[net.UDPAddr]
}

// Errors of NewRelay.
var (
	ErrRelayUplink = errors.New("relay: unknown or repeated uplink")
	ErrRelayPair   = errors.New("relay: no such pair")
)

// NewRelay opens the relay's sockets, so that their addresses are known before
// anything runs. Call Run or Close.
func NewRelay(o RelayOptions) (*Relay, error) {
	if o.Memory == 0 {
		o.Memory = 64 << 20
	}
	r := &Relay{
		line:    NewDelayLine(o.Memory),
		uplinks: make(map[string]*relayUplink),
		ports:   make(map[[2]string]*relayPort),
		pairs:   make(map[[2]string]*Shaper),
	}
	seed := o.Seed
	shaper := func() *Shaper { seed++; return NewShaper(Impairment{}, seed) }
	for _, u := range o.Uplinks {
		if u.Name == "" || r.uplinks[u.Name] != nil {
			return nil, fmt.Errorf("%w: %q", ErrRelayUplink, u.Name)
		}
		up := &relayUplink{RelayUplink: u, link: Link{Out: shaper(), In: shaper()}, learn: u.Addr.Port() == 0}
		if !up.learn {
			up.real.Store(net.UDPAddrFromAddrPort(u.Addr))
		}
		r.uplinks[u.Name] = up
	}
	if o.Pairs == nil {
		o.Pairs = allPairs(o.Uplinks)
	}
	for _, p := range o.Pairs {
		if err := r.addPair(p[0], p[1], shaper); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

func allPairs(uplinks []RelayUplink) (pairs [][2]string) {
	pairs = [][2]string{}
	for i, a := range uplinks {
		for _, b := range uplinks[i+1:] {
			if a.Site != b.Site {
				pairs = append(pairs, [2]string{a.Name, b.Name})
			}
		}
	}
	return pairs
}

func (r *Relay) addPair(a, b string, shaper func() *Shaper) error {
	ua, ub := r.uplinks[a], r.uplinks[b]
	if ua == nil || ub == nil || a == b {
		return fmt.Errorf("%w: %s~%s", ErrRelayUplink, a, b)
	}
	if r.ports[[2]string{a, b}] != nil {
		return nil
	}
	ab, err := listenRelay(ua, &r.strays)
	if err != nil {
		return fmt.Errorf("relay %s to %s: %w", a, b, err)
	}
	r.ports[[2]string{a, b}] = ab
	ba, err := listenRelay(ub, &r.strays)
	if err != nil {
		return fmt.Errorf("relay %s to %s: %w", b, a, err)
	}
	r.ports[[2]string{b, a}] = ba
	r.pairs[[2]string{a, b}], r.pairs[[2]string{b, a}] = shaper(), shaper()
	ab.lane = r.line.Lane(ba, ua.link.Out, r.pairs[[2]string{a, b}], ub.link.In)
	ba.lane = r.line.Lane(ab, ub.link.Out, r.pairs[[2]string{b, a}], ua.link.In)
	return nil
}

// Endpoint is where uplink from sends to in order to reach uplink to. It fails
// with ErrRelayPair.
func (r *Relay) Endpoint(from, to string) (netip.AddrPort, error) {
	p := r.ports[[2]string{from, to}]
	if p == nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %s to %s", ErrRelayPair, from, to)
	}
	return p.addr, nil
}

// Uplink is an uplink's access line: Out is what it sends. nil if there is no
// such uplink.
func (r *Relay) Uplink(name string) *Link {
	if u := r.uplinks[name]; u != nil {
		return &u.link
	}
	return nil
}

// Pair is what lies between two uplinks' lines: Out is from a to b. nil if they
// do not reach each other.
func (r *Relay) Pair(a, b string) *Link {
	if r.ports[[2]string{a, b}] == nil {
		return nil
	}
	return &Link{Out: r.pairs[[2]string{a, b}], In: r.pairs[[2]string{b, a}]}
}

// RelayStats counts what no link explains.
type RelayStats struct {
	// Strays came from elsewhere than the uplink the socket is for, or were for
	// an uplink whose address is not known yet.
	Strays uint64 `json:"strays"`
	// NoMemory did not fit RelayOptions.Memory.
	NoMemory uint64 `json:"no_memory"`
	// Refused could not be written to the uplink's socket.
	Refused uint64 `json:"refused"`
}

// Stats returns the counts so far; a link's are in [Link.Stats].
func (r *Relay) Stats() RelayStats {
	s := RelayStats{Strays: r.strays.Load(), NoMemory: r.line.Dropped()}
	for _, p := range r.ports {
		s.Refused += p.refused.Load()
	}
	return s
}

// Run carries packets until ctx ends, then closes the sockets. It returns nil
// after ctx has ended, or the error of a socket.
func (r *Relay) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.line.Run(ctx) })
	for _, p := range r.ports {
		g.Go(p.read)
	}
	g.Go(func() error {
		<-ctx.Done()
		return r.Close()
	})
	return g.Wait()
}

// String is the task's name.
func (r *Relay) String() string { return "relay" }

// Close closes the sockets.
func (r *Relay) Close() error {
	var errs []error
	for _, p := range r.ports {
		if err := p.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// accept checks a packet's source, and learns it.
func (u *relayUplink) accept(from *net.UDPAddr) bool {
	known := u.real.Load()
	if known != nil && known.Port == from.Port && known.IP.Equal(from.IP) {
		return true
	}
	if !u.learn {
		return false
	}
	u.real.Store(&net.UDPAddr{IP: from.IP, Port: from.Port, Zone: from.Zone})
	return true
}
