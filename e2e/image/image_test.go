package image

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// patience is for one step of a machine on a host that is busy with others.
const patience = 4 * time.Minute

// root of the tree, from this package.
const root = "../.."

// requirements skips a test where its tools are not there.
func requirements(t *testing.T, tools ...string) {
	t.Helper()
	if os.Getenv("PATRONUS_LONG") == "" {
		t.Skip("a slow test: make test-long runs it")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: make setup, as root, installs it", tool)
		}
	}
}

// build makes images with mkimage; sequence numbers tell them apart.
type builder struct {
	t       *testing.T
	dir     string
	mkimage string
	trivial string
}

func newBuilder(t *testing.T) *builder {
	t.Helper()
	b := &builder{t: t, dir: t.TempDir()}
	b.mkimage, b.trivial = filepath.Join(b.dir, "mkimage"), filepath.Join(b.dir, "trivial")
	build := func(out, pkg string) {
		cmd := exec.Command("go", "build", "-trimpath", "-o", out, pkg)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, text)
		}
	}
	build(b.mkimage, "./image/mkimage")
	build(b.trivial, "./e2e/image/trivial")
	return b
}

// make builds one part with a sequence number and returns its file.
func (b *builder) make(seq int, part, suffix string, more ...string) string {
	b.t.Helper()
	out := filepath.Join(b.dir, fmt.Sprint(seq))
	binary := os.Getenv("PATRONUS_BIN")
	if binary == "" {
		binary = filepath.Join(root, "bin/patronus")
	}
	args := []string{
		"-binary", binary, "-out", out, "-cache", filepath.Join(root, "image/out/cache"), "-key", filepath.Join(b.dir, "signing.key"),
		"-epoch", "1780000000", "-seq", fmt.Sprint(seq), "-version", fmt.Sprintf("v%d", seq), "-only", part,
	}
	cmd := exec.Command(b.mkimage, append(args, more...)...)
	if text, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(text), "apt-get") {
			b.t.Skipf("Debian's packages cannot be had: %s", text)
		}
		b.t.Fatalf("mkimage: %v\n%s", err, text)
	}
	return filepath.Join(out, "patronus-amd64"+suffix)
}

const (
	hqWAN, hqLAN     = "52:54:00:00:01:01", "52:54:00:00:01:02"
	eastWAN, eastLAN = "52:54:00:00:02:01", "52:54:00:00:02:02"
)

// siteConfig is the configuration of two sites; the file is the same on both
// but for two lines.
func siteConfig(site, lan, hqKey, eastKey string) string {
	return fmt.Sprintf(`fabric: acme
site: %s
data_dir: /var/lib/patronus
sites:
  - name: hq
    prefixes: [10.1.0.0/16]
    uplinks:
      - {name: wan, public_key: %q, endpoints: ["192.0.2.11:51820"], private_key_file: /etc/patronus/eth0.key, interface: eth0}
  - name: east
    prefixes: [10.2.0.0/16]
    uplinks:
      - {name: wan, public_key: %q, endpoints: ["192.0.2.12:51820"], private_key_file: /etc/patronus/eth0.key, interface: eth0}
lan:
  - {name: lan, kind: packet, interface: eth1, addresses: [%s]}
`, site, hqKey, eastKey, lan)
}

// steps logs what was seen, and when.
func steps(t *testing.T) func(format string, args ...any) {
	started := time.Now()
	return func(format string, args ...any) {
		t.Logf("%5.0f s  %s", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
}

// TestAppliance is the life of two appliances: flashed, started, configured,
// carrying traffic.
func TestAppliance(t *testing.T) {
	requirements(t, "qemu-system-x86_64", "mcopy", "dpkg-deb", "apt-get")
	if _, err := os.Stat(firmware); err != nil {
		t.Skipf("no firmware: %v", err)
	}
	b := newBuilder(t)
	disk := b.make(1000, "disk", ".raw")
	wan, wanSocket := newSegment(t, "wan")
	hqNet, hqSocket := newSegment(t, "hq")
	eastNet, eastSocket := newSegment(t, "east")
	web := netip.MustParseAddr("192.0.2.1")
	serveDHCP(wan, web, map[string]netip.Addr{eastWAN: netip.MustParseAddr("192.0.2.12")})
	hq := newMachine(t, "hq", disk, nic{wanSocket, hqWAN}, nic{hqSocket, hqLAN})
	east := newMachine(t, "east", disk, nic{wanSocket, eastWAN}, nic{eastSocket, eastLAN})
	hq.put("network.yaml", "interfaces:\n- {name: eth0, addresses: [192.0.2.11/24], gateways: [192.0.2.1]}\n")
	step := steps(t)

	hq.boot()
	east.boot()
	hqKey := hq.expect(`Network   eth0 [^\n]*192\.0\.2\.11/24[^>]*Keys      eth0  (\S{44})\n`, patience)[1]
	eastKey := east.expect(`Network   eth0 [^\n]*192\.0\.2\.12/24[^>]*Keys      eth0  (\S{44})\n`, patience)[1]
	if hqKey == eastKey {
		t.Error("two appliances have the same key")
	}
	step("both show addresses (static; DHCP) and the keys that they made; emulator CPU %.1f s and %.1f s", hq.cpu().Seconds(), east.cpu().Seconds())
	hq.send("poweroff")
	east.send("poweroff")
	hq.off(patience)
	east.off(patience)
	step("both powered themselves off")

	hq.put("patronus.yaml", siteConfig("hq", "10.1.0.1/24", hqKey, eastKey))
	east.put("patronus.yaml", siteConfig("east", "10.2.0.1/24", hqKey, eastKey))
	hq.boot()
	east.boot()
	up := `Site      %s of acme, revision \d+, 1 of 1 paths up`
	hq.expect(fmt.Sprintf(up, "hq"), patience)
	east.expect(fmt.Sprintf(up, "east"), patience)
	step("configured from the EFI partition: the path is up")

	from := newHost(t, hqNet, "52:54:00:00:01:10", netip.MustParsePrefix("10.1.0.10/24"), netip.MustParseAddr("10.1.0.1"))
	to := newHost(t, eastNet, "52:54:00:00:02:10", netip.MustParsePrefix("10.2.0.10/24"), netip.MustParseAddr("10.2.0.1"))
	rate := transfer(t, from, to, 8<<20)
	if n := from.checksumErrors() + to.checksumErrors(); n != 0 {
		t.Errorf("%d TCP checksum errors", n)
	}
	step("8 MiB by TCP from LAN to LAN, %.1f Mbit/s, %d checksum errors [bar 0]", rate, from.checksumErrors()+to.checksumErrors())
}

// TestUpdate is what may happen to the image of one appliance: refused, cut
// off, broken, good. Its web server is this process.
func TestUpdate(t *testing.T) {
	requirements(t, "qemu-system-x86_64", "mcopy", "dpkg-deb", "apt-get")
	if _, err := os.Stat(firmware); err != nil {
		t.Skipf("no firmware: %v", err)
	}
	b := newBuilder(t)
	disk := b.make(1000, "disk", ".raw")
	good := b.make(1001, "update", ".update")
	broken := b.make(1002, "update", ".update", "-init", b.trivial)
	unsigned := filepath.Join(b.dir, "unsigned.update")
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	data[30] ^= 1
	if err := os.WriteFile(unsigned, data, 0o600); err != nil {
		t.Fatal(err)
	}
	older := b.make(999, "update", ".update")
	wan, wanSocket := newSegment(t, "wan")
	provider := newHost(t, wan, "52:54:00:00:00:01", netip.MustParsePrefix("192.0.2.1/24"), netip.Addr{})
	hq := newMachine(t, "hq", disk, nic{wanSocket, hqWAN})
	hq.put("network.yaml", "interfaces:\n- {name: eth0, addresses: [192.0.2.11/24]}\n")
	step := steps(t)
	l, err := provider.listen(80)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, map[string]string{"/good": good, "/broken": broken, "/unsigned": unsigned, "/older": older}[r.URL.Path])
	}), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	hq.boot()
	hq.expect(`192\.0\.2\.11/24`, patience)
	hq.send("image update http://192.0.2.1/unsigned")
	hq.expect(`no key that this appliance trusts|not an update file`, patience)
	hq.send("image update http://192.0.2.1/older")
	hq.expect(`image is not newer: it is 999, 1000 is running`, patience)
	step("an unsigned and an older image are refused")

	hq.send("image update http://192.0.2.1/good")
	hq.expect(`30 %`, patience)
	hq.cut()
	step("power cut while the update is written")
	hq.boot()
	hq.expect(`Patronus v1000 `, patience)
	hq.send("image status")
	hq.expect(`slot +patronus-1000\.efi +running\n`, patience)
	step("it starts what ran before")

	hq.send("image update http://192.0.2.1/broken --tries 1 --reboot")
	hq.expect(`v1002 \(1002\) is installed`, patience)
	hq.expect(`trivial init has started`, patience)
	hq.expect(`Update    v1002 \(1002\) was given up`, patience)
	step("a broken update was tried once and fell back by itself")

	hq.send("image update http://192.0.2.1/good --dry-run")
	hq.expect(`v1001 \(1001\) is signed and newer; nothing was changed`, patience)
	hq.send("image update http://192.0.2.1/good --reboot")
	hq.expect(`v1001 \(1001\) is installed`, patience)
	hq.expect(`Patronus v1001 `, patience)
	hq.expect(`image judged`, patience)
	hq.send("image status")
	hq.expect(`oldest accepted +1001\n`, patience)
	step("a good update runs and was kept")
}

// transfer sends n random-looking bytes by TCP and checks them; Mbit/s.
func transfer(t *testing.T, from, to *host, n int) float64 {
	t.Helper()
	l, err := to.listen(7)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sum := make(chan [32]byte, 1)
	go func() {
		defer close(sum)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		h := sha256.New()
		if _, err := io.Copy(h, c); err == nil {
			sum <- [32]byte(h.Sum(nil))
		}
	}()
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	began := time.Now()
	var c net.Conn
	c, err = gonet.DialTCPWithBind(t.Context(), from.stack, tcpip.FullAddress{NIC: 1},
		tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4(to.addr.As4()), Port: 7}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatalf("connect from LAN to LAN: %v", err)
	}
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case got, ok := <-sum:
		if !ok || got != sha256.Sum256(data) {
			t.Fatal("what arrived differs from what was sent")
		}
	case <-time.After(patience):
		t.Fatal("the transfer stands still")
	}
	return float64(n) * 8 / 1e6 / time.Since(began).Seconds()
}
