package policy

import (
	"testing"

	"pgregory.net/rapid"

	"patronus/configs"
)

// A flow between subjects is judged like the flow between the endpoints that
// they are of, and like one between profiles of their labels.
func TestSubjectsAgreeWithAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		c := NewCompiler()
		r, err := c.Apply(Change{Input: in})
		if err != nil {
			t.Fatal(err)
		}
		profiler := c.Profiler()
		profile := func(e configs.HostEndpoint, ok bool) Subject {
			if !ok {
				return Subject{}
			}
			p := Profile{Namespace: e.Namespace, Labels: e.Labels, Ports: e.Ports}
			for _, n := range in.Namespaces {
				if n.Name == e.Namespace {
					p.NamespaceLabels = n.Labels
				}
			}
			return profiler.Subject(p)
		}
		for range 20 {
			k := drawKey(t)
			egress, ingress := rapid.Bool().Draw(t, "egress"), rapid.Bool().Draw(t, "ingress")
			want := r.EvaluateSide(&k, egress, ingress)
			if got := r.EvaluateSubjects(r.SubjectOf(k.Src.Netip()), r.SubjectOf(k.Dst.Netip()), &k, egress, ingress); got != want {
				t.Fatalf("subjects: %+v, addresses %+v", got, want)
			}
			from, to := profile(r.Endpoint(k.Src.Netip())), profile(r.Endpoint(k.Dst.Netip()))
			if got := r.EvaluateSubjects(from, to, &k, egress, ingress); got != want {
				t.Fatalf("profiles: %+v, addresses %+v", got, want)
			}
		}
	})
}
