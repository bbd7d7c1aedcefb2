package dashboard

import (
	"strings"
	"testing"
)

// What is exported can be imported: as it is it changes nothing, edited it is one
// revision; what an appliance alone decides cannot be edited so.
func TestNetworkAsYAML(t *testing.T) {
	r := newRig(t, 3)
	got := r.want(200, "GET", "/api/v1/network", "viewer", nil)
	text := string(got.body)
	if !strings.Contains(text, "fabric: acme") || !strings.Contains(text, "spec: |") {
		t.Fatalf("%s", text)
	}
	put := func(want int, body, query string) answer {
		t.Helper()
		a := r.do("PUT", "/api/v1/network"+query, "admin", body, "Content-Type", "application/yaml", "If-Match", got.header.Get("ETag"))
		if a.status != want {
			t.Fatalf("%d, want %d: %s", a.status, want, a.body)
		}
		return a
	}
	if a := decodeAnswer[Accepted](t, put(200, text, "")); !a.Unchanged {
		t.Errorf("%+v", a)
	}
	edited := strings.Replace(text, "10.0.1.0/24", "10.50.1.0/24", 1)
	edited = strings.Replace(edited, "10.0.1.1/32", "10.50.1.1/32", 1)
	edited = strings.Replace(edited, "wan0.key", "/etc/shadow", 1)
	if a := decodeAnswer[Accepted](t, put(200, edited, "?dry_run=true")); len(a.Reach.Prefixes) != 2 {
		t.Errorf("%+v", a.Reach)
	}
	put(422, strings.Replace(text, "10.0.1.0/24", "10.0.2.0/24", 1), "")
	put(422, strings.Replace(text, "fabric: acme", "fabric: other", 1), "")
	put(202, edited, "")
	n := r.server.o.Plane.Current().Network
	if n.Site("branch0001").Prefixes[0].String() != "10.50.1.0/24" || n.Site("hq").Uplinks[0].PrivateKeyFile != "wan0.key" {
		t.Errorf("%+v", n.Sites)
	}
	put(412, edited, "")
	if a := r.do("PUT", "/api/v1/network", "operator", text, "Content-Type", "application/yaml"); a.status != 403 {
		t.Errorf("an operator: %d", a.status)
	}
}
