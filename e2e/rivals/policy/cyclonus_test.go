package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"patronus/configs"
	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

// world has no NotIn and no empty label values, which Cyclonus v0.5.6 judges
// otherwise than the API server does.
type world struct {
	input    policy.Input
	policies []*networking.NetworkPolicy
	labels   map[string]map[string]string // of namespaces
}

func newWorld(namespaces, endpoints, policies int) world {
	rnd := rand.New(rand.NewPCG(1, 2))
	w := world{labels: map[string]map[string]string{}}
	for i := range namespaces {
		name := fmt.Sprintf("ns%d", i)
		w.labels[name] = map[string]string{"team": fmt.Sprintf("t%d", i%10), "kubernetes.io/metadata.name": name}
		w.input.Namespaces = append(w.input.Namespaces, configs.Namespace{Name: name, Labels: w.labels[name]})
	}
	for i := range endpoints {
		w.input.Endpoints = append(w.input.Endpoints, configs.HostEndpoint{
			Namespace: fmt.Sprintf("ns%d", i%namespaces), Name: fmt.Sprintf("pod%d", i),
			Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)},
			Labels: map[string]string{
				"app": fmt.Sprintf("app%d", rnd.IntN(20)), "tier": []string{"front", "back", "data"}[rnd.IntN(3)],
				"version": fmt.Sprintf("v%d", rnd.IntN(5)),
			},
		})
	}
	pods := func() *metav1.LabelSelector {
		s := &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("app%d", rnd.IntN(20))}}
		if rnd.IntN(4) == 0 {
			s.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "In", Values: []string{"front", "back"}}}
		}
		return s
	}
	tcp := core.ProtocolTCP
	for i := range policies {
		np := &networking.NetworkPolicy{}
		np.Name, np.Namespace = fmt.Sprintf("np%d", i), fmt.Sprintf("ns%d", i%namespaces)
		np.Spec.PodSelector = *pods()
		np.Spec.PolicyTypes = []networking.PolicyType{"Ingress", "Egress"}
		for range 2 {
			port := intstr.FromInt32(int32(80 + rnd.IntN(4)))
			ports := []networking.NetworkPolicyPort{{Protocol: &tcp, Port: &port}}
			peers := []networking.NetworkPolicyPeer{
				{PodSelector: pods()},
				{PodSelector: pods(), NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": fmt.Sprintf("t%d", rnd.IntN(10))}}},
			}
			if rnd.IntN(2) == 0 {
				peers = append(peers, networking.NetworkPolicyPeer{IPBlock: &networking.IPBlock{
					CIDR: fmt.Sprintf("10.0.%d.0/22", 4*rnd.IntN(10)), Except: []string{fmt.Sprintf("10.0.%d.0/28", 4*rnd.IntN(10))},
				}})
				b := peers[len(peers)-1].IPBlock
				if outer := netip.MustParsePrefix(b.CIDR); !outer.Contains(netip.MustParsePrefix(b.Except[0]).Addr()) {
					b.Except = nil
				}
			}
			np.Spec.Ingress = append(np.Spec.Ingress, networking.NetworkPolicyIngressRule{From: peers, Ports: ports})
			np.Spec.Egress = append(np.Spec.Egress, networking.NetworkPolicyEgressRule{To: peers, Ports: ports})
		}
		w.policies = append(w.policies, np)
		w.input.Policies = append(w.input.Policies, policy.Policy{Object: policy.Object{Network: np}})
	}
	return w
}

// flow is the same question for both.
type flow struct {
	key     packet.Key
	traffic *matcher.Traffic
}

func (w *world) flows(n int) []flow {
	rnd := rand.New(rand.NewPCG(3, 4))
	out := make([]flow, n)
	peer := func(e *configs.HostEndpoint) *matcher.TrafficPeer {
		return &matcher.TrafficPeer{
			IP:       e.Addresses[0].Addr().String(),
			Internal: &matcher.InternalPeer{PodLabels: e.Labels, Namespace: e.Namespace, NamespaceLabels: w.labels[e.Namespace]},
		}
	}
	for i := range out {
		src, dst := &w.input.Endpoints[rnd.IntN(len(w.input.Endpoints))], &w.input.Endpoints[rnd.IntN(len(w.input.Endpoints))]
		port := 80 + rnd.IntN(5)
		out[i].key = packet.NewKey(packet.TCP, netip.AddrPortFrom(src.Addresses[0].Addr(), 4000), netip.AddrPortFrom(dst.Addresses[0].Addr(), uint16(port)))
		out[i].traffic = &matcher.Traffic{Source: peer(src), Destination: peer(dst), ResolvedPort: port, Protocol: core.ProtocolTCP}
	}
	return out
}

// TestAgainstCyclonus compares each side of each verdict, and then the time
// that the same flows take in the same run.
func TestAgainstCyclonus(t *testing.T) {
	for _, size := range []struct {
		name                            string
		namespaces, endpoints, policies int
		times                           float64 // at least as fast; 0: only shown
	}{{"100 namespaces", 100, 10000, 1000, 50}, {"one namespace", 1, 10000, 1000, 0}} {
		t.Run(size.name, func(t *testing.T) {
			w := newWorld(size.namespaces, size.endpoints, size.policies)
			rules, err := policy.Compile(w.input)
			if err != nil {
				t.Fatal(err)
			}
			rival := matcher.BuildNetworkPolicies(false, w.policies)
			flows := w.flows(2000)
			allowed := 0
			for i := range flows {
				f := &flows[i]
				d, r := rules.Evaluate(&f.key), rival.IsTrafficAllowed(f.traffic)
				if d.Egress != r.Egress.IsAllowed() || d.Ingress != r.Ingress.IsAllowed() {
					t.Fatalf("%+v: %+v, rival egress %v ingress %v", f.key, d, r.Egress.IsAllowed(), r.Ingress.IsAllowed())
				}
				if d.Allowed {
					allowed++
				}
			}
			ours, theirs := time.Hour, time.Hour
			for range 5 {
				start := time.Now()
				for range 20 {
					for i := range flows {
						rules.Evaluate(&flows[i].key)
					}
				}
				ours = min(ours, time.Since(start)/20)
				start = time.Now()
				for i := range flows {
					rival.IsTrafficAllowed(flows[i].traffic)
				}
				theirs = min(theirs, time.Since(start))
			}
			ratio := float64(theirs) / float64(ours)
			t.Logf("%d of %d flows allowed; %v a verdict, Cyclonus %v: %.0f times", allowed, len(flows), ours/2000, theirs/2000, ratio)
			if ratio < size.times {
				t.Errorf("%.0f times as fast as Cyclonus, at least %.0f are asked for", ratio, size.times)
			}
		})
	}
}
