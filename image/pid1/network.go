package pid1

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"

	"patronus/configs"
	"patronus/image/provision"
)

// interfaces brings every Ethernet interface up as it turns up, until ctx ends.
func (s *system) interfaces(ctx context.Context) error {
	network := &provision.Network{}
	if text, err := os.ReadFile(filepath.Join(dataDir, "etc", provision.NetworkFile)); err == nil {
		if network, err = provision.ParseNetwork(text); err != nil {
			return err
		}
	}
	resolver := &resolver{static: network.DNS, learned: map[string][]netip.Addr{}}
	s.report("name servers", resolver.write())
	s.board.set(func(f *Facts) { f.NTP = network.NTP })
	lan := lanInterfaces()
	known := map[int]bool{}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	for first := true; ; first = false {
		names, err := ethernet()
		if err != nil {
			return err
		}
		for _, i := range names {
			if known[i.Index] {
				continue
			}
			known[i.Index] = true
			name, err := rename(i, network)
			s.report("interface "+i.Name, err)
			if err != nil {
				continue
			}
			s.report("key of "+name, s.keyFor(name))
			if slices.Contains(lan, name) {
				s.report("interface "+name, lanUp(name))
				continue
			}
			want := network.Find(name)
			s.report("interface "+name, wanUp(want))
			if want.UseDHCP() {
				tasks.Go(func() { s.lease(ctx, name, resolver) })
			}
		}
		if first {
			close(s.network)
		}
		s.board.set(func(f *Facts) { f.Interfaces = describe() })
		if !pause(ctx, 2*time.Second) {
			return ctx.Err()
		}
	}
}

// lanInterfaces are those that the configuration gives to packet ports: the
// kernel has no addresses there.
func lanInterfaces() []string {
	cfg, err := configuration()
	if err != nil {
		return nil
	}
	var names []string
	for i := range cfg.LAN {
		if cfg.LAN[i].Kind == configs.LANPacket {
			names = append(names, cfg.LAN[i].Interface)
		}
	}
	return names
}

// configuration is the machine's: its own file's, or that of the newest
// revision that a dashboard has sent.
func configuration() (*configs.Config, error) {
	if text, err := os.ReadFile(configFile); err == nil {
		return configs.Parse(configFile, text)
	}
	edge := filepath.Dir(enrolledFile)
	var newest *configs.Revision
	for _, key := range []string{"root.pub", "joined.pub"} {
		root, err := configs.LoadRootPublic(filepath.Join(edge, key))
		if err != nil {
			continue
		}
		// The files alone: the store itself is the edge's.
		for _, name := range []string{"revision-a", "revision-b"} {
			signed, err := os.ReadFile(filepath.Join(edge, name))
			if err != nil {
				continue
			}
			if rev, err := configs.Verify(signed, root); err == nil && (newest == nil || rev.Compare(newest) > 0) {
				newest = rev
			}
		}
	}
	if newest == nil {
		return nil, errors.New("there is no configuration yet")
	}
	return newest.Config()
}

// ethernet are the interfaces with a device behind them, in the order in which
// the kernel found them.
func ethernet() ([]net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return slices.DeleteFunc(all, func(i net.Interface) bool {
		_, err := os.Stat("/sys/class/net/" + i.Name + "/device")
		return err != nil || len(i.HardwareAddr) != 6
	}), nil
}

// rename gives an interface the name that network.yaml has for its address.
func rename(i net.Interface, network *provision.Network) (string, error) {
	for _, want := range network.Interfaces {
		mac, err := net.ParseMAC(want.MAC)
		if err != nil || mac.String() != i.HardwareAddr.String() || want.Name == i.Name {
			continue
		}
		return want.Name, linkSet(i.Index, 0, rtnetlink.LinkAttributes{Name: want.Name})
	}
	return i.Name, nil
}

func linkSet(index int, flags uint32, a rtnetlink.LinkAttributes) error {
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return conn.Link.Set(&rtnetlink.LinkMessage{Family: unix.AF_UNSPEC, Index: uint32(index), Flags: flags, Change: flags, Attributes: &a})
}

// lanUp brings an interface up that the gateway alone uses.
func lanUp(name string) error {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0),
		linkSet(i.Index, unix.IFF_UP, rtnetlink.LinkAttributes{}),
	)
}

// wanUp brings an uplink up with its static addresses; SLAAC is the kernel's.
func wanUp(want provision.Interface) error {
	i, err := net.InterfaceByName(want.Name)
	if err != nil {
		return err
	}
	if err := linkSet(i.Index, unix.IFF_UP, rtnetlink.LinkAttributes{MTU: uint32(want.MTU)}); err != nil {
		return err
	}
	var bad error
	for _, a := range want.Addresses {
		bad = errors.Join(bad, setAddress(i.Index, a))
	}
	for _, g := range want.Gateways {
		bad = errors.Join(bad, setDefault(i.Index, g))
	}
	return bad
}

func setAddress(index int, a netip.Prefix) error {
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ip := net.IP(a.Addr().AsSlice())
	m := &rtnetlink.AddressMessage{
		Family: unix.AF_INET, PrefixLength: uint8(a.Bits()), Scope: unix.RT_SCOPE_UNIVERSE, Index: uint32(index),
		Attributes: &rtnetlink.AddressAttributes{Address: ip, Local: ip},
	}
	if a.Addr().Is6() {
		m.Family = unix.AF_INET6
	} else if a.Bits() < 31 {
		broadcast := a.Masked().Addr().As4()
		for bit := a.Bits(); bit < 32; bit++ {
			broadcast[bit/8] |= 1 << (7 - bit%8)
		}
		m.Attributes.Broadcast = broadcast[:]
	}
	if err := conn.Address.New(m); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("address %s: %w", a, err)
	}
	return nil
}

func dropAddress(index int, a netip.Prefix) error {
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ip := net.IP(a.Addr().AsSlice())
	return conn.Address.Delete(&rtnetlink.AddressMessage{
		Family: unix.AF_INET, PrefixLength: uint8(a.Bits()), Index: uint32(index),
		Attributes: &rtnetlink.AddressAttributes{Address: ip, Local: ip},
	})
}

// setDefault adds a default route. Every uplink has one; their order among
// each other does not matter to tunnels, which are bound to their interface.
func setDefault(index int, via netip.Addr) error {
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	m := &rtnetlink.RouteMessage{
		Family: unix.AF_INET, Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_STATIC, Scope: unix.RT_SCOPE_UNIVERSE, Type: unix.RTN_UNICAST,
		Attributes: rtnetlink.RouteAttributes{
			Gateway: via.AsSlice(), OutIface: uint32(index), Table: unix.RT_TABLE_MAIN, Priority: uint32(100 + index),
		},
	}
	if via.Is6() {
		m.Family = unix.AF_INET6
	}
	if err := conn.Route.Replace(m); err != nil {
		return fmt.Errorf("default route via %s: %w", via, err)
	}
	return nil
}

// lease asks for an IPv4 address and keeps it until ctx ends.
func (s *system) lease(ctx context.Context, name string, r *resolver) {
	what := "DHCP on " + name
	var have netip.Prefix
	for ctx.Err() == nil {
		if !carrier(name) {
			if !pause(ctx, time.Second) {
				return
			}
			continue
		}
		got, length, err := s.askLease(ctx, name, r)
		if err != nil {
			s.report(what, err)
			if !pause(ctx, 5*time.Second) {
				return
			}
			continue
		}
		s.report(what, nil)
		if have.IsValid() && have != got {
			if i, err := net.InterfaceByName(name); err == nil {
				s.report(what, dropAddress(i.Index, have))
			}
		}
		have = got
		s.board.set(func(f *Facts) { f.Interfaces = describe() })
		// A new request at half of the time (RFC 2131, 4.4.5: T1) renews it.
		if !pause(ctx, max(length/2, 30*time.Second)) {
			return
		}
	}
}

func (s *system) askLease(ctx context.Context, name string, r *resolver) (netip.Prefix, time.Duration, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Prefix{}, 0, err
	}
	c, err := nclient4.New(name, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(3))
	if err != nil {
		return netip.Prefix{}, 0, err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	l, err := c.Request(ctx, dhcpv4.WithRequestedOptions(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionNTPServers))
	if err != nil {
		return netip.Prefix{}, 0, err
	}
	ip, ok := netip.AddrFromSlice(l.ACK.YourIPAddr.To4())
	mask := l.ACK.SubnetMask()
	if !ok || mask == nil {
		return netip.Prefix{}, 0, errors.New("an answer without address or mask")
	}
	ones, _ := mask.Size()
	address := netip.PrefixFrom(ip, ones)
	bad := setAddress(i.Index, address)
	for _, g := range l.ACK.Router() {
		if via, ok := netip.AddrFromSlice(g.To4()); ok {
			bad = errors.Join(bad, setDefault(i.Index, via))
			break
		}
	}
	r.learn(name, l.ACK.DNS())
	s.report("name servers", r.write())
	var ntp []string
	for _, a := range l.ACK.NTPServers() {
		ntp = append(ntp, a.String())
	}
	if len(ntp) > 0 {
		s.board.set(func(f *Facts) { f.NTP = ntp })
	}
	return address, l.ACK.IPAddressLeaseTime(time.Hour), bad
}

func carrier(name string) bool {
	text, err := os.ReadFile("/sys/class/net/" + name + "/carrier")
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

// describe is what the status page shows of the interfaces.
func describe() []Interface {
	var out []Interface
	all, err := ethernet()
	if err != nil {
		return nil
	}
	for _, i := range all {
		row := Interface{Name: i.Name, MAC: i.HardwareAddr.String(), Carrier: carrier(i.Name), Key: keyOf(i.Name)}
		if addresses, err := i.Addrs(); err == nil {
			for _, a := range addresses {
				row.Addresses = append(row.Addresses, a.String())
			}
		}
		out = append(out, row)
	}
	return out
}

// resolver keeps /etc/resolv.conf.
type resolver struct {
	mu      sync.Mutex
	static  []netip.Addr
	learned map[string][]netip.Addr // by interface
}

func (r *resolver) learn(name string, servers []net.IP) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.learned[name] = nil
	for _, ip := range servers {
		if a, ok := netip.AddrFromSlice(ip); ok {
			r.learned[name] = append(r.learned[name], a.Unmap())
		}
	}
}

func (r *resolver) write() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var text strings.Builder
	for _, a := range r.static {
		fmt.Fprintf(&text, "nameserver %s\n", a)
	}
	for _, name := range sortedKeys(r.learned) {
		for _, a := range r.learned[name] {
			fmt.Fprintf(&text, "nameserver %s\n", a)
		}
	}
	return os.WriteFile("/etc/resolv.conf", []byte(text.String()), 0o644)
}
