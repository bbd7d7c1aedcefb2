package netstack

import (
	"time"

	"patronus/configs"
	"patronus/netstack/flow"
	"patronus/netstack/packet"
	"patronus/netstack/path"
	"patronus/netstack/policy"
)

// decision is what becomes of the packets of one run.
type decision struct {
	verdict Verdict
	reason  Reason
	class   path.ClassID
	to      route
	path    *pathState // of routeSite
}

func (d *decision) drop(r Reason)   { d.verdict, d.reason = Drop, r }
func (d *decision) reject(r Reason) { d.verdict, d.reason = Reject, r }

// run is a row of packets of one flow in one direction: looked up, judged and
// counted once.
type run struct {
	key      packet.Key
	tos      uint8
	live     bool
	decision decision
	flow     *flow.Flow
	forward  bool
	fresh    bool // judged just now, and not bound yet
	packets  int
	bytes    int
	flags    uint8
}

// same reports whether a packet goes on the current run. TCP packets that
// change a connection's state end it, so that the flow is asked again.
func (r *run) same(in *packet.Info) bool {
	return r.live && flow.Same(&in.Key, &r.key) && in.TOS == r.tos &&
		(in.Flags|r.flags)&(packet.FlagSYN|packet.FlagRST|packet.FlagFIN) == 0 &&
		in.Key.Proto != packet.ICMP && in.Key.Proto != packet.ICMPv6
}

func (r *run) reset() { *r = run{} }

// begin starts a run with its first packet.
func (r *run) begin(in *packet.Info) {
	*r = run{key: in.Key, tos: in.TOS, live: true}
}

func (r *run) count(packets, bytes int, flags uint8) {
	r.packets += packets
	r.bytes += bytes
	r.flags |= flags
}

// flush books what the run counted on its flow.
func (r *run) flush(now int64) {
	if r.flow != nil && r.bytes > 0 {
		r.flow.Observe(r.forward, r.packets, r.bytes, r.flags, now)
	}
	r.packets, r.bytes, r.flags, r.live = 0, 0, 0, false
}

// judge finds the flow of a run, or admits a new one, and leaves the verdict in
// r.decision. egress and ingress say which sides this box enforces.
func (e *Engine) judge(s *snapshot, r *run, in *packet.Info, b []byte, now int64, egress, ingress bool) {
	d := &r.decision
	if isError(in) {
		e.judgeError(s, r, in, b)
		return
	}
	f, forward := e.flows.Lookup(&in.Key)
	if f != nil && f.Reopens(in.Flags) {
		f = nil
	}
	if f != nil {
		r.flow, r.forward = f, forward
		binding := f.Binding()
		switch {
		case !forward && binding != 0 && verdictOf(binding) != Forward && begins(f, in):
			// Whom the rules let begin is not held up by what the other side
			// was denied before.
			if !e.reversed(s, r, in, egress, ingress) {
				return
			}
		case binding.Judged(s.version):
			d.verdict, d.class = verdictOf(binding), path.ClassID(binding.Class())
			if d.verdict != Forward {
				d.reason = Denied
			}
			return
		}
	}
	e.judgeNew(s, r, in, now, egress, ingress)
}

// begins reports whether a packet against the direction of a denied flow may
// begin a conversation of its own. If the flow was admitted once, it is a reply
// unless it says that it is not.
func begins(f *flow.Flow, in *packet.Info) bool {
	if r := f.Record(); r == nil || !r.Admitted {
		return true
	}
	return in.Key.Proto == packet.TCP && in.Flags&(packet.FlagSYN|packet.FlagACK) == packet.FlagSYN
}

// reversed judges a packet that comes against the direction of a denied flow.
// If it is admitted the flow makes room for its own, which is to be judged.
func (e *Engine) reversed(s *snapshot, r *run, in *packet.Info, egress, ingress bool) bool {
	answer := s.rules.EvaluateSide(&in.Key, egress, ingress)
	if answer.Allowed {
		e.flows.Remove(&in.Key)
		r.flow, r.forward = nil, false
		return true
	}
	r.decision.drop(Denied)
	if answer.Reject && (in.Key.Proto != packet.TCP || in.Flags&packet.FlagSYN != 0) {
		r.decision.verdict = Reject
	}
	return false
}

// judgeNew asks the rules, for a new flow or one that older rules admitted.
func (e *Engine) judgeNew(s *snapshot, r *run, in *packet.Info, now int64, egress, ingress bool) {
	d := &r.decision
	k := in.Key
	if r.flow != nil {
		k = r.flow.Key()
		// The sides of the flow's own direction: what is egress for the
		// originator is ingress for the responder.
		if !r.forward {
			egress, ingress = ingress, egress
		}
	}
	answer := s.rules.EvaluateSide(&k, egress, ingress)
	midstream := r.flow == nil && in.Key.Proto == packet.TCP && in.Flags&packet.FlagSYN == 0
	if !answer.Allowed && r.flow == nil && e.adopting(s, now) && (midstream || in.Key.Proto == packet.UDP) {
		// Decision 5: after a start the state of a live conversation is lost,
		// and this packet may be a reply: the admitted direction counts.
		reversed := in.Key.Reverse()
		if back := s.rules.EvaluateSide(&reversed, ingress, egress); back.Allowed {
			answer, k = back, reversed
			egress, ingress = ingress, egress
		}
	}
	if !answer.Allowed {
		d.verdict, d.reason = Drop, Denied
		if answer.Reject && !midstream {
			d.verdict = Reject
		}
	} else {
		d.verdict = Forward
	}
	d.class = s.classes.Match(&k, in.TOS)
	s.hit(&k, &answer, egress, ingress)
	if r.flow == nil {
		r.flow, _ = e.flows.Insert(&k, now, 0, in.Flags)
		r.forward = r.flow.Forward(&in.Key)
		r.packets-- // the table has counted the first one
	}
	r.flow.SetRecord(e.record(s, r, &k, &answer, d.class, egress, ingress))
	r.fresh = true
}

// settle finishes a decision: it chooses the path if one is needed, and binds
// the flow to all that was decided, at once, so that it starts only once.
func (e *Engine) settle(s *snapshot, r *run) {
	d := &r.decision
	if d.verdict == Forward && d.to.kind == routeSite {
		e.steer(s, r)
		return
	}
	if r.fresh {
		r.flow.Bind(flow.NewBinding(s.version, uint8(d.verdict)+1, uint8(d.class), d.keeps(r.flow.Binding()), 0))
	}
}

// keeps is the path that a flow stays bound to while its packets come from
// there: those that go there find it again.
func (d *decision) keeps(b flow.Binding) uint16 {
	if d.verdict == Forward && b != 0 && verdictOf(b) == Forward {
		return b.Path()
	}
	return flow.NoPath
}

// verdictOf is the verdict that a binding holds. Bindings keep it plus one: 0
// is no binding.
func verdictOf(b flow.Binding) Verdict { return Verdict(b.Verdict() - 1) }

// adopting reports whether conversations may still be picked up midstream.
func (e *Engine) adopting(s *snapshot, now int64) bool {
	return now-e.started < int64(s.config.Flows.AdoptWindow)
}

// isError reports whether a packet is an ICMP error, which belongs to the flow
// that it quotes. A later fragment has no ICMP header: it goes the way of its
// first one.
func isError(in *packet.Info) bool {
	if in.Fragment == packet.LaterFragment {
		return false
	}
	switch in.Key.Proto {
	case packet.ICMP:
		switch in.ICMPType {
		case 3, 4, 5, 11, 12: // unreachable, quench, redirect, time exceeded, parameter
			return true
		}
	case packet.ICMPv6:
		return in.ICMPType < 128 // RFC 4443, 2.1
	}
	return false
}

// judgeError admits an ICMP error that quotes an admitted flow, and no other.
func (e *Engine) judgeError(s *snapshot, r *run, in *packet.Info, b []byte) {
	d := &r.decision
	quoted, ok := packet.DecodeQuoted(b, in)
	if !ok {
		d.drop(Malformed)
		return
	}
	f, _ := e.flows.Lookup(&quoted)
	if f == nil || verdictOf(f.Binding()) != Forward {
		d.drop(Denied)
		return
	}
	d.verdict, d.class = Forward, path.ClassID(f.Binding().Class())
}

// record says why a flow was admitted or denied, in names. egress and ingress
// are the ends of its direction that were judged here.
func (e *Engine) record(s *snapshot, r *run, k *packet.Key, answer *policy.Decision, class path.ClassID, egress, ingress bool) *flow.Record {
	out := &flow.Record{
		At: time.Now(), RulesVersion: s.version, Policy: s.rules.PolicyID(answer.Policy), Rule: int(answer.Rule),
		Reason: answer.Reason.String(), Class: s.classes.Name(class), Egress: egress, Ingress: ingress, Admitted: answer.Allowed,
	}
	if old := r.flow.Record(); old != nil && old.Admitted {
		out.Admitted = true
	}
	out.From, out.FromLabels, _ = endOf(s.rules, &k.Src)
	var to *configs.HostEndpoint
	if out.To, out.ToLabels, to = endOf(s.rules, &k.Dst); to != nil {
		out.PortNames = portNames(to, k)
	}
	return out
}

// endOf is what the rules know of an address.
func endOf(rules *policy.Ruleset, a *packet.Addr) (flow.Party, map[string]string, *configs.HostEndpoint) {
	e, space := rules.End(a)
	if e == nil {
		return flow.Party{}, nil, nil
	}
	return flow.Party{Site: e.Site, Namespace: e.Namespace, Name: e.Name, NamespaceLabels: space}, e.Labels, e
}

// portNames are what an endpoint calls a flow's destination port.
func portNames(e *configs.HostEndpoint, k *packet.Key) []string {
	var names []string
	for i := range e.Ports {
		p := &e.Ports[i]
		if p.Port != k.DstPort {
			continue
		}
		if proto, err := policy.ParseProtocol(p.Protocol); err == nil && proto == k.Proto {
			names = append(names, p.Name)
		}
	}
	return names
}

// steer chooses the path of a run that goes to another site.
func (e *Engine) steer(s *snapshot, r *run) {
	d := &r.decision
	st := s.steering.Load()
	f := r.flow
	if f == nil { // an ICMP error
		if d.path, _ = st.choose(d.to.site, d.class, 0, nil); d.path == nil {
			d.reject(NoPath)
		}
		return
	}
	// At a hub both directions of a flow go into tunnels. It is bound to the
	// path of its first direction; the other one is balanced by the same hash,
	// which keeps it in place while nothing changes.
	bound := r.forward || !e.transit(s, &r.key)
	binding := f.Binding()
	if bound && binding.Current(s.version, st.generation) {
		if d.path = st.path(binding.Path()); d.path != nil {
			return
		}
	}
	var current *pathState
	if bound && binding != 0 {
		current = st.path(binding.Path())
	}
	var why path.Why
	if d.path, why = st.choose(d.to.site, d.class, f.Hash(), current); d.path == nil {
		d.reject(NoPath)
		return
	}
	if !bound {
		return
	}
	if d.path != current {
		f.SetRecord(st.explain(f.Record(), d.to.site, d.class, d.path, why))
	}
	f.Bind(flow.NewBinding(s.version, uint8(Forward)+1, uint8(d.class), d.path.index, st.generation))
}

// transit reports whether a packet comes from another site: at a hub both
// directions of its flow go to a tunnel, and only the first one is bound.
func (e *Engine) transit(s *snapshot, k *packet.Key) bool {
	from, ok := s.lookup(&k.Src)
	return ok && from.kind == routeSite
}
