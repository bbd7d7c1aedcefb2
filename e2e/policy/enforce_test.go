package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patronus/configs"
	"patronus/netstack"
	"patronus/netstack/packet"
	"patronus/netstack/policy"
	"patronus/netstack/policy/simulate"
)

func addr(site, host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(site + 1), 0, byte(host)})
}

func endpoint(space, name string, a netip.Addr, labels map[string]string) configs.HostEndpoint {
	return configs.HostEndpoint{
		Namespace: space, Name: name, Site: [2]string{"hq", "east"}[a.As4()[1]-1], Addresses: []netip.Prefix{netip.PrefixFrom(a, 32)},
		Labels: labels, Ports: []configs.NamedPort{{Name: "web", Port: 81}},
	}
}

func parsed(t fataler, text string) policy.Policy {
	t.Helper()
	o, err := policy.ParsePolicy([]byte(text), "policy")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return policy.Policy{Object: o}
}

func drawSelector(t *rapid.T) string {
	return rapid.SampledFrom([]string{"{}", "{matchLabels: {app: a}}", "{matchLabels: {app: b}}", "{matchExpressions: [{key: app, operator: NotIn, values: [a]}]}"}).Draw(t, "selector")
}

func drawNetworkPolicy(t *rapid.T, i int) policy.Policy {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p%d, namespace: n%d}\nspec:\n", i, rapid.IntRange(0, 1).Draw(t, "space"))
	fmt.Fprintf(&b, "  podSelector: %s\n  policyTypes: %s\n", drawSelector(t), rapid.SampledFrom([]string{"[Ingress]", "[Egress]", "[Ingress, Egress]"}).Draw(t, "types"))
	for _, d := range [2][2]string{{"ingress", "from"}, {"egress", "to"}} {
		fmt.Fprintf(&b, "  %s:\n", d[0])
		for range rapid.IntRange(0, 2).Draw(t, d[0]) {
			fmt.Fprintf(&b, "  - ports: %s\n    %s:\n", rapid.SampledFrom([]string{"[]", "[{port: 80}]", "[{port: web}]", "[{port: 80, endPort: 82, protocol: UDP}]", "[{}, {protocol: UDP}]"}).Draw(t, "ports"), d[1])
			for range rapid.IntRange(0, 2).Draw(t, "peers") {
				fmt.Fprintf(&b, "    - %s\n", rapid.SampledFrom([]string{
					"podSelector: " + drawSelector(t), "namespaceSelector: " + drawSelector(t), "ipBlock: {cidr: 10.1.0.0/29}",
					"ipBlock: {cidr: 10.0.0.0/8, except: [10.2.0.4/30]}", "{namespaceSelector: {}, podSelector: " + drawSelector(t) + "}",
				}).Draw(t, "peer"))
			}
		}
	}
	return parsed(t, b.String())
}

func drawClusterPolicy(t *rapid.T, i int) policy.Policy {
	action := rapid.SampledFrom([]string{"Accept", "Deny", "Pass"}).Draw(t, "action")
	direction := rapid.SampledFrom([][2]string{{"ingress", "from"}, {"egress", "to"}}).Draw(t, "direction")
	return parsed(t, fmt.Sprintf(`apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: c%d}
spec:
  tier: %s
  priority: %d
  subject: {namespaces: %s}
  %s:
  - action: %s
    %s: [{pods: {namespaceSelector: {}, podSelector: %s}}]
    protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 80, end: 81}}}}]
`, i, rapid.SampledFrom([]string{"Admin", "Baseline"}).Draw(t, "tier"), i, drawSelector(t), direction[0], action, direction[1], drawSelector(t)))
}

func drawInput(t *rapid.T) policy.Input {
	in := policy.Input{Namespaces: []configs.Namespace{{Name: "n0", Labels: map[string]string{"app": "a"}}, {Name: "n1"}}}
	for site := range 2 {
		for host := 2; host < 6; host++ {
			if rapid.IntRange(0, 3).Draw(t, "absent") == 0 {
				continue
			}
			labels := map[string]string{}
			if v := rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "app"); v != "" {
				labels["app"] = v
			}
			in.Endpoints = append(in.Endpoints, endpoint(fmt.Sprintf("n%d", rapid.IntRange(0, 1).Draw(t, "space")), fmt.Sprintf("e%d%d", site, host), addr(site, host), labels))
		}
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "policies") {
		if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
			in.Policies = append(in.Policies, drawClusterPolicy(t, i))
		} else {
			in.Policies = append(in.Policies, drawNetworkPolicy(t, i))
		}
	}
	return in
}

// Simulation equals enforcement: of every packet of a new flow, between any two
// hosts of two sites and in both directions, what simulation says is what
// happens.
func TestSimulationEqualsEnforcement(t *testing.T) {
	f := newFabric(t)
	sport := uint16(1024)
	packets, delivered := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		w, err := simulate.NewWorld(in, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		f.apply(t, in)
		for from := range f.sites {
			var pkts [][]byte
			want := map[packet.Key]shot{}
			for a := 2; a <= 6; a++ {
				for b := 2; b <= 6; b++ {
					for _, kind := range []struct {
						proto uint8
						name  string
						port  uint16
					}{{packet.TCP, "TCP", 80}, {packet.TCP, "TCP", 81}, {packet.UDP, "UDP", 81}, {packet.UDP, "UDP", 90}, {packet.ICMP, "ICMP", 0}} {
						if sport++; sport < 1024 {
							sport = 1024
						}
						s := shot{proto: kind.proto, from: addr(from, a), to: addr(1-from, b), sport: sport, dport: kind.port}
						p := build(t, s)
						o, err := w.Flow(simulate.Flow{From: s.from.String(), To: s.to.String(), Protocol: kind.name, Port: kind.port})
						if err != nil {
							t.Fatal(err)
						}
						if o.After.Allowed {
							want[decode(t, p).Key] = s
						}
						pkts = append(pkts, p)
					}
				}
			}
			out := f.exchange(t, from, pkts...)
			packets += len(pkts)
			delivered += len(out[1-from])
			for _, got := range out[1-from] {
				if _, ok := want[got.Key]; !ok {
					t.Fatalf("delivered, but simulation denies it: %v:%d -> %v:%d/%d", got.Key.Src.Netip(), got.Key.SrcPort, got.Key.Dst.Netip(), got.Key.DstPort, got.Key.Proto)
				}
				delete(want, got.Key)
			}
			for _, s := range want {
				t.Fatalf("not delivered, but simulation allows it: %v", s)
			}
		}
	})
	t.Logf("%d packets, %d delivered", packets, delivered)
	if delivered == 0 || delivered == packets {
		t.Error("the random policies decide nothing")
	}
}

const (
	denyDB = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: n0}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}
`
	denyWeb = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: n0}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}
`
)

func twoEndpoints() policy.Input {
	return policy.Input{Endpoints: []configs.HostEndpoint{
		endpoint("n0", "web", addr(0, 2), map[string]string{"app": "web"}),
		endpoint("n0", "db", addr(1, 2), map[string]string{"app": "db"}),
	}}
}

// A change of policy takes effect on a live flow at its next packet, in both
// directions, and back again.
func TestChangeTakesEffectAtNextPacket(t *testing.T) {
	f := newFabric(t)
	open := twoEndpoints()
	closed := twoEndpoints()
	closed.Policies = []policy.Policy{parsed(t, denyWeb)}
	closedThere := twoEndpoints()
	closedThere.Policies = []policy.Policy{parsed(t, strings.Replace(denyDB, "app: web", "app: other", 1))}
	there := shot{proto: packet.TCP, from: addr(0, 2), to: addr(1, 2), sport: 5000, dport: 80}
	back := shot{proto: packet.TCP, from: addr(1, 2), to: addr(0, 2), sport: 80, dport: 5000, flags: "SA"}
	f.apply(t, open)
	if got := f.exchange(t, 0, build(t, there))[1]; len(got) != 1 {
		t.Fatalf("the first packet: %d delivered", len(got))
	}
	there.flags = "A"
	for i, step := range []struct {
		in   policy.Input
		pass int
	}{{open, 1}, {closed, 0}, {open, 1}, {closedThere, 0}, {open, 1}} {
		f.apply(t, step.in)
		if got := f.exchange(t, 0, build(t, there))[1]; len(got) != step.pass {
			t.Errorf("step %d: %d delivered, want %d", i, len(got), step.pass)
		}
		if got := f.exchange(t, 1, build(t, back))[0]; len(got) != step.pass {
			t.Errorf("step %d: %d replies delivered, want %d", i, len(got), step.pass)
		}
		back.flags = "A"
	}
}

// Replies of an allowed flow pass although nothing allows that direction.
func TestRepliesPass(t *testing.T) {
	f := newFabric(t)
	in := twoEndpoints()
	in.Policies = []policy.Policy{parsed(t, denyDB), parsed(t, strings.Replace(strings.Replace(denyWeb, "app: web", "app: db", 1), "name: web", "name: db-egress", 1))}
	f.apply(t, in)
	there := shot{proto: packet.TCP, from: addr(0, 2), to: addr(1, 2), sport: 6000, dport: 80}
	back := shot{proto: packet.TCP, from: addr(1, 2), to: addr(0, 2), sport: 80, dport: 6000, flags: "SA"}
	own := shot{proto: packet.TCP, from: addr(1, 2), to: addr(0, 2), sport: 6001, dport: 80}
	if got := f.exchange(t, 0, build(t, there))[1]; len(got) != 1 {
		t.Fatal("the allowed flow was denied")
	}
	if got := f.exchange(t, 1, build(t, back))[0]; len(got) != 1 {
		t.Error("its reply was denied")
	}
	if got := f.exchange(t, 1, build(t, own))[0]; len(got) != 0 {
		t.Error("a flow of the other direction was allowed")
	}
}

// Staged policies change nothing, and what they would change is counted.
func TestStagedPolicies(t *testing.T) {
	f := newFabric(t)
	in := twoEndpoints()
	staged := parsed(t, denyWeb)
	staged.Mode = configs.PolicyStaged
	in.Policies = []policy.Policy{staged}
	f.apply(t, in)
	if got := f.exchange(t, 0, build(t, shot{proto: packet.UDP, from: addr(0, 2), to: addr(1, 2), sport: 7000, dport: 80}))[1]; len(got) != 1 {
		t.Fatal("a staged policy denied something")
	}
	hits := f.sites[0].engine.Status().Policies
	if len(hits) != 1 || hits[0].Policy != "NetworkPolicy/n0/web" || hits[0].Mode != "staged" || hits[0].Staged != 1 || hits[0].Denied != 0 {
		t.Errorf("%+v", hits)
	}
}

// A denied flow is recorded at the site that denies it, with policy, rule and
// reason and the labels of both ends, and counted; a silent denial is silent.
func TestDeniedFlowsAreRecorded(t *testing.T) {
	f := newFabric(t)
	in := twoEndpoints()
	in.Policies = []policy.Policy{parsed(t, denyDB)}
	f.apply(t, in)
	s := shot{proto: packet.TCP, from: addr(0, 2), to: addr(1, 2), sport: 7100, dport: 22}
	if got := f.exchange(t, 0, build(t, s)); len(got[0])+len(got[1]) != 0 {
		t.Fatalf("%d packets came out", len(got[0])+len(got[1]))
	}
	found := flowsOf(f.sites[1], s)
	if len(found) != 1 {
		t.Fatalf("%d flows", len(found))
	}
	x := found[0]
	if x.Status != "blocked" || x.Policy != "NetworkPolicy/n0/db" || x.Decision == nil || x.Decision.Rule != -1 || x.Decision.Reason != "isolated-no-match" {
		t.Errorf("%+v %+v", x, x.Decision)
	}
	if x.Decision.FromLabels["app"] != "web" || x.Decision.ToLabels["app"] != "db" {
		t.Errorf("labels %v, %v", x.Decision.FromLabels, x.Decision.ToLabels)
	}
	if hits := f.sites[1].engine.Status().Policies; len(hits) != 1 || hits[0].Denied != 1 {
		t.Errorf("%+v", hits)
	}
	if found := flowsOf(f.sites[0], s); len(found) != 1 || found[0].Status != "active" {
		t.Errorf("at the source, which may not judge ingress: %+v", found)
	}
}

func flowsOf(s *site, of shot) (out []netstack.FlowStatus) {
	for _, x := range s.engine.Flows(10_000) {
		if x.Src == of.from && x.SrcPort == of.sport && x.Port == of.dport {
			out = append(out, x)
		}
	}
	return out
}

// A rejected packet is answered: RST for TCP, prohibited for the rest, whether
// the near or the far site denies it.
func TestRejectAnswers(t *testing.T) {
	f := newFabric(t)
	for name, text := range map[string]string{"near": denyWeb, "far": strings.Replace(denyDB, "port: 80", "port: 1", 1)} {
		in := twoEndpoints()
		p := parsed(t, text)
		p.Reject = true
		in.Policies = []policy.Policy{p}
		f.apply(t, in)
		for _, proto := range []uint8{packet.TCP, packet.UDP} {
			f.port++
			s := shot{proto: proto, from: addr(0, 2), to: addr(1, 2), sport: f.port, dport: 80}
			out := f.exchange(t, 0, build(t, s))
			if len(out[1]) != 0 {
				t.Errorf("%s: delivered", name)
			}
			answers := out[0]
			if len(answers) == 0 { // the far site's comes a moment later
				select {
				case p := <-f.sites[0].got:
					answers = append(answers, decode(t, p))
				case <-time.After(patience):
				}
			}
			switch {
			case len(answers) != 1:
				t.Errorf("%s: %d answers to %v", name, len(answers), s)
			case proto == packet.TCP && (answers[0].Key.Proto != packet.TCP || answers[0].Flags&packet.FlagRST == 0 || answers[0].Key.DstPort != s.sport):
				t.Errorf("%s: answered %+v", name, answers[0])
			case proto == packet.UDP && (answers[0].Key.Proto != packet.ICMP || answers[0].ICMPType != 3 || answers[0].ICMPCode != 13):
				t.Errorf("%s: answered %+v", name, answers[0])
			}
		}
	}
}
