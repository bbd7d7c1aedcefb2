package namespace

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// netns is a network namespace, by its name under /run/netns.
type netns string

// remove ends the processes that still run in the namespace, and deletes it.
// Only namespaces of these tests are given to it.
func (n netns) remove() {
	out, _ := exec.Command("ip", "netns", "pids", string(n)).Output()
	for pid := range strings.FieldsSeq(string(out)) {
		if id, err := strconv.Atoi(pid); err == nil && id != os.Getpid() {
			_ = syscall.Kill(id, syscall.SIGKILL)
		}
	}
	_ = exec.Command("ip", "netns", "del", string(n)).Run()
}

// do runs f on a thread inside the namespace. Sockets that f opens stay there.
func (n netns) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		fd, err := unix.Open(filepath.Join("/run/netns", string(n)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- fmt.Errorf("namespace %s: %w", n, err)
			return
		}
		err = unix.Setns(fd, unix.CLONE_NEWNET)
		_ = unix.Close(fd)
		if err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", n, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// ip runs lines of iproute2 commands in the namespace.
func (n netns) ip(t testing.TB, lines ...string) {
	t.Helper()
	cmd := exec.Command("ip", "-n", string(n), "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ip -n %s: %v\n%s\n%s", n, err, strings.Join(lines, "\n"), out)
	}
}

// sysctl writes settings below /proc/sys/net.
func (n netns) sysctl(t testing.TB, settings ...string) {
	t.Helper()
	err := n.do(func() error {
		for _, s := range settings {
			key, value, _ := strings.Cut(s, "=")
			file := filepath.Join("/proc/sys/net", strings.ReplaceAll(key, ".", "/"))
			if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// command is a command that will run in the namespace, with the same pid as
// the process that starts it.
func (n netns) command(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", string(n)}, args...)...)
}

// run runs a command in the namespace that must succeed.
func (n netns) run(t testing.TB, args ...string) string {
	t.Helper()
	return sh(t, n.command(args...).Args...)
}

// listen accepts TCP connections in the namespace until the test ends.
func (n netns) listen(t testing.TB, addr netip.AddrPort) net.Listener {
	t.Helper()
	var l net.Listener
	if err := n.do(func() (err error) { l, err = net.Listen("tcp", addr.String()); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dial connects by TCP.
func (n netns) dial(addr netip.AddrPort) (*net.TCPConn, error) {
	var c *net.TCPConn
	err := n.do(func() (err error) { c, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr)); return err })
	return c, err
}

// udp opens a connected UDP socket.
func (n netns) udp(t testing.TB, local, remote netip.AddrPort) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := n.do(func() (err error) {
		c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(local), net.UDPAddrFromAddrPort(remote))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// frames opens an AF_PACKET socket on an interface, for frames that no kernel
// would send. The caller owns the descriptor.
func (n netns) frames(t testing.TB, name string) int {
	t.Helper()
	fd := -1
	err := n.do(func() (err error) {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	})
	if err != nil {
		t.Fatalf("raw socket on %s: %v", name, err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}
