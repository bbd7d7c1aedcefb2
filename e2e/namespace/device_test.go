package namespace

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"patronus/configs"
)

// upstream is wireguard-go as its authors ship it, built once from the module
// that the product links.
var upstream = sync.OnceValues(func() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "patronus-e2e", "wireguard-go")
	cmd := exec.Command("go", "build", "-o", bin, "golang.zx2c4.com/wireguard")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build wireguard-go: %w\n%s", err, out)
	}
	return bin, nil
})

// wireguard runs an upstream device in a namespace until the test ends, and
// configures it with Debian's wg over its UAPI socket.
func wireguard(t *testing.T, n netns, name string, mtu int, args ...string) {
	t.Helper()
	bin, err := upstream()
	if err != nil {
		t.Fatal(err)
	}
	cmd := n.command(bin, "-f", name)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	p := spawn(t, cmd)
	t.Cleanup(func() {
		p.kill()
		_ = os.Remove("/var/run/wireguard/" + name + ".sock")
		if t.Failed() && log.Len() > 0 {
			t.Logf("wireguard-go %s:\n%s", name, log.String())
		}
	})
	eventually(t, 10*time.Second, "wireguard-go listens", func() error {
		if out, err := n.command("wg", "show", name).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	n.run(t, append([]string{"wg", "set", name}, args...)...)
	n.ip(t, fmt.Sprintf("link set %s mtu %d up", name, mtu))
}

// TestStockPeer attaches an upstream WireGuard device to a site as a laptop
// would be: plain AllowedIPs, no configuration of ours.
func TestStockPeer(t *testing.T) {
	for _, under := range families {
		t.Run("underlay="+under.String(), func(t *testing.T) { stockPeer(t, under) })
	}
}

func stockPeer(t *testing.T, under family) {
	key := configs.GenerateKey()
	w := newWorld(t, plan{underlay: under, extra: func(s *site) string {
		if s.name != "a" {
			return ""
		}
		return fmt.Sprintf("devices: [{name: laptop, uplink: wan0, public_key: %s, allowed_ips: [10.1.200.2, \"fd00:0:1:200::2\"]}]\n", key.Public())
	}})
	a, b := w.site("a"), w.site("b")

	laptop := w.namespace("laptop")
	w.cable(laptop, "eth0", w.core, "laptop")
	w.core.ip(t, "addr add 203.0.113.1/24 dev laptop", "addr add 2001:db8:ff::1/64 dev laptop nodad")
	laptop.ip(t, "addr add 203.0.113.9/24 dev eth0", "route add default via 203.0.113.1",
		"addr add 2001:db8:ff::9/64 dev eth0 nodad", "route add ::/0 via 2001:db8:ff::1")
	file := filepath.Join(a.dir, "laptop.key")
	if err := key.WriteFile(file); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("pw%d", os.Getpid())
	wireguard(t, laptop, name, 1420, "private-key", file, "peer", a.uplinks[0].key.Public().String(),
		"endpoint", netip.AddrPortFrom(a.uplinks[0].addr(under), 51820).String(), "allowed-ips", "10.0.0.0/8,fd00::/16", "persistent-keepalive", "25")
	laptop.ip(t, "addr add 10.1.200.2/32 dev "+name, "addr add fd00:0:1:200::2/128 dev "+name+" nodad",
		"route add 10.0.0.0/8 dev "+name, "route add fd00::/16 dev "+name)

	addr := map[family]netip.Addr{4: netip.MustParseAddr("10.1.200.2"), 6: netip.MustParseAddr("fd00:0:1:200::2")}
	for _, f := range families {
		for _, s := range []*site{a, b} {
			t.Run(fmt.Sprintf("%v/to-%s", f, s.name), func(t *testing.T) {
				ping(t, laptop, s.addr(f), "-c", "3", "-i", "0.05")
				ping(t, s.host, addr[f], "-c", "3", "-i", "0.05")
				for _, size := range []int64{1000, 8 << 20} {
					if err := transfer(laptop, s.host, s.addr(f), size); err != nil {
						t.Errorf("laptop to %s: %v", s.name, err)
					}
					if err := transfer(s.host, laptop, addr[f], size); err != nil {
						t.Errorf("%s to laptop: %v", s.name, err)
					}
				}
			})
		}
	}
	d := a.status().Devices
	if len(d) != 1 || d[0].Name != "laptop" || d[0].LastHandshake.IsZero() || d[0].RxBytes < 8<<20 || d[0].TxBytes < 8<<20 {
		t.Errorf("the site says of its devices: %+v", d)
	}

	t.Run("roams", func(t *testing.T) {
		// Another address, another port: what the peer sends next moves it.
		laptop.ip(t, "addr del 203.0.113.9/24 dev eth0", "addr add 203.0.113.77/24 dev eth0", "route add default via 203.0.113.1",
			"addr add 2001:db8:ff::77/64 dev eth0 nodad", "addr del 2001:db8:ff::9/64 dev eth0")
		laptop.run(t, "wg", "set", name, "listen-port", "40123")
		eventually(t, 10*time.Second, "endpoint follows the peer", func() error {
			_, _ = pings(laptop, a.addr(4), "-c", "1", "-W", "1")
			if d := a.status().Devices; !strings.HasSuffix(d[0].Endpoint, ":40123") {
				return errors.New(d[0].Endpoint)
			}
			return nil
		})
		ping(t, b.host, addr[6], "-c", "2", "-i", "0.05")
	})
	t.Run("spoofs", func(t *testing.T) {
		// WireGuard itself refuses a source that is not in AllowedIPs.
		laptop.ip(t, "addr add 10.1.200.3/32 dev "+name)
		if out, err := pings(laptop, a.addr(4), "-c", "1", "-W", "1", "-I", "10.1.200.3"); err == nil {
			t.Errorf("a source that is not the peer's got through:\n%s", out)
		}
	})
}
