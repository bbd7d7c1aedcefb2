package appliance

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"patronus/configs"
	"patronus/netstack/lan"
	"patronus/netstack/tunnel"
)

// machine opens what a configuration names on this machine, with descriptors
// that the supervisor holds. It implements netstack.Opener.
type machine struct {
	broker *brokerClient
	routes []lan.Route // of the configuration being applied
}

// tunSpec says how the supervisor opens a tun port's descriptor.
type tunSpec struct {
	Name      string         `json:"name"`
	MTU       int            `json:"mtu"`
	Addresses []netip.Prefix `json:"addresses"`
	Routes    []lan.Route    `json:"routes"`
}

// descriptorOpeners are the supervisor's.
func descriptorOpeners() map[string]opener {
	return map[string]opener{
		"tun":    {open: openTUN, again: configureTUN},
		"packet": {open: openPacket},
		"udp":    {open: openUDP},
	}
}

func openTUN(spec json.RawMessage) (*os.File, error) {
	var s tunSpec
	if err := json.Unmarshal(spec, &s); err != nil {
		return nil, fmt.Errorf("tun descriptor: %w", err)
	}
	fd, err := lan.TUNDevice{Name: s.Name}.Open()
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), s.Name)
	if err := configureTUN(spec); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// configureTUN gives the kernel's end of a tun port its addresses, and routes
// into it everything that is not this site's own.
func configureTUN(spec json.RawMessage) error {
	var s tunSpec
	if err := json.Unmarshal(spec, &s); err != nil {
		return fmt.Errorf("tun descriptor: %w", err)
	}
	err := lan.ConfigureLink(lan.Link{Name: s.Name, MTU: s.MTU, Addresses: s.Addresses, Routes: s.Routes})
	if errors.Is(err, lan.ErrNoIPv6) {
		// IPv4 goes on; the other sites' IPv6 prefixes are not reachable from here.
		slog.Warn("no IPv6 on a lan port", "err", err)
		return nil
	}
	return err
}

type udpSpec struct {
	Network   string         `json:"network"`
	Local     netip.AddrPort `json:"local"`
	Interface string         `json:"interface"`
}

func openUDP(spec json.RawMessage) (*os.File, error) {
	var s udpSpec
	if err := json.Unmarshal(spec, &s); err != nil {
		return nil, fmt.Errorf("udp descriptor: %w", err)
	}
	c, err := tunnel.SystemOpener{}.Open(s.Network, s.Local, s.Interface)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.File()
}

func openPacket(json.RawMessage) (*os.File, error) {
	fd, err := lan.PacketSocket{}.Open()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}

// handed is a descriptor from the supervisor, for a port that then owns it.
type handed struct {
	broker    *brokerClient
	kind, key string
	spec      any
}

// Open implements lan.Opener.
func (h handed) Open() (int, error) {
	f, err := h.broker.file(h.kind, h.key, h.spec)
	if err != nil {
		return -1, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, fmt.Errorf("%s descriptor: %w", h.kind, err)
	}
	return fd, nil
}

// sockets opens an uplink's sockets through the supervisor. It implements
// tunnel.Opener.
type sockets struct{ broker *brokerClient }

// Open implements tunnel.Opener.
func (s sockets) Open(network string, local netip.AddrPort, iface string) (*net.UDPConn, error) {
	f, err := s.broker.file("udp", network+" "+local.String()+" "+iface, udpSpec{Network: network, Local: local, Interface: iface})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("udp descriptor: %w", err)
	}
	udp, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, errors.New("udp descriptor: not a UDP socket")
	}
	return udp, nil
}

// OpenBind implements netstack.Opener.
func (m *machine) OpenBind(u *configs.Uplink) (conn.Bind, error) {
	o := tunnel.UDPOptions{Interface: u.Interface, Port: u.ListenPort, Opener: sockets{m.broker}}
	if u.Source.IsValid() {
		o.Sources = []netip.Addr{u.Source}
	}
	return tunnel.NewUDP(o)
}

// prepare tells the machine about a configuration: the kernel's routes into
// the tun ports, which change without the ports having to.
func (m *machine) prepare(cfg *configs.Config) error {
	m.routes = foreignRoutes(cfg)
	for i := range cfg.LAN {
		if cfg.LAN[i].Kind != configs.LANTUN {
			continue
		}
		f, err := m.tun(&cfg.LAN[i])
		if err != nil {
			return fmt.Errorf("lan port %s: %w", cfg.LAN[i].Name, err)
		}
		f.Close()
	}
	return nil
}

// foreignRoutes are the prefixes that the kernel sends into a tun port: those
// of the other sites and of devices.
func foreignRoutes(cfg *configs.Config) []lan.Route {
	var routes []lan.Route
	for i := range cfg.Sites {
		s := &cfg.Sites[i]
		if s.Name == cfg.Site {
			continue
		}
		for _, p := range s.Prefixes {
			routes = append(routes, lan.Route{Prefix: p})
		}
		overlay := cfg.OverlayAddress(s)
		routes = append(routes, lan.Route{Prefix: netip.PrefixFrom(overlay, overlay.BitLen())})
	}
	own := cfg.OverlayAddress(cfg.Self())
	routes = append(routes, lan.Route{Prefix: netip.PrefixFrom(own, own.BitLen())})
	for i := range cfg.Devices {
		for _, p := range cfg.Devices[i].AllowedIPs {
			routes = append(routes, lan.Route{Prefix: p})
		}
	}
	return routes
}

func (m *machine) tunSpec(p *configs.LANPort) tunSpec {
	return tunSpec{Name: p.Interface, MTU: p.MTU, Addresses: p.Addresses, Routes: m.routes}
}

func (m *machine) tun(p *configs.LANPort) (*os.File, error) {
	return m.broker.file("tun", p.Interface, m.tunSpec(p))
}

// OpenPort implements netstack.Opener.
func (m *machine) OpenPort(p *configs.LANPort, control func([]byte), resolver lan.Resolver) (lan.Port, error) {
	switch p.Kind {
	case configs.LANTUN:
		return lan.OpenTUN(lan.TUNOptions{
			Name: p.Interface, MTU: p.MTU, Opener: handed{m.broker, "tun", p.Interface, m.tunSpec(p)},
		})
	case configs.LANPacket:
		return lan.OpenPacket(lan.PacketOptions{
			Interface: p.Interface, VLAN: p.VLAN, MTU: p.MTU, Resolver: resolver, Control: control,
			Opener: handed{m.broker, "packet", fmt.Sprintf("%s.%d", p.Interface, p.VLAN), struct{}{}},
		})
	case configs.LANCable:
		return nil, errors.New("a cable exists in the lab and in tests only")
	}
	return nil, fmt.Errorf("unknown kind of LAN port %q", p.Kind)
}

// PrivateKey implements netstack.Opener.
func (m *machine) PrivateKey(u *configs.Uplink) (configs.PrivateKey, error) {
	return configs.LoadPrivateKey(u.PrivateKeyFile)
}
