package vnet

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

// wgNode is an upstream device between an in-memory TUN and a Bind.
type wgNode struct {
	dev *device.Device
	tun *tuntest.ChannelTUN
	key device.NoisePrivateKey
	pub device.NoisePublicKey
	// A collected Peer's finalizer would touch the bubble's channels from
	// outside, so the peers stay reachable.
	peers []*device.Peer
}

func newWG(t *testing.T, b *Bind, id byte) *wgNode {
	t.Helper()
	n := &wgNode{tun: tuntest.NewChannelTUN()}
	for i := range n.key {
		n.key[i] = id
	}
	pub, err := curve25519.X25519(n.key[:], curve25519.Basepoint)
	if err != nil {
		t.Fatal(err)
	}
	copy(n.pub[:], pub)
	n.dev = device.NewDevice(n.tun.TUN(), b, device.NewLogger(device.LogLevelSilent, ""))
	t.Cleanup(n.dev.Close)
	if err := n.dev.IpcSet("private_key=" + hex.EncodeToString(n.key[:]) + "\nlisten_port=51820\n"); err != nil {
		t.Fatal(err)
	}
	return n
}

// knows adds a peer; without an endpoint it waits for it to call.
func (n *wgNode) knows(t *testing.T, o *wgNode, allowed, endpoint string, keepalive int) {
	t.Helper()
	conf := "public_key=" + hex.EncodeToString(o.pub[:]) + "\nallowed_ip=" + allowed +
		fmt.Sprintf("\npersistent_keepalive_interval=%d\n", keepalive)
	if endpoint != "" {
		conf += "endpoint=" + endpoint + "\n"
	}
	if err := n.dev.IpcSet(conf); err != nil {
		t.Fatal(err)
	}
	n.peers = append(n.peers, n.dev.LookupPeer(o.pub))
	if err := n.dev.Up(); err != nil {
		t.Fatal(err)
	}
}

// arrives sends a ping from n to o and returns how long it took, 0 for never.
func (n *wgNode) arrives(o *wgNode, src, dst string, patience time.Duration) time.Duration {
	start := time.Now()
	n.tun.Outbound <- tuntest.Ping(netip.MustParseAddr(dst), netip.MustParseAddr(src))
	select {
	case <-o.tun.Inbound:
		return time.Since(start)
	case <-time.After(patience):
		return 0
	}
}

// Upstream devices over the network: a lost handshake response costs a
// retransmission, a roaming client keeps its session, and a NAT that forgets is
// healed by a keepalive.
func TestWireGuardOverNetwork(t *testing.T) {
	for _, c := range []struct{ family, server, outside, inside string }{
		{"v4", "192.0.2.1", "203.0.113.1", "10.9.0.2"},
		{"v6", "2001:db8::1", "2001:db8:1::1", "fd00:9::2"},
	} {
		t.Run(c.family, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New(Options{Seed: 2})
				t.Cleanup(n.Close)
				OnFailure(t, n)
				inet := n.Cloud("inet")
				server := n.Node("hq").Attach(inet, "wan0", addr(c.server))
				home := inet.Router("home", RouterOptions{Kind: PortRestricted, Timeout: 20 * time.Second}, addr(c.outside))
				client := n.Node("east").Attach(home.Inside(), "wan0", addr(c.inside))
				client.Link().Set(Impairment{Delay: 10 * time.Millisecond})
				lost := n.AddRule(server, Rule{Message: Response, Direction: Outgoing, Occurrences: []int{1}})

				a, b := newWG(t, n.Bind(client, 0), 1), newWG(t, n.Bind(server, 0), 2)
				b.knows(t, a, "10.0.0.1/32", "", 0)
				a.knows(t, b, "10.0.0.2/32", netip.AddrPortFrom(addr(c.server), 51820).String(), 1)
				// REKEY_TIMEOUT is 5 s and up to 334 ms of jitter.
				if d := a.arrives(b, "10.0.0.1", "10.0.0.2", 10*time.Second); d < 4*time.Second || d > 6*time.Second {
					t.Errorf("first packet after %v", d)
				}
				if lost.Fired() != 1 {
					t.Errorf("%d responses lost", lost.Fired())
				}
				if d := b.arrives(a, "10.0.0.2", "10.0.0.1", time.Second); d != 10*time.Millisecond {
					t.Errorf("back through the NAT after %v", d)
				}
				// One way only: the NAT's restart; then the keepalive opens it again.
				home.Rebind()
				if d := b.arrives(a, "10.0.0.2", "10.0.0.1", 100*time.Millisecond); d != 0 {
					t.Errorf("through a NAT that forgot after %v", d)
				}
				time.Sleep(1500 * time.Millisecond)
				if d := b.arrives(a, "10.0.0.2", "10.0.0.1", time.Second); d != 10*time.Millisecond {
					t.Errorf("after the keepalive: %v", d)
				}
				handshakes := n.AddRule(nil, Rule{Message: Initiation, Action: Count})
				home.Outside().SetAddrs(addr(c.outside).Next())
				if d := a.arrives(b, "10.0.0.1", "10.0.0.2", time.Second); d != 10*time.Millisecond {
					t.Errorf("roamed: %v", d)
				}
				if d := b.arrives(a, "10.0.0.2", "10.0.0.1", time.Second); d != 10*time.Millisecond || handshakes.Hits() != 0 {
					t.Errorf("back after roaming: %v, %d initiations", d, handshakes.Hits())
				}
			})
		})
	}
}
