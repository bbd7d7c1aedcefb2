package agent

import (
	"net"
	"net/netip"
	"sync"
)

// peerListener names the site of every connection by its address, and refuses
// the ones of nobody and the ones too many.
type peerListener struct {
	net.Listener
	siteOf func(netip.Addr) (string, bool)

	mu   sync.Mutex
	open map[string]int
}

// Accept implements net.Listener.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		site, ok := l.site(c.RemoteAddr())
		if !ok || !l.enter(site) {
			c.Close()
			continue
		}
		return &peerConn{Conn: c, site: site, leave: sync.OnceFunc(func() { l.leave(site) })}, nil
	}
}

func (l *peerListener) site(a net.Addr) (string, bool) {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return "", false
	}
	return l.siteOf(at.Addr())
}

func (l *peerListener) enter(site string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[site] >= connectionsEach {
		return false
	}
	l.open[site]++
	return true
}

func (l *peerListener) leave(site string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[site]--; l.open[site] == 0 {
		delete(l.open, site)
	}
}

// peerConn is a connection from a known site.
type peerConn struct {
	net.Conn
	site  string
	leave func()
}

// Close implements net.Conn.
func (c *peerConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
