package dashboard

import (
	"encoding"
	"fmt"
	"net/netip"
)

// Prefix is a prefix that may be written as a single address.
type Prefix struct{ netip.Prefix }

var _ encoding.TextUnmarshaler = (*Prefix)(nil)

// UnmarshalText reads 10.0.0.0/8 or 10.1.2.3.
func (p *Prefix) UnmarshalText(b []byte) error {
	if a, err := netip.ParseAddr(string(b)); err == nil && a.Zone() == "" {
		p.Prefix = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	v, err := netip.ParsePrefix(string(b))
	if err != nil {
		return fmt.Errorf("%.60q is neither an address nor a prefix", b)
	}
	p.Prefix = v
	return nil
}
