package netstack

import (
	"cmp"
	"slices"
	"time"

	"patronus/configs"
	"patronus/netstack/flow"
	"patronus/netstack/lan"
	"patronus/netstack/packet"
	"patronus/netstack/path"
	"patronus/netstack/tunnel"
)

// Status is a picture of the engine. It stops nothing: parts may be some
// microseconds apart.
func (e *Engine) Status() Status {
	st := Status{Uptime: time.Since(e.base).Seconds(), Counters: e.counters.snapshot(), Malformed: map[string]uint64{}}
	for f := range e.faults {
		if n := e.faults[f].Load(); n > 0 {
			st.Malformed[packet.Fault(f).String()] = n
		}
	}
	c := e.flows.Counters()
	st.Flows = FlowsStatus{Live: e.flows.Len(), Created: c.Created, Evicted: c.Evicted, Expired: c.Expired}
	s := e.snapshot.Load()
	if s == nil {
		return st
	}
	st.Fabric, st.Site, st.Revision, st.Overlay = s.config.Fabric, s.config.Site, s.rev, s.sites[s.self].overlay
	st.Policies = s.policyHits()
	for i := range s.ports {
		st.Ports = append(st.Ports, portStatus(&s.ports[i]))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	peers := make(map[*uplinkState]map[configs.Key]tunnel.Status)
	for _, u := range e.tunnels {
		// A tunnel that is closing knows nothing of its peers.
		peers[u], _ = u.tunnel.Status()
		st.Uplinks = append(st.Uplinks, UplinkStatus{
			Name: u.config.Name, PublicKey: u.config.PublicKey.String(), Carrier: u.carrier.Load(), Counters: u.tunnel.Counters(),
		})
	}
	slices.SortFunc(st.Uplinks, func(a, b UplinkStatus) int { return cmp.Compare(a.Name, b.Name) })
	for _, d := range s.devices {
		w := peers[d.uplink][d.config.PublicKey]
		ds := DeviceStatus{Name: d.config.Name, Uplink: d.config.Uplink, LastHandshake: w.LastHandshakeAt, RxBytes: w.RxBytes, TxBytes: w.TxBytes}
		if w.Endpoint.IsValid() {
			ds.Endpoint = w.Endpoint.String()
		}
		st.Devices = append(st.Devices, ds)
	}
	// The tunnel drops what waits too long for a session: it is added here.
	noSession := uint64(0)
	for _, p := range e.paths {
		if p != nil {
			st.Paths = append(st.Paths, p.status(s, peers[p.uplink][p.key]))
			noSession += p.peer.Counters().NoSession
		}
	}
	for _, d := range s.devices {
		noSession += d.peer.Counters().NoSession
	}
	if noSession > 0 {
		st.Counters.ToWAN.Dropped[NoSession.String()] = noSession
	}
	slices.SortFunc(st.Paths, func(a, b PathStatus) int { return cmp.Compare(a.ID, b.ID) })
	return st
}

func portStatus(p *attachedPort) PortStatus {
	c := p.port.Counters()
	st := PortStatus{
		Name: p.config.Name, Kind: string(p.config.Kind), RxPackets: c.RxPackets, RxBytes: c.RxBytes,
		TxPackets: c.TxPackets, TxBytes: c.TxBytes, Dropped: map[string]uint64{},
	}
	for why, n := range c.Drops {
		if n > 0 {
			st.Dropped[lan.Drop(why).String()] = n
		}
	}
	return st
}

// Flows lists the most recently active flows, at most limit.
func (e *Engine) Flows(limit int) []FlowStatus {
	s := e.snapshot.Load()
	if s == nil {
		return nil
	}
	views := make([]flow.View, 0, min(limit, e.flows.Len()))
	for v := range e.flows.All() {
		views = append(views, v)
		// Keep the newest without sorting the whole table each time.
		if len(views) >= 2*limit+1024 {
			views = newest(views, limit)
		}
	}
	views = newest(views, limit)
	out := make([]FlowStatus, 0, len(views))
	for i := range views {
		out = append(out, e.flowStatus(s, &views[i]))
	}
	return out
}

func newest(views []flow.View, limit int) []flow.View {
	slices.SortFunc(views, func(a, b flow.View) int { return cmp.Compare(b.Seen, a.Seen) })
	return views[:min(limit, len(views))]
}

func (e *Engine) flowStatus(s *snapshot, v *flow.View) FlowStatus {
	f := FlowStatus{
		ID: v.ID(), Src: v.Key.Src.Netip(), Dst: v.Key.Dst.Netip(), SrcPort: v.Key.SrcPort, Port: v.Key.DstPort,
		Protocol: protocolName(v.Key.Proto), State: v.State.String(), Status: "active", Moves: v.Moves,
		Class: s.classes.Name(path.ClassID(v.Binding.Class())), Packets: v.Forward.Packets, Bytes: v.Forward.Bytes,
		Reverse: v.Reverse, Created: e.wall(v.Created), Seen: e.wall(v.Seen), Decision: v.Record,
	}
	if v.Binding != 0 && verdictOf(v.Binding) != Forward {
		f.Status = "blocked"
	}
	if v.Record != nil {
		f.Policy = v.Record.Policy
	}
	if p := s.steering.Load().path(v.Binding.Path()); p != nil {
		f.Path = p.id
	}
	return f
}

// wall turns the packet path's monotonic time into wall time.
func (e *Engine) wall(mono int64) time.Time { return e.base.Add(time.Duration(mono)) }

func protocolName(p uint8) string {
	switch p {
	case packet.TCP:
		return "TCP"
	case packet.UDP:
		return "UDP"
	case packet.SCTP:
		return "SCTP"
	case packet.ICMP:
		return "ICMP"
	case packet.ICMPv6:
		return "ICMPv6"
	}
	return "IP"
}

// flowEvent passes a flow's event on, as people read it.
func (e *Engine) flowEvent(ev flow.Event) {
	s := e.snapshot.Load()
	if s == nil {
		return
	}
	f := e.flowStatus(s, &ev.View)
	out := Event{Kind: FlowRecord, At: time.Now(), Flow: &f, Change: ev.Kind.String(), Path: f.Path}
	if ev.Kind == flow.Ended {
		out.Reason = ev.End.String()
		e.history.add(&f)
	}
	if f.Status == "blocked" && (ev.Kind == flow.Started || ev.Kind == flow.Rejudged) {
		out.Kind = PolicyBlock
	}
	e.sink(out)
}
