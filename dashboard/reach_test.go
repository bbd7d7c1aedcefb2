package dashboard

import (
	"encoding/json"
	"testing"
)

// A dry run says what a change means, in ports and prefixes, and writes nothing.
func TestDryRunSaysWhatAChangeMeans(t *testing.T) {
	r := newRig(t, 3)
	text, err := json.Marshal(map[string]string{"spec": "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut, namespace: shop}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n"})
	if err != nil {
		t.Fatal(err)
	}
	a := decodeAnswer[Accepted](t, r.want(200, "POST", "/api/v1/policies?dry_run=true", "admin", string(text)))
	lost := 0
	for _, p := range a.Reach.Pairs {
		lost += len(p.Lost)
		if len(p.Gained) > 0 {
			t.Errorf("a policy that only denies gains %+v", p)
		}
	}
	if !a.DryRun || lost == 0 {
		t.Errorf("%+v", a.Reach)
	}
	a = decodeAnswer[Accepted](t, r.want(200, "DELETE", "/api/v1/policies/shop~web?dry_run=true", "admin", nil))
	gained := 0
	for _, p := range a.Reach.Pairs {
		gained += len(p.Gained)
	}
	if gained == 0 {
		t.Errorf("without the policy nothing is gained: %+v", a.Reach)
	}
	a = decodeAnswer[Accepted](t, r.want(200, "POST", "/api/v1/sites?dry_run=true", "admin", `{"name":"next","prefixes":["10.99.0.0/16"]}`))
	if len(a.Reach.Prefixes) != 1 || !a.Reach.Prefixes[0].Gained || a.Reach.Prefixes[0].Site != "next" {
		t.Errorf("%+v", a.Reach)
	}
	if r.server.o.Plane.Current().Revision.Number != 1 {
		t.Error("a dry run has written")
	}
}
