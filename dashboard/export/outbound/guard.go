package outbound

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// ErrForbidden is returned for an address that the guard refuses.
var ErrForbidden = errors.New("address is not allowed")

// Guard says which addresses may be dialled. It looks at the address that a
// name resolved to, at the moment of connecting, so that a name that changes
// its answer gains nothing (server-side request forgery, CWE-918).
type Guard struct {
	// Private allows loopback, RFC 1918, RFC 4193 and RFC 6598 addresses, where
	// most engines live. An address that a less trusted person may set should
	// not have it.
	Private bool
}

// shared is RFC 6598's space between customers and carriers.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// translated are prefixes in which an IPv4 address is hidden: NAT64 (RFC 6052),
// 6to4 (RFC 3056) and Teredo (RFC 4380).
var translated = []netip.Prefix{
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
}

// metadata are the addresses at which clouds hand out credentials, where they
// are not link-local.
var metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200")}

// Check refuses an address: always unspecified, link-local (cloud metadata),
// multicast and broadcast ones and those that hide an IPv4 address, and
// private ones unless allowed.
func (g Guard) Check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	bad := !a.IsValid() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast() ||
		a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240)
	for _, p := range translated {
		bad = bad || p.Contains(a)
	}
	for _, m := range metadata {
		bad = bad || m == a
	}
	if !g.Private {
		bad = bad || a.IsLoopback() || a.IsPrivate() || shared.Contains(a)
	}
	if bad {
		return fmt.Errorf("%s: %w", a, ErrForbidden)
	}
	return nil
}

// Dialer dials what the guard allows.
func (g Guard) Dialer() *net.Dialer {
	return &net.Dialer{
		Timeout: 10 * time.Second, KeepAlive: 30 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%s: %w", address, ErrForbidden)
			}
			return g.Check(at.Addr())
		},
	}
}

// Client is an HTTP client behind the guard: no proxy from the environment, no
// redirects (they would carry the secret elsewhere), at most two idle
// connections, HTTP/2 where TLS offers it.
func (g Guard) Client(t TLS, timeout time.Duration) (*http.Client, error) {
	config, err := t.Config()
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext: g.Dialer().DialContext, TLSClientConfig: config, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 2, IdleConnTimeout: 90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}
