package lan

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

// Route is a prefix that the kernel sends into an interface; an invalid Via
// means that the prefix is on the link.
type Route struct {
	Prefix netip.Prefix
	Via    netip.Addr
}

// Link is how an interface of the kernel is to be.
type Link struct {
	Name      string
	MTU       int // bytes
	Addresses []netip.Prefix
	Routes    []Route
}

// ConfigureLink sets MTU, addresses and routes and brings the interface up. It
// adds and replaces; it removes nothing, so it may be repeated. It needs
// CAP_NET_ADMIN.
//
// Where the machine has IPv6 switched off and will not switch it on for this
// interface, what is IPv6 is left out, and [ErrNoIPv6] returned when all else is
// done.
func ConfigureLink(l Link) error {
	ifc, err := net.InterfaceByName(l.Name)
	if err != nil {
		return fmt.Errorf("configure %s: %w", l.Name, err)
	}
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return fmt.Errorf("configure %s: %w", l.Name, err)
	}
	var without error
	if l.wants6() && !enable6(l.Name) {
		without = fmt.Errorf("configure %s: %w", l.Name, ErrNoIPv6)
		l = l.only4()
	}
	defer func() { _ = conn.Close() }()
	index := uint32(ifc.Index)
	for _, a := range l.Addresses {
		if err := conn.Address.New(addressMessage(index, a)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("configure %s: add address %v: %w", l.Name, a, err)
		}
	}
	err = conn.Link.Set(&rtnetlink.LinkMessage{
		Family: unix.AF_UNSPEC, Index: index,
		Flags: unix.IFF_UP, Change: unix.IFF_UP,
		Attributes: &rtnetlink.LinkAttributes{MTU: uint32(l.MTU)},
	})
	if err != nil {
		return fmt.Errorf("configure %s: bring up: %w", l.Name, err)
	}
	// A tun port answers hosts (time exceeded) from an address that the kernel
	// has on the same interface, and would take for forged. Where /proc is not
	// ours to write that costs a line of a traceroute.
	_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+l.Name+"/accept_local", []byte("1"), 0)
	for _, r := range l.Routes {
		if err := conn.Route.Replace(routeMessage(index, r)); err != nil {
			return fmt.Errorf("configure %s: add route %v: %w", l.Name, r.Prefix, err)
		}
	}
	return without
}

// ErrNoIPv6 says that an interface carries no IPv6.
var ErrNoIPv6 = errors.New("IPv6 is switched off on it (sysctl net.ipv6.conf.<interface>.disable_ipv6)")

func (l *Link) wants6() bool {
	return slices.ContainsFunc(l.Addresses, is6) || slices.ContainsFunc(l.Routes, func(r Route) bool { return is6(r.Prefix) })
}

// only4 is l without what is IPv6.
func (l *Link) only4() Link {
	out := *l
	out.Addresses = slices.DeleteFunc(slices.Clone(l.Addresses), is6)
	out.Routes = slices.DeleteFunc(slices.Clone(l.Routes), func(r Route) bool { return is6(r.Prefix) })
	return out
}

func is6(p netip.Prefix) bool { return p.Addr().Is6() }

// enable6 reports whether an interface carries IPv6, after it was switched on
// if that was needed and possible.
func enable6(name string) bool {
	file := "/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6"
	if off, err := os.ReadFile(file); err != nil || len(off) == 0 {
		return false // a kernel without it
	} else if off[0] == '0' {
		return true
	}
	return os.WriteFile(file, []byte("0"), 0) == nil
}

func addressMessage(index uint32, a netip.Prefix) *rtnetlink.AddressMessage {
	ip := net.IP(a.Addr().AsSlice())
	m := &rtnetlink.AddressMessage{
		Family: unix.AF_INET, PrefixLength: uint8(a.Bits()), Scope: unix.RT_SCOPE_UNIVERSE, Index: index,
		Attributes: &rtnetlink.AddressAttributes{Address: ip, Local: ip},
	}
	if a.Addr().Is6() {
		m.Family = unix.AF_INET6
		// A TUN device has no link to detect duplicates on.
		m.Flags, m.Attributes.Flags = unix.IFA_F_NODAD, unix.IFA_F_NODAD
	}
	return m
}

func routeMessage(index uint32, r Route) *rtnetlink.RouteMessage {
	m := &rtnetlink.RouteMessage{
		Family: unix.AF_INET, DstLength: uint8(r.Prefix.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_STATIC, Scope: unix.RT_SCOPE_LINK, Type: unix.RTN_UNICAST,
		Attributes: rtnetlink.RouteAttributes{
			Dst: r.Prefix.Masked().Addr().AsSlice(), OutIface: index, Table: unix.RT_TABLE_MAIN,
		},
	}
	if r.Prefix.Addr().Is6() {
		m.Family = unix.AF_INET6
	}
	if r.Via.IsValid() {
		m.Scope = unix.RT_SCOPE_UNIVERSE
		m.Attributes.Gateway = r.Via.AsSlice()
	}
	return m
}
