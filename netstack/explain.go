package netstack

import (
	"fmt"
	"net/netip"
	"time"

	"patronus/netstack/packet"
	"patronus/netstack/path"
	"patronus/netstack/policy"
)

// Question is a packet that somebody wonders about.
type Question struct {
	From     netip.Addr `json:"from"`
	To       netip.Addr `json:"to"`
	Port     uint16     `json:"port"`
	Protocol string     `json:"protocol"` // TCP, UDP, SCTP, ICMP; default TCP
	DSCP     uint8      `json:"dscp,omitempty"`
	// At asks about a flow of the past; the zero time is now.
	At time.Time `json:"at,omitzero"`
}

// Explanation says what becomes of a packet and why, by the same code that
// would decide it.
type Explanation struct {
	Verdict string             `json:"verdict"`
	Reason  string             `json:"reason,omitempty"`
	Policy  policy.Explanation `json:"policy"`
	// Enforced says which sides this appliance judges; the other site judges
	// the rest.
	EnforcesEgress  bool              `json:"enforces_egress"`
	EnforcesIngress bool              `json:"enforces_ingress"`
	Class           string            `json:"class"`
	Route           string            `json:"route"`
	Site            string            `json:"site,omitempty"`
	Candidates      []path.Considered `json:"candidates,omitempty"`
	Winner          path.ID           `json:"winner,omitempty"`
	Why             string            `json:"why,omitempty"`
	MTU             int               `json:"mtu,omitempty"`
	// Flow is the flow of this conversation at that time, if there was one, with
	// the decision that it was treated under: what was true then.
	Flow *FlowStatus `json:"flow,omitempty"`
}

// Explain answers a question about this moment.
func (e *Engine) Explain(q Question) (*Explanation, error) {
	s := e.snapshot.Load()
	if s == nil {
		return nil, ErrNoConfiguration
	}
	if !q.From.IsValid() || !q.To.IsValid() || q.From.Is4() != q.To.Is4() {
		return nil, fmt.Errorf("from %s to %s: two addresses of one family are needed", q.From, q.To)
	}
	if q.Protocol == "" {
		q.Protocol = "TCP"
	}
	proto, err := policy.ParseProtocol(q.Protocol)
	if err != nil {
		return nil, err
	}
	k := packet.NewKey(proto, netip.AddrPortFrom(q.From, 0), netip.AddrPortFrom(q.To, q.Port))
	x := &Explanation{Policy: s.rules.Explain(&k), Verdict: "forward"}
	from, fromOK := s.lookup(&k.Src)
	to, toOK := s.lookup(&k.Dst)
	x.EnforcesEgress = fromOK && (from.kind == routeLAN || from.kind == routeDevice)
	x.EnforcesIngress = toOK && (to.kind == routeLAN || to.kind == routeDevice)
	class := s.classes.Match(&k, q.DSCP<<2)
	x.Class = s.classes.Name(class)
	switch {
	case !fromOK:
		x.Verdict, x.Reason = "drop", "no site has "+q.From.String()+": "+Spoofed.String()
	case !toOK || to.kind == routeUnreachable:
		x.Verdict, x.Reason = "reject", NoRoute.String()
	case x.EnforcesEgress && !x.Policy.Egress.Allowed, x.EnforcesIngress && !x.Policy.Ingress.Allowed:
		x.Verdict, x.Reason = "drop", Denied.String()
		if x.Policy.Reject {
			x.Verdict = "reject"
		}
	case !x.Policy.Allowed:
		x.Verdict, x.Reason = "drop", Denied.String()+" at the other site"
	}
	e.explainRoute(s, x, to, toOK, class, &k)
	e.explainFlow(s, x, &q)
	return x, nil
}

func (e *Engine) explainRoute(s *snapshot, x *Explanation, to route, ok bool, class path.ClassID, k *packet.Key) {
	switch {
	case !ok || to.kind == routeUnreachable:
		x.Route = "none"
	case to.kind == routeHost:
		x.Route, x.MTU = "this appliance", hostMTU
	case to.kind == routeLAN:
		p := &s.ports[to.port]
		x.Route, x.MTU = "lan port "+p.config.Name, p.mtu()
	case to.kind == routeDevice:
		d := s.devices[to.device]
		x.Route, x.MTU = "device "+d.config.Name, d.uplink.tunnel.MTU()
	case to.kind == routeSite:
		x.Site = s.sites[to.site].name
		x.Route = "site " + x.Site
		st := s.steering.Load()
		winner, why := st.choose(to.site, class, 0, nil)
		x.Why = why.String()
		if winner != nil {
			x.Winner, x.MTU = winner.id, winner.mtu()
		} else if x.Verdict == "forward" {
			x.Verdict, x.Reason = "reject", NoPath.String()
		}
		for _, w := range st.toward[to.site] {
			_, _, considered := path.Explain(s.classes.Class(class), w.candidates, 0, -1)
			x.Candidates = append(x.Candidates, considered...)
		}
	}
}

// explainFlow finds the conversation's flow, live or remembered: a question has
// no source port.
func (e *Engine) explainFlow(s *snapshot, x *Explanation, q *Question) {
	found, ok := e.history.find(q.From, q.To, q.Protocol, q.Port, q.At)
	if q.At.IsZero() {
		ok = false // a question about now is about live flows
	}
	for v := range e.flows.All() {
		if v.Key.Dst.Netip() != q.To && v.Key.Dst.Netip() != q.From {
			continue
		}
		f := e.flowStatus(s, &v)
		if f.matches(q.From, q.To, q.Protocol, q.Port) && f.aliveAt(q.At) && (!ok || f.Seen.After(found.Seen)) {
			found, ok = f, true
		}
	}
	if ok {
		x.Flow = &found
	}
}
