package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Addresses of every topology.
const (
	hostA, routerA = "10.1.0.10", "10.1.0.1"
	hostB, routerB = "10.2.0.10", "10.2.0.1"
	wanA, wanB     = "192.0.2.1", "192.0.2.2"
	tunnelPort     = 51820
)

// side is one site: a host and its gateway.
type side struct {
	host, gateway netns
}

// world is one topology: what a contender is measured in.
type world struct {
	name string
	dir  string // private to the contender; its gateways may read it
	mtu  int    // of the hosts' routes to each other
	// noForward leaves the gateways' kernels out: user space has the LAN.
	noForward bool
	a, b      side
	running   []*exec.Cmd
}

// build makes the namespaces, links and addresses.
func (w *world) build() error {
	for _, n := range []struct {
		to   *netns
		name string
	}{{&w.a.host, "ha"}, {&w.a.gateway, "ga"}, {&w.b.gateway, "gb"}, {&w.b.host, "hb"}} {
		var err error
		if *n.to, err = newNetns("pbench-" + w.name + "-" + n.name); err != nil {
			return err
		}
	}
	if err := w.cable(w.a.gateway, "wan0", w.b.gateway, "wan0"); err != nil {
		return err
	}
	if err := w.a.gateway.ip("addr add " + wanA + "/30 dev wan0"); err != nil {
		return err
	}
	if err := w.b.gateway.ip("addr add " + wanB + "/30 dev wan0"); err != nil {
		return err
	}
	if err := w.lan(w.a, hostA, routerA, "10.2.0.0/16"); err != nil {
		return err
	}
	return w.lan(w.b, hostB, routerB, "10.1.0.0/16")
}

// lan joins a host to its gateway.
func (w *world) lan(s side, host, router, far string) error {
	if err := w.cable(s.host, "eth0", s.gateway, "lan0"); err != nil {
		return err
	}
	if !w.noForward {
		if err := s.gateway.ip("addr add " + router + "/24 dev lan0"); err != nil {
			return err
		}
		if err := s.gateway.sysctl("ipv4.ip_forward=1"); err != nil {
			return err
		}
	}
	return s.host.ip("addr add "+host+"/24 dev eth0", fmt.Sprintf("route add %s via %s mtu %d", far, router, w.mtu))
}

// cable is a veth pair between two namespaces.
func (w *world) cable(a netns, aName string, b netns, bName string) error {
	if err := a.ip(fmt.Sprintf("link add %s type veth peer name %s netns %s", aName, bName, b), "link set "+aName+" up"); err != nil {
		return err
	}
	return b.ip("link set " + bName + " up")
}

// start runs a daemon in a namespace; close ends it. What it prints goes to
// a log in the world's directory.
func (w *world) start(n netns, args ...string) error {
	log, err := os.OpenFile(filepath.Join(w.dir, string(n)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := n.command(context.Background(), args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	w.running = append(w.running, cmd)
	return nil
}

// logs copies the ends of the daemons' logs.
func (w *world) logs(to io.Writer) {
	files, _ := filepath.Glob(filepath.Join(w.dir, "*.log")) // the pattern is well formed
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err == nil {
			fmt.Fprintf(to, "--- %s\n%s\n", filepath.Base(f), text[max(0, len(text)-2000):])
		}
	}
}

// close ends everything and removes it.
func (w *world) close() {
	for _, n := range []netns{w.a.host, w.a.gateway, w.b.gateway, w.b.host} {
		if n != "" {
			n.remove()
		}
	}
	for _, cmd := range w.running {
		// It was killed with its namespace.
		_ = cmd.Wait()
	}
	w.running = nil
}

// await calls f until it succeeds, for at most d.
func await(ctx context.Context, d time.Duration, what string, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w after %v", what, err, d)
		}
	}
}
