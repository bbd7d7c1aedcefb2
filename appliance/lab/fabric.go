package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/conn"

	"patronus/appliance"
	"patronus/configs"
	"patronus/e2e/vnet"
	"patronus/netstack/lan"
	"patronus/netstack/path"
	"patronus/netstack/tunnel"
)

// MaxSites bounds a lab: each site has a /16 of 10.0.0.0/8. MeshSites is from
// where on a full mesh is not the default any more: its paths grow with the
// square of the sites.
const (
	MaxSites  = 250
	MeshSites = 8
)

// Options say what fabric to build.
type Options struct {
	Sites  int // 2 to MaxSites
	Logger *slog.Logger
	// Uplinks are the access lines that each site gets, by name.
	Uplinks []Line
	Seed    uint64
	// Topology is the shape of the overlay; hubs are named "hq" and so on.
	// Empty means a full mesh of up to MeshSites sites, else all around hq.
	Topology configs.TopologyMode
	// Change may adapt a site's configuration before it is applied.
	Change func(*configs.Config)
	// Dir is where the sites' nodes keep history, each in a directory of its
	// own. Without it there are no nodes.
	Dir string
	// Board is how a promoted site's dashboard is made, over its directory; nil:
	// there is none. All sites have joined the first one's root.
	Board func(site, dir string) appliance.BoardOptions

	root *configs.RootKey // the first site's
}

// Line is one kind of access line.
type Line struct {
	Name string
	vnet.Impairment
}

// DefaultLines are a fibre line and a mobile one.
func DefaultLines() []Line {
	return []Line{
		{"wan0", vnet.Impairment{Delay: 6 * time.Millisecond, Jitter: 500 * time.Microsecond, Rate: 100e6, MTU: 1500}},
		{"lte0", vnet.Impairment{Delay: 22 * time.Millisecond, Jitter: 4 * time.Millisecond, Loss: 0.0005, Rate: 30e6, MTU: 1500}},
	}
}

// Fabric is a set of sites on one virtual internet.
type Fabric struct {
	Sites []*Site
	Relay *vnet.Relay
	lines []Line
}

// Site is one appliance and the host behind it.
type Site struct {
	Name   string
	Edge   *appliance.Edge
	Client *appliance.EdgeClient
	Host   *vnet.Host
	// Addr4 and Addr6 are the host's.
	Addr4, Addr6 netip.Addr

	// NodeClient asks the site's node; nil without Options.Dir.
	NodeClient *appliance.NodeClient

	config *configs.Config
	socket *memoryListener
	key    *configs.RootKey // what the appliance signs with
	log    *slog.Logger
	node   *nodeState // nil without Options.Dir
}

// siteNames are the first sites'; the others are numbered.
var siteNames = [...]string{"hq", "east", "west"}

func siteName(i int) string {
	if i < len(siteNames) {
		return siteNames[i]
	}
	return fmt.Sprintf("site%d", i+1)
}

// New builds a fabric: sockets are open and configurations applied, but
// nothing moves before Run.
func New(o Options) (*Fabric, error) {
	if o.Sites < 2 || o.Sites > MaxSites {
		return nil, fmt.Errorf("a lab has 2 to %d sites, not %d", MaxSites, o.Sites)
	}
	if len(o.Uplinks) == 0 {
		o.Uplinks = DefaultLines()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Topology == "" {
		o.Topology = configs.FullMesh
		if o.Sites > MeshSites {
			o.Topology = configs.HubAndSpoke
		}
	}
	f := &Fabric{lines: o.Uplinks}
	o.root = configs.GenerateRootKey()
	plan, keys := o.plan()
	sockets, err := openUplinks(plan)
	if err != nil {
		return nil, err
	}
	if f.Relay, err = vnet.NewRelay(vnet.RelayOptions{Uplinks: sockets.relay, Pairs: o.pairs(plan), Seed: o.Seed}); err != nil {
		return nil, err
	}
	for _, site := range plan {
		for _, line := range o.Uplinks {
			f.Relay.Uplink(site.Name + "." + line.Name).Set(line.Impairment)
		}
	}
	for i := range plan {
		site, err := o.build(i, plan, keys, sockets, f.Relay)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("site %s: %w", plan[i].Name, err), f.Relay.Close())
		}
		f.Sites = append(f.Sites, site)
	}
	return f, nil
}

// adjacent reports whether two sites of a plan have paths to each other.
func (o *Options) adjacent(i, j int) bool {
	return i != j && (o.Topology == configs.FullMesh || i == 0 || j == 0)
}

// pairs are the uplinks that the relay joins.
func (o *Options) pairs(plan []configs.Site) [][2]string {
	var pairs [][2]string
	for i := range plan {
		for j := i + 1; j < len(plan); j++ {
			if !o.adjacent(i, j) {
				continue
			}
			for _, a := range plan[i].Uplinks {
				for _, b := range plan[j].Uplinks {
					pairs = append(pairs, [2]string{plan[i].Name + "." + a.Name, plan[j].Name + "." + b.Name})
				}
			}
		}
	}
	return pairs
}

// plan names everything: prefixes, keys, and the public endpoints by which
// the configurations know the uplinks.
func (o *Options) plan() ([]configs.Site, map[configs.Key]configs.PrivateKey) {
	keys := make(map[configs.Key]configs.PrivateKey)
	sites := make([]configs.Site, o.Sites)
	for i := range sites {
		n := byte(i + 1)
		s := &sites[i]
		s.Name = siteName(i)
		s.Prefixes = []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, n}), 16),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0, 0, n}), 48),
		}
		for j, line := range o.Uplinks {
			key := configs.GenerateKey()
			keys[key.Public()] = key
			s.Uplinks = append(s.Uplinks, configs.Uplink{
				Name: line.Name, PublicKey: key.Public(), MTU: 1500,
				// TEST-NET-2 (RFC 5737): what stands for the public internet.
				Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, n}), uint16(51820+j))},
			})
		}
	}
	return sites, keys
}

// build makes one site of the plan.
func (o *Options) build(i int, plan []configs.Site, keys map[configs.Key]configs.PrivateKey, sockets *uplinkSockets, relay *vnet.Relay) (*Site, error) {
	name, n := plan[i].Name, byte(i+1)
	sites := make([]configs.Site, len(plan))
	for j := range plan {
		sites[j] = plan[j]
		if j == i {
			sites[j].Uplinks = append([]configs.Uplink(nil), plan[j].Uplinks...)
			for k := range sites[j].Uplinks {
				sites[j].Uplinks[k].PrivateKeyFile = "/in-memory/" + sites[j].Uplinks[k].Name
			}
		}
	}
	gateway4, gateway6 := netip.AddrFrom4([4]byte{10, n, 0, 1}), netip.AddrFrom16([16]byte{0xfd, 0, 0, 0, 0, n, 15: 1})
	cfg := configs.Config{
		Fabric: "lab", Site: name, Sites: sites,
		LAN: []configs.LANPort{{
			Name: "lan0", Kind: configs.LANCable,
			Addresses: []netip.Prefix{netip.PrefixFrom(gateway4, 24), netip.PrefixFrom(gateway6, 64)},
		}},
		Classes: voiceByPort(),
	}
	if cfg.Topology.Mode = o.Topology; o.Topology == configs.HubAndSpoke {
		cfg.Topology.Hubs = []string{siteName(0)}
	}
	if o.Change != nil {
		o.Change(&cfg)
	}
	checked, err := configs.New(cfg)
	if err != nil {
		return nil, err
	}
	near, far := lan.NewCable(lan.CableOptions{Name: name + ".lan0"})
	s := &Site{
		Name: name, Addr4: netip.AddrFrom4([4]byte{10, n, 0, 10}),
		Addr6: netip.AddrFrom16([16]byte{0xfd, 0, 0, 0, 0, n, 15: 10}), config: checked, socket: newMemoryListener(),
		key: configs.GenerateRootKey(), log: o.Logger.With("site", name),
	}
	opener := &opener{cable: near, keys: keys, binds: map[string]conn.Bind{}}
	for k := range sites[i].Uplinks {
		uplink := sites[i].Uplinks[k].Name
		bind, err := sockets.bind(i, uplink, plan, relay, o.adjacent)
		if err != nil {
			return nil, err
		}
		opener.binds[uplink] = bind
	}
	if i == 0 {
		s.key = o.root
	}
	kept, err := s.keepRevisions(o)
	if err != nil {
		return nil, err
	}
	if s.Edge, err = appliance.NewEdge(appliance.EdgeOptions{
		Opener: opener, Store: kept, Logger: s.log, Batch: labBatch, SigningKey: s.key.Public(),
	}); err != nil {
		return nil, err
	}
	if s.Host, err = vnet.NewHost(vnet.HostOptions{Name: name, Port: far, Addrs: []netip.Addr{s.Addr4, s.Addr6}}); err != nil {
		return nil, err
	}
	s.Client = appliance.NewEdgeClientFunc(s.socket.Dial)
	if o.Dir != "" {
		if err := s.equipNode(filepath.Join(o.Dir, name), o.Board); err != nil {
			return nil, err
		}
	}
	if kept != nil {
		return s, s.Edge.Reload()
	}
	return s, s.Edge.ApplyConfig(1, checked)
}

// keepRevisions gives a site with a directory its two revisions on disk, as an
// appliance has that joined the first site's root.
func (s *Site) keepRevisions(o *Options) (*configs.Store, error) {
	if o.Dir == "" {
		return nil, nil
	}
	kept, damage, err := configs.OpenStore(filepath.Join(o.Dir, s.Name, "edge"), s.config.Fabric, s.Name, s.key.Public(), o.root.Public())
	if err := errors.Join(err, damage); err != nil {
		return nil, err
	}
	_, err = kept.Issue(s.config, s.key, time.Now())
	return kept, err
}

// voiceByPort is the built-in voice class, chosen by the port of the lab's calls
// as well as by DSCP.
func voiceByPort() []configs.Class {
	for _, c := range path.BuiltinClasses() {
		if c.Name == path.VoiceClass {
			c.Match = append(c.Match, configs.Match{Protocol: "udp", Ports: []configs.PortRange{{First: voicePort, Last: voicePort}}})
			return []configs.Class{c}
		}
	}
	return nil
}

// labBatch is small: a lab of many sites would else hold more buffers than
// packets.
const labBatch = 8

// Config is the site's configuration, checked and immutable.
func (s *Site) Config() *configs.Config { return s.config }

// Run runs everything until ctx ends.
func (f *Fabric) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.Relay.Run(ctx) })
	for _, s := range f.Sites {
		group.Go(func() error { return s.Edge.Run(ctx, s.socket) })
		group.Go(func() error { return s.Host.Run(ctx) })
		if s.node != nil {
			group.Go(func() error { return s.runNode(ctx) })
		}
	}
	err := group.Wait()
	for _, s := range f.Sites {
		s.Client.Close()
		if s.node != nil {
			s.NodeClient.Close()
		}
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Uplinks lists all uplinks of the fabric, "site.uplink".
func (f *Fabric) Uplinks() []string {
	var all []string
	for _, s := range f.Sites {
		for _, l := range f.lines {
			all = append(all, s.Name+"."+l.Name)
		}
	}
	return all
}

// Break makes a black hole of an uplink; carrier stays, as when a provider's
// network fails.
func (f *Fabric) Break(uplink string) error {
	return f.change(uplink, func(i *vnet.Impairment) { i.Down = true })
}

// Heal gives an uplink back the line that it had at the start.
func (f *Fabric) Heal(uplink string) error {
	for _, l := range f.lines {
		if hasLine(uplink, l.Name) {
			return f.change(uplink, func(i *vnet.Impairment) { *i = l.Impairment })
		}
	}
	return fmt.Errorf("%w: %q", ErrNoUplink, uplink)
}

// Impair changes what an uplink's line does to packets, both ways.
func (f *Fabric) Impair(uplink string, i vnet.Impairment) error {
	if err := i.Validate(); err != nil {
		return err
	}
	return f.change(uplink, func(old *vnet.Impairment) { *old = i })
}

// ErrNoUplink is returned for an uplink that the fabric does not have.
var ErrNoUplink = errors.New("no such uplink")

func (f *Fabric) change(uplink string, change func(*vnet.Impairment)) error {
	link := f.Relay.Uplink(uplink)
	if link == nil {
		return fmt.Errorf("%w: %q", ErrNoUplink, uplink)
	}
	link.Update(change)
	return nil
}

func hasLine(uplink, line string) bool {
	return len(uplink) > len(line) && uplink[len(uplink)-len(line)-1] == '.' && uplink[len(uplink)-len(line):] == line
}

// opener gives an edge its sockets, its cable and its keys, all in memory. It
// implements netstack.Opener.
type opener struct {
	cable lan.Port
	keys  map[configs.Key]configs.PrivateKey
	binds map[string]conn.Bind
}

// OpenBind implements netstack.Opener.
func (o *opener) OpenBind(u *configs.Uplink) (conn.Bind, error) {
	b := o.binds[u.Name]
	if b == nil {
		return nil, fmt.Errorf("%w: %q", ErrNoUplink, u.Name)
	}
	return b, nil
}

// OpenPort implements netstack.Opener.
func (o *opener) OpenPort(*configs.LANPort, func([]byte), lan.Resolver) (lan.Port, error) {
	return o.cable, nil
}

// PrivateKey implements netstack.Opener.
func (o *opener) PrivateKey(u *configs.Uplink) (configs.PrivateKey, error) {
	key, ok := o.keys[u.PublicKey]
	if !ok {
		return configs.PrivateKey{}, errors.New("no private key for this public key")
	}
	return key, nil
}

// uplinkSockets are the real sockets of all uplinks, on loopback.
type uplinkSockets struct {
	relay []vnet.RelayUplink
	ports map[string]uint16
}

// openUplinks finds a free loopback port for every uplink. The sockets are
// opened by their devices; holding a port until then would need the sockets to
// be handed over, and a lab that loses the race says so and is started again.
func openUplinks(plan []configs.Site) (*uplinkSockets, error) {
	s := &uplinkSockets{ports: make(map[string]uint16)}
	var held []net.PacketConn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for i := range plan {
		for j := range plan[i].Uplinks {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				return nil, fmt.Errorf("loopback port: %w", err)
			}
			held = append(held, c)
			at := c.LocalAddr().(*net.UDPAddr).AddrPort()
			name := plan[i].Name + "." + plan[i].Uplinks[j].Name
			s.ports[name] = at.Port()
			s.relay = append(s.relay, vnet.RelayUplink{Name: name, Site: plan[i].Name, Addr: at})
		}
	}
	return s, nil
}

// bind is an uplink's socket. Its device knows the others by their public
// endpoints; on loopback each of those is a socket of the relay.
func (s *uplinkSockets) bind(site int, uplink string, plan []configs.Site, relay *vnet.Relay, adjacent func(i, j int) bool) (conn.Bind, error) {
	from := plan[site].Name + "." + uplink
	udp, err := tunnel.NewUDP(tunnel.UDPOptions{
		Sources: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, Port: s.ports[from], BatchSize: labBatch,
	})
	if err != nil {
		return nil, err
	}
	b := &publicBind{UDP: udp, real: make(map[string]string)}
	for i := range plan {
		if !adjacent(site, i) {
			continue
		}
		for j := range plan[i].Uplinks {
			u := &plan[i].Uplinks[j]
			at, err := relay.Endpoint(from, plan[i].Name+"."+u.Name)
			if err != nil {
				return nil, err
			}
			b.real[u.Endpoints[0].String()] = at.String()
		}
	}
	return b, nil
}

// publicBind translates public endpoints to the relay's sockets.
type publicBind struct {
	*tunnel.UDP
	real map[string]string
}

// ParseEndpoint implements conn.Bind.
func (b *publicBind) ParseEndpoint(s string) (conn.Endpoint, error) {
	if real, ok := b.real[s]; ok {
		s = real
	}
	return b.UDP.ParseEndpoint(s)
}
