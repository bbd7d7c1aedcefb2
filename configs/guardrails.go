package configs

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
)

// ErrGuardRail is for a revision that a site does not take from any dashboard.
var ErrGuardRail = errors.New("refused by this site's own guard rails")

// GuardRails checks what a dashboard wants a site to run against what the site
// runs: no other site may claim the networks that the site's own LAN ports are
// in, nor a default route that it has not now, and the way back to the dashboard
// stays: the site keeps an uplink and a peer, if it had them. It returns
// [ErrGuardRail].
func GuardRails(running, next *Config) error {
	had := defaultRoutes(running)
	for i := range next.Sites {
		s := &next.Sites[i]
		if s.Name == running.Site {
			continue
		}
		for _, p := range s.Prefixes {
			if p.Bits() == 0 {
				if !had[p] {
					return fmt.Errorf("%w: site %s claims the default route %s", ErrGuardRail, s.Name, p)
				}
				continue
			}
			for _, port := range running.LAN {
				for _, a := range port.Addresses {
					if p.Overlaps(a.Masked()) {
						return fmt.Errorf("%w: site %s claims %s, where lan port %s is", ErrGuardRail, s.Name, p, port.Name)
					}
				}
			}
		}
	}
	if self := next.Self(); self == nil || len(self.Uplinks) == 0 && len(running.Self().Uplinks) > 0 {
		return fmt.Errorf("%w: the site would have no uplink", ErrGuardRail)
	}
	if len(next.Peers()) == 0 && len(running.Peers()) > 0 {
		return fmt.Errorf("%w: the site would have no peer", ErrGuardRail)
	}
	return nil
}

// defaultRoutes are the default routes that other sites have.
func defaultRoutes(c *Config) map[netip.Prefix]bool {
	out := map[netip.Prefix]bool{}
	for i := range c.Sites {
		for _, p := range c.Sites[i].Prefixes {
			if p.Bits() == 0 && c.Sites[i].Name != c.Site {
				out[p] = true
			}
		}
	}
	return out
}

// Fingerprint names a root for people to compare: the start of its SHA-256.
func Fingerprint(root ed25519.PublicKey) string {
	sum := sha256.Sum256(root)
	return fmt.Sprintf("%x-%x-%x-%x", sum[0:2], sum[2:4], sum[4:6], sum[6:8])
}

// FormatRoot is a root as text, for a command line.
func FormatRoot(root ed25519.PublicKey) string { return base64.RawURLEncoding.EncodeToString(root) }

// ParseRoot reads what [FormatRoot] wrote.
func ParseRoot(text string) (ed25519.PublicKey, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, errors.New("not a root key: it has 43 letters, digits, - and _")
	}
	return b, nil
}
