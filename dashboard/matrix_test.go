package dashboard

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"patronus/dashboard/auth"
)

var update = flag.Bool("update", false, "write testdata anew")

// target is a route's path with ids that fit and that nothing has.
func target(route string) string {
	return strings.NewReplacer(":flow_key", "tcp-10.9.9.9-1-10.8.8.8-2", ":number", "999", ":id", "nothing").Replace(route)
}

// The permission table is a file that people review; the routes and what the
// server really does must be equal to it.
func TestS03MatrixOfRoutesAndRoles(t *testing.T) {
	r := newRig(t, 2)
	var table bytes.Buffer
	roles := auth.BuiltInRoles()
	fmt.Fprintf(&table, "%-6s %-40s %-32s %s\n", "method", "path", "access", "nobody admin operator viewer")
	for i := range r.server.Routes() {
		route := &r.server.Routes()[i]
		row := []string{mark(route.Access.admits(&auth.Actor{}) == nil)}
		for _, role := range roles {
			a := auth.Actor{User: role.Name, Role: role.Name, Permissions: role.Permissions}
			row = append(row, mark(route.Access.admits(&a) == nil))
		}
		fmt.Fprintf(&table, "%-6s %-40s %-32s %s\n", route.Method, route.Path, route.Access, strings.Join(row, " "))
	}
	const name = "testdata/permissions.txt"
	if *update {
		if err := os.WriteFile(name, table.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, table.Bytes()) {
		t.Errorf("the permissions of the routes are not those of %s; review the change and run the test with -update", name)
	}
	// What the server does with each role is what the table says.
	for _, line := range strings.Split(strings.TrimSpace(string(want)), "\n")[1:] {
		cells := strings.Fields(line)
		method, path, marks := cells[0], cells[1], cells[len(cells)-4:]
		if path == "/api/v1/auth/logout" {
			continue // it would end the sessions of the others: TestS09 has it
		}
		for i, user := range []string{"", auth.Admin, auth.Operator, auth.Viewer} {
			got := r.do(method, target(path), user, nil)
			var p Problem
			if strings.HasPrefix(got.header.Get("Content-Type"), "application/problem+json") {
				p = got.problem(t)
			}
			refused := got.status == 401 && user == "" && p.Type == "urn:patronus:problem:credentials" || got.status == 403 && p.Type == "urn:patronus:problem:forbidden"
			if path == "/api/v1/auth/login" || path == "/api/v1/auth/refresh" || path == "/api/v1/setup" {
				refused = false // they refuse for want of credentials of their own
			}
			if refused != (marks[i] == "-") {
				t.Errorf("%s %s as %q: %d %s, the table says %s", method, path, user, got.status, p.Type, marks[i])
			}
			if got.status >= 500 && got.status != http.StatusNotImplemented {
				t.Errorf("%s %s as %q: %d %s", method, path, user, got.status, got.body)
			}
		}
		// A session that has ended is nobody's.
		if got := r.do(method, target(path), "", nil, "Authorization", "Bearer "+r.tokens["admin"]+"x"); marks[0] == "-" && got.status != 401 {
			t.Errorf("%s %s with a forged token: %d", method, path, got.status)
		}
	}
}

func mark(may bool) string {
	if may {
		return "yes"
	}
	return "-"
}

func TestS03MassAssignment(t *testing.T) {
	r := newRig(t, 2)
	for _, q := range []struct{ method, target, user, body, field string }{
		{"PUT", "/api/v1/preferences", "viewer", `{"layout":{},"role":"admin"}`, "role"},
		{"POST", "/api/v1/tokens", "viewer", `{"name":"x","user":"admin"}`, "user"},
		{"PUT", "/api/v1/auth/password", "viewer", `{"old_password":"a","new_password":"b","role":"admin"}`, "role"},
		{"POST", "/api/v1/users", "admin", `{"name":"x","role":"viewer","password":"a long enough one","created_at":"2020-01-01T00:00:00Z"}`, "created_at"},
		{"PUT", "/api/v1/users/viewer", "admin", `{"role":"viewer","hash":"$argon2id$"}`, "hash"},
		{"POST", "/api/v1/sites", "admin", `{"name":"x","managed":true}`, "managed"},
		{"POST", "/api/v1/sites", "admin", `{"name":"x","uplinks":[{"name":"a","private_key_file":"/etc/shadow"}]}`, "uplinks[0].private_key_file"},
		{"POST", "/api/v1/users", "admin", `{"name":"x","Role":"admin","password":"a long enough one"}`, "Role"},
	} {
		p := r.want(400, q.method, q.target, q.user, q.body).problem(t)
		if len(p.Errors) != 1 || p.Errors[0].Field != q.field {
			t.Errorf("%s %s %s: %+v", q.method, q.target, q.body, p)
		}
	}
}

func TestS03ObjectsOfOthers(t *testing.T) {
	r := newRig(t, 4)
	// A token belongs to who made it.
	made := decodeAnswer[NewToken](t, r.want(201, "POST", "/api/v1/tokens", "operator", `{"name":"ci"}`))
	r.want(404, "DELETE", "/api/v1/tokens/"+made.ID, "viewer", nil)
	r.want(403, "GET", "/api/v1/tokens?all=true", "viewer", nil)
	if list := decodeAnswer[Page[auth.Token]](t, r.want(200, "GET", "/api/v1/tokens", "viewer", nil)); len(list.Items) != 0 {
		t.Errorf("a viewer sees %v", list.Items)
	}
	// It does no more than its user, and no more than it was made for.
	r.tokens["wide"] = made.Secret
	r.want(200, "GET", "/api/v1/sites", "wide", nil)
	r.want(403, "DELETE", "/api/v1/sites/hq", "wide", nil)
	r.want(403, "POST", "/api/v1/tokens", "viewer", `{"name":"more","permissions":["manage_users"]}`)
	narrow := decodeAnswer[NewToken](t, r.want(201, "POST", "/api/v1/tokens", "operator", `{"name":"narrow","permissions":["view_paths"]}`))
	r.tokens["narrow"] = narrow.Secret
	r.want(200, "GET", "/api/v1/paths", "narrow", nil)
	r.want(403, "GET", "/api/v1/sites", "narrow", nil)
	r.want(204, "DELETE", "/api/v1/tokens/"+narrow.ID, "operator", nil)
	r.want(401, "GET", "/api/v1/paths", "narrow", nil)

	// Whoever is limited to some sites sees no others, and changes nothing that
	// concerns all. hq and branch0002 are in eu.
	for _, s := range decodeAnswer[Page[Site]](t, r.want(200, "GET", "/api/v1/sites", "scoped", nil)).Items {
		if s.Labels["region"] != "eu" {
			t.Errorf("the scoped user sees %s", s.ID)
		}
	}
	r.want(404, "GET", "/api/v1/sites/branch0001", "scoped", nil)
	r.want(404, "PUT", "/api/v1/sites/branch0001", "scoped", `{"labels":{"region":"eu"}}`)
	r.want(404, "DELETE", "/api/v1/sites/branch0001", "scoped", nil)
	r.want(422, "PUT", "/api/v1/sites/branch0002", "scoped", `{"labels":{"region":"us"}}`)
	r.want(422, "POST", "/api/v1/sites", "scoped", `{"name":"new"}`)
	r.want(404, "GET", "/api/v1/flows/tcp-10.0.1.1-40000-10.0.0.1-443", "scoped", nil)
	r.want(404, "DELETE", "/api/v1/flows/tcp-10.0.1.1-40000-10.0.0.1-443", "scoped", nil)
	r.want(404, "GET", "/api/v1/events/e1", "scoped", nil)
	r.want(404, "POST", "/api/v1/events/e1/acknowledge", "scoped", nil)
	r.want(403, "POST", "/api/v1/paths/branch0001.wan0~hq.wan0/test", "scoped", nil) // hq is its end, but it is measured from elsewhere
	r.want(404, "POST", "/api/v1/explain?site=branch0001", "scoped", `{"from":"10.0.1.1","to":"10.0.0.1"}`)
	r.want(404, "POST", "/api/v1/captures", "scoped", `{"site":"branch0001"}`)
	r.want(404, "GET", "/api/v1/metrics/timeseries?metric=latency&site=branch0001", "scoped", nil)
	r.want(404, "GET", "/api/v1/endpoints/shop~client", "scoped", nil)
	r.want(404, "DELETE", "/api/v1/endpoints/shop~client", "scoped", nil)
	for _, q := range [][2]string{{"POST", "/api/v1/policies"}, {"GET", "/api/v1/audit"}, {"GET", "/api/v1/users"}, {"POST", "/api/v1/nodes/hq/promote"}, {"GET", "/metrics"}, {"GET", "/api/v1/revisions"}} {
		r.want(403, q[0], q[1], "scoped", nil)
	}
	if list := decodeAnswer[Page[Event]](t, r.want(200, "GET", "/api/v1/events", "scoped", nil)); len(list.Items) != 1 || list.Items[0].ID != "e2" {
		t.Errorf("the scoped user sees events %v", list.Items)
	}
	answer := string(r.want(200, "POST", "/api/v1/graphql", "scoped", `{"query":"{ sites { id } paths { id source { id } } }"}`).body)
	if strings.Contains(answer, `{"id":"branch0001"}`) || strings.Contains(answer, "branch0003\"}") {
		t.Errorf("graphql shows the scoped user %s", answer)
	}
}

func TestRouteWithoutPermissionDoesNotStart(t *testing.T) {
	rows := table()
	if err := checkTable(rows); err != nil {
		t.Fatal(err)
	}
	hole := append(rows, Route{Method: "GET", Path: "/api/v1/back-door", Name: "backDoor", Doc: "x", Status: 200, handle: (*Server).me})
	if err := checkTable(hole); err == nil || !strings.Contains(err.Error(), "no permission") {
		t.Errorf("a route without a permission: %v", err)
	}
	if err := checkTable(append(rows, rows[0])); err == nil {
		t.Error("a route given twice is accepted")
	}
}
