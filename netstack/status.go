package netstack

import (
	"net/netip"
	"time"

	"patronus/netstack/flow"
	"patronus/netstack/path"
	"patronus/netstack/probe"
	"patronus/netstack/tunnel"
)

// Status is what an engine says of itself.
type Status struct {
	Fabric   string         `json:"fabric"`
	Site     string         `json:"site"`
	Revision uint64         `json:"revision"`
	Uptime   float64        `json:"uptime_seconds"`
	Overlay  netip.Addr     `json:"overlay_address"`
	Uplinks  []UplinkStatus `json:"uplinks"`
	Ports    []PortStatus   `json:"lan_ports"`
	Devices  []DeviceStatus `json:"devices,omitempty"`
	Paths    []PathStatus   `json:"paths"`
	Flows    FlowsStatus    `json:"flows"`
	Policies []PolicyHits   `json:"policies,omitempty"`
	Counters Counters       `json:"counters"`
	// Malformed says what was wrong with malformed packets.
	Malformed map[string]uint64 `json:"malformed,omitempty"`
}

// UplinkStatus is one of our uplinks.
type UplinkStatus struct {
	Name      string          `json:"name"`
	PublicKey string          `json:"public_key"`
	Carrier   bool            `json:"carrier"`
	Counters  tunnel.Counters `json:"counters"`
}

// PortStatus is one of our LAN ports.
type PortStatus struct {
	Name      string            `json:"name"`
	Kind      string            `json:"kind"`
	RxPackets uint64            `json:"rx_packets"`
	RxBytes   uint64            `json:"rx_bytes"`
	TxPackets uint64            `json:"tx_packets"`
	TxBytes   uint64            `json:"tx_bytes"`
	Dropped   map[string]uint64 `json:"dropped,omitempty"`
}

// DeviceStatus is one stock WireGuard peer.
type DeviceStatus struct {
	Name          string    `json:"name"`
	Uplink        string    `json:"uplink"`
	Endpoint      string    `json:"endpoint,omitempty"`
	LastHandshake time.Time `json:"last_handshake_at,omitzero"`
	RxBytes       uint64    `json:"rx_bytes"`
	TxBytes       uint64    `json:"tx_bytes"`
}

// PathStatus is one path, with its newest sample.
type PathStatus struct {
	ID           path.ID               `json:"path_id"`
	Site         string                `json:"site"`
	Uplink       string                `json:"uplink"`
	RemoteUplink string                `json:"remote_uplink"`
	Endpoint     string                `json:"endpoint,omitempty"`
	State        string                `json:"status"`
	Why          string                `json:"reason,omitempty"`
	Since        time.Time             `json:"since,omitzero"`
	Metrics      path.Metrics          `json:"metrics"`
	Scores       map[string]path.Score `json:"scores"`
	MTU          int                   `json:"mtu"`
	Handshake    time.Time             `json:"last_handshake_at,omitzero"`
	TxPackets    uint64                `json:"tx_packets"`
	TxBytes      uint64                `json:"tx_bytes"`
	RxPackets    uint64                `json:"rx_packets"`
	RxBytes      uint64                `json:"rx_bytes"`
	// InBand counts what arrived by WireGuard's own numbering of packets.
	InBand probe.InBandStats `json:"in_band"`
}

// FlowsStatus is the flow table's state.
type FlowsStatus struct {
	Live    int    `json:"live"`
	Created uint64 `json:"created"`
	Evicted uint64 `json:"evicted"`
	Expired uint64 `json:"expired"`
}

// FlowStatus is one flow as people and scripts read it.
type FlowStatus struct {
	ID       string       `json:"flow_key"`
	Src      netip.Addr   `json:"src"`
	Dst      netip.Addr   `json:"dst"`
	SrcPort  uint16       `json:"src_port"`
	Port     uint16       `json:"port"`
	Protocol string       `json:"protocol"`
	State    string       `json:"state"`
	Status   string       `json:"status"` // active or blocked
	Class    string       `json:"class"`
	Path     path.ID      `json:"path_id,omitempty"`
	Policy   string       `json:"policy,omitempty"`
	Moves    uint32       `json:"moves"`
	Packets  uint64       `json:"packets"`
	Bytes    uint64       `json:"bytes"`
	Reverse  flow.Counts  `json:"reverse"`
	Created  time.Time    `json:"created_at"`
	Seen     time.Time    `json:"seen_at"`
	Decision *flow.Record `json:"decision,omitempty"`
}

// EventKind says what an Event is about.
type EventKind string

// The kinds of event, as the seed's event types name them where it has one.
const (
	PathStatusChange EventKind = "path_status_change"
	CarrierChange    EventKind = "uplink_carrier"
	FlowRecord       EventKind = "flow"
	PolicyBlock      EventKind = "policy_block"
	PathMetric       EventKind = "path_metric"
	RevisionApplied  EventKind = "revision_applied"
)

// Event is something that happened, or a sample. Exactly the fields of its
// kind are set.
type Event struct {
	Kind    EventKind     `json:"type"`
	At      time.Time     `json:"timestamp"`
	Path    path.ID       `json:"path_id,omitempty"`
	Uplink  string        `json:"uplink,omitempty"`
	Old     string        `json:"old_status,omitempty"`
	New     string        `json:"new_status,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Metrics *path.Metrics `json:"metrics,omitempty"`
	Flow    *FlowStatus   `json:"flow,omitempty"`
	Change  string        `json:"change,omitempty"` // of a flow: started, moved, rejudged, ended
	Rev     uint64        `json:"revision,omitempty"`
}
