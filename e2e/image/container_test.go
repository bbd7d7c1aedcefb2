package image

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestContainer runs two sites as containers: uid 65532, read-only root. One has
// a packet port and NET_RAW alone; the other has no LAN port, no capability at
// all and no new privileges. NET_RAW comes as podman gives it to a user's
// process (ambient) or as docker does (allowed, and taken from the file).
func TestContainer(t *testing.T) {
	requirements(t, "crun", "ip", "ping", "unshare")
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	b := newBuilder(t)
	rootfs := unpackOCI(t, b.make(1000, "oci", ".oci.tar"))
	t.Run("ambient", func(t *testing.T) { twoContainers(t, rootfs, true) })
	t.Run("file", func(t *testing.T) { twoContainers(t, rootfs, false) })
}

func twoContainers(t *testing.T, rootfs string, ambient bool) {
	net := fmt.Sprintf("im%d", os.Getpid()%100000)
	for _, ns := range []string{net + "a", net + "b", net + "l"} {
		command(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	}
	link := func(ns1, name1, addr1, ns2, name2, addr2 string) {
		command(t, "ip", "-n", ns1, "link", "add", name1, "type", "veth", "peer", "name", name2, "netns", ns2)
		for _, e := range [][3]string{{ns1, name1, addr1}, {ns2, name2, addr2}} {
			command(t, "ip", "-n", e[0], "link", "set", e[1], "up")
			command(t, "ip", "-n", e[0], "link", "set", "lo", "up")
			if e[2] != "" {
				command(t, "ip", "-n", e[0], "addr", "add", e[2], "dev", e[1])
			}
		}
	}
	link(net+"a", "wan", "192.0.2.11/24", net+"b", "wan", "192.0.2.12/24")
	link(net+"a", "lan", "", net+"l", "host", "10.1.0.10/24")

	keys, data := map[string]string{}, map[string]string{}
	binary := os.Getenv("PATRONUS_BIN")
	for _, site := range []string{"hq", "east"} {
		data[site] = t.TempDir()
		out := command(t, binary, "keygen", "--out", filepath.Join(data[site], "wan.key"))
		keys[site] = strings.TrimSpace(out)
	}
	config := func(site, lan string) string {
		return fmt.Sprintf(`fabric: acme
site: %s
data_dir: /data
sites:
  - name: hq
    prefixes: [10.1.0.0/16]
    uplinks: [{name: wan, public_key: %q, endpoints: ["192.0.2.11:51820"], private_key_file: /data/wan.key}]
  - name: east
    prefixes: [10.2.0.0/16]
    uplinks: [{name: wan, public_key: %q, endpoints: ["192.0.2.12:51820"], private_key_file: /data/wan.key}]
%s`, site, keys["hq"], keys["east"], lan)
	}
	hq := container{t: t, name: net + "hq", rootfs: rootfs, data: data["hq"], netns: net + "a", capabilities: []string{"CAP_NET_RAW"}, ambient: ambient}
	east := container{t: t, name: net + "east", rootfs: rootfs, data: data["east"], netns: net + "b"}
	hq.start(config("hq", "lan:\n  - {name: lan, kind: packet, interface: lan, addresses: [10.1.0.1/24]}\n"))
	east.start(config("east", ""))
	hq.waitFor("1 up")
	east.waitFor("1 up")
	t.Log(command(t, "ip", "netns", "exec", net+"l", "ping", "-c", "3", "-W", "5", "10.1.0.1"))
	for _, c := range []container{hq, east} {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid()))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "Uid:") || strings.HasPrefix(line, "CapEff:") || strings.HasPrefix(line, "NoNewPrivs:") {
				t.Logf("%s %s", c.name, strings.TrimSpace(line))
			}
			want := map[bool]string{true: "CapEff:\t0000000000002000", false: "CapEff:\t0000000000000000"}[len(c.capabilities) > 0]
			if strings.HasPrefix(line, "CapEff:") && !strings.HasPrefix(line, want) || strings.HasPrefix(line, "Uid:\t0") {
				t.Errorf("%s: %s", c.name, line)
			}
		}
	}
}

type container struct {
	t                         *testing.T
	name, rootfs, data, netns string
	capabilities              []string
	ambient                   bool
	bundle                    string
}

// crun runs it on machines with both versions of cgroups too.
func (c *container) crun(args ...string) *exec.Cmd {
	script := `if ! [ -e /sys/fs/cgroup/cgroup.controllers ]; then umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup; fi; exec crun --cgroup-manager=disabled "$@"`
	return exec.Command("unshare", append([]string{"-m", "sh", "-c", script, "sh"}, args...)...)
}

func (c *container) start(config string) {
	c.t.Helper()
	c.bundle = c.t.TempDir()
	if err := os.WriteFile(filepath.Join(c.bundle, "patronus.yaml"), []byte(config), 0o644); err != nil {
		c.t.Fatal(err)
	}
	command(c.t, "chown", "-R", "65532:65532", c.data)
	given := c.capabilities
	if !c.ambient {
		given = nil
	}
	spec := map[string]any{
		"ociVersion": "1.0.2",
		"process": map[string]any{
			"user": map[string]int{"uid": 65532, "gid": 65532}, "cwd": "/", "noNewPrivileges": c.ambient || len(c.capabilities) == 0,
			"args":         []string{"/patronus", "run", "--config", "/etc/patronus/patronus.yaml", "--data-dir", "/data"},
			"capabilities": map[string][]string{"bounding": c.capabilities, "effective": given, "permitted": given, "inheritable": given, "ambient": given},
		},
		"root": map[string]any{"path": c.rootfs, "readonly": true},
		"mounts": []map[string]any{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=65536k"}},
			{"destination": "/data", "type": "bind", "source": c.data, "options": []string{"bind", "rw", "nosuid", "nodev", "noexec"}},
			{"destination": "/etc/patronus/patronus.yaml", "type": "bind", "source": filepath.Join(c.bundle, "patronus.yaml"), "options": []string{"bind", "ro"}},
		},
		"linux": map[string]any{"namespaces": []map[string]string{
			{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network", "path": "/run/netns/" + c.netns},
		}},
	}
	text, err := json.Marshal(spec)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.bundle, "config.json"), text, 0o600); err != nil {
		c.t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(c.bundle, "log"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd := c.crun("run", "--bundle", c.bundle, "--pid-file", filepath.Join(c.bundle, "pid"), c.name)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	c.t.Cleanup(func() {
		if pid := c.pid(); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGTERM)
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				c.t.Errorf("%s did not stop within 20 s of SIGTERM", c.name)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if text, err := os.ReadFile(log.Name()); err == nil && c.t.Failed() {
			c.t.Logf("%s:\n%s", c.name, text)
		}
	})
}

// pid is the first process of the container, as the machine sees it.
func (c *container) pid() (pid int) {
	text, err := os.ReadFile(filepath.Join(c.bundle, "pid"))
	if err == nil {
		fmt.Sscan(string(text), &pid)
	}
	return pid
}

// waitFor waits for a word in the status, asked from outside over the volume.
func (c *container) waitFor(want string) {
	c.t.Helper()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		out, err := exec.Command(os.Getenv("PATRONUS_BIN"), "status", "--data-dir", c.data).CombinedOutput()
		if err == nil && strings.Contains(string(out), want) {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			c.t.Fatalf("%s: no %q: %v\n%s", c.name, want, err, out)
		}
	}
}

// unpackOCI unpacks the one layer of an image archive as a runtime would.
func unpackOCI(t *testing.T, archive string) string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var largest []byte // the layer
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Size > int64(len(largest)) {
			if largest, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := t.TempDir()
	z, err := gzip.NewReader(strings.NewReader(string(largest)))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(name, h.FileInfo().Mode().Perm())
		} else {
			var data []byte
			if data, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(name, data, h.FileInfo().Mode().Perm())
			}
		}
		if err := errors.Join(err, os.Chown(name, h.Uid, h.Gid)); err != nil {
			t.Fatal(err)
		}
		if cap := h.PAXRecords["SCHILY.xattr.security.capability"]; cap != "" {
			if err := unix.Setxattr(name, "security.capability", []byte(cap), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A runtime makes these for its mounts.
	for _, d := range []string{"proc", "dev", "etc/patronus"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/patronus/patronus.yaml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
