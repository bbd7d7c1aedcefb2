package configs

import "time"

// The defaults, in one place. [Config.withDefaults] says where each applies.
const (
	DefaultDataDir = "/var/lib/patronus"

	DefaultUplinkMTU = 1500
	// DefaultLANMTU is for ports with a wire. A tun port is told less, so that
	// the kernel's own TCP fits into a tunnel over an uplink of 1500 bytes:
	// 1500 - 40 IPv6 - 8 UDP - 32 WireGuard - 20 outer header.
	DefaultLANMTU = 1500
	DefaultTUNMTU = 1400
	// DefaultKeepalive keeps a NAT mapping alive: WireGuard's customary 25 s is
	// below the 30 s of common UDP timers (RFC 4787, REQ-5 asks for 2 minutes).
	DefaultKeepalive = Duration(25 * time.Second)

	DefaultProbeActive = Duration(50 * time.Millisecond)
	DefaultProbeWarm   = Duration(time.Second)
	DefaultProbeIdle   = Duration(10 * time.Second)
	DefaultProbeCold   = Duration(15 * time.Minute)
	DefaultProbeLost   = 3
	DefaultProbeBudget = 256 // kbit/s: eight paths at the active rate

	DefaultFlowsMax    = 65_536
	DefaultTCPIdle     = Duration(2*time.Hour + 4*time.Minute) // RFC 5382, REQ-5
	DefaultUDPIdle     = Duration(5 * time.Minute)             // RFC 4787, REQ-5
	DefaultAdoptWindow = Duration(time.Minute)

	// DefaultNamespace is where host endpoints without a namespace live.
	DefaultNamespace = "default"
	// OriginConfiguration marks host endpoints that the configuration named.
	OriginConfiguration = "configuration"
)

// The answers that a denied packet can get, see [Policy].
const (
	AnswerDrop   = "drop"
	AnswerReject = "reject"
)

// withDefaults fills in what was not given, in place. It is idempotent, and it
// runs on every way in, so that a revision made before a default existed gets
// that default too. Addresses that can be derived (path and overlay addresses)
// stay empty: [Uplink.Path] and [Config.OverlayAddress] derive them.
func (c *Config) withDefaults() {
	orElse(&c.DataDir, DefaultDataDir)
	orElse(&c.Topology.Mode, FullMesh)
	for i := range c.Sites {
		s := &c.Sites[i]
		for j := range s.Uplinks {
			s.Uplinks[j].withDefaults(s.Name == c.Site)
		}
	}
	for i := range c.LAN {
		if c.LAN[i].Kind == LANTUN {
			orElse(&c.LAN[i].MTU, DefaultTUNMTU)
		}
		orElse(&c.LAN[i].MTU, DefaultLANMTU)
	}
	if self := c.Self(); self != nil && len(self.Uplinks) == 1 {
		for i := range c.Devices {
			orElse(&c.Devices[i].Uplink, self.Uplinks[0].Name)
		}
	}
	orElse(&c.Probe.Active, DefaultProbeActive)
	orElse(&c.Probe.Warm, DefaultProbeWarm)
	orElse(&c.Probe.Idle, DefaultProbeIdle)
	orElse(&c.Probe.Cold, DefaultProbeCold)
	orElse(&c.Probe.Lost, DefaultProbeLost)
	orElse(&c.Probe.Budget, DefaultProbeBudget)
	orElse(&c.Flows.Max, DefaultFlowsMax)
	orElse(&c.Flows.TCPIdle, DefaultTCPIdle)
	orElse(&c.Flows.UDPIdle, DefaultUDPIdle)
	orElse(&c.Flows.AdoptWindow, DefaultAdoptWindow)
	for i := range c.Hosts {
		h := &c.Hosts[i]
		orElse(&h.Namespace, DefaultNamespace)
		orElse(&h.Origin, OriginConfiguration)
		for j := range h.Ports {
			orElse(&h.Ports[j].Protocol, "TCP")
		}
	}
	for i := range c.Policies {
		orElse(&c.Policies[i].Mode, PolicyEnforced)
		orElse(&c.Policies[i].Answer, AnswerDrop)
	}
	c.Export.withDefaults()
}

// withDefaults: an uplink listens on the port that its first endpoint tells
// others, and one without endpoints is taken to sit behind a NAT.
func (u *Uplink) withDefaults(own bool) {
	orElse(&u.MTU, DefaultUplinkMTU)
	if !own {
		return
	}
	if len(u.Endpoints) > 0 {
		orElse(&u.ListenPort, u.Endpoints[0].Port())
	} else {
		orElse(&u.Keepalive, DefaultKeepalive)
	}
}

func orElse[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
