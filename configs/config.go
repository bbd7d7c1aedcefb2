package configs

import "net/netip"

// Config is everything one appliance needs to run: itself, the sites it talks
// to, what it carries and how. One file may serve all sites of a fabric; Site
// says which of Sites this appliance is.
//
// A Config comes out of [Parse], [Decode] or [New] with its defaults filled in
// and its values checked; it is immutable from then on and safe to share.
type Config struct {
	Fabric   string         `yaml:"fabric" json:"fabric"`
	Site     string         `yaml:"site" json:"site"`
	DataDir  string         `yaml:"data_dir" json:"data_dir"`
	Topology Topology       `yaml:"topology" json:"topology"`
	Sites    []Site         `yaml:"sites" json:"sites,omitempty"`
	LAN      []LANPort      `yaml:"lan" json:"lan,omitempty"`
	Devices  []Device       `yaml:"devices" json:"devices,omitempty"`
	Classes  []Class        `yaml:"classes" json:"classes,omitempty"`
	Probe    Probe          `yaml:"probe" json:"probe"`
	Flows    Flows          `yaml:"flows" json:"flows"`
	Hosts    []HostEndpoint `yaml:"endpoints" json:"endpoints,omitempty"`
	// Namespaces carry the labels that namespaceSelector matches.
	Namespaces []Namespace `yaml:"namespaces" json:"namespaces,omitempty"`
	Policies   []Policy    `yaml:"policies" json:"policies,omitempty"`
	Export     Export      `yaml:"export" json:"export,omitzero"`
}

// TopologyMode says which sites have paths to each other.
type TopologyMode string

// The topologies.
const (
	FullMesh    TopologyMode = "full-mesh"
	HubAndSpoke TopologyMode = "hub-and-spoke"
)

// Topology is the shape of the overlay. In hub-and-spoke a spoke has paths to
// the hubs only, and reaches other spokes through the first hub that is up.
type Topology struct {
	Mode TopologyMode `yaml:"mode" json:"mode"`
	Hubs []string     `yaml:"hubs" json:"hubs,omitempty"`
}

// Site is a place with prefixes and uplinks. Prefixes of different sites do not
// overlap, but one site may own a default route (0.0.0.0/0, ::/0).
type Site struct {
	Name string `yaml:"name" json:"name"`
	// Address is the appliance's own address on the overlay (agent API). The
	// zero value means the one derived by [Config.OverlayAddress].
	Address  netip.Addr     `yaml:"address" json:"address,omitzero"`
	Prefixes []netip.Prefix `yaml:"prefixes" json:"prefixes,omitempty"`
	Uplinks  []Uplink       `yaml:"uplinks" json:"uplinks,omitempty"`
}

// Uplink is one WAN attachment of a site, with its own WireGuard key. The
// fields from PrivateKeyFile on matter at the uplink's own site only.
type Uplink struct {
	Name      string           `yaml:"name" json:"name"`
	PublicKey Key              `yaml:"public_key" json:"public_key"`
	Endpoints []netip.AddrPort `yaml:"endpoints" json:"endpoints,omitempty"`
	// PathAddress is the address that the uplink's paths are named by inside
	// the tunnels (RFC 1112 class E, never seen outside). The zero value means
	// the one derived from the public key by [Uplink.Path].
	PathAddress netip.Addr `yaml:"path_address" json:"path_address,omitzero"`

	PrivateKeyFile string     `yaml:"private_key_file" json:"private_key_file,omitempty"`
	ListenPort     uint16     `yaml:"listen_port" json:"listen_port,omitempty"`
	Interface      string     `yaml:"interface" json:"interface,omitempty"`
	Source         netip.Addr `yaml:"source" json:"source,omitzero"`
	// MTU is the largest IP packet the uplink carries outside the tunnel, bytes.
	MTU       int      `yaml:"mtu" json:"mtu,omitempty"`
	Keepalive Duration `yaml:"keepalive" json:"keepalive,omitempty"`
}

// LANKind is how a LAN port reaches its hosts.
type LANKind string

// The kinds of LAN port.
const (
	LANTUN    LANKind = "tun"
	LANPacket LANKind = "packet"
	LANCable  LANKind = "cable"
)

// LANPort is one attachment of the site's own hosts.
type LANPort struct {
	Name      string         `yaml:"name" json:"name"`
	Kind      LANKind        `yaml:"kind" json:"kind"`
	Interface string         `yaml:"interface" json:"interface,omitempty"`
	Addresses []netip.Prefix `yaml:"addresses" json:"addresses,omitempty"`
	VLAN      uint16         `yaml:"vlan" json:"vlan,omitempty"`
	MTU       int            `yaml:"mtu" json:"mtu,omitempty"`
	Routes    []Route        `yaml:"routes" json:"routes,omitempty"`
}

// Route sends a prefix to a next hop behind a LAN port.
type Route struct {
	Prefix netip.Prefix `yaml:"prefix" json:"prefix"`
	Via    netip.Addr   `yaml:"via" json:"via"`
}

// Device is a stock WireGuard peer (a laptop, a kernel WireGuard) attached to
// one uplink of this site: plain AllowedIPs, no outer header.
type Device struct {
	Name       string         `yaml:"name" json:"name"`
	PublicKey  Key            `yaml:"public_key" json:"public_key"`
	AllowedIPs []netip.Prefix `yaml:"allowed_ips" json:"allowed_ips,omitempty"`
	Uplink     string         `yaml:"uplink" json:"uplink"`
	Endpoint   netip.AddrPort `yaml:"endpoint" json:"endpoint,omitzero"`
	Keepalive  Duration       `yaml:"keepalive" json:"keepalive,omitempty"`
}

// Class is a traffic class: what belongs to it, which uplinks it prefers and
// what it needs of a path.
type Class struct {
	Name  string  `yaml:"name" json:"name"`
	Match []Match `yaml:"match" json:"match,omitempty"`
	// Prefer lists groups of this site's uplinks; flows balance within the
	// first group that has a path meeting the SLA. Empty means all uplinks.
	Prefer [][]string `yaml:"prefer" json:"prefer,omitempty"`
	SLA    SLA        `yaml:"sla" json:"sla"`
	// Strict drops the flow when no path meets the SLA; otherwise the best of
	// the worst is taken.
	Strict bool `yaml:"strict" json:"strict,omitempty"`
}

// Match selects flows by their first packet; empty fields match everything, and
// all fields must match. Ports are destination ports.
type Match struct {
	Source      []netip.Prefix `yaml:"source" json:"source,omitempty"`
	Destination []netip.Prefix `yaml:"destination" json:"destination,omitempty"`
	Protocol    string         `yaml:"protocol" json:"protocol,omitempty"`
	Ports       []PortRange    `yaml:"ports" json:"ports,omitempty"`
	DSCP        []DSCP         `yaml:"dscp" json:"dscp,omitempty"`
}

// SLA holds for each metric the value that is still good (full score) and the
// one that violates (score 0). Zero means the metric is not judged.
type SLA struct {
	DelayGood Duration `yaml:"delay_good" json:"delay_good,omitempty"`
	Delay     Duration `yaml:"delay" json:"delay,omitempty"`
	PDVGood   Duration `yaml:"pdv_good" json:"pdv_good,omitempty"`
	PDV       Duration `yaml:"pdv" json:"pdv,omitempty"`
	// LossGood and Loss are percent.
	LossGood float64 `yaml:"loss_good" json:"loss_good,omitempty"`
	Loss     float64 `yaml:"loss" json:"loss,omitempty"`
}

// Probe sets how paths are measured.
type Probe struct {
	Active Duration `yaml:"active" json:"active,omitempty"` // while traffic flows; default 50ms
	Warm   Duration `yaml:"warm" json:"warm,omitempty"`     // default 1s
	Idle   Duration `yaml:"idle" json:"idle,omitempty"`     // default 10s
	Cold   Duration `yaml:"cold" json:"cold,omitempty"`     // no probes after this silence; default 15m
	Lost   int      `yaml:"lost" json:"lost,omitempty"`     // missing in a row that mean Down; default 3
	// Budget bounds the probe traffic of one uplink, kbit/s each way.
	Budget int `yaml:"budget_kbps" json:"budget_kbps,omitempty"`
}

// Flows bounds the flow table.
type Flows struct {
	Max         int      `yaml:"max" json:"max,omitempty"`
	TCPIdle     Duration `yaml:"tcp_idle" json:"tcp_idle,omitempty"`
	UDPIdle     Duration `yaml:"udp_idle" json:"udp_idle,omitempty"`
	AdoptWindow Duration `yaml:"adopt_window" json:"adopt_window,omitempty"`
}

// HostEndpoint is a labelled address or prefix behind a site that policies select.
type HostEndpoint struct {
	Namespace string            `yaml:"namespace" json:"namespace"`
	Name      string            `yaml:"name" json:"name"`
	Site      string            `yaml:"site" json:"site,omitempty"`
	Addresses []netip.Prefix    `yaml:"addresses" json:"addresses,omitempty"`
	Labels    map[string]string `yaml:"labels" json:"labels,omitempty"`
	Ports     []NamedPort       `yaml:"ports" json:"ports,omitempty"`
	// Origin says who told us: configuration, rest, kubernetes, dhcp, neighbour.
	Origin string `yaml:"-" json:"origin,omitempty"`
}

// NamedPort gives a port of a host endpoint a name that policies may use.
type NamedPort struct {
	Name     string `yaml:"name" json:"name"`
	Port     uint16 `yaml:"port" json:"port"`
	Protocol string `yaml:"protocol" json:"protocol,omitempty"`
}

// Namespace is a set of host endpoints with labels of its own.
type Namespace struct {
	Name   string            `yaml:"name" json:"name"`
	Labels map[string]string `yaml:"labels" json:"labels,omitempty"`
}

// PolicyMode says what becomes of a policy's verdicts.
type PolicyMode string

// The modes of a policy. Staged policies are evaluated beside the enforced
// ones and reported, never enforced.
const (
	PolicyEnforced PolicyMode = "enforced"
	PolicyStaged   PolicyMode = "staged"
	PolicyDisabled PolicyMode = "disabled"
)

// Policy is one NetworkPolicy or ClusterNetworkPolicy, kept as the text the
// user wrote, with Patronus' metadata outside of it.
type Policy struct {
	Mode PolicyMode `yaml:"mode" json:"mode,omitempty"`
	// Answer is what a denied packet gets: "drop" (default) or "reject".
	Answer string `yaml:"answer" json:"answer,omitempty"`
	// Spec is the Kubernetes object as YAML.
	Spec string `yaml:"spec" json:"spec"`
}
