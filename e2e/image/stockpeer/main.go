// Command stockpeer is the init of a virtual machine that is a stock WireGuard
// peer: Debian's kernel with its own wireguard module, configured by netlink as
// wg(8) does, and nothing of Patronus. What it is told stands on the kernel's
// command line; what it sees it says on the console.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"patronus/netstack/lan"
)

// settings are what the command line says.
type settings struct {
	uplink, address, route, allowed netip.Prefix
	endpoint, server                netip.AddrPort
	private, peer                   []byte
	size                            int
}

func main() {
	err := run()
	fmt.Printf("stock peer: ended: %v\n", err)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	for dir, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs"} {
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := loadModules(); err != nil {
		return err
	}
	s, err := readSettings()
	if err != nil {
		return err
	}
	if err := waitForInterface("eth0", 20*time.Second); err != nil {
		return err
	}
	if err := lan.ConfigureLink(lan.Link{Name: "eth0", MTU: 1500, Addresses: []netip.Prefix{s.uplink}}); err != nil {
		return err
	}
	if err := wireguard(s); err != nil {
		return err
	}
	fmt.Println("stock peer: wg0 is up: kernel module", version())
	return exchange(s)
}

// loadModules takes what the image has, in whatever order works.
func loadModules() error {
	entries, err := os.ReadDir("/lib/modules")
	if err != nil {
		return err
	}
	for range entries {
		left := 0
		for _, e := range entries {
			if name, ok := strings.CutSuffix(e.Name(), ".ko"); ok {
				if err := load(name); err != nil {
					left++
				}
			}
		}
		if left == 0 {
			return nil
		}
	}
	return errors.New("some kernel modules do not load")
}

func load(name string) error {
	f, err := os.Open("/lib/modules/" + name + ".ko")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func version() string {
	text, err := os.ReadFile("/sys/module/wireguard/version")
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

func readSettings() (s settings, err error) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return s, err
	}
	values := map[string]string{}
	for _, word := range strings.Fields(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimPrefix(word, "stockpeer."), "="); ok {
			values[key] = value
		}
	}
	var all []error
	prefix := func(key string) netip.Prefix {
		p, err := netip.ParsePrefix(values[key])
		all = append(all, err)
		return p
	}
	addrPort := func(key string) netip.AddrPort {
		a, err := netip.ParseAddrPort(values[key])
		all = append(all, err)
		return a
	}
	key := func(name string) []byte {
		k, err := base64.StdEncoding.DecodeString(values[name])
		all = append(all, err)
		return k
	}
	s = settings{
		uplink: prefix("uplink"), address: prefix("address"), route: prefix("route"), allowed: prefix("route"),
		endpoint: addrPort("endpoint"), server: addrPort("server"), private: key("private"), peer: key("peer"),
	}
	s.size, err = strconv.Atoi(values["size"])
	return s, errors.Join(append(all, err)...)
}

func waitForInterface(name string, patience time.Duration) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(patience); ; <-tick.C {
		_, err := net.InterfaceByName(name)
		if err == nil || time.Now().After(until) {
			return err
		}
	}
}

// wireguard makes wg0, gives it its one peer, and takes it up.
func wireguard(s settings) error {
	rt, err := rtnetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer rt.Close()
	err = rt.Link.New(&rtnetlink.LinkMessage{
		Family:     unix.AF_UNSPEC,
		Attributes: &rtnetlink.LinkAttributes{Name: "wg0", Info: &rtnetlink.LinkInfo{Kind: "wireguard"}},
	})
	if err != nil {
		return fmt.Errorf("make wg0: %w", err)
	}
	if err := setDevice(s); err != nil {
		return fmt.Errorf("configure wg0: %w", err)
	}
	return lan.ConfigureLink(lan.Link{
		Name: "wg0", MTU: 1420, Addresses: []netip.Prefix{s.address},
		Routes: []lan.Route{{Prefix: s.route}},
	})
}

// setDevice is WG_CMD_SET_DEVICE of the kernel's generic netlink family
// (include/uapi/linux/wireguard.h).
func setDevice(s settings) error {
	conn, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	family, err := familyOf(conn, unix.WG_GENL_NAME)
	if err != nil {
		return err
	}
	e := netlink.NewAttributeEncoder()
	e.String(unix.WGDEVICE_A_IFNAME, "wg0")
	e.Bytes(unix.WGDEVICE_A_PRIVATE_KEY, s.private)
	e.Nested(unix.WGDEVICE_A_PEERS, func(e *netlink.AttributeEncoder) error {
		e.Nested(0, func(e *netlink.AttributeEncoder) error {
			e.Bytes(unix.WGPEER_A_PUBLIC_KEY, s.peer)
			e.Bytes(unix.WGPEER_A_ENDPOINT, sockaddr(s.endpoint))
			e.Nested(unix.WGPEER_A_ALLOWEDIPS, func(e *netlink.AttributeEncoder) error {
				e.Nested(0, func(e *netlink.AttributeEncoder) error {
					e.Uint16(unix.WGALLOWEDIP_A_FAMILY, unix.AF_INET)
					e.Bytes(unix.WGALLOWEDIP_A_IPADDR, s.allowed.Addr().AsSlice())
					e.Uint8(unix.WGALLOWEDIP_A_CIDR_MASK, uint8(s.allowed.Bits()))
					return nil
				})
				return nil
			})
			return nil
		})
		return nil
	})
	body, err := e.Encode()
	if err != nil {
		return err
	}
	_, err = conn.Execute(message(family, netlink.Request|netlink.Acknowledge, unix.WG_CMD_SET_DEVICE, unix.WG_GENL_VERSION, body))
	return err
}

// familyOf asks the controller for the number of a family.
func familyOf(conn *netlink.Conn, name string) (uint16, error) {
	e := netlink.NewAttributeEncoder()
	e.String(unix.CTRL_ATTR_FAMILY_NAME, name)
	body, err := e.Encode()
	if err != nil {
		return 0, err
	}
	answers, err := conn.Execute(message(unix.GENL_ID_CTRL, netlink.Request, unix.CTRL_CMD_GETFAMILY, 1, body))
	if err != nil {
		return 0, err
	}
	for _, m := range answers {
		if len(m.Data) < 4 {
			continue
		}
		d, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, err
		}
		for d.Next() {
			if d.Type() == unix.CTRL_ATTR_FAMILY_ID {
				return d.Uint16(), nil
			}
		}
	}
	return 0, fmt.Errorf("no netlink family %q", name)
}

// message has the header of generic netlink: command, version, two zeros.
func message(family uint16, flags netlink.HeaderFlags, command, version uint8, body []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(family), Flags: flags},
		Data:   append([]byte{command, version, 0, 0}, body...),
	}
}

// sockaddr is struct sockaddr_in.
func sockaddr(a netip.AddrPort) []byte {
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	return append(append(b, a.Addr().AsSlice()...), make([]byte, 8)...)
}

// exchange sends size bytes through the tunnel to a server that sends them
// back, and compares.
func exchange(s settings) error {
	started := time.Now()
	conn, err := net.DialTimeout("tcp", s.server.String(), time.Minute)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Printf("stock peer: connected after %.2f s\n", time.Since(started).Seconds())
	if err := conn.SetDeadline(time.Now().Add(3 * time.Minute)); err != nil {
		return err
	}
	data := make([]byte, s.size)
	for i := range data {
		data[i] = byte(i ^ i>>8 ^ i>>16)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, bytes.NewReader(data))
		sent <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	started = time.Now()
	got := sha256.New()
	n, err := io.Copy(got, conn)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	want := sha256.Sum256(data)
	if !bytes.Equal(got.Sum(nil), want[:]) {
		return fmt.Errorf("%d of %d bytes came back, or other ones", n, s.size)
	}
	fmt.Printf("stock peer: %d bytes came back as they were, %.1f Mbit/s\n", n, float64(n)*8/time.Since(started).Seconds()/1e6)
	return nil
}
