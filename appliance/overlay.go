package appliance

import (
	"context"
	"net"
)

// overlayListener accepts connections to a port of our overlay address, through
// the edge. An edge that is away is waited for.
type overlayListener struct {
	accept func() (net.Conn, error)
	close  func()
}

func listenOverlay(ctx context.Context, edge *EdgeClient, port uint16) *overlayListener {
	ctx, cancel := context.WithCancel(ctx)
	return &overlayListener{close: cancel, accept: func() (net.Conn, error) {
		for {
			c, err := edge.Accept(ctx, port)
			if err == nil {
				return c, nil
			}
			if !sleep(ctx, nodeRetry) {
				return nil, net.ErrClosed
			}
		}
	}}
}

// Accept implements net.Listener.
func (l *overlayListener) Accept() (net.Conn, error) { return l.accept() }

// Close implements net.Listener.
func (l *overlayListener) Close() error {
	l.close()
	return nil
}

// Addr implements net.Listener.
func (l *overlayListener) Addr() net.Addr { return overlayAddr{} }

type overlayAddr struct{}

func (overlayAddr) Network() string { return "overlay" }
func (overlayAddr) String() string  { return "overlay" }
