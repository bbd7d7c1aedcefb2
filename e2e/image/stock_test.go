package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"patronus/configs"
)

// TestStockPeer attaches a stock peer to a site: Debian's kernel and its own
// wireguard module in an emulator, which know nothing of Patronus. It calls the
// site by its device's key, sends to a host behind the site and gets all of it
// back.
func TestStockPeer(t *testing.T) {
	requirements(t, "qemu-system-x86_64", "dpkg-deb", "apt-get", "ip")
	if os.Getuid() != 0 {
		t.Skip("a namespace and a tun port need root")
	}
	if _, err := os.Stat(firmware); err != nil {
		t.Skipf("no firmware: %v", err)
	}
	const size = 8 << 20
	b := newBuilder(t)
	peer := filepath.Join(b.dir, "stockpeer")
	build := exec.Command("go", "build", "-trimpath", "-o", peer, "./e2e/image/stockpeer")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}

	site, device := configs.GenerateKey(), configs.GenerateKey()
	ns := namespace(t)
	// Before anything is started: a child gets its death signal when the thread
	// ends that started it, and the one that listens in a namespace ends.
	listener := listenIn(t, ns, "10.1.9.9:7")
	go echo(listener)
	data := startSite(t, ns, site, device.Public().String())
	keyFile := filepath.Join(b.dir, "device.key")
	if err := device.WriteFile(keyFile); err != nil {
		t.Fatal(err)
	}
	private, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	disk := b.make(1000, "disk", ".raw", "-kernel", "cloud", "-init", peer,
		"-modules", "drivers/net/wireguard/wireguard,drivers/net/virtio_net,drivers/virtio/virtio_pci",
		"-cmdline", strings.Join([]string{
			"stockpeer.uplink=10.0.2.15/24", "stockpeer.endpoint=10.0.2.2:51820", "stockpeer.address=10.1.200.2/32",
			"stockpeer.route=10.1.0.0/16", "stockpeer.server=10.1.9.9:7", fmt.Sprintf("stockpeer.size=%d", size),
			"stockpeer.peer=" + site.Public().String(), "stockpeer.private=" + strings.TrimSpace(string(private)),
		}, " "))
	m := newMachine(t, "stock", disk)
	m.within = []string{"ip", "netns", "exec", ns}
	m.args = []string{"-netdev", "user,id=u0", "-device", "virtio-net-pci,netdev=u0,romfile="}
	step := steps(t)
	m.boot()
	step("wg0 is up, module %s", m.expect(`stock peer: wg0 is up: kernel module (\S+)`, patience)[1])
	step("connected through the tunnel after %s s", m.expect(`stock peer: connected after (\S+) s`, patience)[1])
	got := m.expect(`stock peer: (\d+) bytes came back as they were, (\S+) Mbit/s`, patience)
	step("%s bytes there and back by TCP, %s Mbit/s, emulator CPU %.1f s", got[1], got[2], m.cpu().Seconds())
	if got[1] != fmt.Sprint(size) {
		t.Errorf("%s bytes, want %d", got[1], size)
	}

	out := command(t, "ip", "netns", "exec", ns, program(), "status", "--data-dir", data, "-o", "json")
	var status struct {
		Devices []struct {
			Name            string    `json:"name"`
			LastHandshakeAt time.Time `json:"last_handshake_at"`
			RxBytes         uint64    `json:"rx_bytes"`
			TxBytes         uint64    `json:"tx_bytes"`
		} `json:"devices"`
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(status.Devices) != 1 || status.Devices[0].RxBytes < size || status.Devices[0].TxBytes < size || time.Since(status.Devices[0].LastHandshakeAt) > time.Hour {
		t.Errorf("the site says of its device: %+v", status.Devices)
	}
}

func program() string {
	if p := os.Getenv("PATRONUS_BIN"); p != "" {
		return p
	}
	p, err := filepath.Abs(filepath.Join(root, "bin/patronus"))
	if err != nil {
		return ""
	}
	return p
}

// namespace makes a network of its own with nothing but loopback.
func namespace(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("pimage-%d", os.Getpid())
	command(t, "ip", "netns", "add", name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	command(t, "ip", "-n", name, "link", "set", "lo", "up")
	// A host behind the site's tun port.
	command(t, "ip", "-n", name, "addr", "add", "10.1.9.9/32", "dev", "lo")
	return name
}

// startSite runs a gateway in the namespace until the test ends, and returns
// its data directory.
func startSite(t *testing.T, ns string, key configs.PrivateKey, device string) string {
	t.Helper()
	// The node's own user needs a way to its directory, which t.TempDir bars.
	dir, err := os.MkdirTemp("", "patronus-stock-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	keyFile, file, data := filepath.Join(dir, "wan.key"), filepath.Join(dir, "patronus.yaml"), filepath.Join(dir, "data")
	if err := key.WriteFile(keyFile); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`fabric: acme
site: hq
data_dir: %s
sites:
  - name: hq
    prefixes: [10.1.0.0/16]
    uplinks:
      - {name: wan, public_key: %q, endpoints: ["127.0.0.1:51820"], private_key_file: %s, source: 127.0.0.1}
lan:
  - {name: lan, kind: tun, interface: patronus0, addresses: [10.1.255.1/32]}
devices:
  - {name: stock, public_key: %q, allowed_ips: [10.1.200.2]}
`, data, key.Public(), keyFile, device)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", ns, program(), "run", "--config", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the site:\n%s", log.String())
		}
	})
	return data
}

// listenIn listens in the namespace. The thread that entered it is not used
// again.
func listenIn(t *testing.T, ns, addr string) net.Listener {
	t.Helper()
	type result struct {
		l   net.Listener
		err error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread() // and it ends with the goroutine
		f, err := os.Open("/run/netns/" + ns)
		if err != nil {
			c <- result{nil, err}
			return
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			c <- result{nil, err}
			return
		}
		l, err := net.Listen("tcp", addr)
		c <- result{l, err}
	}()
	r := <-c
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = r.l.Close() })
	return r.l
}

// echo sends back what it gets, until the listener closes.
func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}
