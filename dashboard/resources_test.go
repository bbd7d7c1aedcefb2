package dashboard

import (
	"strings"
	"testing"
)

func TestResources(t *testing.T) {
	r := newRig(t, 4)
	a := r.want(200, "GET", "/api/v1/sites", "viewer", nil)
	sites := decodeAnswer[Page[Site]](t, a)
	if len(sites.Items) != 4 || sites.Items[3].ID != "hq" || sites.Items[3].Status != "up" || !sites.Items[3].Managed {
		t.Fatalf("sites: %s", a.body)
	}
	if b := r.do("GET", "/api/v1/sites", "viewer", nil, "If-None-Match", a.header.Get("ETag")); b.status != 304 {
		t.Errorf("an unchanged list answers %d", b.status)
	}
	filtered := decodeAnswer[Page[Site]](t, r.want(200, "GET", "/api/v1/sites?label.region=us&sort=-active_flows&limit=1", "viewer", nil))
	if len(filtered.Items) != 1 || filtered.Items[0].ID != "branch0003" || *filtered.Total != 2 || filtered.Next == "" {
		t.Errorf("filtered: %+v", filtered)
	}
	next := decodeAnswer[Page[Site]](t, r.want(200, "GET", "/api/v1/sites?label.region=us&sort=-active_flows&limit=1&cursor="+filtered.Next, "viewer", nil))
	if len(next.Items) != 1 || next.Items[0].ID != "branch0001" || next.Next != "" {
		t.Errorf("next page: %+v", next)
	}
	for target, field := range map[string]string{
		"/api/v1/sites?colour=red": "colour", "/api/v1/sites?sort=shape": "sort", "/api/v1/sites?limit=0": "limit", "/api/v1/sites?cursor=!": "cursor", "/api/v1/sites?at=yesterday": "at",
		"/api/v1/flows?port=99999": "port", "/api/v1/flows?src=x": "src", "/api/v1/metrics/timeseries?metric=mood": "metric", "/api/v1/events?severity=dire": "severity",
	} {
		p := r.want(422, "GET", target, "viewer", nil).problem(t)
		if len(p.Errors) != 1 || p.Errors[0].Field != field || p.RequestID == "" {
			t.Errorf("%s: %+v", target, p)
		}
	}
	for _, target := range []string{
		"/api/v1/sites/hq", "/api/v1/paths", "/api/v1/paths/branch0001.wan0~hq.wan0", "/api/v1/paths/branch0001.wan0~hq.wan0/metrics?duration=10m",
		"/api/v1/flows", "/api/v1/flows/tcp-10.0.1.1-40000-10.0.0.1-443", "/api/v1/policies", "/api/v1/policies/shop~web", "/api/v1/routing-policies", "/api/v1/routing-policies/voice",
		"/api/v1/metrics/summary", "/api/v1/metrics/timeseries?metric=latency&site=hq&duration=1h", "/api/v1/endpoints", "/api/v1/endpoints/shop~web",
		"/api/v1/events", "/api/v1/events/e1", "/api/v1/nodes", "/api/v1/revisions", "/api/v1/revisions/1", "/api/v1/preferences", "/api/v1/auth/me", "/api/v1/roles", "/api/v1/tokens", "/metrics", "/healthz", "/readyz",
	} {
		if a := r.do("GET", target, "viewer", nil); a.status != 200 {
			t.Errorf("GET %s: %d %s", target, a.status, a.body)
		}
	}
	summary := decodeAnswer[Summary](t, r.want(200, "GET", "/api/v1/metrics/summary", "viewer", nil))
	if summary.TotalSites != 4 || summary.ActivePaths != 3 || summary.AvgLatency != 12 || *summary.BlocksLastHour != 47 {
		t.Errorf("summary: %+v", summary)
	}
	policy := decodeAnswer[Policy](t, r.want(200, "GET", "/api/v1/policies/shop~web", "viewer", nil))
	if policy.AppliesTo != 1 || *policy.BlocksLastHour != 47 || policy.Kind != "NetworkPolicy" || !policy.Enabled {
		t.Errorf("policy: %+v", policy)
	}
}

func TestPolicyLife(t *testing.T) {
	r := newRig(t, 3)
	spec := strings.Replace(webPolicy, "name: web", "name: api", 1)
	created := r.want(202, "POST", "/api/v1/policies", "operator", PolicyBody{Spec: spec})
	if got := decodeAnswer[Accepted](t, created); got.Revision != 2 || got.ID != "shop~api" || created.header.Get("Location") != "/api/v1/policies/shop~api" {
		t.Fatalf("created: %s %v", created.body, created.header)
	}
	r.want(409, "POST", "/api/v1/policies", "operator", PolicyBody{Spec: spec})
	shown := r.want(200, "GET", "/api/v1/policies/shop~api", "viewer", nil)
	tag := shown.header.Get("ETag")
	r.want(412, "PUT", "/api/v1/policies/shop~api", "operator", PolicyBody{Spec: spec, Mode: "staged"}, "If-Match", `"old"`)
	dry := decodeAnswer[Accepted](t, r.want(200, "PUT", "/api/v1/policies/shop~api?dry_run=true", "operator", PolicyBody{Spec: spec, Mode: "staged"}))
	if !dry.DryRun || r.plane.Current().Revision.Number != 2 {
		t.Errorf("dry run: %+v, revision %d", dry, r.plane.Current().Revision.Number)
	}
	r.want(202, "PUT", "/api/v1/policies/shop~api", "operator", PolicyBody{Spec: spec, Mode: "staged"}, "If-Match", tag)
	if got := decodeAnswer[Accepted](t, r.want(200, "PUT", "/api/v1/policies/shop~api", "operator", PolicyBody{Spec: spec, Mode: "staged"})); !got.Unchanged {
		t.Errorf("unchanged: %+v", got)
	}
	off := false
	r.want(202, "PUT", "/api/v1/policies/shop~api", "operator", PolicyBody{Spec: spec, Enabled: &off})
	if p := decodeAnswer[Policy](t, r.want(200, "GET", "/api/v1/policies/shop~api", "viewer", nil)); p.Enabled || p.Mode != "disabled" {
		t.Errorf("disabled: %+v", p)
	}
	r.want(202, "POST", "/api/v1/policies", "operator", strings.Replace(webPolicy, "name: web", "name: raw", 1), "Content-Type", "application/yaml")
	r.want(403, "DELETE", "/api/v1/policies/shop~api", "operator", nil)
	r.want(202, "DELETE", "/api/v1/policies/shop~api", "admin", nil)
	r.want(404, "GET", "/api/v1/policies/shop~api", "viewer", nil)

	wrong := r.want(422, "POST", "/api/v1/policies", "operator", PolicyBody{Spec: strings.Replace(webPolicy, "port: 443", "port: 99999", 1)}).problem(t)
	if len(wrong.Errors) == 0 || !strings.Contains(wrong.Errors[0].Field, "ports[0].port") || wrong.Errors[0].Line == 0 {
		t.Errorf("a wrong port: %+v", wrong)
	}
	r.want(202, "DELETE", "/api/v1/policies/shop~raw", "admin", nil)
	sim := decodeAnswer[Simulation](t, r.want(200, "POST", "/api/v1/policies/shop~web/simulate", "viewer", `{"remove":true,"flows":[{"from":"shop/client","to":"shop/web","protocol":"TCP","port":80}]}`))
	if len(sim.Flows) != 1 || !sim.Flows[0].Changed || len(sim.Differences) == 0 {
		t.Errorf("simulation: %+v", sim)
	}
	// Every change is in the audit log with before and after, and the chain holds.
	page := decodeAnswer[Page[AuditEntry]](t, r.want(200, "GET", "/api/v1/audit?resource_type=policy", "admin", nil))
	var actions []string
	for _, e := range page.Items {
		actions = append(actions, e.Action)
	}
	if got := strings.Join(actions, " "); got != "create_policy update_policy update_policy create_policy delete_policy delete_policy" {
		t.Errorf("audit: %s", got)
	}
	if e := page.Items[1]; string(e.Changes.Before) == "null" || string(e.Changes.After) == "null" || e.User != "operator" || e.IP != "127.0.0.1" {
		t.Errorf("audit entry: %+v", e)
	}
	if v := decodeAnswer[AuditVerdict](t, r.want(200, "GET", "/api/v1/audit/verify", "admin", nil)); !v.Intact || v.Records == 0 {
		t.Errorf("audit chain: %+v", v)
	}
}

func TestSiteAndRoutingLife(t *testing.T) {
	r := newRig(t, 3)
	body := `{"name":"west","labels":{"region":"us"},"prefixes":["10.9.0.0/24"],"uplinks":[{"name":"wan0","public_key":"` + key(77).String() + `"}]}`
	r.want(202, "POST", "/api/v1/sites", "operator", body)
	a := r.want(200, "GET", "/api/v1/sites/west", "viewer", nil)
	if s := decodeAnswer[Site](t, a); s.Status != "unknown" || s.Managed || s.Labels["region"] != "us" {
		t.Errorf("new site: %+v", s)
	}
	r.want(202, "PUT", "/api/v1/sites/west", "operator", strings.Replace(body, "10.9.0.0/24", "10.9.0.0/16", 1), "If-Match", a.header.Get("ETag"))
	r.want(412, "DELETE", "/api/v1/sites/west", "admin", nil, "If-Match", a.header.Get("ETag"))
	p := r.want(422, "PUT", "/api/v1/sites/west", "operator", strings.Replace(body, "10.9.0.0/24", "10.0.0.0/24", 1)).problem(t)
	if len(p.Errors) == 0 || !strings.Contains(p.Errors[0].Field, "prefixes") {
		t.Errorf("overlapping prefixes: %+v", p)
	}
	r.want(202, "DELETE", "/api/v1/sites/west", "admin", nil)
	r.want(404, "GET", "/api/v1/sites/west", "viewer", nil)

	r.want(202, "POST", "/api/v1/routing-policies", "operator", `{"name":"bulk","match":[{"protocol":"tcp","ports":["873"]}],"sla":{"loss":5},"position":0}`)
	list := decodeAnswer[Page[RoutingPolicy]](t, r.want(200, "GET", "/api/v1/routing-policies", "viewer", nil))
	if len(list.Items) != 3 || list.Items[0].ID != "bulk" {
		t.Errorf("routing policies: %+v", list.Items)
	}
	r.want(202, "PUT", "/api/v1/routing-policies/bulk", "operator", `{"match":[{"protocol":"tcp","ports":["873"]}],"sla":{"loss":5},"position":1}`)
	list = decodeAnswer[Page[RoutingPolicy]](t, r.want(200, "GET", "/api/v1/routing-policies", "viewer", nil))
	if list.Items[1].ID != "bulk" || list.Items[2].ID != "default" {
		t.Errorf("after moving: %+v", list.Items)
	}
	r.want(202, "DELETE", "/api/v1/routing-policies/bulk", "admin", nil)

	r.want(202, "POST", "/api/v1/endpoints", "operator", `{"namespace":"shop","name":"db","site":"hq","addresses":["10.0.0.9"],"labels":{"app":"db"}}`)
	r.want(422, "POST", "/api/v1/endpoints", "operator", `{"namespace":"shop","name":"db2","site":"hq","addresses":["10.77.0.9"]}`)
	r.want(202, "DELETE", "/api/v1/endpoints/shop~db", "admin", nil)

	r.want(204, "DELETE", "/api/v1/flows/tcp-10.0.1.1-40000-10.0.0.1-443", "admin", nil)
	r.want(200, "POST", "/api/v1/paths/branch0001.wan0~hq.wan0/test", "operator", `{"throughput":true}`)
	r.want(422, "POST", "/api/v1/paths/branch0001.wan0~hq.wan0/test", "operator", `{"seconds":100}`)
	r.want(200, "POST", "/api/v1/explain", "viewer", `{"from":"10.0.1.1","to":"10.0.0.1","port":443}`)
	r.want(200, "POST", "/api/v1/events/e1/acknowledge", "operator", nil)
	r.want(202, "POST", "/api/v1/nodes/hq/promote", "admin", nil)
	if a := r.want(200, "POST", "/api/v1/captures", "admin", `{"site":"hq"}`); len(a.body) != 4 {
		t.Errorf("capture: %x", a.body)
	}
	want := "reevaluate branch0001 tcp-10.0.1.1-40000-10.0.0.1-443, test branch0001.wan0~hq.wan0, explain branch0001"
	if got := strings.Join(r.world.asked, ", "); got != want {
		t.Errorf("sites were asked: %s", got)
	}
}

func TestIdempotencyKey(t *testing.T) {
	r := newRig(t, 2)
	spec := PolicyBody{Spec: strings.Replace(webPolicy, "name: web", "name: once", 1)}
	first := r.want(202, "POST", "/api/v1/policies", "admin", spec, "Idempotency-Key", "k1")
	again := r.want(202, "POST", "/api/v1/policies", "admin", spec, "Idempotency-Key", "k1")
	if string(first.body) != string(again.body) || again.header.Get("Idempotent-Replayed") != "true" || again.header.Get("Location") == "" {
		t.Errorf("the second answer differs: %s %v", again.body, again.header)
	}
	if n := r.plane.Current().Revision.Number; n != 2 {
		t.Errorf("revision %d after one creation", n)
	}
	r.want(422, "POST", "/api/v1/policies", "admin", PolicyBody{Spec: webPolicy}, "Idempotency-Key", "k1")
	r.want(409, "POST", "/api/v1/policies", "operator", spec, "Idempotency-Key", "k1") // another user's key
}

func TestMetricsNames(t *testing.T) {
	r := newRig(t, 2)
	r.want(200, "GET", "/api/v1/sites", "viewer", nil)
	text := string(r.want(200, "GET", "/metrics", "viewer", nil).body)
	for _, want := range []string{
		`dashboard_http_requests_total{method="GET",path="/api/v1/sites",status="200"}`, `dashboard_http_request_duration_seconds_bucket{method="GET",path="/api/v1/sites"`,
		"dashboard_db_connections_active", "dashboard_sites_total 2", "dashboard_paths_total 1", "dashboard_active_flows_total 1", "dashboard_policies_total 1",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}
