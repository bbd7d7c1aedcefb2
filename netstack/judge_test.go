package netstack

import (
	"net/netip"
	"testing"
	"time"

	"patronus/configs"
	"patronus/netstack/packet"
)

const (
	// guard lets db be reached by web on 443/TCP, 53/UDP and ICMP only; db itself
	// may start nothing.
	guard = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: guard, namespace: lan}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {matchLabels: {role: web}}}]
    ports: [{protocol: TCP, port: 443}, {protocol: UDP, port: 53}]
  egress: []
`
	// open lets db be reached by everybody.
	open = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: guard, namespace: lan}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress]
  ingress: [{}]
`
)

// guarded makes host4/host6 db and remote4/remote6 web.
func guarded(spec, answer string) func(*configs.Config) {
	one := func(name, site, role string, addrs ...string) configs.HostEndpoint {
		h := configs.HostEndpoint{Namespace: "lan", Name: name, Site: site, Labels: map[string]string{"role": role}}
		for _, a := range addrs {
			h.Addresses = append(h.Addresses, host(netip.MustParseAddr(a)))
		}
		return h
	}
	return func(c *configs.Config) {
		c.Hosts = []configs.HostEndpoint{
			one("db", "hq", "db", host4, host6), one("web", "east", "web", remote4, remote6),
			one("cron", "east", "cron", "10.2.0.11", "fd00:2::11"),
		}
		c.Policies = []configs.Policy{{Answer: answer, Spec: spec}}
	}
}

func families() []struct{ name, db, web, cron string } {
	return []struct{ name, db, web, cron string }{
		{"v4", host4, remote4, "10.2.0.11"}, {"v6", host6, remote6, "fd00:2::11"},
	}
}

// denied reports what was dropped as Denied in both directions.
func denied(c Counters) uint64 { return c.ToWAN.Dropped["denied"] + c.FromWAN.Dropped["denied"] }

func TestPolicyVerdicts(t *testing.T) {
	for _, f := range families() {
		for _, c := range []struct {
			name, answer string
			in           bool
			pkt          spec
			denied       uint64
			told         *answer // toward the LAN
			back         bool    // toward the WAN
		}{
			{"allowed", "", true, segment(f.web, f.db, 1000, 443, "S", 0), 0, nil, false},
			{"wrong port", "", true, segment(f.web, f.db, 1000, 22, "S", 0), 1, nil, false},
			{"wrong source", "", true, segment(f.cron, f.db, 1000, 443, "S", 0), 1, nil, false},
			{"rejected TCP", "reject", true, segment(f.web, f.db, 1000, 22, "S", 0), 1, nil, true},
			{"rejected UDP", "reject", true, datagram(f.web, f.db, 1000, 22, 5), 1, nil, true},
			{"egress", "", false, segment(f.db, f.web, 1000, 443, "S", 0), 1, nil, false},
			{"egress, rejected TCP", "reject", false, segment(f.db, f.web, 1000, 443, "S", 0), 1, &answer{proto: packet.TCP, reset: true}, false},
			{"egress, rejected UDP", "reject", false, datagram(f.db, f.web, 1000, 443, 1), 1, &answer{proto: packet.ICMP, kind: 3, code: 13}, false},
		} {
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				p := newPlan("hq", "east")
				r := newRig(t, p, p.config(t, "hq", guarded(guard, c.answer)))
				r.expireAdoption()
				over := r.byID("hq.wan0~east.wan0")
				var got Counters
				for range 2 { // the second packet is judged by the flow
					got = r.delta(func() {
						if c.in {
							r.overPath(over, c.pkt.build(t))
						} else {
							r.fromLAN("lan0", c.pkt.build(t))
						}
					})
					if denied(got) != c.denied {
						t.Errorf("%+v", got)
					}
					if c.in && (got.ToWAN.Forwarded == 1) != c.back {
						t.Errorf("answered: %v", got.ToWAN.Forwarded)
					}
					told := r.host("lan0")
					switch {
					case c.in: // what is there was admitted
					case c.told == nil && len(told) > 0, c.told != nil && len(told) != 1:
						t.Fatalf("%d answers", len(told))
					case c.told != nil:
						a := readAnswer(t, told[0])
						if f.name == "v6" && c.told.proto == packet.ICMP {
							c.told.proto, c.told.kind, c.told.code = packet.ICMPv6, 1, 1
						}
						if a.src, a.dst = "", ""; a.proto == packet.TCP {
							a.kind, a.code = 0, 0
						}
						if a != *c.told {
							t.Errorf("answered by %+v, want %+v", a, *c.told)
						}
					}
				}
			})
		}
	}
}

// expireAdoption makes the engine look long started.
func (r *rig) expireAdoption() { r.started = r.now() - int64(time.Hour) }

// Decision 5: what a restart has forgotten is picked up in the middle for a
// while, and never answered by a reset.
func TestAdoption(t *testing.T) {
	for _, f := range families() {
		for _, c := range []struct {
			name   string
			late   bool
			pkt    spec
			in     bool
			denied uint64
		}{
			{"reply of an allowed connection", false, segment(f.db, f.web, 443, 1000, "A", 10), false, 0},
			{"reply of an allowed query", false, datagram(f.db, f.web, 53, 1000, 10), false, 0},
			{"middle of an allowed connection", false, segment(f.web, f.db, 1000, 443, "A", 10), true, 0},
			{"neither direction allowed", false, segment(f.db, f.web, 22, 1000, "A", 10), false, 1},
			{"SYN is new", false, segment(f.db, f.web, 443, 1000, "S", 0), false, 1},
			{"reply, late", true, segment(f.db, f.web, 443, 1000, "A", 10), false, 1},
			{"query's reply, late", true, datagram(f.db, f.web, 53, 1000, 10), false, 1},
			{"allowed direction, late", true, segment(f.web, f.db, 1000, 443, "A", 10), true, 0},
		} {
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				p := newPlan("hq", "east")
				r := newRig(t, p, p.config(t, "hq", guarded(guard, "reject")))
				if c.late {
					r.expireAdoption()
				}
				over := r.byID("hq.wan0~east.wan0")
				got := r.delta(func() {
					if c.in {
						r.overPath(over, c.pkt.build(t))
					} else {
						r.fromLAN("lan0", c.pkt.build(t))
					}
				})
				if denied(got) != c.denied {
					t.Errorf("%+v", got)
				}
				for _, b := range r.host("lan0") {
					if in := decode(t, b); in.Flags&packet.FlagRST != 0 && c.name != "SYN is new" {
						t.Error("answered by a reset")
					}
				}
				if c.late || c.denied > 0 {
					return
				}
				// The adopted flow is named by the direction that was allowed.
				for v := range r.flows.All() {
					if v.Key.Src.Netip().String() != f.web {
						t.Errorf("flow %s", v.ID())
					}
				}
			})
		}
	}
}

// What was denied in one direction does not stand in the way of a conversation
// that is allowed in the other.
func TestDeniedDirectionDoesNotBlockTheOther(t *testing.T) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			p := newPlan("hq", "east")
			r := newRig(t, p, p.config(t, "hq", guarded(guard, "")))
			r.expireAdoption()
			over := r.byID("hq.wan0~east.wan0")
			late := func() { r.fromLAN("lan0", datagram(f.db, f.web, 53, 1000, 10).build(t)) }
			if got := r.delta(late); denied(got) != 1 {
				t.Fatalf("late reply: %+v", got)
			}
			if got := r.delta(func() { r.overPath(over, datagram(f.web, f.db, 1000, 53, 10).build(t)) }); got.FromWAN.Forwarded != 1 {
				t.Errorf("query: %+v", got)
			}
			if got := r.delta(late); got.ToWAN.Forwarded != 1 {
				t.Errorf("its reply: %+v", got)
			}
			// Neither direction allowed: no new flow for each packet.
			made := r.Status().Flows.Created
			for range 10 {
				r.overPath(over, datagram(f.web, f.db, 1000, 22, 10).build(t))
				r.fromLAN("lan0", datagram(f.db, f.web, 22, 1000, 10).build(t))
			}
			if n := r.Status().Flows.Created - made; n != 1 {
				t.Errorf("%d flows", n)
			}
		})
	}
}

// An ICMP error passes if it quotes a flow that was admitted, whatever the
// rules say of ICMP, and not otherwise.
func TestICMPErrors(t *testing.T) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			p := newPlan("hq", "east")
			r := newRig(t, p, p.config(t, "hq", guarded(guard, "")))
			over := r.byID("hq.wan0~east.wan0")
			query := datagram(f.web, f.db, 1000, 53, 10).build(t)
			bad := datagram(f.web, f.db, 1000, 54, 10).build(t)
			r.overPath(over, query, bad)
			answerOf := datagram(f.db, f.web, 53, 1000, 10).build(t)
			r.fromLAN("lan0", answerOf)
			r.host("lan0")
			for _, c := range []struct {
				name   string
				in     bool
				quoted []byte
				pass   bool
			}{
				{"out, admitted", false, query, true},
				{"out, denied", false, bad, false},
				{"out, unheard of", false, datagram(f.web, f.db, 1001, 53, 10).build(t), false},
				{"in, admitted", true, answerOf, true},
				{"in, unheard of", true, datagram(f.db, f.web, 53, 1001, 10).build(t), false},
			} {
				got := r.delta(func() {
					if c.in {
						r.overPath(over, unreachable(t, f.web, c.quoted))
					} else {
						r.fromLAN("lan0", unreachable(t, f.db, c.quoted))
					}
				})
				if pass := got.ToWAN.Forwarded+got.FromWAN.Forwarded == 1; pass != c.pass || denied(got) == 1 == c.pass {
					t.Errorf("%s: %+v", c.name, got)
				}
			}
		})
	}
}

// New rules hold for a live flow at its next packet, both ways.
func TestRulesChangeUnderAFlow(t *testing.T) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			p := newPlan("hq", "east")
			r := newRig(t, p, p.config(t, "hq", guarded(open, "")))
			over := r.byID("hq.wan0~east.wan0")
			in := func(flags string) func() {
				return func() { r.overPath(over, segment(f.cron, f.db, 1000, 443, flags, 0).build(t)) }
			}
			out := func(flags string) func() {
				return func() { r.fromLAN("lan0", segment(f.db, f.cron, 443, 1000, flags, 0).build(t)) }
			}
			step := func(what string, f func(), want uint64) {
				t.Helper()
				if got := r.delta(f); denied(got) != want {
					t.Errorf("%s: %+v", what, got)
				}
			}
			step("SYN", in("S"), 0)
			step("SYN, ACK", out("SA"), 0)
			step("ACK", in("A"), 0)
			r.apply(p.config(t, "hq", guarded(guard, "")))
			step("out, denied now", out("A"), 1)
			step("in, denied now", in("A"), 1)
			r.apply(p.config(t, "hq", guarded(open, "")))
			step("in, allowed again", in("A"), 0)
			step("out, allowed again", out("A"), 0)
			changes := []string{}
			for _, ev := range r.seen(FlowRecord, PolicyBlock) {
				changes = append(changes, string(ev.Kind)+" "+ev.Change)
			}
			if len(changes) != 3 || changes[0] != "flow started" || changes[1] != "policy_block rejudged" || changes[2] != "flow rejudged" {
				t.Errorf("events %q", changes)
			}
			if n := r.Status().Flows.Created; n != 1 {
				t.Errorf("%d flows", n)
			}
		})
	}
}

// Reevaluate has a flow judged anew, and does not tear it.
func TestReevaluate(t *testing.T) {
	p := newPlan("hq", "east")
	r := newRig(t, p, p.config(t, "hq", guarded(guard, "")))
	r.expireAdoption()
	over := r.byID("hq.wan0~east.wan0")
	r.overPath(over, segment(remote4, host4, 1000, 443, "S", 0).build(t))
	r.fromLAN("lan0", segment(host4, remote4, 443, 1000, "SA", 0).build(t))
	r.seen()
	before := r.Flows(1)[0].Decision
	k := packet.NewKey(packet.TCP, netip.AddrPortFrom(netip.MustParseAddr(remote4), 1000), netip.AddrPortFrom(netip.MustParseAddr(host4), 443))
	if !r.Reevaluate(k) || r.Reevaluate(packet.Key{}) {
		t.Error("Reevaluate does not know its flows")
	}
	if got := r.delta(func() { r.fromLAN("lan0", segment(host4, remote4, 443, 1000, "A", 10).build(t)) }); got.ToWAN.Forwarded != 1 {
		t.Errorf("the server's next packet: %+v", got)
	}
	if f := r.Flows(1)[0]; f.Decision == before || f.Reverse.Packets != 2 {
		t.Errorf("not judged anew, or forgotten: %+v", f)
	}
}

// A flow says when it begins, moves and ends.
func TestFlowRecords(t *testing.T) {
	p := newPlan("hq", "east")
	r := newRig(t, p, p.config(t, "hq"))
	r.seen()
	send := func(flags string) { r.fromLAN("lan0", segment(host4, remote4, 1000, 443, flags, 0).build(t)) }
	send("S")
	first := r.seen(FlowRecord)
	if len(first) != 1 || first[0].Change != "started" || first[0].Path == "" || first[0].Flow.Decision.Winner != string(first[0].Path) {
		t.Fatalf("start: %+v", first)
	}
	r.fail(r.byID(string(first[0].Path)))
	send("A")
	moved := r.seen(FlowRecord)
	if len(moved) != 1 || moved[0].Change != "moved" || moved[0].Path == first[0].Path || moved[0].Path == "" {
		t.Fatalf("move: %+v", moved)
	}
	if d := moved[0].Flow.Decision; d.Winner != string(moved[0].Path) || d.Why == "" || len(d.Candidates) != 4 {
		t.Errorf("decision: %+v", d)
	}
	send("A")
	if more := r.seen(FlowRecord); len(more) > 0 {
		t.Errorf("nothing happened, and yet %+v", more)
	}
	r.flows.Expire(r.now()+int64(24*time.Hour), 1<<20)
	ended := r.seen(FlowRecord)
	if len(ended) != 1 || ended[0].Change != "ended" || ended[0].Flow.Packets != 3 || ended[0].Reason == "" {
		t.Errorf("end: %+v", ended)
	}
}
