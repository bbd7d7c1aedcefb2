package configs

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
)

// PathPrefix is where path addresses live: class E (RFC 1112, 4), which no
// network routes, so that they cannot meet an address of a user.
func PathPrefix() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{240}), 4) }

// OverlayPrefix is where overlay addresses live: a unique local prefix
// (RFC 4193) that is the same in all fabrics, since they never meet.
func OverlayPrefix() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 'P', 'a', 't', 'r', 'o'}), 48)
}

// Path addresses are taken from 240.0.0.1 to 254.255.255.255. 255/8 is left
// out because stacks single out 255.255.255.255 and some of its neighbours.
const (
	firstPath = 240<<24 + 1
	pathCount = 15<<24 - 1
)

// Path is the address that the uplink's paths are named by: PathAddress if it
// was given, otherwise one derived from the public key, so that it belongs to
// one generation of the key.
//
// Derived addresses are SHA-256 of the key reduced to 2^27.9 values. By the
// birthday bound n uplinks collide with probability of about n^2 / 2^28.9: one in
// 50,000 at 100 uplinks, one in 500 at 1,000, one in 5 at 10,000. Validation
// finds a collision and asks for a path_address.
func (u *Uplink) Path() netip.Addr {
	if u.PathAddress.IsValid() {
		return u.PathAddress
	}
	return pathOf(u.PublicKey)
}

func pathOf(key Key) netip.Addr {
	sum := sha256.Sum256(append([]byte("patronus-path-v1\x00"), key[:]...))
	// 64 bits before the reduction keep its bias under 2^-36.
	n := firstPath + uint32(binary.BigEndian.Uint64(sum[:8])%pathCount)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// validPath reports whether a path address may be this one.
func validPath(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	b := a.As4()
	n := binary.BigEndian.Uint32(b[:])
	return n >= firstPath && n-firstPath < pathCount
}

// OverlayAddress is the address of a site's appliance on the overlay:
// site.Address if it was given, otherwise one derived from the names of the
// fabric and of the site, so that it survives a change of keys.
//
// Derived addresses have 80 bits of SHA-256: a thousand sites collide with
// probability 2^-61. Validation refuses duplicates all the same.
func (c *Config) OverlayAddress(site *Site) netip.Addr {
	if site.Address.IsValid() {
		return site.Address
	}
	// Names hold no NUL, so the pair is unambiguous.
	sum := sha256.Sum256([]byte("patronus-overlay-v1\x00" + c.Fabric + "\x00" + site.Name))
	a := OverlayPrefix().Addr().As16()
	copy(a[6:], sum[:10])
	if binary.BigEndian.Uint64(a[8:]) == 0 {
		a[15] = 1 // the all-zero interface identifier is an anycast address (RFC 4291, 2.6.1)
	}
	return netip.AddrFrom16(a)
}
