package lab

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/e2e/vnet"
	"patronus/netstack"
)

// Ports of the traffic that runs in a lab.
const (
	voicePort = 5060 // RTP-like: the voice class
	bulkPort  = 8080
)

// The lab's traffic: a call is 50 packets a second of 160 bytes (G.711), a
// transfer is a TCP connection held to a rate.
var (
	call     = vnet.UDPLoad{Rate: 64_000, Size: 160}
	transfer = vnet.TCPLoad{Rate: 2_000_000}
)

// Traffic is what runs between the hosts of a fabric: from every site to the
// next one, a call and a transfer, one of them over IPv6.
type Traffic struct {
	fabric *Fabric
	pairs  []*Conversation
}

// Conversation is the traffic from one host to another.
type Conversation struct {
	From, To string
	voice    *vnet.UDPSink
	bulk     *vnet.TCPSink
}

// NewTraffic opens the sinks; nothing is sent before Run.
func NewTraffic(f *Fabric) (*Traffic, error) {
	t := &Traffic{fabric: f}
	for i, to := range f.Sites {
		from := f.Sites[(i+len(f.Sites)-1)%len(f.Sites)]
		c := &Conversation{From: from.Name, To: to.Name}
		var err error
		if c.voice, err = to.Host.SinkUDP(netip.AddrPortFrom(to.Addr4, voicePort)); err != nil {
			return nil, fmt.Errorf("lab traffic: %w", err)
		}
		if c.bulk, err = to.Host.SinkTCP(netip.AddrPortFrom(to.Addr6, bulkPort)); err != nil {
			return nil, fmt.Errorf("lab traffic: %w", err)
		}
		t.pairs = append(t.pairs, c)
	}
	return t, nil
}

// Run sends until ctx ends. A connection that breaks is made again.
func (t *Traffic) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, c := range t.pairs {
		to := t.fabric.Sites[i]
		from := t.fabric.Sites[(i+len(t.fabric.Sites)-1)%len(t.fabric.Sites)]
		group.Go(func() error { return c.voice.Run(ctx) })
		group.Go(func() error { return c.bulk.Run(ctx) })
		group.Go(func() error {
			return again(ctx, func() error {
				_, err := from.Host.SendUDP(ctx, netip.AddrPortFrom(to.Addr4, voicePort), call)
				return err
			})
		})
		group.Go(func() error {
			return again(ctx, func() error {
				_, err := from.Host.SendTCP(ctx, netip.AddrPortFrom(to.Addr6, bulkPort), transfer)
				return err
			})
		})
	}
	return group.Wait()
}

// again calls f until ctx ends, with a pause in between.
func again(ctx context.Context, f func() error) error {
	pause := time.NewTicker(500 * time.Millisecond)
	defer pause.Stop()
	for ctx.Err() == nil {
		// A path that is not up yet is what the pause is for.
		_ = f()
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
	return nil
}

// Report is the state of a lab at one moment: one line of lab --json.
type Report struct {
	At     time.Time             `json:"timestamp"`
	Sites  []SiteReport          `json:"sites"`
	Lines  []LineReport          `json:"uplinks"`
	Calls  []CallReport          `json:"traffic"`
	Events []netstack.Event      `json:"events"`
	Totals map[string]int        `json:"totals"`
	Flows  []netstack.FlowStatus `json:"flows"`
}

// SiteReport is one site.
type SiteReport struct {
	Name string `json:"name"`
	netstack.Status
}

// LineReport is one uplink's access line, and what it really did to packets.
type LineReport struct {
	Name   string          `json:"name"`
	Broken bool            `json:"broken"`
	Line   vnet.Impairment `json:"line"`
	Sent   uint64          `json:"sent"`
	Lost   uint64          `json:"lost"`
}

// CallReport is what one conversation saw.
type CallReport struct {
	From       string  `json:"from"`
	To         string  `json:"to"`
	LatencyMS  float64 `json:"latency_ms"`
	LossPct    float64 `json:"packet_loss_pct"`
	OutageMS   float64 `json:"longest_gap_ms"`
	BulkMbps   float64 `json:"bandwidth_mbps"`
	VoicePacks uint64  `json:"voice_packets"`
}

// Watcher makes reports. It is safe for concurrent use.
type Watcher struct {
	fabric  *Fabric
	traffic *Traffic

	mu     sync.Mutex
	events []netstack.Event
	last   time.Time
	bytes  []int64
}

// NewWatcher watches a fabric and its traffic.
func NewWatcher(f *Fabric, t *Traffic) *Watcher {
	return &Watcher{fabric: f, traffic: t, bytes: make([]int64, len(t.pairs))}
}

// Run collects the events of all sites until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range w.fabric.Sites {
		group.Go(func() error {
			return again(ctx, func() error { return s.Client.Telemetry(ctx, w.take) })
		})
	}
	return group.Wait()
}

// keptEvents is how many events a report shows.
const keptEvents = 8

func (w *Watcher) take(ev netstack.Event) {
	switch ev.Kind {
	case netstack.PathStatusChange, netstack.CarrierChange, netstack.PolicyBlock:
	default:
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, ev)
	if len(w.events) > keptEvents {
		w.events = append(w.events[:0], w.events[len(w.events)-keptEvents:]...)
	}
}

// Report asks every site.
func (w *Watcher) Report(ctx context.Context) (*Report, error) {
	r := &Report{At: time.Now(), Totals: map[string]int{}}
	for _, s := range w.fabric.Sites {
		st, err := s.Client.Status(ctx)
		if err != nil {
			return nil, fmt.Errorf("site %s: %w", s.Name, err)
		}
		r.Sites = append(r.Sites, SiteReport{Name: s.Name, Status: *st})
		for i := range st.Paths {
			r.Totals[st.Paths[i].State]++
		}
		flows, err := s.Client.Flows(ctx, 6)
		if err != nil {
			return nil, fmt.Errorf("site %s: %w", s.Name, err)
		}
		if len(r.Flows) < 12 {
			r.Flows = append(r.Flows, flows...)
		}
	}
	for _, name := range w.fabric.Uplinks() {
		link := w.fabric.Relay.Uplink(name)
		out, in := link.Stats()
		now := link.Out.Impairment()
		r.Lines = append(r.Lines, LineReport{
			Name: name, Broken: now.Down, Line: now, Sent: out.Offered + in.Offered, Lost: out.Missing() + in.Missing(),
		})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Events = append(r.Events, w.events...)
	since := r.At.Sub(w.last).Seconds()
	for i, c := range w.traffic.pairs {
		voice, bulk := c.voice.Report(), c.bulk.Report()
		call := CallReport{
			From: c.From, To: c.To, LatencyMS: float64(voice.LatencyP50) / 1e6,
			OutageMS: float64(voice.LongestGap) / 1e6, VoicePacks: voice.Received,
		}
		if all := voice.Received + voice.Lost; all > 0 {
			call.LossPct = 100 * float64(voice.Lost) / float64(all)
		}
		if !w.last.IsZero() && since > 0 {
			call.BulkMbps = 8 * float64(bulk.Bytes-w.bytes[i]) / since / 1e6
		}
		w.bytes[i] = bulk.Bytes
		r.Calls = append(r.Calls, call)
	}
	w.last = r.At
	return r, nil
}
