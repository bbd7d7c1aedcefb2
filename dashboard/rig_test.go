package dashboard

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
	"patronus/netstack/path"
)

const (
	adminPassword = "correct horse battery"
	webPolicy     = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web
  namespace: shop
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: client
    ports:
    - protocol: TCP
      port: 443
`
)

// network is a fabric of n sites, hq first, each with one uplink.
func network(t testing.TB, n int) *configs.Network {
	t.Helper()
	net := &configs.Network{
		Fabric: "acme", Topology: configs.Topology{Mode: configs.HubAndSpoke, Hubs: []string{"hq"}},
		Namespaces: []configs.Namespace{{Name: "shop", Labels: map[string]string{"team": "shop"}}},
		Policies:   []configs.Policy{{Spec: webPolicy}},
		Classes: []configs.Class{
			{Name: "voice", Match: []configs.Match{{DSCP: []configs.DSCP{46}}}, SLA: configs.SLA{Delay: configs.Duration(150 * time.Millisecond)}},
			{Name: "default"},
		},
	}
	for i := range n {
		name := fmt.Sprintf("branch%04d", i)
		if i == 0 {
			name = "hq"
		}
		s := configs.NetworkSite{Site: configs.Site{
			Name: name, Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)},
			Uplinks: []configs.Uplink{{Name: "wan0", PublicKey: key(i), Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 51820)}}},
		}, Labels: map[string]string{"region": []string{"eu", "us"}[i%2]}}
		if i == 0 {
			s.Managed = true
			s.Uplinks[0].PrivateKeyFile = "wan0.key"
			s.LAN = []configs.LANPort{{Name: "lan", Kind: configs.LANCable}}
		}
		net.Sites = append(net.Sites, s)
	}
	for i, app := range []string{"web", "client"} {
		net.Hosts = append(net.Hosts, configs.HostEndpoint{
			Namespace: "shop", Name: app, Site: net.Sites[min(i, n-1)].Name, Labels: map[string]string{"app": app},
			Addresses: []netip.Prefix{netip.PrefixFrom(net.Sites[min(i, n-1)].Prefixes[0].Addr().Next(), 32)},
		})
	}
	return net
}

func key(i int) configs.Key {
	var k configs.Key
	k[0], k[1], k[2] = byte(i), byte(i>>8), 9
	return k
}

// world is the fabric behind the interfaces, as tests want it to be.
type testWorld struct {
	mu      sync.Mutex
	states  map[string]*SiteState
	version uint64
	flows   []Flow
	events  []Event
	asked   []string // what sites were asked to do
}

func newWorld(net *configs.Network, now time.Time) *testWorld {
	w := &testWorld{states: map[string]*SiteState{}, version: 1}
	for i := range net.Sites {
		name := net.Sites[i].Name
		st := &SiteState{SeenAt: now, Revision: 1, Flows: i, Uplinks: []UplinkState{{Name: "wan0", Carrier: true}}}
		if i > 0 {
			m := path.Metrics{Latency: path.Value(10 + i%50), PacketLoss: 0, Jitter: 1, Tx: 5, Rx: 2, Bandwidth: 5, Score: path.Score(90 + i%10), MTU: 1420}
			st.Paths = []PathState{{ID: path.NewID(name, "wan0", "hq", "wan0"), State: "up", Metrics: m, MTU: 1420, Scores: map[string]path.Score{"default": m.Score}}}
		}
		w.states[name] = st
	}
	w.flows = []Flow{
		{Key: "tcp-10.0.1.1-40000-10.0.0.1-443", Site: "branch0001", Src: netip.MustParseAddr("10.0.1.1"), Dst: netip.MustParseAddr("10.0.0.1"), SrcPort: 40000, Port: 443, Protocol: "tcp", Status: "active", Class: "default", Policy: "NetworkPolicy/shop/web", Created: now, Seen: now},
		{Key: "tcp-10.0.2.1-40000-10.0.0.1-22", Site: "branch0002", Src: netip.MustParseAddr("10.0.2.1"), Dst: netip.MustParseAddr("10.0.0.1"), SrcPort: 40000, Port: 22, Protocol: "tcp", Status: "blocked", Class: "=cmd", Policy: "NetworkPolicy/shop/web", Created: now, Seen: now},
	}
	w.events = []Event{
		{ID: "e1", At: now, Type: "path_status_change", Severity: "warning", Site: "branch0001", Source: "branch0001.wan0~hq.wan0", Data: json.RawMessage(`{"old_status":"up","new_status":"down"}`)},
		{ID: "e2", At: now, Type: "site_joined", Severity: "info", Site: "branch0002"},
	}
	return w
}

func (w *testWorld) States() (map[string]*SiteState, uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.states, w.version
}

func (w *testWorld) ask(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, what)
}

func (w *testWorld) Explain(_ context.Context, site string, q Question) (json.RawMessage, error) {
	w.ask("explain " + site)
	return json.RawMessage(fmt.Sprintf(`{"verdict":"forward","to":%q}`, q.To)), nil
}

func (w *testWorld) Reevaluate(_ context.Context, site, key string) error {
	w.ask("reevaluate " + site + " " + key)
	return nil
}

func (w *testWorld) TestPath(_ context.Context, id path.ID, _ TestOptions) (TestResult, error) {
	w.ask("test " + string(id))
	ms := 12.5
	return TestResult{Path: id, At: time.Now().UTC(), Sent: 10, Received: 10, MinMs: &ms, MedianMs: &ms, MaxMs: &ms}, nil
}

func (w *testWorld) Points(_ context.Context, q PointQuery) ([]Series, error) {
	s := Series{Site: q.Site, Path: q.Path}
	for at := q.From; at.Before(q.To); at = at.Add(q.Step) {
		s.Points = append(s.Points, Point{At: at, Min: 1, Mean: 2, Max: 3, P95: 3, Count: 1})
	}
	return []Series{s}, nil
}

func (w *testWorld) Flows(_ context.Context, q FlowQuery) ([]Flow, string, error) {
	var out []Flow
	for _, f := range w.flows {
		if (q.Sees == nil || q.Sees(f.Site)) && (q.Site == "" || q.Site == f.Site) && (q.Status == "" || q.Status == f.Status) {
			out = append(out, f)
		}
	}
	return out, "", nil
}

func (w *testWorld) Flow(_ context.Context, site, key string, _ time.Time) (Flow, error) {
	for _, f := range w.flows {
		if f.Key == key && (site == "" || f.Site == site) {
			return f, nil
		}
	}
	return Flow{}, fmt.Errorf("flow: %w", ErrNotFound)
}

func (w *testWorld) StatesAt(context.Context, time.Time) (map[string]*SiteState, error) {
	s, _ := w.States()
	return s, nil
}

func (w *testWorld) Blocked(context.Context, time.Time) (map[string]uint64, error) {
	return map[string]uint64{"NetworkPolicy/shop/web": 47}, nil
}

func (w *testWorld) FlowStats(context.Context, time.Time, time.Time, int, func(string) bool) (FlowStats, error) {
	return FlowStats{Total: 2, Blocked: 1, Bytes: 5000, Talkers: []Talker{{Source: netip.MustParseAddr("10.0.1.1"), Bytes: 5000, Flows: 1}}}, nil
}

func (w *testWorld) Events(_ context.Context, q EventQuery) ([]Event, string, error) {
	var out []Event
	for _, e := range w.events {
		if (q.Sees == nil || q.Sees(e.Site)) && (q.Type == "" || q.Type == e.Type) {
			out = append(out, e)
		}
	}
	return out, "", nil
}

func (w *testWorld) Event(_ context.Context, id string) (Event, error) {
	for _, e := range w.events {
		if e.ID == id {
			return e, nil
		}
	}
	return Event{}, fmt.Errorf("event: %w", ErrNotFound)
}

func (w *testWorld) Acknowledge(_ context.Context, id, by string, at time.Time) (Event, error) {
	for i := range w.events {
		if w.events[i].ID == id {
			w.events[i].Acknowledged, w.events[i].AcknowledgedBy, w.events[i].AcknowledgedAt = true, by, at
			return w.events[i], nil
		}
	}
	return Event{}, ErrNotFound
}

func (w *testWorld) Nodes(context.Context) ([]Node, error) {
	return []Node{{ID: "hq", Site: "hq", Role: "dashboard", Self: true}}, nil
}

func (w *testWorld) Promote(_ context.Context, _ auth.Actor, site string) (Node, error) {
	return Node{ID: site, Site: site, Role: "dashboard"}, nil
}

func (w *testWorld) Demote(_ context.Context, _ auth.Actor, site string) (Node, error) {
	return Node{ID: site, Site: site, Role: "edge"}, nil
}

func (w *testWorld) Capture(_ context.Context, _ CaptureOptions, out io.Writer) error {
	_, err := out.Write([]byte{0x0a, 0x0d, 0x0d, 0x0a})
	return err
}

// clock is a clock that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// rig is a server on loopback with its world behind it.
type rig struct {
	t         testing.TB
	server    *Server
	directory *auth.Directory
	plane     *control.Plane
	ledger    *ledger.Ledger
	world     *testWorld
	clock     *clock
	client    *http.Client
	base      string
	dir       string            // the ledger's
	tokens    map[string]string // bearer tokens by user
	log       *bytes.Buffer
}

type rigOption func(*Options)

// newRig has the users admin, operator, viewer, and scoped: an admin of the
// region eu. Requests are not limited unless an option says so.
func newRig(t testing.TB, sites int, options ...rigOption) *rig {
	t.Helper()
	r := &rig{t: t, clock: &clock{at: time.Now().UTC().Truncate(time.Second)}, tokens: map[string]string{}, log: &bytes.Buffer{}}
	var err error
	r.dir = t.TempDir()
	if r.ledger, err = ledger.Open(r.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.ledger.Close() })
	r.directory, err = auth.Open(r.ledger, auth.Options{Cost: auth.Cost{Memory: 64, Passes: 1, Threads: 1}, Now: r.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	net := network(t, sites)
	if r.plane, err = control.Open(t.Context(), r.ledger, net, r.clock.now); err != nil {
		t.Fatal(err)
	}
	r.world = newWorld(net, r.clock.now())
	o := Options{
		Directory: r.directory, Ledger: r.ledger, Plane: r.plane, States: r.world, Sites: r.world, History: r.world,
		Events: r.world, Nodes: r.world, Captures: r.world, RequestsPerMinute: 1_000_000, Now: r.clock.now,
		Log: slog.New(slog.NewTextHandler(&lockedWriter{w: r.log}, nil)),
	}
	for _, f := range options {
		f(&o)
	}
	if r.server, err = New(o); err != nil {
		t.Fatal(err)
	}
	r.serve()
	code, _, _ := r.directory.SetupCode()
	if _, err := r.directory.Setup(t.Context(), code, auth.NewUser{Name: "admin", Password: adminPassword}, auth.Client{}); err != nil {
		t.Fatal(err)
	}
	root := auth.Actor{User: "admin", Role: auth.Admin, Permissions: auth.All}
	for _, u := range []auth.NewUser{
		{Name: "operator", Role: auth.Operator}, {Name: "viewer", Role: auth.Viewer}, {Name: "scoped", Role: auth.Admin, Scope: auth.Scope{"region": "eu"}},
	} {
		u.Password = adminPassword
		if _, err := r.directory.CreateUser(t.Context(), root, u); err != nil {
			t.Fatal(err)
		}
	}
	for _, u := range []string{"admin", "operator", "viewer", "scoped"} {
		g, err := r.directory.Login(t.Context(), auth.Credentials{User: u, Password: adminPassword, Kind: auth.ByJWT})
		if err != nil {
			t.Fatal(err)
		}
		r.tokens[u] = g.Access
	}
	return r
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func (r *rig) serve() {
	r.t.Helper()
	cert, err := SelfSigned(r.t.TempDir(), nil, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.server.Serve(ctx, tls.NewListener(l, cert.TLS()))
	}()
	r.base = "https://" + l.Addr().String()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 128, DisableCompression: true}
	r.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r.t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		<-done
	})
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) problem(t testing.TB) Problem {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("not a problem: %s: %v", a.body, err)
	}
	return p
}

func decodeAnswer[T any](t testing.TB, a answer) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return v
}

// do sends a request as a user ("" for nobody). body is a string as it is, or
// becomes JSON. Headers come in pairs.
func (r *rig) do(method, target, user string, body any, headers ...string) answer {
	r.t.Helper()
	var in io.Reader
	switch v := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(v)
	default:
		text, err := json.Marshal(v)
		if err != nil {
			r.t.Fatal(err)
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.base+target, in)
	if err != nil {
		r.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if user != "" {
		req.Header.Set("Authorization", "Bearer "+r.tokens[user])
	}
	for pair := range slices.Chunk(headers, 2) {
		if pair[0] == "Host" {
			req.Host = pair[1]
			continue
		}
		if pair[1] == "" {
			req.Header.Del(pair[0])
			continue
		}
		req.Header.Set(pair[0], pair[1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, text}
}

// want sends a request and checks its status.
func (r *rig) want(status int, method, target, user string, body any, headers ...string) answer {
	r.t.Helper()
	a := r.do(method, target, user, body, headers...)
	if a.status != status {
		r.t.Fatalf("%s %s as %q: %d, want %d: %.500s", method, target, user, a.status, status, a.body)
	}
	return a
}
