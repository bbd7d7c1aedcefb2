package configs

import (
	"crypto/sha256"
	"slices"
)

// Pending reports whether a site waits for its appliance, which will bring the
// keys of its uplinks (see package enroll). Until then no other site knows it.
func (s *NetworkSite) Pending() bool {
	return len(s.Uplinks) == 0 || slices.ContainsFunc(s.Uplinks, func(u Uplink) bool { return u.PublicKey.IsZero() })
}

// settled is the network without the sites that are pending, but for one: what
// is sent to sites. It shares everything with n.
func (n *Network) settled(keep string) *Network {
	gone := map[string]bool{}
	for i := range n.Sites {
		if s := &n.Sites[i]; s.Name != keep && s.Pending() {
			gone[s.Name] = true
		}
	}
	if len(gone) == 0 {
		return n
	}
	out := *n
	out.Sites = slices.DeleteFunc(slices.Clone(n.Sites), func(s NetworkSite) bool { return gone[s.Name] })
	out.Hosts = slices.DeleteFunc(slices.Clone(n.Hosts), func(h HostEndpoint) bool { return gone[h.Site] })
	return &out
}

// Rehearse checks a network as it will be once every pending site has its
// appliance: names, prefixes that overlap, endpoints. It returns nil if no site
// is pending: then there is nothing to rehearse.
func (n *Network) Rehearse() error {
	if !slices.ContainsFunc(n.Sites, func(s NetworkSite) bool { return s.Pending() }) {
		return nil
	}
	out := *n
	out.Sites = slices.Clone(n.Sites)
	by := ""
	for i := range out.Sites {
		s := &out.Sites[i]
		if s.Managed && by == "" {
			by = s.Name
		}
		if !s.Pending() {
			continue
		}
		s.Uplinks = slices.Clone(s.Uplinks)
		if len(s.Uplinks) == 0 {
			s.Uplinks = []Uplink{{Name: "wan0"}}
		}
		for k := range s.Uplinks {
			if u := &s.Uplinks[k]; u.PublicKey.IsZero() {
				u.PublicKey = sha256.Sum256([]byte("patronus-rehearsal-v1\x00" + s.Name + "\x00" + u.Name))
				u.PublicKey[31] &= 0x7f
			}
		}
	}
	if by == "" {
		return nil // whoever asks for a managed site says so
	}
	_, err := out.Config(by)
	return err
}
