package dashboard

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patronus/dashboard/auth"
)

// raw sends bytes as they are over TLS and reads the first answer.
func (r *rig) raw(text string) (*http.Response, error) {
	r.t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(r.base, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	// A server that has seen enough closes while the rest is still being
	// written; its answer, if there is one, can be read all the same.
	_, wrote := conn.Write([]byte(text))
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: text[:strings.IndexByte(text, ' ')]})
	if err != nil {
		return nil, errors.Join(wrote, err)
	}
	defer resp.Body.Close()
	return resp, nil
}

func TestS04PathTricks(t *testing.T) {
	r := newRig(t, 2, withPages)
	for _, p := range []string{
		"/api/v1/%75sers", "/api/v1/users%2f", "/api/v1/users%2Fadmin", "/api/v1/users/%2e%2e/users", "/api/v1/users/..%2fusers", "/api/v1/users%252fadmin",
		"//api/v1/users", "/api//v1/users", "/./api/v1/users", "/api/v1/./users", "/api/v1/../v1/users", "/api/v1/users/..", "/api/v1/users/.", "/API/V1/USERS", "/Api/v1/users", "/api/v1/users/",
		"/api/v1/users;x=1", "/api/v1/users%00", "/api/v1/users%c0%af", "/api\\v1\\users", "/api/v1/users\\", "/%2e/api/v1/users", "/index.html/../api/v1/users", "/app.js/..;/api/v1/users",
	} {
		for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS", "TRACE", "PATCH"} {
			resp, err := r.raw(method + " " + p + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
			if err != nil {
				continue // the connection was closed: no answer is no decision
			}
			if s := resp.StatusCode; s != 400 && s != 401 && s != 404 && s != 405 && s != 501 {
				t.Errorf("%s %s: %d", method, p, s)
			}
		}
	}
	// A method cannot be replaced by a header, and HEAD is asked for as GET is.
	if got := r.do("GET", "/api/v1/sites", "viewer", nil, "X-HTTP-Method-Override", "DELETE"); got.status != 200 {
		t.Errorf("with an override: %d", got.status)
	}
	r.want(401, "HEAD", "/api/v1/sites", "", nil)
	r.want(200, "HEAD", "/api/v1/sites", "viewer", nil)
	for _, method := range []string{"TRACE", "OPTIONS", "PATCH"} {
		if got := r.do(method, "/api/v1/sites", "viewer", nil); got.status != 405 && got.status != 400 {
			t.Errorf("%s: %d", method, got.status)
		}
	}
	// Files are those of the interface, and nothing of a disk.
	r.want(200, "GET", "/topology", "", nil)
	for _, p := range []string{"/etc/passwd.txt", "/../../etc/passwd", "/.git/config", "/rig_test.go"} {
		if got := r.do("GET", p, "", nil); got.status == 200 && bytes.Contains(got.body, []byte("root:")) || strings.HasSuffix(p, ".go") && got.status != 404 {
			t.Errorf("GET %s: %d %s", p, got.status, got.body)
		}
	}
}

func TestS04Framing(t *testing.T) {
	r := newRig(t, 2)
	for name, text := range map[string]string{
		"length and chunks":  "POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":        "POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
		"no host":            "GET /healthz HTTP/1.1\r\n\r\n",
		"header of 64 KiB":   "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("a", 64<<10) + "\r\n\r\n",
		"body over the most": "POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n",
	} {
		resp, err := r.raw(text)
		if err != nil {
			continue // closed without an answer
		}
		if resp.StatusCode < 400 {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
	}
}

func TestS06HostOriginAndForwarded(t *testing.T) {
	r := newRig(t, 2, func(o *Options) { o.Hosts = []string{"sdwan.example"}; o.RequestsPerMinute = 5 })
	for host, want := range map[string]int{
		"sdwan.example": 200, "sdwan.example:8443": 200, "SDWAN.example": 200, "localhost:1": 200, "10.1.0.1": 200, "[fd01::1]:8443": 200,
		"evil.example": 421, "sdwan.example.evil.example": 421, "localhost.evil.example": 421, "": 421,
	} {
		if host == "" {
			continue // no host at all is a matter of framing
		}
		if got := r.do("GET", "/healthz", "", nil, "Host", host); got.status != want {
			t.Errorf("Host %s: %d, want %d", host, got.status, want)
		}
	}
	// Who a proxy claims to speak for changes nothing.
	for i := range 5 {
		r.want(200, "GET", "/api/v1/setup", "", nil, "X-Forwarded-For", fmt.Sprintf("1.2.3.%d", i))
	}
	r.want(429, "GET", "/api/v1/setup", "", nil, "X-Forwarded-For", "9.9.9.9", "X-Real-Ip", "9.9.9.9", "Forwarded", "for=9.9.9.9")

	// A proxy that is trusted is believed.
	p := newRig(t, 2, func(o *Options) {
		o.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		o.ForwardedHeader = "X-Forwarded-For"
	})
	p.want(401, "POST", "/api/v1/auth/login", "", `{"username":"viewer","password":"wrong"}`, "X-Forwarded-For", "203.0.113.7")
	list := decodeAnswer[Page[AuditEntry]](t, p.want(200, "GET", "/api/v1/audit?action=login&newest=true&limit=1", "admin", nil))
	if len(list.Items) != 1 || list.Items[0].IP != "203.0.113.7" || list.Items[0].Outcome != "refused" {
		t.Errorf("behind a trusted proxy: %+v", list.Items)
	}
}

// cookie signs in as a browser does.
func (r *rig) cookie(user string) (cookie, header string) {
	r.t.Helper()
	got := r.want(200, "POST", "/api/v1/auth/login", "", fmt.Sprintf(`{"username":%q,"password":%q,"session":true}`, user, adminPassword))
	header = got.header.Get("Set-Cookie")
	cookie, _, _ = strings.Cut(header, ";")
	if bytes.Contains(got.body, []byte(`"token"`)) {
		r.t.Errorf("a browser's login shows a token to scripts: %s", got.body)
	}
	return cookie, header
}

func TestS14CrossSiteRequests(t *testing.T) {
	r := newRig(t, 2)
	cookie, header := r.cookie("admin")
	for _, want := range []string{"__Host-patronus=", "; path=/", "; HttpOnly", "; secure", "; SameSite=Strict"} {
		if !strings.Contains(strings.ToLower(header), strings.ToLower(want)) {
			t.Errorf("the cookie lacks %q: %s", want, header)
		}
	}
	if strings.Contains(strings.ToLower(header), "domain=") {
		t.Errorf("the cookie has a domain: %s", header)
	}
	own := r.base
	write := func(headers ...string) int {
		return r.do("PUT", "/api/v1/preferences", "", `{"layout":{}}`, append([]string{"Cookie", cookie}, headers...)...).status
	}
	for _, c := range []struct {
		name    string
		headers []string
		want    int
	}{
		{"own page", []string{"Origin", own, "Sec-Fetch-Site", "same-origin"}, 200},
		{"own page, older browser", []string{"Origin", own}, 200},
		{"no sign of a browser", nil, 403},
		{"foreign page", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
		{"foreign page, older browser", []string{"Origin", "https://evil.example"}, 403},
		{"sandboxed frame", []string{"Origin", "null"}, 403},
		{"sibling host", []string{"Origin", own, "Sec-Fetch-Site", "same-site"}, 403},
		{"plain http", []string{"Origin", strings.Replace(own, "https", "http", 1)}, 403},
		{"other port", []string{"Origin", own + "1"}, 403},
		{"forged by form", []string{"Origin", "https://evil.example", "Content-Type", "text/plain"}, 403},
	} {
		if got := write(c.headers...); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	// A bearer token is not sent by itself, and a cookie beside it is ignored.
	r.want(200, "PUT", "/api/v1/preferences", "viewer", `{"layout":{}}`, "Origin", "https://evil.example")
	me := decodeAnswer[Me](t, r.want(200, "GET", "/api/v1/auth/me", "viewer", nil, "Cookie", cookie))
	if me.Name != "viewer" {
		t.Errorf("with both, it is %s who asks", me.Name)
	}
	// Nobody is signed in by a foreign page either.
	r.want(403, "POST", "/api/v1/auth/login", "", `{"username":"viewer","password":"x"}`, "Origin", "https://evil.example")
	// No answer invites other origins.
	got := r.do("GET", "/api/v1/sites", "viewer", nil, "Origin", "https://evil.example")
	for name := range got.header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("an answer has %s", name)
		}
	}
	// After signing out the cookie is worth nothing.
	r.want(204, "POST", "/api/v1/auth/logout", "", nil, "Cookie", cookie, "Origin", own)
	r.want(401, "GET", "/api/v1/auth/me", "", nil, "Cookie", cookie)
}

func TestS17RateLimit(t *testing.T) {
	r := newRig(t, 2, func(o *Options) { o.RequestsPerMinute = 0 })
	for i := range 100 {
		got := r.want(200, "GET", "/api/v1/auth/me", "viewer", nil)
		if got.header.Get("RateLimit-Limit") != "100" || got.header.Get("RateLimit-Remaining") != fmt.Sprint(99-i) {
			t.Fatalf("request %d: %v", i+1, got.header)
		}
	}
	got := r.want(429, "GET", "/api/v1/auth/me", "viewer", nil, "X-Forwarded-For", "9.9.9.9")
	if got.header.Get("Retry-After") != "60" || got.header.Get("RateLimit-Remaining") != "0" {
		t.Errorf("the refusal says %v", got.header)
	}
	r.want(200, "GET", "/api/v1/auth/me", "operator", nil) // a budget of its own
	r.want(200, "GET", "/healthz", "viewer", nil)          // not counted
	r.clock.add(30 * time.Second)
	r.want(429, "GET", "/api/v1/auth/me", "viewer", nil)
	r.clock.add(30 * time.Second)
	r.want(200, "GET", "/api/v1/auth/me", "viewer", nil)
}

func TestS17LimiterSlidesAndIsBounded(t *testing.T) {
	l := newLimiter(3, time.Minute)
	now := time.Unix(1000, 0)
	for _, s := range []struct {
		at int
		ok bool
	}{{0, true}, {10, true}, {20, true}, {30, false}, {59, false}, {60, true}, {61, false}, {70, true}, {79, false}, {80, true}} {
		if _, _, ok := l.take("a", now.Add(time.Duration(s.at)*time.Second)); ok != s.ok {
			t.Errorf("after %d s: %v", s.at, ok)
		}
	}
	for i := range 3 * maxLimited {
		l.take(fmt.Sprint(i), now)
	}
	if n := len(l.byKey); n > maxLimited || l.used.Len() != n {
		t.Errorf("%d keys are remembered", n)
	}
}

func TestS20HostileBodies(t *testing.T) {
	r := newRig(t, 2)
	before := r.plane.Current().Revision.Number
	anchors := "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
	for _, c := range []struct {
		name, kind, body string
		status           int
	}{
		{"deep JSON", "application/json", strings.Repeat("[", 20_000), 400},
		{"deep object", "application/json", strings.Repeat(`{"spec":`, 20_000), 400},
		{"deep YAML", "application/yaml", strings.Repeat("[", 20_000), 422},
		{"aliases", "application/yaml", anchors, 422},
		{"twice", "application/json", `{"spec":"a","spec":"b"}`, 400},
		{"twice in YAML", "application/yaml", "spec: a\nspec: b\n", 422},
		{"unknown", "application/json", `{"spec":"a","colour":1}`, 400},
		{"wrong type", "application/json", `{"spec":1}`, 422},
		{"cut off", "application/json", `{"spec":"`, 400},
		{"two values", "application/json", `{} {}`, 400},
		{"empty", "application/json", ` `, 400},
		{"form", "application/x-www-form-urlencoded", "spec=a", 415},
		{"no type", "", `{"spec":"a"}`, 415},
		{"policy with an alias", "application/json", string(mustEncode(PolicyBody{Spec: "apiVersion: &a networking.k8s.io/v1\nkind: *a"})), 422},
	} {
		began := time.Now()
		got := r.do("POST", "/api/v1/policies", "admin", c.body, "Content-Type", c.kind)
		if got.status != c.status {
			t.Errorf("%s: %d %.200s, want %d", c.name, got.status, got.body, c.status)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s took %v", c.name, took)
		}
	}
	if n := r.plane.Current().Revision.Number; n != before {
		t.Errorf("bad input made revision %d", n)
	}
	p := r.want(422, "POST", "/api/v1/policies", "admin", "spec: a\nspec: b\n", "Content-Type", "application/yaml").problem(t)
	if len(p.Errors) != 1 || p.Errors[0].Line != 2 || !strings.Contains(p.Errors[0].Detail, "spec") {
		t.Errorf("a repeated key: %+v", p)
	}
}

func TestS21GraphQL(t *testing.T) {
	r := newRig(t, 4)
	ask := func(user, query string) answer {
		return r.do("POST", "/api/v1/graphql", user, map[string]any{"query": query})
	}
	published := `query DashboardOverview { sites { id name status paths { id destination { id name } metrics { latency_ms score } status } }
		flowStats(last: "1h") { totalFlows blockedFlows topTalkers { sourceIp bytes } } }`
	got := ask("viewer", published)
	var out struct {
		Data struct {
			Sites []struct {
				ID    string
				Paths []struct {
					Metrics struct {
						Latency float64 `json:"latency_ms"`
					}
				}
			}
			FlowStats struct{ TotalFlows float64 }
		}
	}
	if err := json.Unmarshal(got.body, &out); err != nil || got.status != 200 || len(out.Data.Sites) != 4 || out.Data.Sites[0].Paths[0].Metrics.Latency != 11 || out.Data.FlowStats.TotalFlows != 2 {
		t.Fatalf("the published query: %d %s %v", got.status, got.body, err)
	}
	deep := "{ sites { paths { destination { paths { destination { paths { destination { paths { destination { id } } } } } } } } } }"
	var aliases strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&aliases, "a%d: sites { id } ", i)
	}
	for name, query := range map[string]string{
		"too deep": deep, "a flood of aliases": "{" + aliases.String() + "}", "a long query": "{ sites { id } } #" + strings.Repeat("x", 20_000),
		"not a query": "{", "unknown field": "{ passwords }", "mutation": "mutation { deleteSite }",
	} {
		if got := ask("viewer", query); got.status != 400 || bytes.Contains(got.body, []byte(`"data":{`)) {
			t.Errorf("%s: %d %.300s", name, got.status, got.body)
		}
	}
	r.want(405, "GET", "/api/v1/graphql?query={sites{id}}", "viewer", nil)
	r.want(400, "POST", "/api/v1/graphql", "viewer", `[{"query":"{ sites { id } }"},{"query":"{ sites { id } }"}]`)
	r.want(401, "POST", "/api/v1/graphql", "", `{"query":"{ __schema { types { name } } }"}`)
	// Fields need the permissions of their routes.
	made := decodeAnswer[NewToken](t, r.want(201, "POST", "/api/v1/tokens", "viewer", `{"name":"paths","permissions":["view_paths"]}`))
	r.tokens["paths"] = made.Secret
	if got := ask("paths", "{ paths { id } }"); !bytes.Contains(got.body, []byte("branch0001.wan0")) {
		t.Errorf("paths with view_paths: %s", got.body)
	}
	for _, query := range []string{"{ sites { id } }", "{ paths { source { name } } }", `{ flowStats(last: "1h") { totalFlows } }`, "{ policies { id } }"} {
		if got := ask("paths", query); !bytes.Contains(got.body, []byte("this needs the permission")) {
			t.Errorf("%s without permission: %s", query, got.body)
		}
	}
}

func TestS22FormulasInCSV(t *testing.T) {
	r := newRig(t, 3)
	r.world.flows[1].Class = "=HYPERLINK(\"http://evil\")"
	r.world.flows[0].State, r.world.flows[0].Class = "x", "@SUM(1)"
	got := r.want(200, "GET", "/api/v1/flows?format=csv", "viewer", nil)
	if !bytes.HasPrefix(got.body, []byte("\xef\xbb\xbf")) || !strings.HasPrefix(got.header.Get("Content-Type"), "text/csv") {
		t.Errorf("%v %.20q", got.header, got.body)
	}
	rows, err := csv.NewReader(bytes.NewReader(got.body[3:])).ReadAll()
	if err != nil || len(rows) != 3 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, row := range rows {
		for _, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				t.Errorf("a cell begins a formula: %q", cell)
			}
		}
	}
	for cell, want := range map[string]string{"=1": "'=1", "+1": "'+1", "-1": "'-1", "@x": "'@x", "\t=1": "'\t=1", "\r=1": "'\r=1", "a=1": "a=1", "": ""} {
		if got := harmless(cell); got != want {
			t.Errorf("harmless(%q) = %q", cell, got)
		}
	}
}

func TestS24SecurityHeaders(t *testing.T) {
	r := newRig(t, 2)
	for _, target := range []string{"/healthz", "/api/v1/sites", "/nothing", "/api/v1/%41"} {
		got := r.do("GET", target, "", nil)
		for _, h := range securityHeaders() {
			if h[0] != "Cache-Control" && got.header.Get(h[0]) != h[1] {
				t.Errorf("GET %s: %s: %q", target, h[0], got.header.Get(h[0]))
			}
		}
		if got.header.Get("Server") != "" || got.header.Get("X-Powered-By") != "" {
			t.Errorf("GET %s tells what answers: %v", target, got.header)
		}
		if ct := got.header.Get("Content-Type"); strings.HasPrefix(ct, "text/html") {
			t.Errorf("GET %s is HTML", target)
		}
	}
	csp := securityHeaders()[0][1]
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") || !strings.HasPrefix(csp, "default-src 'none'") {
		t.Errorf("the policy allows too much: %s", csp)
	}
}

func TestS25CertificateReload(t *testing.T) {
	dir := t.TempDir()
	first, err := SelfSigned(dir, []string{"sdwan.example", "10.1.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	again, err := SelfSigned(dir, nil, time.Now())
	if err != nil || again.Fingerprint() != first.Fingerprint() || len(first.Fingerprint()) != 32*3-1 {
		t.Fatalf("a second start made another certificate: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "dashboard.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
	other := t.TempDir()
	next, err := SelfSigned(other, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	serve := func(c *Certificate) string {
		c.looked = time.Time{} // as if a second had passed
		got, err := c.current(nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(got.Certificate[0])
	}
	was := serve(first)
	later := time.Now().Add(time.Minute)
	put := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		later = later.Add(time.Minute)
		if err := os.Chtimes(filepath.Join(dir, name), later, later); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	// A certificate whose key is not there yet does not replace the old one.
	put("dashboard.crt", read("dashboard.crt"))
	if serve(first) != was || first.Problem() == nil {
		t.Error("half a change was taken")
	}
	put("dashboard.key", read("dashboard.key"))
	if serve(first) == was || first.Problem() != nil || first.Fingerprint() != next.Fingerprint() {
		t.Errorf("the new certificate is not served: %v", first.Problem())
	}
	if err := os.Remove(filepath.Join(dir, "dashboard.crt")); err != nil {
		t.Fatal(err)
	}
	if serve(first) == was || first.Problem() == nil {
		t.Error("a file that is gone took the certificate away")
	}
}

func TestS25TLSVersionsAndRedirect(t *testing.T) {
	r := newRig(t, 2)
	addr := strings.TrimPrefix(r.base, "https://")
	for version, ok := range map[uint16]bool{tls.VersionTLS13: true, tls.VersionTLS12: true, tls.VersionTLS11: false, tls.VersionTLS10: false} {
		conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, NextProtos: []string{"h2", "http/1.1"}})
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			if p := conn.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
				t.Errorf("protocol %q", p)
			}
			conn.Close()
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- r.server.Redirect(t.Context(), l, 8443) }()
	t.Cleanup(func() { l.Close(); <-done })
	get := func(method, target, host string) *http.Response {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+l.Addr().String()+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	if resp := get("GET", "/topology?secret=1", "localhost"); resp.StatusCode != 308 || resp.Header.Get("Location") != "https://localhost:8443/topology" {
		t.Errorf("redirect: %d %s", resp.StatusCode, resp.Header.Get("Location"))
	}
	if resp := get("GET", "/", "evil.example"); resp.StatusCode != 421 || resp.Header.Get("Location") != "" {
		t.Errorf("redirect of a foreign host: %d", resp.StatusCode)
	}
	if resp := get("POST", "/api/v1/auth/login", "localhost"); resp.StatusCode != 421 {
		t.Errorf("a password over plain HTTP: %d", resp.StatusCode)
	}
}

func TestS26Logs(t *testing.T) {
	r := newRig(t, 2)
	evil := "x\r\nlevel=ERROR msg=forged \x1b[31m"
	r.want(401, "POST", "/api/v1/auth/login", "", map[string]string{"username": evil, "password": "hunter2hunter2"})
	if _, err := r.raw("POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a\x1b[0m\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n" + `{"username":"a","password":"bc"}`); err != nil {
		t.Log(err) // refused before it was read
	}
	r.want(422, "GET", "/api/v1/sites?sort=%0d%0aforged%1b[31m", "viewer", nil)
	r.world.events = nil
	r.server.o.Events = nil
	text, err := json.Marshal(decodeAnswer[Page[AuditEntry]](t, r.want(200, "GET", "/api/v1/audit?action=login", "admin", nil)))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{"\r", "\x1b", "hunter2", `\u001b`, `\r`} {
		if strings.Contains(r.log.String(), b) || bytes.Contains(text, []byte(b)) {
			t.Errorf("%q got into a log: %s %s", b, r.log.String(), text)
		}
	}
	if got := fmt.Sprint(auth.Secret("x"), fmt.Sprintf("%v %#v %s", auth.Secret("x"), auth.Secret("x"), auth.Secret("x"))); strings.Contains(got, "x") {
		t.Errorf("a secret prints as %s", got)
	}
}

// Nothing that gives access lies in the store, in a log or in an answer but
// the one that creates it.
func TestS10SecretsAreNowhere(t *testing.T) {
	r := newRig(t, 2)
	made := decodeAnswer[NewToken](t, r.want(201, "POST", "/api/v1/tokens", "admin", `{"name":"ci"}`))
	login := decodeAnswer[Login](t, r.want(200, "POST", "/api/v1/auth/login", "", fmt.Sprintf(`{"username":"viewer","password":%q}`, adminPassword)))
	cookie, _ := r.cookie("viewer")
	_, secret, _ := strings.Cut(made.Secret, ".")
	_, refresh, _ := strings.Cut(login.RefreshToken, ".")
	_, session, _ := strings.Cut(cookie, ".")
	secrets := []string{secret, refresh, session, login.Token, adminPassword}
	var dump bytes.Buffer
	for _, target := range []string{"/api/v1/users", "/api/v1/tokens", "/api/v1/audit?limit=1000", "/api/v1/sites", "/metrics", "/api/v1/preferences", "/api/v1/openapi.json"} {
		dump.Write(r.want(200, "GET", target, "admin", nil).body)
	}
	dump.WriteString(r.log.String())
	if err := r.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(r.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(name)
		files++
		dump.Write(text)
		return err
	})
	if err != nil || files < 3 {
		t.Fatalf("%d files, %v", files, err)
	}
	for i, s := range secrets {
		if len(s) < 10 || bytes.Contains(dump.Bytes(), []byte(s)) {
			t.Errorf("secret %d was found", i)
		}
	}
	if bytes.Contains(dump.Bytes(), []byte("PRIVATE KEY")) {
		t.Error("a private key was found")
	}
}
