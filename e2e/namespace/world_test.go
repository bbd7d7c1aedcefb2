package namespace

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"patronus/configs"
	"patronus/e2e/wire"
	"patronus/netstack"
)

// family is an IP version: 4 or 6.
type family int

var families = []family{4, 6}

func (f family) String() string { return fmt.Sprintf("v%d", int(f)) }

// plan says what world to build.
type plan struct {
	underlay family // default: 4
	lan      string // kind of LAN port: packet (default) or tun
	sites    []string
	uplinks  []string
	hub      string   // hub-and-spoke with this hub
	wires    []string // site-uplink names, as the core's interfaces: these get a Wire
	dead     []string // sites whose gateway is never started
	// extra is more configuration of a site, right after its list of LAN ports.
	extra func(s *site) string
}

// world is some sites and the network between them.
type world struct {
	plan
	t     *testing.T
	id    string
	core  netns
	sites []*site
	wires map[string]*wire.Wire
	// cables is how many have been laid.
	cables int
}

// site is a gateway and the host behind it.
type site struct {
	w             *world
	name          string
	n             int // from 1
	gateway, host netns
	dir           string
	uplinks       []*uplink
	process       process
}

// uplink is one WAN attachment of a site.
type uplink struct {
	name string
	net  int // the number in its addresses
	key  configs.PrivateKey
	file string
}

var worlds atomic.Int32

// newWorld builds namespaces, links and configurations, and starts a gateway at
// every site. Everything goes when the test ends.
func newWorld(t *testing.T, p plan) *world {
	t.Helper()
	w := build(t, p)
	for _, s := range w.living() {
		s.start()
	}
	w.waitUp()
	return w
}

// build is newWorld without gateways.
func build(t *testing.T, p plan) *world {
	t.Helper()
	if p.underlay == 0 {
		p.underlay = 4
	}
	if p.lan == "" {
		p.lan = "packet"
	}
	if p.sites == nil {
		p.sites = []string{"a", "b"}
	}
	if p.uplinks == nil {
		p.uplinks = []string{"wan0", "lte0"}
	}
	w := &world{plan: p, t: t, id: fmt.Sprintf("%s-%d", prefix, worlds.Add(1)), wires: map[string]*wire.Wire{}}
	w.core = w.namespace("core")
	w.core.sysctl(t, "ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1", "ipv6.conf.all.keep_addr_on_down=1", "ipv6.conf.default.keep_addr_on_down=1")
	for i, name := range p.sites {
		w.addSite(i+1, name)
	}
	// Cut interfaces are a set, so that cutting is one atomic change.
	w.core.run(t, "nft", `add table inet cut; add set inet cut links { type ifname; };
		add chain inet cut forward { type filter hook forward priority 0; };
		add rule inet cut forward iifname @links drop; add rule inet cut forward oifname @links drop`)
	for _, s := range w.sites {
		s.configure()
	}
	return w
}

// namespace makes a namespace that goes when the test ends.
func (w *world) namespace(name string) netns {
	n := netns(w.id + "-" + name)
	w.t.Cleanup(n.remove)
	sh(w.t, "ip", "netns", "add", string(n))
	n.ip(w.t, "link set lo up")
	n.sysctl(w.t, "ipv6.conf.default.accept_dad=0", "ipv4.conf.all.rp_filter=0", "ipv4.conf.default.rp_filter=0")
	return n
}

// cable is a veth pair between two namespaces. Its ends have different indexes:
// the kernel reports carrier changes of a whole machine once a second at most,
// other tests' included, and only those of an interface that says to lie on
// another one (RTNL iflink) at once.
func (w *world) cable(a netns, aName string, b netns, bName string) {
	w.cables++
	a.ip(w.t, fmt.Sprintf("link add %s index %d type veth peer name %s netns %s", aName, 1000+w.cables, bName, b), "link set "+aName+" up")
	b.ip(w.t, "link set "+bName+" up")
}

func (w *world) addSite(n int, name string) {
	s := &site{w: w, name: name, n: n, gateway: w.namespace("g" + name), host: w.namespace("h" + name)}
	s.dir = directory(w.t)
	w.sites = append(w.sites, s)
	for j, u := range w.plan.uplinks {
		s.addUplink(j+1, u)
	}
	w.cable(s.host, "eth0", s.gateway, "lan0")
	s.host.ip(w.t,
		fmt.Sprintf("addr add %s/24 dev eth0", s.addr(4)), fmt.Sprintf("route add default via %s", s.router(4)),
		fmt.Sprintf("addr add %s/64 dev eth0 nodad", s.addr(6)), fmt.Sprintf("route add ::/0 via %s", s.router(6)))
	if w.lan == "tun" {
		// The kernel routes between the LAN and the tun port.
		s.gateway.sysctl(w.t, "ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1")
		s.gateway.ip(w.t, fmt.Sprintf("addr add %s/24 dev lan0", s.router(4)), fmt.Sprintf("addr add %s/64 dev lan0 nodad", s.router(6)))
	} else {
		s.gateway.sysctl(w.t, "ipv6.conf.lan0.disable_ipv6=1")
	}
}

// directory is temporary, and other users may pass through it: the node does.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "patronus-e2e-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (s *site) addUplink(j int, name string) {
	w, t := s.w, s.w.t
	u := &uplink{name: name, net: 10*s.n + j, key: configs.GenerateKey(), file: filepath.Join(s.dir, name+".key")}
	s.uplinks = append(s.uplinks, u)
	if err := u.key.WriteFile(u.file); err != nil {
		t.Fatal(err)
	}
	port := s.name + "-" + name
	if slices.Contains(w.plan.wires, port) {
		mid := w.namespace("w-" + port)
		mid.sysctl(t, "ipv6.conf.default.disable_ipv6=1")
		w.cable(s.gateway, name, mid, "g")
		w.cable(w.core, port, mid, "c")
		w.wires[port] = runWire(t, wire.Config{A: wire.End{Netns: string(mid), Interface: "g"}, B: wire.End{Netns: string(mid), Interface: "c"}, Seed: 7})
	} else {
		w.cable(s.gateway, name, w.core, port)
	}
	w.core.ip(t, fmt.Sprintf("addr add %s/24 dev %s", u.router(4), port), fmt.Sprintf("addr add %s/64 dev %s nodad", u.router(6), port))
	s.gateway.ip(t,
		fmt.Sprintf("addr add %s/24 dev %s", u.addr(4), name), fmt.Sprintf("route add default via %s dev %s metric %d", u.router(4), name, 100*j),
		fmt.Sprintf("addr add %s/64 dev %s nodad", u.addr(6), name), fmt.Sprintf("route add ::/0 via %s dev %s metric %d", u.router(6), name, 100*j))
}

// runWire runs a Wire until the test ends.
func runWire(t *testing.T, cfg wire.Config) *wire.Wire {
	t.Helper()
	x, err := wire.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("wire: %v", err)
		}
	})
	return x
}

// addr is the address of a site's host, router that of its gateway.
func (s *site) addr(f family) netip.Addr   { return s.at(f, 10) }
func (s *site) router(f family) netip.Addr { return s.at(f, 1) }

func (s *site) at(f family, host int) netip.Addr {
	if f == 4 {
		return netip.AddrFrom4([4]byte{10, byte(s.n), 0, byte(host)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:0:%d::%d", s.n, host))
}

func (u *uplink) addr(f family) netip.Addr   { return u.at(f, 2) }
func (u *uplink) router(f family) netip.Addr { return u.at(f, 1) }

func (u *uplink) at(f family, host int) netip.Addr {
	if f == 4 {
		return netip.AddrFrom4([4]byte{198, 18, byte(u.net), byte(host)})
	}
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::%d", u.net, host))
}

func (w *world) site(name string) *site {
	for _, s := range w.sites {
		if s.name == name {
			return s
		}
	}
	w.t.Fatalf("no site %s", name)
	return nil
}

// cut makes a black hole of an uplink, both ways; heal undoes it.
func (w *world) cut(s *site, uplink string) {
	w.t.Helper()
	w.core.run(w.t, "nft", fmt.Sprintf("add element inet cut links { %s-%s }", s.name, uplink))
}

func (w *world) heal(s *site, uplink string) {
	w.t.Helper()
	w.core.run(w.t, "nft", fmt.Sprintf("delete element inet cut links { %s-%s }", s.name, uplink))
}

// carrier takes the far end of an uplink down or up: the gateway's interface
// loses or regains its carrier.
func (w *world) carrier(s *site, uplink string, up bool) {
	w.t.Helper()
	state := map[bool]string{true: "up", false: "down"}[up]
	w.core.ip(w.t, fmt.Sprintf("link set %s-%s %s", s.name, uplink, state))
}

// configure writes the configuration of a site.
func (s *site) configure() {
	s.w.t.Helper()
	if err := os.WriteFile(s.file(), []byte(s.config("")), 0o600); err != nil {
		s.w.t.Fatal(err)
	}
}

func (s *site) file() string { return filepath.Join(s.dir, "patronus.yaml") }

// config is the site's configuration, with more of it at top level.
func (s *site) config(more string) string {
	var b strings.Builder
	w := s.w
	fmt.Fprintf(&b, "fabric: test\nsite: %s\ndata_dir: %s\nsites:\n", s.name, filepath.Join(s.dir, "data"))
	for _, o := range w.sites {
		fmt.Fprintf(&b, "  - name: %s\n    prefixes: [10.%d.0.0/16, \"fd00:0:%d::/48\"]\n    uplinks:\n", o.name, o.n, o.n)
		for _, u := range o.uplinks {
			fmt.Fprintf(&b, "      - name: %s\n        public_key: %s\n", u.name, u.key.Public())
			fmt.Fprintf(&b, "        endpoints: [%q]\n", netip.AddrPortFrom(u.addr(w.underlay), 51820))
			if o == s {
				fmt.Fprintf(&b, "        private_key_file: %s\n        interface: %s\n        source: %q\n", u.file, u.name, u.addr(w.underlay))
			}
		}
	}
	if w.hub != "" {
		fmt.Fprintf(&b, "topology: {mode: hub-and-spoke, hubs: [%s]}\n", w.hub)
	}
	switch w.lan {
	case "packet":
		fmt.Fprintf(&b, "lan:\n  - {name: lan0, kind: packet, interface: lan0, addresses: [%s/24, \"%s/64\"]}\n", s.router(4), s.router(6))
	case "tun":
		fmt.Fprintf(&b, "lan:\n  - {name: lan0, kind: tun, interface: patronus0, addresses: [10.%d.255.1/32, \"fd00:0:%d:ffff::1/128\"]}\n", s.n, s.n)
	}
	if w.extra != nil {
		b.WriteString(w.extra(s))
	}
	b.WriteString(more)
	return b.String()
}

// living are the sites whose gateways run.
func (w *world) living() []*site {
	return slices.DeleteFunc(slices.Clone(w.sites), func(s *site) bool { return slices.Contains(w.dead, s.name) })
}

// waitUp waits until every path between living sites is up.
func (w *world) waitUp() {
	w.t.Helper()
	for _, s := range w.living() {
		eventually(w.t, 20*time.Second, "paths of "+s.name+" up", func() error {
			paths, err := s.paths()
			if err != nil {
				return err
			}
			paths = slices.DeleteFunc(paths, func(p netstack.PathStatus) bool { return slices.Contains(w.dead, p.Site) })
			if len(paths) == 0 || slices.ContainsFunc(paths, func(p netstack.PathStatus) bool { return p.State != "up" }) {
				return fmt.Errorf("%v", states(paths))
			}
			return nil
		})
	}
}
