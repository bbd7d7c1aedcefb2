package series

import (
	"patronus/netstack/path"
)

// Quantity is one measured quantity of a path.
type Quantity struct {
	// Name is that of the metric, in a base unit.
	Name string
	// Direction is the value of the direction label; "" where there is none.
	Direction string
	// Help is one sentence.
	Help string
}

// The directions, as the site whose path it is sees them.
const (
	Out = "out"
	In  = "in"
)

// The quantities of a path. All are gauges.
var (
	Latency   = Quantity{"patronus_path_latency_seconds", "", "Round-trip time without the peer's processing time (RFC 8762), mean of the window."}
	Jitter    = Quantity{"patronus_path_jitter_seconds", "", "Interarrival jitter (RFC 3550) of the worse direction."}
	PDV       = Quantity{"patronus_path_delay_variation_p95_seconds", "", "95th percentile of packet delay variation of the round trip (RFC 5481)."}
	LossOut   = Quantity{"patronus_path_loss_ratio", Out, lossHelp}
	LossIn    = Quantity{"patronus_path_loss_ratio", In, lossHelp}
	Reordered = Quantity{"patronus_path_reordered_packets", "", "Packets of the window that came after a later one (RFC 4737)."}
	RateOut   = Quantity{"patronus_path_throughput_bytes_per_second", Out, rateHelp}
	RateIn    = Quantity{"patronus_path_throughput_bytes_per_second", In, rateHelp}
	Bandwidth = Quantity{"patronus_path_bandwidth_bytes_per_second", "", "The greater one of both carried rates: a throughput seen, not a capacity."}
	MTU       = Quantity{"patronus_path_mtu_bytes", "", "Largest inner IP packet that the path carries; 0 if not known."}
	Score     = Quantity{"patronus_path_score", "", "Score of the default class, 0 (unusable) to 100."}
	State     = Quantity{"patronus_path_state", "", "State of the path: 0 unknown, 1 up, 2 degraded, 3 down."}
)

const (
	lossHelp = "Packets lost in the window, of those sent, by direction as the site sees it."
	rateHelp = "Carried inner IP bytes per second, by direction as the site sees it."
)

// Label is a name and its value.
type Label struct{ Name, Value string }

// PathLabels are the names of the labels of a path's series, sorted, without
// the direction.
func PathLabels() []string { return []string{"path", "remote_site", "remote_uplink", "site", "uplink"} }

// LabelsOf are the labels of a path's series, in the order of PathLabels. The
// parts of an id that cannot be taken apart are empty.
func LabelsOf(site string, id path.ID) []Label {
	ends, err := path.ParseID(string(id))
	if err != nil {
		ends = path.Ends{}
	}
	return []Label{
		{"path", string(id)},
		{"remote_site", ends.RemoteSite},
		{"remote_uplink", ends.RemoteUplink},
		{"site", site},
		{"uplink", ends.LocalUplink},
	}
}
