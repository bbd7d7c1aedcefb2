package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"patronus/configs"
)

// contender is one kind of gateway.
type contender struct {
	name    string
	what    string // one line for the report
	tcpOnly bool
	world   world
	// target is where host A's TCP goes; the default is host B.
	target string
	// start runs the gateways, once the world is built.
	start func(w *world) error
}

// Binaries are the programs under test.
type Binaries struct {
	Patronus string
	// Rivals is the directory with wireguard-go, tailscale-wireguard-go,
	// netstack-proxy, nebula and nebula-cert.
	Rivals string
	// Other is a second build of patronus to measure beside it; empty: none.
	Other string
}

func (b Binaries) rival(name string) string { return filepath.Join(b.Rivals, name) }

// contenders are all rows of the table, in its order.
func contenders(b Binaries) []*contender {
	all := []*contender{
		{
			name: "kernel", what: "plain kernel forwarding, no encryption", world: world{name: "kern", mtu: 1420},
			start: startKernel,
		},
		{
			name: "wireguard-go", what: "upstream golang.zx2c4.com/wireguard, kernel forwarding", world: world{name: "wggo", mtu: 1420},
			start: func(w *world) error { return startWireGuard(w, b.rival("wireguard-go"), "pbu") },
		},
		{
			name: "tailscale", what: "github.com/tailscale/wireguard-go as a plain daemon, kernel forwarding", world: world{name: "tail", mtu: 1420},
			start: func(w *world) error { return startWireGuard(w, b.rival("tailscale-wireguard-go"), "pbt") },
		},
		{
			name: "netstack", what: "stand-in: TCP ended in wireguard-go's gVisor netstack on both sides", world: world{name: "nets", mtu: 1420},
			tcpOnly: true, target: routerA,
			start: func(w *world) error { return startNetstack(w, b.rival("netstack-proxy")) },
		},
		{
			name: "nebula", what: "nebula with unsafe_routes, kernel forwarding", world: world{name: "nebu", mtu: 1420},
			start: func(w *world) error { return startNebula(w, b) },
		},
		{
			name: "patronus-tun", what: "tun LAN port, kernel forwarding to it; flow tracking, 100 rules", world: world{name: "ptun", mtu: 1400},
			start: func(w *world) error { return startPatronus(w, b.Patronus, "tun") },
		},
		{
			name: "patronus-packet", what: "packet LAN port (AF_PACKET); flow tracking, 100 rules", world: world{name: "ppkt", mtu: 1400, noForward: true},
			start: func(w *world) error { return startPatronus(w, b.Patronus, "packet") },
		},
	}
	if b.Other != "" {
		all = append(all, &contender{
			name: "other-tun", what: "patronus-tun by " + b.Other, world: world{name: "otun", mtu: 1400},
			start: func(w *world) error { return startPatronus(w, b.Other, "tun") },
		}, &contender{
			name: "other-packet", what: "patronus-packet by " + b.Other, world: world{name: "opkt", mtu: 1400, noForward: true},
			start: func(w *world) error { return startPatronus(w, b.Other, "packet") },
		})
	}
	return all
}

func startKernel(w *world) error {
	if err := w.a.gateway.ip("route add 10.2.0.0/16 via " + wanB); err != nil {
		return err
	}
	return w.b.gateway.ip("route add 10.1.0.0/16 via " + wanA)
}

// startWireGuard runs a wireguard-go daemon in both gateways. Interface names
// differ, because control sockets are named by them in one directory.
func startWireGuard(w *world, program, prefix string) error {
	keys := [2]configs.PrivateKey{configs.GenerateKey(), configs.GenerateKey()}
	for i, s := range []side{w.a, w.b} {
		name := fmt.Sprintf("%s%d", prefix, i)
		keyFile := filepath.Join(w.dir, name+".key")
		if err := keys[i].WriteFile(keyFile); err != nil {
			return err
		}
		if err := w.start(s.gateway, program, "-f", name); err != nil {
			return err
		}
		far, endpoint := "10.2.0.0/16", wanB
		if i == 1 {
			far, endpoint = "10.1.0.0/16", wanA
		}
		err := await(bounded(), startWithin, name, func() error {
			return sh("ip", "netns", "exec", string(s.gateway), "wg", "set", name, "listen-port", fmt.Sprint(tunnelPort), "private-key", keyFile,
				"peer", keys[1-i].Public().String(), "allowed-ips", far, "endpoint", fmt.Sprintf("%s:%d", endpoint, tunnelPort))
		})
		if err != nil {
			return err
		}
		if err := s.gateway.ip("link set "+name+" mtu 1420 up", "route add "+far+" dev "+name); err != nil {
			return err
		}
	}
	return nil
}

func startNetstack(w *world, program string) error {
	keys := [2]configs.PrivateKey{configs.GenerateKey(), configs.GenerateKey()}
	files := [2]string{filepath.Join(w.dir, "a.key"), filepath.Join(w.dir, "b.key")}
	for i, f := range files {
		if err := keys[i].WriteFile(f); err != nil {
			return err
		}
	}
	err := w.start(w.a.gateway, program, "-key", files[0], "-peer", keys[1].Public().String(), "-endpoint", fmt.Sprintf("%s:%d", wanB, tunnelPort),
		"-address", "10.9.0.1", "-near", fmt.Sprintf("%s:%d", routerA, iperfPort), "-far", fmt.Sprintf("10.9.0.2:%d", iperfPort))
	if err != nil {
		return err
	}
	return w.start(w.b.gateway, program, "-key", files[1], "-peer", keys[0].Public().String(), "-endpoint", fmt.Sprintf("%s:%d", wanA, tunnelPort),
		"-address", "10.9.0.2", "-accept", fmt.Sprint(iperfPort), "-to", fmt.Sprintf("%s:%d", hostB, iperfPort))
}

// startNebula makes a certificate authority and two certificates that own the
// sites' networks as unsafe routes.
func startNebula(w *world, b Binaries) error {
	cert := b.rival("nebula-cert")
	ca := filepath.Join(w.dir, "ca")
	if err := sh(cert, "ca", "-name", "bench", "-out-crt", ca+".crt", "-out-key", ca+".key"); err != nil {
		return err
	}
	for i, s := range []side{w.a, w.b} {
		name := fmt.Sprintf("n%d", i)
		file := filepath.Join(w.dir, name)
		own, far, farWAN := "10.1.0.0/16", "10.2.0.0/16", wanB
		if i == 1 {
			own, far, farWAN = far, own, wanA
		}
		err := sh(cert, "sign", "-ca-crt", ca+".crt", "-ca-key", ca+".key", "-name", name, "-networks", fmt.Sprintf("10.9.0.%d/24", i+1),
			"-unsafe-networks", own, "-out-crt", file+".crt", "-out-key", file+".key")
		if err != nil {
			return err
		}
		config := fmt.Sprintf(`pki: {ca: %[1]s.crt, cert: %[2]s.crt, key: %[2]s.key}
static_host_map: {"10.9.0.%[3]d": ["%[4]s:4242"]}
lighthouse: {am_lighthouse: false, hosts: []}
listen: {host: 0.0.0.0, port: 4242}
punchy: {punch: false}
logging: {level: warning}
tun:
  dev: neb%[5]d
  mtu: 1420
  unsafe_routes: [{route: %[6]s, via: 10.9.0.%[3]d}]
firewall:
  outbound: [{port: any, proto: any, host: any, local_cidr: 0.0.0.0/0}]
  inbound: [{port: any, proto: any, host: any, local_cidr: 0.0.0.0/0}]
`, ca, file, 2-i, farWAN, i, far)
		if err := os.WriteFile(file+".yaml", []byte(config), 0o600); err != nil {
			return err
		}
		if err := w.start(s.gateway, b.rival("nebula"), "-config", file+".yaml"); err != nil {
			return err
		}
	}
	return nil
}

// startPatronus runs both gateways with one uplink, and 100 rules of which the
// last one admits the traffic.
func startPatronus(w *world, program, kind string) error {
	keys := [2]configs.PrivateKey{configs.GenerateKey(), configs.GenerateKey()}
	for i, s := range []side{w.a, w.b} {
		site := []string{"a", "b"}[i]
		keyFile := filepath.Join(w.dir, site+".key")
		if err := keys[i].WriteFile(keyFile); err != nil {
			return err
		}
		file := filepath.Join(w.dir, site+".yaml")
		if err := os.WriteFile(file, []byte(patronusConfig(i, w.dir, kind, keys)), 0o600); err != nil {
			return err
		}
		if err := w.start(s.gateway, program, "run", "--config", file); err != nil {
			return err
		}
	}
	return nil
}

func patronusConfig(self int, dir, kind string, keys [2]configs.PrivateKey) string {
	var b strings.Builder
	names, wans := []string{"a", "b"}, []string{wanA, wanB}
	fmt.Fprintf(&b, "fabric: bench\nsite: %s\ndata_dir: %s\nsites:\n", names[self], filepath.Join(dir, "data-"+names[self]))
	for i, name := range names {
		fmt.Fprintf(&b, "  - name: %s\n    prefixes: [10.%d.0.0/16]\n    uplinks:\n      - name: wan0\n        public_key: %s\n        endpoints: [\"%s:%d\"]\n",
			name, i+1, keys[i].Public(), wans[i], tunnelPort)
		if i == self {
			fmt.Fprintf(&b, "        private_key_file: %s\n        interface: wan0\n        source: %s\n", filepath.Join(dir, name+".key"), wans[i])
		}
	}
	if kind == "packet" {
		fmt.Fprintf(&b, "lan:\n  - {name: lan0, kind: packet, interface: lan0, addresses: [10.%d.0.1/24]}\n", self+1)
	} else {
		fmt.Fprintf(&b, "lan:\n  - {name: lan0, kind: tun, interface: patronus0, addresses: [10.%d.255.1/32]}\n", self+1)
	}
	b.WriteString(hundredRules())
	return b.String()
}

// hundredRules selects both hosts and denies what its rules do not admit. The
// traffic of the measurement fits the hundredth.
func hundredRules() string {
	var b strings.Builder
	fmt.Fprintf(&b, `endpoints:
  - {name: a, site: a, addresses: [%s], labels: {bench: host}}
  - {name: b, site: b, addresses: [%s], labels: {bench: host}}
policies:
  - mode: enforced
    spec: |
      apiVersion: networking.k8s.io/v1
      kind: NetworkPolicy
      metadata: {name: bench}
      spec:
        podSelector: {matchLabels: {bench: host}}
        policyTypes: [Ingress, Egress]
`, hostA, hostB)
	for _, direction := range []struct{ list, peer string }{{"ingress", "from"}, {"egress", "to"}} {
		fmt.Fprintf(&b, "        %s:\n", direction.list)
		for i := range 99 {
			fmt.Fprintf(&b, "          - {%s: [{ipBlock: {cidr: 10.%d.%d.0/24}}], ports: [{protocol: TCP, port: %d}, {protocol: UDP, port: %d}]}\n", direction.peer, 3+i, i, 10000+i, 10000+i)
		}
		fmt.Fprintf(&b, "          - {%s: [{ipBlock: {cidr: 10.0.0.0/8}}]}\n", direction.peer)
	}
	return b.String()
}
