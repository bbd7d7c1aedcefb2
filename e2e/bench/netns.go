package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// netns is a network namespace, by its name under /run/netns.
type netns string

func newNetns(name string) (netns, error) {
	n := netns(name)
	n.remove() // of a run that was killed
	if err := sh("ip", "netns", "add", name); err != nil {
		return n, err
	}
	if err := n.ip("link set lo up"); err != nil {
		return n, err
	}
	return n, n.sysctl("ipv4.conf.all.rp_filter=0", "ipv4.conf.default.rp_filter=0")
}

// remove ends what still runs in the namespace and deletes it.
func (n netns) remove() {
	for _, pid := range n.pids() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = exec.Command("ip", "netns", "del", string(n)).Run()
}

// pids are the processes of the namespace.
func (n netns) pids() []int {
	out, err := exec.Command("ip", "netns", "pids", string(n)).Output()
	if err != nil {
		return nil // there is no such namespace
	}
	var all []int
	for f := range strings.FieldsSeq(string(out)) {
		if pid, err := strconv.Atoi(f); err == nil && pid != os.Getpid() {
			all = append(all, pid)
		}
	}
	return all
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
func (n netns) ip(lines ...string) error {
	cmd := exec.Command("ip", "-n", string(n), "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip -n %s: %w: %s (%s)", n, err, strings.TrimSpace(string(out)), strings.Join(lines, "; "))
	}
	return nil
}

// sysctl writes settings below /proc/sys/net.
func (n netns) sysctl(settings ...string) error {
	return n.do(func() error {
		for _, s := range settings {
			key, value, _ := strings.Cut(s, "=")
			file := filepath.Join("/proc/sys/net", strings.ReplaceAll(key, ".", "/"))
			if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

// command is a command that will run in the namespace.
func (n netns) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", string(n)}, args...)...)
}

// sh runs a command that must succeed.
func sh(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
