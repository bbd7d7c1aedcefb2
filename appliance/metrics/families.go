package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"patronus/dashboard/export/series"
)

// Family is one metric family: what the reference page lists.
type Family struct {
	Name   string
	Kind   prometheus.ValueType
	Help   string
	Labels []string
}

// index names a family within this package.
type index int

const (
	edgeUp index = iota
	leftOut
	siteInfo
	revision
	uptime
	uplinkCarrier
	uplinkMessages
	uplinkKeepalives
	uplinkRefused
	uplinkUnknownIndex
	uplinkRepeated
	uplinkCollided
	uplinkSendErrors
	lanPackets
	lanBytes
	lanDropped
	pathLatency
	pathJitter
	pathPDV
	pathLoss
	pathReordered
	pathRate
	pathBandwidth
	pathMTU
	pathScore
	pathClassScore
	pathState
	pathStateSince
	pathHandshake
	pathPackets
	pathBytes
	pathInBand
	pathInBandMissing
	deviceBytes
	deviceHandshake
	flowsLive
	flowsCreated
	flowsEvicted
	flowsExpired
	policyFlows
	packets
	bytesForwarded
	answered
	dropped
	malformed
	numFamilies
)

func counter(name, help string, labels ...string) Family {
	return Family{"patronus_" + name, prometheus.CounterValue, help, labels}
}

func gauge(name, help string, labels ...string) Family {
	return Family{"patronus_" + name, prometheus.GaugeValue, help, labels}
}

func quantity(q series.Quantity) Family {
	labels := series.PathLabels()
	if q.Direction != "" {
		labels = append(labels, "direction")
	}
	return Family{q.Name, prometheus.GaugeValue, q.Help, labels}
}

// ofPath are the labels of a path and one more.
func ofPath(more ...string) []string { return append(series.PathLabels(), more...) }

// families builds the table. Counters begin at 0 when the edge starts.
func families() [numFamilies]Family {
	return [numFamilies]Family{
		edgeUp:   gauge("edge_up", "1 if the edge process answered this scrape; its other metrics are absent otherwise."),
		leftOut:  gauge("metrics_left_out", "Objects that this scrape has no series of, because there are too many.", "kind"),
		siteInfo: gauge("site_info", "Always 1; says which site this is.", "fabric", "site", "version"),
		revision: gauge("configuration_revision", "Number of the revision of the configuration that is in force."),
		uptime:   gauge("edge_uptime_seconds", "Time since the edge started."),

		uplinkCarrier:      gauge("uplink_carrier", "1 if the uplink's interface has a link.", "uplink"),
		uplinkMessages:     counter("uplink_messages_total", "WireGuard messages of valid form, by direction and kind; transport includes keepalives.", "uplink", "direction", "kind"),
		uplinkKeepalives:   counter("uplink_keepalives_total", "WireGuard keepalives.", "uplink", "direction"),
		uplinkRefused:      counter("uplink_refused_messages_total", "Received messages that were refused before decryption.", "uplink", "reason"),
		uplinkUnknownIndex: counter("uplink_unknown_session_messages_total", "Received transport messages of a session that does not exist here.", "uplink"),
		uplinkRepeated:     counter("uplink_repeated_handshakes_total", "Handshake messages of ours that were sent again because no answer came.", "uplink"),
		uplinkCollided:     counter("uplink_collided_handshakes_total", "Handshake initiations that gave way to one of the other side.", "uplink"),
		uplinkSendErrors:   counter("uplink_send_errors_total", "Calls to send on the uplink's socket that failed.", "uplink"),

		lanPackets: counter("lan_packets_total", "Packets of a LAN port.", "port", "direction"),
		lanBytes:   counter("lan_bytes_total", "Bytes of a LAN port.", "port", "direction"),
		lanDropped: counter("lan_dropped_packets_total", "Packets that a LAN port did not pass on.", "port", "reason"),

		pathLatency:       quantity(series.Latency),
		pathJitter:        quantity(series.Jitter),
		pathPDV:           quantity(series.PDV),
		pathLoss:          quantity(series.LossOut),
		pathReordered:     quantity(series.Reordered),
		pathRate:          quantity(series.RateOut),
		pathBandwidth:     quantity(series.Bandwidth),
		pathMTU:           quantity(series.MTU),
		pathScore:         quantity(series.Score),
		pathClassScore:    gauge("path_class_score", "Score of a traffic class on the path, 0 (unusable) to 100.", ofPath("class")...),
		pathState:         quantity(series.State),
		pathStateSince:    gauge("path_state_since_timestamp_seconds", "When the path came into its state, Unix time.", ofPath()...),
		pathHandshake:     gauge("path_last_handshake_timestamp_seconds", "When the path's WireGuard session was last renewed, Unix time.", ofPath()...),
		pathPackets:       counter("path_packets_total", "Inner packets of a path.", ofPath("direction")...),
		pathBytes:         counter("path_bytes_total", "Inner bytes of a path.", ofPath("direction")...),
		pathInBand:        counter("path_inband_packets_total", "Packets that arrived by WireGuard's own numbering, by what their number says.", ofPath("kind")...),
		pathInBandMissing: gauge("path_inband_missing_packets", "Packets missing by WireGuard's own numbering; falls when a late one arrives.", ofPath()...),

		deviceBytes:     counter("device_bytes_total", "Bytes of a stock WireGuard peer.", "device", "uplink", "direction"),
		deviceHandshake: gauge("device_last_handshake_timestamp_seconds", "When a stock WireGuard peer's session was last renewed, Unix time.", "device", "uplink"),

		flowsLive:    gauge("flows_live", "Flows in the flow table."),
		flowsCreated: counter("flows_created_total", "Flows that were created."),
		flowsEvicted: counter("flows_evicted_total", "Flows that were forgotten because the table was full."),
		flowsExpired: counter("flows_expired_total", "Flows that ended or were idle."),
		policyFlows:  counter("policy_flows_total", "Flows that a policy decided; staged: would have been decided otherwise if staged policies were enforced.", "policy", "decision"),

		packets:        counter("packets_total", "Packets that the engine passed on, by direction and what it did.", "direction", "verdict"),
		bytesForwarded: counter("bytes_total", "Inner IP bytes that the engine forwarded.", "direction"),
		answered:       counter("answered_packets_total", "ICMP errors and TCP resets that were sent about packets.", "direction"),
		dropped:        counter("dropped_packets_total", "Packets that the engine dropped, by reason.", "direction", "reason"),
		malformed:      counter("malformed_packets_total", "What was wrong with malformed packets.", "fault"),
	}
}

// Families lists what a Collector may tell, by name.
func Families() []Family {
	all := families()
	out := all[:]
	slices.SortFunc(out, func(a, b Family) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}
