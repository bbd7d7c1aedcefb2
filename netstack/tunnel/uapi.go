package tunnel

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"patronus/configs"
)

// The device is configured and read through text (wireguard.com/xplatform):
// it has no other way. All of it is in this file.

// configure adds or changes a peer.
func (t *Tunnel) configure(c PeerConfig, allowed []netip.Prefix) error {
	var b strings.Builder
	fmt.Fprintf(&b, "public_key=%x\n", c.PublicKey[:])
	fmt.Fprintf(&b, "preshared_key=%x\n", c.PresharedKey[:])
	b.WriteString("replace_allowed_ips=true\n")
	for _, a := range allowed {
		fmt.Fprintf(&b, "allowed_ip=%s\n", a.Masked())
	}
	fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", c.Keepalive/time.Second)
	if c.Endpoint.IsValid() {
		fmt.Fprintf(&b, "endpoint=%s\n", c.Endpoint)
	}
	return t.dev.IpcSet(b.String())
}

// SetEndpoint tells where p is. The next authenticated message from elsewhere
// overrides it.
func (t *Tunnel) SetEndpoint(p *Peer, at netip.AddrPort) error {
	if t.Peer(p.key) != p {
		return ErrNoPeer
	}
	if err := t.dev.IpcSet(fmt.Sprintf("public_key=%x\nupdate_only=true\nendpoint=%s\n", p.key[:], at)); err != nil {
		return fmt.Errorf("tunnel: endpoint of %s: %w", p, err)
	}
	return nil
}

// SetKeepalive changes PeerConfig.Keepalive.
func (t *Tunnel) SetKeepalive(p *Peer, every time.Duration) error {
	if t.Peer(p.key) != p {
		return ErrNoPeer
	}
	text := fmt.Sprintf("public_key=%x\nupdate_only=true\npersistent_keepalive_interval=%d\n", p.key[:], every/time.Second)
	if err := t.dev.IpcSet(text); err != nil {
		return fmt.Errorf("tunnel: keepalive of %s: %w", p, err)
	}
	return nil
}

// Status reads all peers at once: about 3 us each. It is meant for once a
// second, not for the packet path.
func (t *Tunnel) Status() (map[configs.Key]Status, error) { return t.readDevice() }

func (t *Tunnel) readDevice() (map[configs.Key]Status, error) {
	if t.closed.Load() {
		return nil, ErrClosed
	}
	text, err := t.dev.IpcGet()
	if err != nil {
		return nil, fmt.Errorf("tunnel: status: %w", err)
	}
	return parseStatus(text, time.Now())
}

// parseStatus reads what the device says of its peers.
func parseStatus(text string, now time.Time) (map[configs.Key]Status, error) {
	out := make(map[configs.Key]Status)
	var key configs.Key
	var s Status
	var sec, nsec int64
	known := false
	done := func() {
		if !known {
			return
		}
		if sec != 0 || nsec != 0 {
			s.LastHandshakeAt = time.Unix(sec, nsec)
			s.Session = now.Sub(s.LastHandshakeAt) < device.RejectAfterTime
		}
		out[key] = s
		s, sec, nsec = Status{}, 0, 0
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		var err error
		switch name {
		case "public_key":
			done()
			known = true
			var n int
			if n, err = hex.Decode(key[:], []byte(value)[:min(len(value), 2*len(key))]); err == nil && n != len(key) {
				err = fmt.Errorf("%d bytes", n)
			}
		case "endpoint":
			s.Endpoint, err = netip.ParseAddrPort(value)
		case "last_handshake_time_sec":
			sec, err = strconv.ParseInt(value, 10, 64)
		case "last_handshake_time_nsec":
			nsec, err = strconv.ParseInt(value, 10, 64)
		case "tx_bytes":
			s.TxBytes, err = strconv.ParseUint(value, 10, 64)
		case "rx_bytes":
			s.RxBytes, err = strconv.ParseUint(value, 10, 64)
		}
		if err != nil {
			return nil, fmt.Errorf("tunnel: status: %s: %w", name, err)
		}
	}
	done()
	return out, nil
}
