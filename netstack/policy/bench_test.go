package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	cluster "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"patronus/configs"
	"patronus/netstack/packet"
)

// bigWorld is namespaces x endpoints x policies, with the selectors, blocks
// and ports that real ones have.
func bigWorld(namespaces, endpoints, policies int) Input {
	rnd := rand.New(rand.NewPCG(1, 2))
	var in Input
	for i := range namespaces {
		in.Namespaces = append(in.Namespaces, configs.Namespace{
			Name: fmt.Sprintf("ns%d", i), Labels: map[string]string{"team": fmt.Sprintf("t%d", i%10), "env": []string{"prod", "test"}[i%2]},
		})
	}
	for i := range endpoints {
		e := configs.HostEndpoint{
			Namespace: fmt.Sprintf("ns%d", i%namespaces), Name: fmt.Sprintf("pod%d", i),
			Addresses: []netip.Prefix{netip.PrefixFrom(bigAddr(i), 32)},
			Labels: map[string]string{
				"app": fmt.Sprintf("app%d", rnd.IntN(20)), "tier": []string{"front", "back", "data"}[rnd.IntN(3)],
				"version": fmt.Sprintf("v%d", rnd.IntN(5)),
			},
			Ports: []configs.NamedPort{{Name: "http", Port: 8080}},
		}
		in.Endpoints = append(in.Endpoints, e)
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
			if rnd.IntN(4) == 0 {
				name := intstr.FromString("http")
				ports = append(ports, networking.NetworkPolicyPort{Protocol: &tcp, Port: &name})
			}
			peers := []networking.NetworkPolicyPeer{
				{PodSelector: pods()},
				{PodSelector: pods(), NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": fmt.Sprintf("t%d", rnd.IntN(10))}}},
			}
			if rnd.IntN(2) == 0 {
				peers = append(peers, networking.NetworkPolicyPeer{IPBlock: &networking.IPBlock{CIDR: fmt.Sprintf("172.%d.0.0/16", 16+rnd.IntN(16))}})
			}
			np.Spec.Ingress = append(np.Spec.Ingress, networking.NetworkPolicyIngressRule{From: peers, Ports: ports})
			np.Spec.Egress = append(np.Spec.Egress, networking.NetworkPolicyEgressRule{To: peers, Ports: ports})
		}
		in.Policies = append(in.Policies, Policy{Object: Object{Network: np}})
	}
	return in
}

func everyonePolicy() *cluster.ClusterNetworkPolicy {
	p := &cluster.ClusterNetworkPolicy{}
	p.Name = "no-ssh"
	p.Spec.Tier = cluster.AdminTier
	p.Spec.Subject.Namespaces = &metav1.LabelSelector{}
	p.Spec.Ingress = []cluster.ClusterNetworkPolicyIngressRule{{
		Action:    cluster.ClusterNetworkPolicyRuleActionDeny,
		From:      []cluster.ClusterNetworkPolicyIngressPeer{{Namespaces: &metav1.LabelSelector{}}},
		Protocols: []cluster.ClusterNetworkPolicyProtocol{{TCP: &cluster.ClusterNetworkPolicyProtocolTCP{DestinationPort: &cluster.Port{Number: 22}}}},
	}}
	return p
}

func bigAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func bigFlows(n, endpoints int) []packet.Key {
	rnd := rand.New(rand.NewPCG(3, 4))
	keys := make([]packet.Key, n)
	for i := range keys {
		dport := uint16(80 + rnd.IntN(4))
		if rnd.IntN(4) == 0 {
			dport = 8080
		}
		keys[i] = packet.NewKey(packet.TCP, netip.AddrPortFrom(bigAddr(rnd.IntN(endpoints)), 4000), netip.AddrPortFrom(bigAddr(rnd.IntN(endpoints)), dport))
	}
	return keys
}

func mustCompile(t testing.TB, in Input) *Ruleset {
	t.Helper()
	r, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func BenchmarkEvaluate(b *testing.B) {
	for _, w := range []struct{ namespaces, endpoints, policies int }{{100, 10000, 12}, {100, 10000, 1000}, {1, 10000, 1000}} {
		b.Run(fmt.Sprintf("%dns/%dep/%dpol", w.namespaces, w.endpoints, w.policies), func(b *testing.B) {
			r := mustCompile(b, bigWorld(w.namespaces, w.endpoints, w.policies))
			keys := bigFlows(4096, w.endpoints)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r.Evaluate(&keys[i&4095])
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	in := bigWorld(100, 10000, 1000)
	b.ReportAllocs()
	for b.Loop() {
		mustCompile(b, in)
	}
}

func BenchmarkChange(b *testing.B) {
	in := bigWorld(100, 10000, 1000)
	for name, step := range map[string]func(i int) Change{
		"policy": func(i int) Change {
			return Change{Input: Input{Policies: in.Policies[i%1000 : i%1000+1]}}
		},
		"label": func(i int) Change {
			e := in.Endpoints[i%10000]
			e.Labels = map[string]string{"app": fmt.Sprintf("app%d", i%20), "tier": "back", "version": fmt.Sprintf("x%d", i%3)}
			return Change{Input: Input{Endpoints: []configs.HostEndpoint{e}}}
		},
		"namespace": func(i int) Change {
			return Change{Input: Input{Namespaces: []configs.Namespace{{Name: "ns1", Labels: map[string]string{"team": fmt.Sprintf("t%d", i%10)}}}}}
		},
		"everyone": func(i int) Change {
			p := Policy{Object: Object{Cluster: everyonePolicy()}}
			return Change{Input: Input{Policies: []Policy{p}}}
		},
	} {
		b.Run(name, func(b *testing.B) {
			c := NewCompiler()
			if _, err := c.Apply(Change{Input: in}); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := c.Apply(step(i)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestEvaluateAllocatesNothing(t *testing.T) {
	r := mustCompile(t, bigWorld(10, 200, 50))
	keys := bigFlows(64, 200)
	i := 0
	if n := testing.AllocsPerRun(1000, func() { r.Evaluate(&keys[i&63]); i++ }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestChangeIsMuchCheaperThanCompile compares within one run, since times of a
// loaded machine say little.
func TestChangeIsMuchCheaperThanCompile(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a big world")
	}
	in := bigWorld(100, 10000, 1000)
	start := time.Now()
	c := NewCompiler()
	if _, err := c.Apply(Change{Input: in}); err != nil {
		t.Fatal(err)
	}
	full := time.Since(start)
	best := full
	for i := range 20 {
		start = time.Now()
		if _, err := c.Apply(Change{Input: Input{Policies: in.Policies[i : i+1]}}); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(start))
	}
	t.Logf("full compile %v, one policy %v (%.2f %%)", full, best, 100*float64(best)/float64(full))
	if best > full/20 {
		t.Errorf("full compile %v, one policy %v", full, best)
	}
}

// TestVerdictsWhileChanging reads verdicts while 100 changes a second are
// published, and checks that every ruleset seen is whole.
func TestVerdictsWhileChanging(t *testing.T) {
	in := bigWorld(20, 2000, 200)
	c := NewCompiler()
	first, err := c.Apply(Change{Input: in})
	if err != nil {
		t.Fatal(err)
	}
	var current atomic.Pointer[Ruleset]
	current.Store(first)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	keys := bigFlows(512, 2000)
	for range 2 {
		readers.Go(func() {
			last := uint32(0)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				r := current.Load()
				if r.Version() < last {
					t.Error("version went back")
					return
				}
				last = r.Version()
				d := r.Evaluate(&keys[i&511])
				if d.Allowed != (d.Egress && d.Ingress) || d.Policy != NoPolicy && r.PolicyID(d.Policy) == "" {
					t.Errorf("%+v", d)
					return
				}
			}
		})
	}
	for i := range 200 {
		ch := Change{Input: Input{Policies: in.Policies[i : i+1]}}
		if i%2 == 1 {
			ch = Change{RemovePolicies: []string{in.Policies[i-1].ID()}, Input: Input{Endpoints: in.Endpoints[i : i+1]}}
		}
		r, err := c.Apply(ch)
		if err != nil {
			t.Fatal(err)
		}
		current.Store(r)
	}
	close(stop)
	readers.Wait()
}
