package dashboard

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

func TestDocumentMatchesTableAndAnswers(t *testing.T) {
	r := newRig(t, 3)
	text := r.want(200, "GET", "/api/v1/openapi.json", "", nil).body
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatalf("the document is not OpenAPI: %v", err)
	}
	// Every route is described, and nothing else.
	described := 0
	for _, item := range doc.Paths.Map() {
		described += len(item.Operations())
	}
	if n := len(r.server.Routes()); described != n {
		t.Errorf("%d operations are described, the table has %d routes", described, n)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	policy := `{"spec":` + string(mustEncode(strings.Replace(webPolicy, "name: web", "name: doc", 1))) + `}`
	for _, q := range []struct{ method, target, body string }{
		{"GET", "/api/v1/sites", ""},
		{"GET", "/api/v1/sites/hq", ""},
		{"GET", "/api/v1/sites/none", ""},
		{"GET", "/api/v1/sites?limit=x", ""},
		{"GET", "/api/v1/paths", ""},
		{"GET", "/api/v1/paths/branch0001.wan0~hq.wan0", ""},
		{"GET", "/api/v1/paths/branch0001.wan0~hq.wan0/metrics?step=60s", ""},
		{"POST", "/api/v1/paths/branch0001.wan0~hq.wan0/test", "{}"},
		{"GET", "/api/v1/flows", ""},
		{"GET", "/api/v1/flows/tcp-10.0.1.1-40000-10.0.0.1-443", ""},
		{"GET", "/api/v1/policies", ""},
		{"GET", "/api/v1/policies/shop~web", ""},
		{"POST", "/api/v1/policies", policy},
		{"POST", "/api/v1/policies/shop~web/simulate", `{"remove":true}`},
		{"GET", "/api/v1/routing-policies", ""},
		{"GET", "/api/v1/routing-policies/voice", ""},
		{"GET", "/api/v1/endpoints", ""},
		{"GET", "/api/v1/endpoints/shop~web", ""},
		{"GET", "/api/v1/metrics/summary", ""},
		{"GET", "/api/v1/metrics/timeseries?metric=latency", ""},
		{"GET", "/api/v1/events", ""},
		{"GET", "/api/v1/events/e1", ""},
		{"POST", "/api/v1/events/e1/acknowledge", ""},
		{"GET", "/api/v1/audit", ""},
		{"GET", "/api/v1/audit/verify", ""},
		{"GET", "/api/v1/revisions", ""},
		{"GET", "/api/v1/revisions/1", ""},
		{"GET", "/api/v1/nodes", ""},
		{"GET", "/api/v1/users", ""},
		{"GET", "/api/v1/users/viewer", ""},
		{"POST", "/api/v1/users", `{"name":"doc","role":"viewer","password":"a long enough one"}`},
		{"GET", "/api/v1/roles", ""},
		{"POST", "/api/v1/roles", `{"name":"auditor","permissions":["view_audit"]}`},
		{"GET", "/api/v1/tokens", ""},
		{"POST", "/api/v1/tokens", `{"name":"ci"}`},
		{"GET", "/api/v1/auth/me", ""},
		{"GET", "/api/v1/setup", ""},
		{"POST", "/api/v1/auth/login", `{"username":"viewer","password":"` + adminPassword + `"}`},
		{"GET", "/api/v1/preferences", ""},
		{"PUT", "/api/v1/preferences", `{"layout":{"cards":[1,2]}}`},
		{"POST", "/api/v1/explain", `{"from":"10.0.1.1","to":"10.0.0.1"}`},
		{"POST", "/api/v1/graphql", `{"query":"{ sites { id } }"}`},
		{"GET", "/healthz", ""},
		{"GET", "/readyz", ""},
	} {
		var body any
		if q.body != "" {
			body = q.body
		}
		got := r.do(q.method, q.target, "admin", body)
		req, err := http.NewRequest(q.method, q.target, strings.NewReader(q.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		route, params, err := router.FindRoute(req)
		if err != nil {
			t.Errorf("%s %s: %v", q.method, q.target, err)
			continue
		}
		in := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route, Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
		err = openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: in, Status: got.status, Header: got.header, Body: io.NopCloser(bytes.NewReader(got.body)), Options: in.Options,
		})
		if err != nil {
			t.Errorf("%s %s answered %d %.300s: %v", q.method, q.target, got.status, got.body, err)
		}
		if got.status >= 500 {
			t.Errorf("%s %s: %d", q.method, q.target, got.status)
		}
	}
}
