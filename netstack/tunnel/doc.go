// Package tunnel owns one WireGuard device per local uplink: the queue in
// front of it, the tun.Device and the conn.Bind that it runs between, its
// peers, and what can be counted there.
//
// It does not choose a path, judge a packet, or look inside one further than
// to find out whose it is: the engine above does. The engine below is
// golang.zx2c4.com/wireguard, unmodified, and named in few files, so that
// another one can be measured behind the same seam.
//
//	(*Engine).toWAN                                       (*Engine).fromWAN
//	      | Send                                                 ^ FromTunnel
//	      v                                                      |
//	queue: peer x band, bounded in bytes,                        |
//	  a gate per peer until it has a session                     |
//	      | Read: segments, outer header, stamps, credits        | Write: counter, index
//	      v                                                      |
//	+----------------- golang.zx2c4.com/wireguard ----------------------+
//	      | encrypt                                              ^ decrypt, replay window
//	      v                                                      |
//	meter: returns credits, learns indexes      meter: counts keepalives, junk; MAC1
//	      |                                                      |
//	      v                                                      |
//	UDP: iovec gather, UDP_SEGMENT, sendmmsg    UDP: recvmmsg, scatter, UDP_GRO
//	      +------------------------- the uplink ------------------+
//
// Concurrency: Tunnel and Peer are safe for concurrent use. The Handler is
// called from one goroutine per peer, at the same time for different peers.
// Nothing that changes peers or closes the tunnel may be called from the
// Handler or from a Bind's ReceiveFunc: the device waits for both.
//
// Ownership: Send takes its buffer, whatever it answers. What a Handler is
// given is borrowed until it returns.
package tunnel
