package metrics

import (
	"context"
	"maps"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"patronus/dashboard/export/series"
	"patronus/netstack"
	"patronus/netstack/lan"
	"patronus/netstack/packet"
	"patronus/netstack/path"
)

// scrapeTimeout bounds what a scrape waits for the edge; Prometheus itself
// waits 10 s unless told otherwise.
const scrapeTimeout = 5 * time.Second

// Edge is what the metrics are read from; appliance.EdgeClient is one.
type Edge interface {
	Status(ctx context.Context) (*netstack.Status, error)
}

// Limits bound the number of objects that have series of their own. What is
// beyond is counted in patronus_metrics_left_out. A path has about 25 series.
type Limits struct {
	Paths    int // default 2,000
	Policies int // default 1,000
	Devices  int // default 1,000
	Uplinks  int // default 64
	Ports    int // default 256
	Classes  int // of each path; default 16
}

// Collector reads the edge's status at each scrape.
type Collector struct {
	edge    Edge
	version string
	limits  Limits
	table   [numFamilies]Family
	descs   [numFamilies]*prometheus.Desc
}

// NewCollector builds a collector; version is the program's. Zero limits are
// the defaults.
func NewCollector(edge Edge, version string, limits Limits) *Collector {
	for _, l := range []struct {
		value *int
		usual int
	}{{&limits.Paths, 2000}, {&limits.Policies, 1000}, {&limits.Devices, 1000}, {&limits.Uplinks, 64}, {&limits.Ports, 256}, {&limits.Classes, 16}} {
		if *l.value <= 0 {
			*l.value = l.usual
		}
	}
	c := &Collector{edge: edge, version: version, limits: limits, table: families()}
	for i, f := range c.table {
		c.descs[i] = prometheus.NewDesc(f.Name, f.Help, f.Labels, nil)
	}
	return c
}

// Handler serves the collectors, and those of the Go runtime and the process,
// at most four scrapes at a time.
func Handler(all ...prometheus.Collector) (http.Handler, error) {
	r := prometheus.NewRegistry()
	all = append(slices.Clone(all), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 2 * scrapeTimeout, EnableOpenMetrics: true,
	}), nil
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector. An edge that is away is a value, not
// an error: the node goes on, and an alert can be written for it.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	w := writer{c: c, ch: ch}
	st, err := c.edge.Status(ctx)
	if err != nil || st == nil {
		w.put(edgeUp, 0)
		return
	}
	w.put(edgeUp, 1)
	w.put(siteInfo, 1, st.Fabric, st.Site, c.version)
	w.put(revision, float64(st.Revision))
	w.put(uptime, st.Uptime)
	w.uplinks(st.Uplinks)
	w.ports(st.Ports)
	w.paths(st.Site, st.Paths)
	w.devices(st.Devices)
	w.flows(&st.Flows, st.Policies)
	w.engine(st)
}

// writer sends the metrics of one scrape.
type writer struct {
	c  *Collector
	ch chan<- prometheus.Metric
}

// put sends one value. Unknown values have no sample: never 0.
func (w writer) put(i index, v float64, labels ...string) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	m, err := prometheus.NewConstMetric(w.c.descs[i], w.c.table[i].Kind, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(w.c.descs[i], err)
	}
	w.ch <- m
}

// count sends counters of one family, one for each last label value.
func (w writer) count(i index, labels []string, values map[string]uint64) {
	for last, n := range values {
		w.put(i, float64(n), append(slices.Clip(labels), last)...)
	}
}

// at sends a point in time; there is none before the first.
func (w writer) at(i index, t time.Time, labels ...string) {
	if !t.IsZero() && t.Unix() > 0 {
		w.put(i, float64(t.UnixMilli())/1000, labels...)
	}
}

// bound shortens a list and says what it left out.
func bound[T any](w writer, kind string, all []T, most int) []T {
	w.put(leftOut, float64(max(len(all)-most, 0)), kind)
	return all[:min(len(all), most)]
}

func (w writer) uplinks(all []netstack.UplinkStatus) {
	for _, u := range bound(w, "uplink", all, w.c.limits.Uplinks) {
		carrier, n := 0.0, u.Counters
		if u.Carrier {
			carrier = 1
		}
		w.put(uplinkCarrier, carrier, u.Name)
		w.count(uplinkMessages, []string{u.Name, series.In}, map[string]uint64{
			"initiation": n.Initiations, "response": n.Responses, "cookie": n.Cookies, "transport": n.Transport,
		})
		w.count(uplinkMessages, []string{u.Name, series.Out}, map[string]uint64{"handshake": n.SentHandshakes, "transport": n.SentTransport})
		w.count(uplinkKeepalives, []string{u.Name}, map[string]uint64{series.In: n.Keepalives, series.Out: n.SentKeepalives})
		w.count(uplinkRefused, []string{u.Name}, map[string]uint64{
			"short": n.Short, "unknown_type": n.UnknownType, "bad_size": n.BadSize, "bad_mac1": n.BadMAC1,
		})
		w.put(uplinkUnknownIndex, float64(n.UnknownIndex), u.Name)
		w.put(uplinkRepeated, float64(n.Repeated), u.Name)
		w.put(uplinkCollided, float64(n.Collided), u.Name)
		w.put(uplinkSendErrors, float64(n.SendErrors), u.Name)
	}
}

func (w writer) ports(all []netstack.PortStatus) {
	for _, p := range bound(w, "port", all, w.c.limits.Ports) {
		w.count(lanPackets, []string{p.Name}, map[string]uint64{series.In: p.RxPackets, series.Out: p.TxPackets})
		w.count(lanBytes, []string{p.Name}, map[string]uint64{series.In: p.RxBytes, series.Out: p.TxBytes})
		// Reasons that did not occur are 0, so that a rate sees the first.
		for d := range lan.NumDrops {
			w.put(lanDropped, float64(p.Dropped[d.String()]), p.Name, d.String())
		}
	}
}

func (w writer) paths(site string, all []netstack.PathStatus) {
	for i := range bound(w, "path", all, w.c.limits.Paths) {
		w.path(site, &all[i])
	}
}

func (w writer) path(site string, p *netstack.PathStatus) {
	// The labels of series.PathLabels; the status knows the parts already.
	l := []string{string(p.ID), p.Site, p.RemoteUplink, site, p.Uplink}
	with := func(more string) []string { return append(slices.Clip(l), more) }
	m := &p.Metrics
	const milli, percent, megabit = 1e3, 100, 8.0 / 1e6
	w.put(pathLatency, float64(m.Latency)/milli, l...)
	w.put(pathJitter, float64(m.Jitter)/milli, l...)
	w.put(pathPDV, float64(m.PDVp95)/milli, l...)
	w.put(pathLoss, float64(m.LossOut)/percent, with(series.Out)...)
	w.put(pathLoss, float64(m.LossIn)/percent, with(series.In)...)
	w.put(pathReordered, float64(m.Reordered), l...)
	w.put(pathRate, float64(m.Tx)/megabit, with(series.Out)...)
	w.put(pathRate, float64(m.Rx)/megabit, with(series.In)...)
	w.put(pathBandwidth, float64(m.Bandwidth)/megabit, l...)
	w.put(pathMTU, float64(p.MTU), l...)
	if m.Score != path.NoScore {
		w.put(pathScore, float64(m.Score), l...)
	}
	classes := slices.Sorted(maps.Keys(p.Scores))
	for _, class := range classes[:min(len(classes), w.c.limits.Classes)] {
		if s := p.Scores[class]; s != path.NoScore {
			w.put(pathClassScore, float64(s), with(class)...)
		}
	}
	var state path.State
	if state.UnmarshalText([]byte(p.State)) == nil {
		w.put(pathState, float64(state), l...)
	}
	w.at(pathStateSince, p.Since, l...)
	w.at(pathHandshake, p.Handshake, l...)
	w.count(pathPackets, l, map[string]uint64{series.Out: p.TxPackets, series.In: p.RxPackets})
	w.count(pathBytes, l, map[string]uint64{series.Out: p.TxBytes, series.In: p.RxBytes})
	w.count(pathInBand, l, map[string]uint64{
		"received": p.InBand.Received, "reordered": p.InBand.Reordered, "duplicate": p.InBand.Duplicates,
	})
	w.put(pathInBandMissing, float64(p.InBand.Missing), l...)
}

func (w writer) devices(all []netstack.DeviceStatus) {
	for _, d := range bound(w, "device", all, w.c.limits.Devices) {
		w.count(deviceBytes, []string{d.Name, d.Uplink}, map[string]uint64{series.Out: d.TxBytes, series.In: d.RxBytes})
		w.at(deviceHandshake, d.LastHandshake, d.Name, d.Uplink)
	}
}

func (w writer) flows(f *netstack.FlowsStatus, policies []netstack.PolicyHits) {
	w.put(flowsLive, float64(f.Live))
	w.put(flowsCreated, float64(f.Created))
	w.put(flowsEvicted, float64(f.Evicted))
	w.put(flowsExpired, float64(f.Expired))
	for _, p := range bound(w, "policy", policies, w.c.limits.Policies) {
		w.count(policyFlows, []string{p.Policy}, map[string]uint64{"allowed": p.Allowed, "denied": p.Denied, "staged": p.Staged})
	}
}

func (w writer) engine(st *netstack.Status) {
	for _, d := range []struct {
		name string
		n    *netstack.DirectionCounters
	}{{netstack.ToWAN.String(), &st.Counters.ToWAN}, {netstack.FromWAN.String(), &st.Counters.FromWAN}} {
		w.count(packets, []string{d.name}, map[string]uint64{"forwarded": d.n.Forwarded, "delivered": d.n.Delivered})
		w.put(bytesForwarded, float64(d.n.Bytes), d.name)
		w.put(answered, float64(d.n.Answered), d.name)
		for r := netstack.NoReason + 1; r.String() != "unknown"; r++ {
			w.put(dropped, float64(d.n.Dropped[r.String()]), d.name, r.String())
		}
	}
	for f := packet.OK + 1; f < packet.FaultCount; f++ {
		w.put(malformed, float64(st.Malformed[f.String()]), f.String())
	}
}
