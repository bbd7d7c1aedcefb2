package probe

import "net/netip"

// Notices remembers the newest notice about each of the peer's uplinks, so that
// each is acted upon once, whichever paths it came over. The zero value is
// ready; it belongs to one goroutine.
type Notices struct {
	seen map[netip.Addr]Notice
}

// maxUplinks bounds what a peer can make us remember.
const maxUplinks = 64

// Accept reports whether n is news: newer (RFC 1982) than what is known.
func (s *Notices) Accept(n Notice) bool {
	old, ok := s.seen[n.Uplink]
	if ok && int32(n.Seq-old.Seq) <= 0 {
		return false
	}
	if !ok && len(s.seen) >= maxUplinks {
		return false
	}
	if s.seen == nil {
		s.seen = make(map[netip.Addr]Notice)
	}
	s.seen[n.Uplink] = n
	return true
}
