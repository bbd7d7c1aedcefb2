package tunnel

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.zx2c4.com/wireguard/conn"
)

// endpoint is a remote address. It never changes, so that many packets share
// one. Sources are not cached in it: a Bind is bound to its own.
type endpoint struct {
	addr  netip.AddrPort
	scope uint32 // interface index of a link-local address (RFC 4007)
}

var _ conn.Endpoint = (*endpoint)(nil)

func newEndpoint(a netip.AddrPort, scope uint32) *endpoint {
	ip := a.Addr().Unmap()
	if scope != 0 && ip.Is6() {
		ip = ip.WithZone(strconv.FormatUint(uint64(scope), 10))
	}
	return &endpoint{addr: netip.AddrPortFrom(ip, a.Port()), scope: scope}
}

// parseEndpoint reads ip:port, where a zone is an interface's name or index.
func parseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, fmt.Errorf("tunnel: endpoint: %w", err)
	}
	zone := a.Addr().Zone()
	if zone == "" {
		return newEndpoint(a, 0), nil
	}
	scope, err := strconv.ParseUint(zone, 10, 32)
	if err != nil {
		ifi, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, fmt.Errorf("tunnel: endpoint: %w", err)
		}
		scope = uint64(ifi.Index)
	}
	return newEndpoint(a, uint32(scope)), nil
}

func (*endpoint) ClearSrc()             {}
func (*endpoint) SrcToString() string   { return "" }
func (*endpoint) SrcIP() netip.Addr     { return netip.Addr{} }
func (e *endpoint) DstToString() string { return e.addr.String() }
func (e *endpoint) DstIP() netip.Addr   { return e.addr.Addr() }

// DstToBytes is what a cookie is bound to.
func (e *endpoint) DstToBytes() []byte {
	b, _ := e.addr.MarshalBinary() // never fails
	return b
}
